// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Charge} from "../interfaces/IChallengeManager.sol";
import {CaseId, RunId, TaskId} from "../types/Types.sol";

/// @title What people promise, and what beacons decide
/// @notice Each digest is SHA256(abi.encode(domain, ...)): a domain of its own, the chain, the contract, whose it is.
/// @dev Whose it is matters: a commitment copied from the mempool can never be revealed by the copier.
library Commitments {
    /// @notice A trainer's submission; `address(this)` is the Arena.
    /// @param cidDigest SHA256 of the model's CID.
    function submission(
        TaskId taskId,
        address trainer,
        RunId runId,
        uint16 round,
        uint64 branch,
        bytes32 modelDigest,
        bytes32 transcriptDigest,
        bytes32 cidDigest,
        bytes32 salt
    ) internal view returns (bytes32) {
        bytes32 domain = "aiarena/submission/v2";
        bytes memory whose = abi.encode(domain, block.chainid, address(this), taskId, trainer, runId, round);
        return sha256(bytes.concat(whose, abi.encode(branch, modelDigest, transcriptDigest, cidDigest, salt)));
    }

    /// @notice What seeds a run: equal specs promised in one block still are two runs with two seeds.
    /// @param blockDigest The hash of the block that the run's registration promised.
    function runBeacon(RunId runId, bytes32 blockDigest) internal pure returns (bytes32) {
        bytes32 domain = "aiarena/run-beacon/v1";
        return sha256(abi.encode(domain, blockDigest, runId));
    }

    /// @notice A validator's scores of one round, two bytes each; `address(this)` is Scoring.
    function scores(TaskId taskId, uint16 round, address validator, bytes calldata row, bytes32 salt)
        internal
        view
        returns (bytes32)
    {
        bytes32 domain = "aiarena/scores/v1";
        return sha256(abi.encode(domain, block.chainid, address(this), taskId, round, validator, sha256(row), salt));
    }

    /// @notice The task creator's promise of the hidden final data set.
    function finalSet(bytes32 finalRoot, bytes32 salt) internal pure returns (bytes32) {
        bytes32 domain = "aiarena/final-set/v1";
        return sha256(abi.encode(domain, finalRoot, salt));
    }

    /// @notice What a sealed case holds; `address(this)` is the ChallengeManager.
    function charge(TaskId taskId, address challenger, Charge calldata charge_, bytes32 salt)
        internal
        view
        returns (bytes32)
    {
        bytes32 domain = "aiarena/case/v1";
        return sha256(abi.encode(domain, block.chainid, address(this), taskId, challenger, charge_, salt));
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
