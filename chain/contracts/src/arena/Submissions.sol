// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

import {IRuns, Run, Submission} from "../interfaces/IRuns.sol";
import {Clock, RoundTimes} from "../interfaces/ITasks.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {Role, RunId, TaskId} from "../types/Types.sol";
import {Runs} from "./Runs.sol";

/// @title Submissions
/// @notice See IRuns: what trainers commit and show of their runs, and what of it stands.
abstract contract Submissions is Runs {
    using Checkpoints for Checkpoints.Trace208;
    using Schedule for Clock;

    /// @dev Who committed first to a model that was shown.
    struct Holder {
        address trainer;
        uint64 order;
    }

    mapping(TaskId => mapping(address trainer => mapping(uint256 round => Submission))) private _submissions;
    /// @dev By round: what stands from then on, as _packed.
    mapping(TaskId => mapping(address trainer => Checkpoints.Trace208)) private _standing;
    mapping(TaskId => mapping(bytes32 modelDigest => Holder)) private _holders;
    mapping(TaskId => uint64) private _commitCount;

    /* SUBMISSION */

    /// @inheritdoc IRuns
    function commitSubmission(RunId runId, bytes32 commitment) external {
        Run storage run_ = _growing(runId);
        TaskId taskId = run_.taskId;
        uint16 round = clock(taskId).currentRound();
        Submission storage submission_ = _submissions[taskId][msg.sender][round];
        if (submission_.order != 0) revert AlreadyCommitted();
        if (run_.mark.value == 0) revert MarkNotLatched();

        submission_.runId = runId;
        submission_.order = ++_commitCount[taskId];
        submission_.anchored = run_.anchored;
        submission_.commitment = commitment;
        submission_.transcriptDigest = run_.transcriptDigest;
        emit SubmissionCommitted(taskId, msg.sender, round, runId, submission_.order, commitment);
    }

    /// @inheritdoc IRuns
    function revealSubmission(
        TaskId taskId,
        uint16 round,
        uint64 branch,
        bytes32 modelDigest,
        string calldata modelCid,
        bytes32 salt
    ) external {
        Submission storage submission_ = _due(taskId, round);
        _requireBranch(submission_, branch);
        bytes32 cidDigest = sha256(bytes(modelCid));
        bytes32 commitment = _commitment(taskId, round, branch, modelDigest, cidDigest, salt);
        if (commitment != submission_.commitment) revert BadReveal();

        submission_.revealed = true;
        submission_.branch = branch;
        submission_.modelDigest = modelDigest;
        _hold(taskId, round, modelDigest, submission_.order);
        _stand(taskId, round, submission_);
        emit SubmissionRevealed(taskId, msg.sender, round, branch, modelDigest, modelCid);
    }

    /// @dev What the caller committed in `round` and may show now.
    function _due(TaskId taskId, uint16 round) private view returns (Submission storage submission_) {
        RoundTimes memory times = clock(taskId).roundTimes(round);
        submission_ = _submissions[taskId][msg.sender][round];
        if (submission_.order == 0) revert NothingCommitted();
        Schedule.requireWithin(times.opensAt, times.scoresFrom);
        if (submission_.revealed) revert AlreadyRevealed();
    }

    function _requireBranch(Submission storage submission_, uint64 branch) private view {
        (uint64 low, uint64 high) = (_runs[submission_.runId].referenceSegment, submission_.anchored);
        if (branch < low || branch >= high) revert BadBranch(low, high);
    }

    /// @dev What the caller must have promised for these values.
    function _commitment(
        TaskId taskId,
        uint16 round,
        uint64 branch,
        bytes32 modelDigest,
        bytes32 cidDigest,
        bytes32 salt
    ) private view returns (bytes32) {
        Submission storage submission_ = _submissions[taskId][msg.sender][round];
        return Commitments.submission(
            taskId,
            msg.sender,
            submission_.runId,
            round,
            branch,
            modelDigest,
            submission_.transcriptDigest,
            cidDigest,
            salt
        );
    }

    /// @dev Of equal models the earliest commitment stands. What it strikes was committed later but shown already, and
    /// reveal windows do not overlap: so it is of the same round.
    function _hold(TaskId taskId, uint16 round, bytes32 modelDigest, uint64 order) private {
        Holder storage holder = _holders[taskId][modelDigest];
        if (holder.order != 0) {
            if (holder.order < order) revert DuplicateModel(modelDigest, holder.trainer);
            _strike(taskId, holder.trainer, round);
            emit SubmissionStruck(taskId, holder.trainer, round, msg.sender, modelDigest);
        }
        (holder.trainer, holder.order) = (msg.sender, order);
    }

    /// @dev From `round` on, until a later one.
    function _stand(TaskId taskId, uint16 round, Submission storage submission_) private {
        Run storage run_ = _runs[submission_.runId];
        if (run_.firstOrder == 0) run_.firstOrder = submission_.order;
        _standing[taskId][msg.sender].push(round, _packed(submission_));
    }

    /// @dev What stood before the round stands again, and the run is one from which nothing came, unless it was earlier.
    function _strike(TaskId taskId, address trainer, uint16 round) private {
        Submission storage submission_ = _submissions[taskId][trainer][round];
        Run storage run_ = _runs[submission_.runId];
        submission_.struck = true;
        if (run_.firstOrder == submission_.order) run_.firstOrder = 0;
        Checkpoints.Trace208 storage trace = _standing[taskId][trainer];
        trace.push(round, trace.upperLookupRecent(round - 1));
    }

    /* VIEWS */

    /// @inheritdoc IRuns
    function submission(TaskId taskId, address trainer, uint16 round) external view returns (Submission memory) {
        return _submissions[taskId][trainer][round];
    }

    /// @inheritdoc IRuns
    function standingOrder(TaskId taskId, address trainer, uint16 round) external view returns (uint64) {
        return _standingOrder(taskId, trainer, round, _isFinal(taskId, round));
    }

    /// @inheritdoc IRuns
    function standingOrders(TaskId taskId, uint16 round) external view returns (uint64[] memory orders) {
        bool final_ = _isFinal(taskId, round);
        address[] memory trainers = vault.operators(taskId, Role.Trainer);
        orders = new uint64[](trainers.length);
        for (uint256 i; i < trainers.length; ++i) {
            orders[i] = _standingOrder(taskId, trainers[i], round, final_);
        }
    }

    function _isFinal(TaskId taskId, uint16 round) private view returns (bool) {
        Clock memory clock_ = clock(taskId);
        if (round == 0 || round > clock_.finalRound()) revert UnknownRound(round);
        return round == clock_.finalRound();
    }

    function _standingOrder(TaskId taskId, address trainer, uint16 round, bool final_) private view returns (uint64) {
        uint208 packed = _standing[taskId][trainer].upperLookupRecent(round);
        if (final_ && packed != 0) {
            Run storage run_ = _runs[RunId.wrap(packed >> 64)];
            if (run_.anchored != _segments(run_)) return 0;
        }
        return uint64(packed);
    }

    /// @dev Order and run in one word: the order in the lower 64 bits.
    function _packed(Submission storage submission_) private view returns (uint208) {
        return uint208(RunId.unwrap(submission_.runId) << 64 | submission_.order);
    }
}
