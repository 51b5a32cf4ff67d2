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
        view
        returns (bool)
    {
        (bool fits, bytes32 found) = root(leaf, position, count, siblings);
        return fits && found == root_;
    }

    /// @notice The same root for a single leaf.
    function root(bytes32 leaf, uint256 position, uint256 count, bytes32[] calldata siblings)
        internal
        view
        returns (bool fits, bytes32 found)
    {
        bytes32[] memory leaves = new bytes32[](1);
        leaves[0] = leaf;
        return root(leaves, position, count, siblings);
    }

    /// @notice The root record of the tree of `count` leaves in which `nodes` are the leaves from `first` on, if the path
    /// fits. `nodes` is used up.
    /// @dev A level's siblings are what stands left of the nodes, if the first of them is a right child, and right of them,
    /// if the last is a left child that is not the level's end. Which there are follows from positions and count alone, so
    /// a proof cannot be moved to another position; exactly as many siblings as the tree's shape asks for fit.
    function root(bytes32[] memory nodes, uint256 first, uint256 count, bytes32[] calldata siblings)
        internal
        view
        returns (bool fits, bytes32 found)
    {
        uint256 length = nodes.length;
        if (length == 0 || count > type(uint64).max || first >= count || length > count - first) return (false, 0);
        uint256 used;
        for (uint256 width = count; width > 1; width = (width + 1) / 2) {
            uint256 from; // nodes[from..length) are this level's, nodes[0..to) the next one's
            uint256 to;
            if (first % 2 == 1) {
                if (used == siblings.length) return (false, 0);
                nodes[to++] = _parent(siblings[used++], nodes[from++]);
            }
            for (; from + 1 < length; from += 2) {
                nodes[to++] = _parent(nodes[from], nodes[from + 1]);
            }
            if (from < length) {
                bytes32 last = nodes[from];
                if (first + length < width) {
                    if (used == siblings.length) return (false, 0);
                    last = _parent(last, siblings[used++]);
                }
                nodes[to++] = last;
            }
            (first, length) = (first / 2, to);
        }
        return (used == siblings.length, record(count, nodes[0]));
    }

    /// @dev SHA256(left || right) in the scratch space: most of what an opening computes. Tests have a plain twin (Tree).
    function _parent(bytes32 left, bytes32 right) private view returns (bytes32 node) {
        assembly ("memory-safe") {
            mstore(0x00, left)
            mstore(0x20, right)
            if iszero(staticcall(gas(), 2, 0x00, 0x40, 0x00, 0x20)) { revert(0x00, 0x00) }
            node := mload(0x00)
        }
    }

    /// @notice The root record: the top node bound to the number of leaves.
    function record(uint256 count, bytes32 top) internal pure returns (bytes32) {
        return sha256(abi.encodePacked("aiarena/root-record/v1", uint64(count), top));
    }
}
