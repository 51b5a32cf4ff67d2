// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ArenaMath} from "./ArenaMath.sol";

/// @title Consensus of scores
/// @notice From rows of scores, one a validator (packed as in Rows), the score of each model, and each row's distance.
/// @dev A validator of weight 0 has no say, whatever its row. At 110 models and 456 validators these loops run 50,000
/// times, hence the assembly. The word that holds the last scores may reach beyond its row.
library Consensus {
    uint256 private constant BUCKETS = 128;

    /// @notice Stake-weighted means of the first `columns` scores, WAD.
    /// @param weights Not all 0; the sum of all times 10,000 fits 256 bits.
    function means(bytes[] memory rows, uint256[] memory weights, uint256 columns)
        internal
        pure
        returns (uint256[] memory sums)
    {
        sums = new uint256[](columns);
        for (uint256 j; j < rows.length; ++j) {
            if (weights[j] != 0) _accumulate(sums, rows[j], weights[j]);
        }
        uint256 total = _sum(weights);
        for (uint256 i; i < columns; ++i) {
            sums[i] = sums[i] * ArenaMath.SCORE_UNIT / total;
        }
    }

    /// @notice Stake-weighted lower medians of the first `columns` scores, WAD: the least score at which the weights of
    /// the scores up to it reach half of all.
    /// @param weights Not all 0.
    function medians(bytes[] memory rows, uint256[] memory weights, uint256 columns)
        internal
        pure
        returns (uint256[] memory middle)
    {
        middle = new uint256[](columns);
        uint256[] memory buckets = new uint256[](BUCKETS);
        uint256 total = _sum(weights);
        for (uint256 i; i < columns; ++i) {
            middle[i] = _median(rows, weights, i, total, buckets) * ArenaMath.SCORE_UNIT;
        }
    }

    /// @notice How far a row is from consensus: the mean over the standing models of the absolute differences, WAD.
    /// @param models At least one; each its place in the row, shifted left by 64, and its consensus score, WAD.
    function distance(bytes memory row, uint256[] memory models) internal pure returns (uint256 sum) {
        uint256 unit = ArenaMath.SCORE_UNIT;
        assembly ("memory-safe") {
            let model := add(models, 0x20)
            let scores := add(row, 0x20)
            for { let end := add(model, shl(5, mload(models))) } lt(model, end) { model := add(model, 0x20) } {
                let packed := mload(model)
                let score := mul(unit, shr(240, mload(add(scores, shl(1, shr(64, packed))))))
                let gap := sub(score, and(packed, 0xffffffffffffffff))
                if slt(gap, 0) { gap := sub(0, gap) }
                sum := add(sum, gap)
            }
        }
        return sum / models.length;
    }

    /// @dev Adds every score of the row, times the weight, to the sums.
    function _accumulate(uint256[] memory sums, bytes memory row, uint256 weight) private pure {
        assembly ("memory-safe") {
            let sum := add(sums, 0x20)
            let score := add(row, 0x20)
            for { let end := add(sum, shl(5, mload(sums))) } lt(sum, end) { sum := add(sum, 0x20) } {
                mstore(sum, add(mload(sum), mul(weight, shr(240, mload(score)))))
                score := add(score, 2)
            }
        }
    }

    /// @dev Scores have 14 bits: the upper seven of the median first, then, among those that share them, the lower.
    function _median(
        bytes[] memory rows,
        uint256[] memory weights,
        uint256 column,
        uint256 total,
        uint256[] memory buckets
    ) private pure returns (uint256) {
        _fill(rows, weights, column, 7, 0, buckets);
        (uint256 upper, uint256 below) = _half(buckets, 0, total);
        _fill(rows, weights, column, 0, upper * BUCKETS, buckets);
        (uint256 lower,) = _half(buckets, below, total);
        return upper * BUCKETS + lower;
    }

    /// @dev buckets[b] becomes the weight of the scores with (score >> shift) - base == b.
    function _fill(
        bytes[] memory rows,
        uint256[] memory weights,
        uint256 column,
        uint256 shift,
        uint256 base,
        uint256[] memory buckets
    ) private pure {
        assembly ("memory-safe") {
            let first := add(buckets, 0x20)
            calldatacopy(first, calldatasize(), shl(5, BUCKETS)) // zeros
            let weight := add(weights, 0x20)
            let row := add(rows, 0x20)
            let at := add(0x20, shl(1, column))
            for { let end := add(row, shl(5, mload(rows))) } lt(row, end) { row := add(row, 0x20) } {
                let bucket := sub(shr(shift, shr(240, mload(add(mload(row), at)))), base)
                if lt(bucket, BUCKETS) {
                    let slot := add(first, shl(5, bucket))
                    mstore(slot, add(mload(slot), mload(weight)))
                }
                weight := add(weight, 0x20)
            }
        }
    }

    /// @dev The first bucket with which the sum from `below` on reaches half of the total, and the sum before it. There is
    /// one: all buckets together reach it.
    function _half(uint256[] memory buckets, uint256 below, uint256 total)
        private
        pure
        returns (uint256 bucket, uint256 before)
    {
        before = below;
        assembly ("memory-safe") {
            let first := add(buckets, 0x20)
            for {} 1 { bucket := add(bucket, 1) } {
                let sum := add(before, mload(add(first, shl(5, bucket))))
                if iszero(lt(shl(1, sum), total)) { break }
                before := sum
            }
        }
    }

    function _sum(uint256[] memory values) private pure returns (uint256 sum) {
        for (uint256 j; j < values.length; ++j) {
            sum += values[j];
        }
    }
}
