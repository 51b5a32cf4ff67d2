// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {BlockOpening} from "../interfaces/ICaseRules.sol";
import {MerkleProof} from "./MerkleProof.sol";

/// @title Digests of named tensors
/// @notice The Solidity side of pol/tensors.py; both read tests/golden/blocks.json.
/// @dev A state is a tree over its tensors, sorted by name, and a tensor a tree over its blocks of 16 KiB. Every leaf
/// of both binds the tensor's header: u16(length) || name || u8(length) || dtype || u8(rank) || u64(size)...
library Tensors {
    bytes private constant MODEL = "model/"; // what a training state puts before the names of the model's tensors

    /// @notice Whether the opened block is part of the state with this digest.
    function contains(bytes32 state, BlockOpening calldata opening) internal view returns (bool) {
        (bool inTensor, bytes32 tensorRoot) =
            MerkleProof.root(opening.leaf, opening.index, opening.blocks, opening.blockSiblings);
        if (!inTensor) return false;
        bytes32 named = namedLeaf(opening.position, tensorRoot, opening.header);
        return MerkleProof.verify(state, named, opening.position, opening.tensors, opening.tensorSiblings);
    }

    /// @notice The leaf of block `index` of a tensor.
    function blockLeaf(uint64 index, bytes calldata header, bytes calldata block_) internal pure returns (bytes32) {
        return sha256(abi.encodePacked("aiarena/tensor-block/v1", index, header, block_));
    }

    /// @notice The leaf of the tensor at `position` of a state.
    function namedLeaf(uint64 position, bytes32 tensorRoot, bytes calldata header) internal pure returns (bytes32) {
        return sha256(abi.encodePacked("aiarena/named-tensor/v1", position, tensorRoot, header));
    }

    /// @notice Whether `mine` is the header, in a training state, of the model's tensor with header `own`.
    function isModels(bytes calldata mine, bytes calldata own) internal pure returns (bool) {
        if (own.length < 2) return false;
        uint16 length = uint16(bytes2(own[:2])) + uint16(MODEL.length);
        return keccak256(mine) == keccak256(abi.encodePacked(length, MODEL, own[2:]));
    }
}
