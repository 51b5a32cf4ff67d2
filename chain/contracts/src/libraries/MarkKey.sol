// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LeafRange, MarkChannel} from "../interfaces/ICaseRules.sol";
import {MerkleProof} from "./MerkleProof.sol";

/// @title Watermark keys
/// @notice Which leaves of a key a beacon opens, and whether an opened leaf is in it. The Solidity side of
/// watermark/claim.py and watermark/key.py; both read tests/golden/mark.json.
library MarkKey {
    uint256 internal constant OPENED_GROUPS = 32;
    uint256 internal constant MAX_LEAVES = 2 ** 16;
    uint256 internal constant MAX_CHANNELS = 16;

    /// @notice The leaves to open, group by group in the order drawn, and how many leaves the key has; (none, 0) if no
    /// key has this shape.
    function leavesToOpen(bytes32 beacon, bytes32 keyRoot, MarkChannel[] calldata shape)
        internal
        pure
        returns (uint64[] memory leaves, uint256 count)
    {
        uint256 groups;
        if (shape.length > MAX_CHANNELS) return (leaves, 0);
        for (uint256 c; c < shape.length; ++c) {
            if (shape[c].groups == 0 || shape[c].leaves == 0) return (leaves, 0);
            groups += shape[c].groups;
            count += uint256(shape[c].groups) * shape[c].leaves;
        }
        if (count == 0 || count > MAX_LEAVES) return (leaves, 0);
        uint256 opened = groups < OPENED_GROUPS ? groups : OPENED_GROUPS;
        return (_leavesOf(_groups(beacon, keyRoot, groups, opened), shape), count);
    }

    /// @notice Whether the opened leaves, from `first` on, are in the key of `count` leaves with this root.
    function contains(bytes32 keyRoot, uint256 count, uint256 first, LeafRange calldata range)
        internal
        view
        returns (bool)
    {
        bytes32[] calldata secrets = range.secrets;
        if (secrets.length % 2 == 1) return false;
        bytes32[] memory leaves = new bytes32[](secrets.length / 2);
        for (uint256 i; i < leaves.length; ++i) {
            bytes memory leaf =
                abi.encodePacked("aiarena/watermark-leaf/v1", uint64(first + i), secrets[2 * i], secrets[2 * i + 1]);
            leaves[i] = sha256(leaf);
        }
        (bool fits, bytes32 found) = MerkleProof.root(leaves, first, count, range.siblings);
        return fits && found == keyRoot;
    }

    /// @dev The first `opened` distinct draws.
    function _groups(bytes32 beacon, bytes32 keyRoot, uint256 groups, uint256 opened)
        private
        pure
        returns (uint256[] memory drawn)
    {
        drawn = new uint256[](opened);
        uint256[] memory taken = new uint256[](groups / 256 + 1); // a bit a group
        bytes memory domain = "aiarena/watermark-opening/v1";
        uint256 found;
        for (uint64 c; found < opened; ++c) {
            uint256 group = uint256(sha256(abi.encodePacked(domain, beacon, keyRoot, c))) % groups;
            uint256 bit = 1 << (group % 256);
            if (taken[group / 256] & bit != 0) continue;
            taken[group / 256] |= bit;
            drawn[found++] = group;
        }
    }

    function _leavesOf(uint256[] memory groups, MarkChannel[] calldata shape)
        private
        pure
        returns (uint64[] memory leaves)
    {
        uint256 total;
        for (uint256 g; g < groups.length; ++g) {
            (, uint256 length) = _rangeOf(groups[g], shape);
            total += length;
        }
        leaves = new uint64[](total);
        uint256 used;
        for (uint256 g; g < groups.length; ++g) {
            (uint256 first, uint256 length) = _rangeOf(groups[g], shape);
            for (uint256 i; i < length; ++i) {
                leaves[used++] = uint64(first + i);
            }
        }
    }

    /// @dev The leaves of a group: channels number groups and leaves through.
    function _rangeOf(uint256 group, MarkChannel[] calldata shape)
        private
        pure
        returns (uint256 first, uint256 length)
    {
        uint256 channel;
        while (group >= shape[channel].groups) {
            group -= shape[channel].groups;
            first += uint256(shape[channel].groups) * shape[channel].leaves;
            ++channel;
        }
        length = shape[channel].leaves;
        first += group * length;
    }
}
