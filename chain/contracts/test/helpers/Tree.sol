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

    function _parents(bytes32[] memory level) private pure returns (bytes32[] memory up) {
        up = new bytes32[]((level.length + 1) / 2);
        for (uint256 i; i < up.length; ++i) {
            bool paired = 2 * i + 1 < level.length;
            up[i] = paired ? sha256(bytes.concat(level[2 * i], level[2 * i + 1])) : level[2 * i];
        }
    }
}
