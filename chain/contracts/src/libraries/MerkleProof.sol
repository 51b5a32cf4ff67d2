// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Merkle proofs with bound position and count
/// @notice The Solidity side of pol/merkle.py; both read tests/golden/merkle.json.
/// @dev An inner node is SHA256(left || right), an odd node moves up unchanged, and the published root is the record
/// SHA256("aiarena/root-record/v1" || u64(count) || top). Leaves and records start with at least 16 ASCII bytes, so
/// neither can be passed off as the 64 bytes of an inner node.
library MerkleProof {
    /// @notice Whether `leaf` stands at `position` of the tree of `count` leaves with this root record.
    function verify(bytes32 root_, bytes32 leaf, uint256 position, uint256 count, bytes32[] calldata siblings)
        internal
        pure
        returns (bool)
    {
        (bool fits, bytes32 found) = root(leaf, position, count, siblings);
        return fits && found == root_;
    }

    /// @notice The root record of the tree of `count` leaves in which `leaf` stands at `position`, if the path fits.
    /// @dev Each sibling's side follows from position and count alone, so a proof cannot be moved to another position;
    /// exactly as many siblings as the tree's shape asks for fit.
    function root(bytes32 leaf, uint256 position, uint256 count, bytes32[] calldata siblings)
        internal
        pure
        returns (bool fits, bytes32 found)
    {
        if (position >= count || count > type(uint64).max) return (false, 0);
        uint256 used;
        bytes32 node = leaf;
        for (uint256 width = count; width > 1; width = (width + 1) / 2) {
            bool right = position % 2 == 1;
            if (right || position + 1 < width) {
                if (used == siblings.length) return (false, 0);
                bytes32 sibling = siblings[used++];
                node = right ? sha256(bytes.concat(sibling, node)) : sha256(bytes.concat(node, sibling));
            }
            position /= 2;
        }
        return (used == siblings.length, record(count, node));
    }

    /// @notice The root record: the top node bound to the number of leaves.
    function record(uint256 count, bytes32 top) internal pure returns (bytes32) {
        return sha256(abi.encodePacked("aiarena/root-record/v1", uint64(count), top));
    }
}
