// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {LeafRange, MarkChannel} from "../../src/interfaces/ICaseRules.sol";
import {MarkKey} from "../../src/libraries/MarkKey.sol";
import {Golden} from "../helpers/Golden.sol";

/// @dev Libraries take calldata; this hands it to them.
contract Keyholder {
    function leavesToOpen(bytes32 beacon, bytes32 keyRoot, MarkChannel[] calldata shape)
        external
        pure
        returns (uint64[] memory, uint256)
    {
        return MarkKey.leavesToOpen(beacon, keyRoot, shape);
    }

    function contains(bytes32 keyRoot, uint256 count, uint256 first, LeafRange calldata range)
        external
        view
        returns (bool)
    {
        return MarkKey.contains(keyRoot, count, first, range);
    }
}

/// @dev tests/golden/mark.json is written by the Python side and read by both.
contract MarkKeyTest is Test {
    Keyholder private keyholder = new Keyholder();
    string private json = Golden.read("mark.json");
    uint256 private constant CASES = 3;

    function _word(uint256 k, string memory field) private view returns (bytes32) {
        return vm.parseJsonBytes32(json, string.concat(Golden.row(k), field));
    }

    function test_drawsAndLeavesAgreeWithPython() public view {
        for (uint256 k; k < CASES; ++k) {
            bytes32 keyRoot = _word(k, ".key_root");
            (uint64[] memory drawn, uint256 count) =
                keyholder.leavesToOpen(_word(k, ".beacon"), keyRoot, Golden.shape(json, Golden.row(k)));
            assertEq(count, vm.parseJsonUint(json, string.concat(Golden.row(k), ".count")));
            uint256[] memory indices = vm.parseJsonUintArray(json, string.concat(Golden.row(k), ".indices"));
            assertEq(drawn.length, indices.length);
            for (uint256 i; i < drawn.length; ++i) {
                assertEq(drawn[i], indices[i]);
            }
            _rangesAreThere(keyRoot, count, indices, Golden.ranges(json, Golden.row(k)));
        }
        assertFalse(vm.keyExistsJson(json, Golden.row(CASES)), "every case was read");
    }

    function _rangesAreThere(bytes32 keyRoot, uint256 count, uint256[] memory indices, LeafRange[] memory ranges)
        private
        view
    {
        uint256 opened;
        for (uint256 r; r < ranges.length; ++r) {
            LeafRange memory range = ranges[r];
            uint256 first = indices[opened];
            assertTrue(keyholder.contains(keyRoot, count, first, range));
            assertFalse(keyholder.contains(keyRoot, count, first + 1, range));
            assertFalse(keyholder.contains(keyRoot, count + 1, first, range));
            for (uint256 s; s < range.secrets.length; ++s) {
                range.secrets[s] ^= bytes32(uint256(1));
                assertFalse(keyholder.contains(keyRoot, count, first, range));
                range.secrets[s] ^= bytes32(uint256(1));
            }
            opened += range.secrets.length / 2;
            range.secrets = _longer(range.secrets); // a seed without a salt
            assertFalse(keyholder.contains(keyRoot, count, first, range));
        }
        assertEq(opened, indices.length);
    }

    function _longer(bytes32[] memory words) private pure returns (bytes32[] memory more) {
        more = new bytes32[](words.length + 1);
        for (uint256 i; i < words.length; ++i) {
            more[i] = words[i];
        }
    }

    function _hasNone(MarkChannel[] memory shape) private view {
        (uint64[] memory drawn, uint256 count) = keyholder.leavesToOpen(keccak256("b"), keccak256("k"), shape);
        assertEq(drawn.length + count, 0);
    }

    function test_whatIsNoKeyOpensNothing() public view {
        _hasNone(new MarkChannel[](0));
        _hasNone(new MarkChannel[](1)); // no groups
        MarkChannel[] memory shape = new MarkChannel[](1);
        shape[0] = MarkChannel(1, 0);
        _hasNone(shape);
        shape[0] = MarkChannel(2 ** 16, 2); // more leaves than a key has
        _hasNone(shape);
        shape[0] = MarkChannel(type(uint32).max, type(uint32).max);
        _hasNone(shape);
        shape = new MarkChannel[](17);
        for (uint256 c; c < 17; ++c) {
            shape[c] = MarkChannel(1, 1);
        }
        _hasNone(shape);
    }

    function testFuzz_thirtyTwoDistinctGroupsAreOpenedWhole(bytes32 beacon, uint256 groups, uint256 leaves)
        public
        view
    {
        MarkChannel[] memory shape = new MarkChannel[](1);
        shape[0] = MarkChannel(uint32(bound(groups, 1, 200)), uint32(bound(leaves, 1, 8)));
        (uint64[] memory drawn, uint256 count) = keyholder.leavesToOpen(beacon, keccak256("k"), shape);
        uint256 opened = shape[0].groups < 32 ? shape[0].groups : 32;
        assertEq(drawn.length, opened * shape[0].leaves);
        bool[] memory seen = new bool[](count);
        for (uint256 k; k < drawn.length; ++k) {
            assertFalse(seen[drawn[k]]);
            seen[drawn[k]] = true;
            if (k % shape[0].leaves != 0) assertEq(drawn[k], drawn[k - 1] + 1);
            else assertEq(drawn[k] % shape[0].leaves, 0);
        }
    }
}
