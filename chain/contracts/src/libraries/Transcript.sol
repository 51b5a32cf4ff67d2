// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Optimiser steps [startStep, endStep) of a run: state digests at both ends, Merkle root of the batch digests.
/// @param index Position in the whole run, from 0.
struct Segment {
    uint64 index;
    uint64 startStep;
    uint64 endStep;
    bytes32 startDigest;
    bytes32 endDigest;
    bytes32 batchRoot;
}

/// @notice Segments [first, first + count) promised by their Merkle root record in block `blockNumber`.
struct Anchor {
    uint64 first;
    uint64 count;
    uint64 blockNumber;
    bytes32 root;
}

/// @notice A segment, the anchor in which it first appeared, and its Merkle path from the bottom up.
struct Opening {
    Segment segment;
    uint64 anchorIndex;
    bytes32[] siblings;
}

/// @title Digests of a transcript
/// @notice The Solidity side of pol/transcript.py; both read tests/golden/merkle.json.
library Transcript {
    /// @notice The Merkle leaf of a segment: all six fields at fixed width, big-endian.
    function leaf(Segment calldata segment) internal pure returns (bytes32) {
        return sha256(
            abi.encodePacked(
                "aiarena/segment/v1",
                segment.index,
                segment.startStep,
                segment.endStep,
                segment.startDigest,
                segment.endDigest,
                segment.batchRoot
            )
        );
    }

    /// @notice The transcript digest after one more anchor; it starts as the spec digest.
    function extend(bytes32 previous, uint64 first, uint64 count, bytes32 root) internal pure returns (bytes32) {
        return sha256(abi.encodePacked("aiarena/transcript/v1", previous, first, count, root));
    }
}
