// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SSTORE2} from "solady/utils/SSTORE2.sol";

/// @title Rows of numbers
/// @notice Whole numbers of one width in bytes, big-endian, kept as the code of a contract that can never run.
/// @dev A row of 153 scores costs 0.1M gas to keep and 3k to read; in storage slots it would be 0.3M and 23k. All
/// numbers of a row fit its width: whoever stores them sees to that.
library Rows {
    uint256 internal constant SCORE = 2;
    uint256 internal constant RANK = 2;
    uint256 internal constant AGGREGATE = 8;
    uint256 internal constant POINTER = 20;
    uint256 internal constant WEIGHT = 17; // own stake and delegations, each below 2^128

    uint256 private constant MAX_SCORE = 10_000;
    uint256 private constant ONES = 0x0001000100010001000100010001000100010001000100010001000100010001;
    uint256 private constant HIGH_BITS = ONES << 15;

    /// @notice Keeps `values` of `width` bytes each.
    function store(uint256[] memory values, uint256 width) internal returns (address row) {
        return SSTORE2.write(pack(values, width));
    }

    /// @notice Keeps what `row` keeps (0 = nothing), and `values` after it.
    function append(address row, uint256[] memory values, uint256 width) internal returns (address longer) {
        if (row == address(0)) return store(values, width);
        return SSTORE2.write(bytes.concat(SSTORE2.read(row), pack(values, width)));
    }

    /// @notice All numbers of a row; none of the row 0.
    function load(address row, uint256 width) internal view returns (uint256[] memory values) {
        return row == address(0) ? new uint256[](0) : unpack(SSTORE2.read(row), width);
    }

    /// @notice The numbers [from, from + count) of a row.
    function load(address row, uint256 width, uint256 from, uint256 count)
        internal
        view
        returns (uint256[] memory values)
    {
        return unpack(SSTORE2.read(row, from * width, (from + count) * width), width);
    }

    /// @notice Numbers as big-endian bytes of the width, one after the other.
    function pack(uint256[] memory values, uint256 width) internal pure returns (bytes memory packed) {
        packed = new bytes(values.length * width + 32); // the last one's word may reach beyond its end
        assembly ("memory-safe") {
            let shift := mul(8, sub(32, width))
            let to := add(packed, 0x20)
            let from := add(values, 0x20)
            for { let end := add(from, shl(5, mload(values))) } lt(from, end) { from := add(from, 0x20) } {
                mstore(to, shl(shift, mload(from)))
                to := add(to, width)
            }
            mstore(packed, mul(mload(values), width))
        }
    }

    /// @notice The inverse of `pack`.
    function unpack(bytes memory packed, uint256 width) internal pure returns (uint256[] memory values) {
        values = new uint256[](packed.length / width);
        assembly ("memory-safe") {
            let shift := mul(8, sub(32, width))
            let from := add(packed, 0x20)
            let to := add(values, 0x20)
            for { let end := add(to, shl(5, mload(values))) } lt(to, end) { to := add(to, 0x20) } {
                mstore(to, shr(shift, mload(from)))
                from := add(from, width)
            }
        }
    }

    /// @notice The first score above 10,000 of a row of scores, or how many it has if there is none.
    function firstBad(bytes memory scores) internal pure returns (uint256 index) {
        uint256 count = scores.length / SCORE;
        for (uint256 first; first < count; first += 16) {
            uint256 sixteen;
            assembly ("memory-safe") {
                sixteen := mload(add(add(scores, 0x20), mul(2, first)))
            }
            if (count - first < 16) sixteen &= ~(type(uint256).max >> (16 * (count - first)));
            if (_allGood(sixteen)) continue;
            for (index = first; (sixteen >> 240) <= MAX_SCORE; ++index) {
                sixteen <<= 16;
            }
            return index;
        }
        return count;
    }

    /// @dev Whether no lane of 16 bits is above 10,000: a greater one has its high bit set, or gets it from the sum,
    /// which never carries into the next lane.
    function _allGood(uint256 sixteen) private pure returns (bool) {
        unchecked {
            uint256 raised = (sixteen & ~HIGH_BITS) + ONES * (2 ** 15 - 1 - MAX_SCORE);
            return (raised | sixteen) & HIGH_BITS == 0;
        }
    }
}
