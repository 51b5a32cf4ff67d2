// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LibSort} from "solady/utils/LibSort.sol";

/// @title Ranking
/// @notice The order of the standing models: higher consensus first, of equal ones the earlier commitment.
library Ranking {
    /// @notice Ranks from 1 in the order given; 0 for a model that does not stand.
    /// @param aggregates Consensus scores, WAD.
    /// @param orders Commit orders, all different; 0 = does not stand.
    function rank(uint256[] memory aggregates, uint64[] memory orders) internal pure returns (uint256[] memory ranks) {
        uint256[] memory keys = new uint256[](standing(orders));
        uint256 found;
        for (uint256 i; i < orders.length; ++i) {
            if (orders[i] == 0) continue;
            uint256 behind = type(uint64).max - aggregates[i];
            keys[found++] = behind << 128 | uint256(orders[i]) << 64 | i;
        }
        LibSort.sort(keys);
        ranks = new uint256[](orders.length);
        for (uint256 k; k < keys.length; ++k) {
            ranks[uint64(keys[k])] = k + 1;
        }
    }

    /// @notice How many models stand.
    function standing(uint64[] memory orders) internal pure returns (uint256 count) {
        for (uint256 i; i < orders.length; ++i) {
            if (orders[i] != 0) ++count;
        }
    }
}
