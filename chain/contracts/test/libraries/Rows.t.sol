// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Rows} from "../../src/libraries/Rows.sol";

contract RowsTest is Test {
    function _numbers(uint256 seed, uint256 count, uint256 width) private pure returns (uint256[] memory numbers) {
        numbers = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            numbers[i] = uint256(keccak256(abi.encode(seed, i))) >> (256 - 8 * width);
        }
    }

    function testFuzz_whatIsStoredIsRead(uint256 seed, uint256 count, uint256 width) public {
        (count, width) = (bound(count, 0, 600), bound(width, 1, 32));
        uint256[] memory numbers = _numbers(seed, count, width);
        address row = Rows.store(numbers, width);
        assertEq(Rows.load(row, width), numbers);
        assertEq(row.code.length, count * width + 1);
        assertEq(row.code[0], bytes1(0), "it can never run");
    }

    function testFuzz_aPartIsAPart(uint256 seed, uint256 from, uint256 count) public {
        uint256[] memory numbers = _numbers(seed, 40, 17);
        from = bound(from, 0, 40);
        count = bound(count, 0, 40 - from);
        uint256[] memory part = Rows.load(Rows.store(numbers, 17), 17, from, count);
        assertEq(part.length, count);
        for (uint256 i; i < count; ++i) {
            assertEq(part[i], numbers[from + i]);
        }
    }

    function testFuzz_appendingInPartsIsStoringAtOnce(uint256 seed, uint256 cut) public {
        uint256[] memory numbers = _numbers(seed, 20, 8);
        cut = bound(cut, 0, 20);
        (uint256[] memory head, uint256[] memory tail) = (new uint256[](cut), new uint256[](20 - cut));
        for (uint256 i; i < 20; ++i) {
            if (i < cut) head[i] = numbers[i];
            else tail[i - cut] = numbers[i];
        }
        assertEq(Rows.load(Rows.append(Rows.append(address(0), head, 8), tail, 8), 8), numbers);
    }

    function test_noRowHasNoNumbers() public view {
        assertEq(Rows.load(address(0), 8).length, 0);
    }

    /// @dev Against the plain loop, around the bound and at the places where sixteen scores end.
    function testFuzz_theRangeCheckFindsTheFirstBadScore(uint256 seed, uint256 count, uint256 where, uint16 bad)
        public
        pure
    {
        count = bound(count, 1, 70);
        where = bound(where, 0, count - 1);
        uint256[] memory scores = _numbers(seed, count, 2);
        for (uint256 i; i < count; ++i) {
            scores[i] = i < where ? scores[i] % 10_001 : scores[i];
        }
        scores[where] = bad;
        uint256 expected;
        while (expected < count && scores[expected] <= 10_000) ++expected;
        assertEq(Rows.firstBad(Rows.pack(scores, 2)), expected);
    }

    function test_theBoundIsTenThousand() public pure {
        assertEq(Rows.firstBad(hex"2710"), 1);
        assertEq(Rows.firstBad(hex"2711"), 0);
        assertEq(Rows.firstBad(hex"00008000"), 1);
        assertEq(Rows.firstBad(hex"0000ffff"), 1);
        assertEq(Rows.firstBad(""), 0);
    }

    /// @dev What lies in memory behind a row is not part of it.
    function test_theRangeCheckEndsWithTheRow() public pure {
        bytes memory row = hex"27102710ffff";
        assembly ("memory-safe") {
            mstore(row, 4)
        }
        assertEq(Rows.firstBad(row), 2);
    }
}
