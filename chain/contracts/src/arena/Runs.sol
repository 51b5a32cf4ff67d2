// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

import {IArenaToken} from "../interfaces/IArenaToken.sol";
import {IChallengeManager} from "../interfaces/IChallengeManager.sol";
import {BaseModel, Bond, IRuns, Run, Submission} from "../interfaces/IRuns.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {Clock, RoundTimes, TaskConfig} from "../interfaces/ITasks.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {MerkleProof} from "../libraries/MerkleProof.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {Anchor, Opening, Segment, Transcript} from "../libraries/Transcript.sol";
import {CasePending, NotAllowed, NotTrainer, WrongPhase} from "../types/Errors.sol";
import {Beacon, Phase, Role, RunId, TaskId} from "../types/Types.sol";
import {Tasks} from "./Tasks.sol";

/// @title Runs and submissions
/// @notice See IRuns.
abstract contract Runs is Tasks, IRuns {
    using Beacons for Beacon;
    using Checkpoints for Checkpoints.Trace208;
    using SafeERC20 for IArenaToken;
    using Schedule for Clock;

    /// @dev Who committed first to a model that was shown.
    struct Holder {
        address trainer;
        uint64 order;
    }

    IStakeVault public immutable vault;
    IChallengeManager public immutable manager;

    uint256 private _runCount;
    mapping(RunId => Run) private _runs;
    mapping(RunId => Anchor[]) private _anchors;
    mapping(TaskId => mapping(address trainer => RunId[])) private _runsOf;
    mapping(TaskId => mapping(address trainer => mapping(uint256 round => Submission))) private _submissions;
    /// @dev By round: what stands from then on, as _packed.
    mapping(TaskId => mapping(address trainer => Checkpoints.Trace208)) private _standing;
    mapping(TaskId => mapping(bytes32 modelDigest => Holder)) private _holders;
    mapping(TaskId => uint64) private _commitCount;

    constructor(IStakeVault vault_, IChallengeManager manager_) {
        vault = vault_;
        manager = manager_;
    }

    /* PROMISE AND SEED */

    /// @inheritdoc IRuns
    function registerRun(TaskId taskId, bytes32 specDigest, bytes32 keyRoot, BaseModel calldata base)
        external
        returns (RunId runId)
    {
        TaskConfig storage config = _config(taskId);
        Phase have = clock(taskId).phase();
        if (have > Phase.Submission) revert WrongPhase(have, Phase.Submission);
        if (vault.role(taskId, msg.sender) != Role.Trainer) revert NotTrainer(msg.sender);
        if (specDigest == 0 || keyRoot == 0) revert EmptyDigest();
        _requireAccepted(config.work.basesRoot, base);

        runId = RunId.wrap(++_runCount);
        Run storage run_ = _runs[runId];
        run_.taskId = taskId;
        run_.trainer = msg.sender;
        run_.bond = Bond.Held;
        run_.specDigest = specDigest;
        run_.keyRoot = keyRoot;
        run_.baseDigest = base.digest;
        run_.transcriptDigest = specDigest;
        _runsOf[taskId][msg.sender].push(runId);
        uint64 beaconBlock = run_.beacon.request();
        emit RunRegistered(runId, taskId, msg.sender, specDigest, keyRoot, base.digest, beaconBlock);

        token.safeTransferFrom(msg.sender, address(this), config.pay.runBond);
    }

    function _requireAccepted(bytes32 basesRoot, BaseModel calldata base) private pure {
        bool accepted = basesRoot == 0
            ? base.digest == 0 && base.position == 0 && base.count == 0 && base.siblings.length == 0
            : MerkleProof.verify(basesRoot, base.digest, base.position, base.count, base.siblings);
        if (!accepted) revert BadBase(base.digest);
    }

    /// @inheritdoc IRuns
    function latchBeacon(RunId runId) external {
        emit BeaconLatched(runId, _run(runId).beacon.latch());
    }

    /* TRUNK */

    /// @inheritdoc IRuns
    function anchor(RunId runId, uint64 first, uint64 count, bytes32 root) external {
        Run storage run_ = _growing(runId);
        if (run_.beacon.value == 0) revert BeaconNotLatched();
        uint64 limit = _segments(run_);
        if (first != run_.anchored || count == 0 || count > limit - first) revert BadAnchor(run_.anchored, limit);

        bytes32 digest = Transcript.extend(run_.transcriptDigest, first, count, root);
        Anchor[] storage list = _anchors[runId];
        run_.anchored = first + count;
        run_.transcriptDigest = digest;
        list.push(Anchor({first: first, count: count, blockNumber: uint64(block.number), root: root}));
        emit Anchored(runId, uint64(list.length - 1), first, count, root, digest);
    }

    /// @inheritdoc IRuns
    function declareStop(RunId runId, uint64 segments) external {
        Run storage run_ = _growing(runId);
        uint64 limit = _segments(run_);
        if (segments != run_.anchored || segments == 0 || segments >= limit) revert BadStop(run_.anchored, limit);

        run_.stopped = segments;
        run_.stopBlock = uint64(block.number);
        emit RunStopped(runId, segments);
    }

    /// @inheritdoc IRuns
    function anchorReference(RunId runId, Opening calldata opening) external {
        Run storage run_ = _growing(runId);
        if (run_.mark.blockNumber != 0) revert ReferenceExists(run_.referenceSegment);
        if (!_verify(runId, opening)) revert BadOpeningProof();

        run_.referenceSegment = opening.segment.index;
        run_.referenceDigest = opening.segment.endDigest;
        uint64 markBlock = run_.mark.request();
        emit ReferenceAnchored(runId, run_.referenceSegment, run_.referenceDigest, markBlock);
    }

    /// @inheritdoc IRuns
    function latchMark(RunId runId) external {
        emit MarkLatched(runId, _run(runId).mark.latch());
    }

    /* THE BOND */

    /// @inheritdoc IRuns
    function voidRun(RunId runId) external {
        Run storage run_ = _run(runId);
        if (run_.bond != Bond.Held) revert BondSettled(run_.bond);
        if (!_void(run_)) revert RunAlive(runId);

        run_.bond = Bond.Burned;
        uint128 bond = _config(run_.taskId).pay.runBond;
        emit RunVoided(runId, bond);
        token.burn(bond);
    }

    /// @inheritdoc IRuns
    function releaseRunBond(RunId runId) external {
        Run storage run_ = _ownRun(runId);
        TaskConfig storage config = _config(run_.taskId);
        Phase have = clock(run_.taskId).phase();
        if (have != Phase.Closed) revert WrongPhase(have, Phase.Closed);
        if (run_.bond != Bond.Held) revert BondSettled(run_.bond);
        if (manager.pendingCases(run_.taskId, msg.sender) != 0) revert CasePending(msg.sender);
        if (_void(run_)) revert BondForfeited(runId);

        run_.bond = Bond.Returned;
        uint128 bond = config.pay.runBond;
        emit RunBondReleased(runId, msg.sender, bond);
        token.safeTransfer(msg.sender, bond);
    }

    /// @dev Nothing can come of the run any more. (Of a mark that expired neither: nothing is submitted without one.)
    function _void(Run storage run_) private view returns (bool) {
        if (run_.beacon.expired() || run_.mark.expired()) return true;
        if (run_.firstOrder == 0) {
            Clock memory clock_ = clock(run_.taskId);
            return block.timestamp >= clock_.roundTimes(clock_.rounds).scoresFrom;
        }
        return escrow.forfeited(run_.taskId, run_.trainer);
    }

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
    function run(RunId runId) external view returns (Run memory) {
        return _run(runId);
    }

    /// @inheritdoc IRuns
    function runsOf(TaskId taskId, address trainer) external view returns (RunId[] memory) {
        return _runsOf[taskId][trainer];
    }

    /// @inheritdoc IRuns
    function anchors(RunId runId) external view returns (Anchor[] memory) {
        return _anchors[runId];
    }

    /// @inheritdoc IRuns
    function runSegments(RunId runId) external view returns (uint64) {
        return _segments(_run(runId));
    }

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

    /// @inheritdoc IRuns
    function verifyOpening(RunId runId, Opening calldata opening) external view returns (bool) {
        return _verify(runId, opening);
    }

    /// @inheritdoc IRuns
    function anchoredAt(RunId runId, Opening calldata opening, uint64 position) external view returns (bool) {
        return _anchoredAt(runId, opening, position);
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

    function _run(RunId runId) private view returns (Run storage run_) {
        run_ = _runs[runId];
        if (run_.bond == Bond.None) revert UnknownRun(runId);
    }

    function _ownRun(RunId runId) private view returns (Run storage run_) {
        run_ = _run(runId);
        if (run_.trainer != msg.sender) revert NotAllowed(msg.sender);
    }

    /// @dev The caller's run, while its task takes anchors and submissions.
    function _growing(RunId runId) private view returns (Run storage run_) {
        run_ = _ownRun(runId);
        _requireSubmission(run_.taskId);
    }

    function _segments(Run storage run_) private view returns (uint64) {
        uint64 stopped = run_.stopped;
        return stopped == 0 ? _segmentCount(_config(run_.taskId)) : stopped;
    }

    function _verify(RunId runId, Opening calldata opening) private view returns (bool) {
        Anchor[] storage list = _anchors[runId];
        if (opening.anchorIndex >= list.length || !_boundsHold(_runs[runId].taskId, opening.segment)) return false;
        uint64 first = list[opening.anchorIndex].first;
        uint64 index = opening.segment.index;
        return index >= first && _anchoredAt(runId, opening, index - first);
    }

    function _anchoredAt(RunId runId, Opening calldata opening, uint64 position) private view returns (bool) {
        Anchor[] storage list = _anchors[runId];
        if (opening.anchorIndex >= list.length) return false;
        Anchor storage anchored = list[opening.anchorIndex];
        bytes32 leaf = Transcript.leaf(opening.segment);
        return MerkleProof.verify(anchored.root, leaf, position, anchored.count, opening.siblings);
    }

    /// @dev Every segment has `segmentLength` steps but the task's last, which ends with it. (A run that ends early has
    /// whole segments only.)
    function _boundsHold(TaskId taskId, Segment calldata segment) private view returns (bool) {
        TaskConfig storage config = _config(taskId);
        uint256 from = uint256(segment.index) * config.work.segmentLength;
        uint256 to = from + config.work.segmentLength;
        if (to > config.work.steps) to = config.work.steps;
        return segment.startStep == from && segment.endStep == to;
    }
}
