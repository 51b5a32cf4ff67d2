// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {CaseId, TaskId} from "../types/Types.sol";

/// @title What people promise, and what beacons decide
/// @notice Each digest is SHA256(abi.encode(domain, ...)): a domain of its own, the chain, the contract, whose it is.
/// @dev Whose it is matters: a commitment copied from the mempool can never be revealed by the copier.
library Commitments {
    /// @notice A trainer's submission; `address(this)` is the Arena.
    function submission(
        TaskId taskId,
        address trainer,
        bytes32 modelDigest,
        bytes32 transcriptDigest,
        string calldata modelCid,
        bytes32 salt
    ) internal view returns (bytes32) {
        bytes32 cid = sha256(bytes(modelCid));
        bytes32 domain = "aiarena/submission/v1";
        return sha256(
            abi.encode(domain, block.chainid, address(this), taskId, trainer, modelDigest, transcriptDigest, cid, salt)
        );
    }

    /// @notice A validator's scores of one round, each packed as a big-endian uint16; `address(this)` is the Arena.
    function scores(TaskId taskId, uint256 round, address validator, uint16[] calldata values, bytes32 salt)
        internal
        view
        returns (bytes32)
    {
        bytes memory packed = new bytes(2 * values.length);
        for (uint256 i; i < values.length; ++i) {
            packed[2 * i] = bytes1(uint8(values[i] >> 8));
            packed[2 * i + 1] = bytes1(uint8(values[i]));
        }
        bytes32 domain = "aiarena/scores/v1";
        return sha256(abi.encode(domain, block.chainid, address(this), taskId, round, validator, sha256(packed), salt));
    }

    /// @notice The task creator's promise of the hidden final data set.
    function finalSet(bytes32 finalRoot, bytes32 salt) internal pure returns (bytes32) {
        bytes32 domain = "aiarena/final-set/v1";
        return sha256(abi.encode(domain, finalRoot, salt));
    }

    /// @notice A juror's vote; `address(this)` is the ChallengeManager.
    function vote(CaseId caseId, address juror, bool uphold, bytes32 reproduction, bytes32 salt)
        internal
        view
        returns (bytes32)
    {
        bytes32 domain = "aiarena/vote/v1";
        return sha256(abi.encode(domain, block.chainid, address(this), caseId, juror, uphold, reproduction, salt));
    }

    /// @notice The segments to open: `sampled` distinct indices below `segments`, in the order drawn.
    /// @dev Drawn with counters 0, 1, 2, ...; duplicates are skipped. Ends only if `sampled` <= `segments`.
    function draws(CaseId caseId, bytes32 beacon, uint256 sampled, uint256 segments)
        internal
        pure
        returns (uint64[] memory drawn)
    {
        bytes32 domain = "aiarena/case-seed/v1";
        bytes32 seed = sha256(abi.encode(domain, beacon, caseId));
        domain = "aiarena/case-draw/v1";
        drawn = new uint64[](sampled);
        uint256 found;
        for (uint256 counter; found < sampled; ++counter) {
            uint64 index = uint64(uint256(sha256(abi.encode(domain, seed, counter))) % segments);
            if (!_contains(drawn, found, index)) drawn[found++] = index;
        }
    }

    function _contains(uint64[] memory drawn, uint256 length, uint64 index) private pure returns (bool) {
        for (uint256 i; i < length; ++i) {
            if (drawn[i] == index) return true;
        }
        return false;
    }
}
