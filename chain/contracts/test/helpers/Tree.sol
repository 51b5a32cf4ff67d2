// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @dev Merkle trees in memory, written apart from src/: odd nodes move up, the root record binds the count.
library Tree {
    function root(bytes32[] memory leaves) internal pure returns (bytes32) {
        bytes32[] memory level = leaves;
        while (level.length > 1) level = _parents(level);
        return sha256(abi.encodePacked("aiarena/root-record/v1", uint64(leaves.length), level[0]));
    }

    function siblings(bytes32[] memory leaves, uint256 position) internal pure returns (bytes32[] memory path) {
        bytes32[] memory found = new bytes32[](64);
        uint256 used;
        for (bytes32[] memory level = leaves; level.length > 1; level = _parents(level)) {
            uint256 sibling = position ^ 1;
            if (sibling < level.length) found[used++] = level[sibling];
            position /= 2;
        }
        path = new bytes32[](used);
        for (uint256 i; i < used; ++i) {
            path[i] = found[i];
        }
    }

    /// @dev What leads leaves [first, first + length) to the top together: of every level the neighbours of what is known.
    function rangeSiblings(bytes32[] memory leaves, uint256 first, uint256 length)
        internal
        pure
        returns (bytes32[] memory path)
    {
        bytes32[] memory found = new bytes32[](128);
        uint256 used;
        uint256 last = first + length - 1;
        for (bytes32[] memory level = leaves; level.length > 1; level = _parents(level)) {
            if (first & 1 == 1) found[used++] = level[first - 1];
            if (last & 1 == 0 && last < level.length - 1) found[used++] = level[last + 1];
            (first, last) = (first >> 1, last >> 1);
        }
        path = new bytes32[](used);
        for (uint256 i; i < used; ++i) {
            path[i] = found[i];
        }
    }

    function _parents(bytes32[] memory level) private pure returns (bytes32[] memory up) {
        up = new bytes32[]((level.length + 1) / 2);
        for (uint256 i; i < up.length; ++i) {
            bool paired = 2 * i + 1 < level.length;
            up[i] = paired ? sha256(bytes.concat(level[2 * i], level[2 * i + 1])) : level[2 * i];
        }
    }
}
