// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns, Run} from "../interfaces/IRuns.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {RoundTimes, TaskConfig} from "../interfaces/ITasks.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {MerkleProof} from "../libraries/MerkleProof.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {Anchor, Opening, Segment, Transcript} from "../libraries/Transcript.sol";
import {NotTrainer, WrongPhase} from "../types/Errors.sol";
import {Beacon, Phase, Role, TaskId} from "../types/Types.sol";
import {Tasks} from "./Tasks.sol";

/// @title Runs and submissions
/// @notice See IRuns.
abstract contract Runs is Tasks, IRuns {
    using Beacons for Beacon;
    using Schedule for TaskConfig;

    IStakeVault public immutable vault;

    mapping(TaskId => mapping(address trainer => Run)) private _runs;
    mapping(TaskId => mapping(address trainer => Anchor[])) private _anchors;
    mapping(TaskId => mapping(bytes32 modelDigest => address trainer)) private _modelHolder;
    mapping(TaskId => uint64) private _commitCount;

    constructor(IStakeVault vault_) {
        vault = vault_;
    }

    /* PROMISE AND SEED */

    /// @inheritdoc IRuns
    function registerRun(TaskId taskId, bytes32 specDigest, bytes32 keyRoot) external {
        Phase have = _config(taskId).phase();
        if (have > Phase.Submission) revert WrongPhase(have, Phase.Submission);
        if (vault.role(taskId, msg.sender) != Role.Trainer) revert NotTrainer(msg.sender);
        if (specDigest == 0 || keyRoot == 0) revert EmptyDigest();
        Run storage run_ = _runs[taskId][msg.sender];
        if (run_.specDigest != 0) revert RunExists(msg.sender);

        run_.specDigest = specDigest;
        run_.keyRoot = keyRoot;
        run_.transcriptDigest = specDigest;
        uint64 beaconBlock = run_.beacon.request();
        emit RunRegistered(taskId, msg.sender, specDigest, keyRoot, beaconBlock);
    }

    /// @inheritdoc IRuns
    function latchBeacon(TaskId taskId, address trainer) external {
        bytes32 beacon = _run(taskId, trainer).beacon.latch();
        emit BeaconLatched(taskId, trainer, beacon);
    }

    /* TRUNK */

    /// @inheritdoc IRuns
    function anchor(TaskId taskId, uint64 first, uint64 count, bytes32 root) external {
        TaskConfig storage config = _config(taskId);
        _requireSubmission(config);
        Run storage run_ = _run(taskId, msg.sender);
        if (run_.beacon.value == 0) revert BeaconNotLatched();
        uint64 limit = _segments(config, run_);
        if (first != run_.anchored || count == 0 || count > limit - first) revert BadAnchor(run_.anchored, limit);

        bytes32 digest = Transcript.extend(run_.transcriptDigest, first, count, root);
        Anchor[] storage list = _anchors[taskId][msg.sender];
        run_.anchored = first + count;
        run_.transcriptDigest = digest;
        list.push(Anchor({first: first, count: count, blockNumber: uint64(block.number), root: root}));
        emit Anchored(taskId, msg.sender, uint64(list.length - 1), first, count, root, digest);
    }

    /// @inheritdoc IRuns
    function declareStop(TaskId taskId, uint64 segments) external {
        TaskConfig storage config = _config(taskId);
        _requireSubmission(config);
        Run storage run_ = _run(taskId, msg.sender);
        uint64 limit = _segments(config, run_);
        if (segments != run_.anchored || segments == 0 || segments >= limit) revert BadStop(run_.anchored, limit);

        run_.stopped = segments;
        run_.stopBlock = uint64(block.number);
        emit RunStopped(taskId, msg.sender, segments);
    }

    /// @inheritdoc IRuns
    function anchorReference(TaskId taskId, Opening calldata opening) external {
        _requireSubmission(_config(taskId));
        Run storage run_ = _run(taskId, msg.sender);
        if (run_.mark.blockNumber != 0) revert ReferenceExists(run_.referenceSegment);
        if (!_verify(taskId, msg.sender, opening)) revert BadOpeningProof();

        run_.referenceSegment = opening.segment.index;
        run_.referenceDigest = opening.segment.endDigest;
        uint64 markBlock = run_.mark.request();
        emit ReferenceAnchored(taskId, msg.sender, run_.referenceSegment, run_.referenceDigest, markBlock);
    }

    /// @inheritdoc IRuns
    function latchMark(TaskId taskId, address trainer) external {
        bytes32 mark = _run(taskId, trainer).mark.latch();
        emit MarkLatched(taskId, trainer, mark);
    }

    /* SUBMISSION */

    /// @inheritdoc IRuns
    function commitSubmission(TaskId taskId, bytes32 commitment) external {
        TaskConfig storage config = _config(taskId);
        _requireSubmission(config);
        Run storage run_ = _run(taskId, msg.sender);
        if (run_.commitOrder != 0) revert AlreadyCommitted();
        uint64 segments = _segments(config, run_);
        if (run_.anchored != segments) revert TranscriptIncomplete(run_.anchored, segments);
        if (run_.mark.value == 0) revert MarkNotLatched();

        run_.commitment = commitment;
        run_.commitOrder = ++_commitCount[taskId];
        run_.round = config.currentRound();
        emit SubmissionCommitted(taskId, msg.sender, run_.round, run_.commitOrder, commitment);
    }

    /// @inheritdoc IRuns
    function revealSubmission(TaskId taskId, bytes32 modelDigest, string calldata modelCid, bytes32 salt) external {
        Run storage run_ = _run(taskId, msg.sender);
        if (run_.commitOrder == 0) revert NothingCommitted();
        RoundTimes memory times = _config(taskId).roundTimes(run_.round);
        Schedule.requireWithin(times.opensAt, times.scoresFrom);
        if (run_.revealed) revert AlreadyRevealed();
        bytes32 commitment =
            Commitments.submission(taskId, msg.sender, modelDigest, run_.transcriptDigest, modelCid, salt);
        if (commitment != run_.commitment) revert BadReveal();

        run_.revealed = true;
        run_.modelDigest = modelDigest;
        _holdModel(taskId, modelDigest, run_.commitOrder);
        emit SubmissionRevealed(taskId, msg.sender, run_.round, modelDigest, modelCid);
    }

    /// @dev Of equal models the earliest commitment stands.
    function _holdModel(TaskId taskId, bytes32 modelDigest, uint64 order) private {
        address holder = _modelHolder[taskId][modelDigest];
        if (holder != address(0)) {
            Run storage other = _runs[taskId][holder];
            if (other.commitOrder < order) revert DuplicateModel(modelDigest, holder);
            other.struck = true;
            emit SubmissionStruck(taskId, holder, msg.sender, modelDigest);
        }
        _modelHolder[taskId][modelDigest] = msg.sender;
    }

    /* VIEWS */

    /// @inheritdoc IRuns
    function run(TaskId taskId, address trainer) external view returns (Run memory) {
        return _runs[taskId][trainer];
    }

    /// @inheritdoc IRuns
    function anchors(TaskId taskId, address trainer) external view returns (Anchor[] memory) {
        return _anchors[taskId][trainer];
    }

    /// @inheritdoc IRuns
    function runSegments(TaskId taskId, address trainer) external view returns (uint64) {
        return _segments(_config(taskId), _runs[taskId][trainer]);
    }

    /// @inheritdoc IRuns
    function standing(TaskId taskId, address trainer, uint256 round) external view returns (bool) {
        return _standingOrder(taskId, trainer, round) != 0;
    }

    /// @inheritdoc IRuns
    function abandoned(TaskId taskId, address trainer) external view returns (bool) {
        Run storage run_ = _runs[taskId][trainer];
        return run_.specDigest != 0 && !run_.revealed;
    }

    /// @inheritdoc IRuns
    function verifyOpening(TaskId taskId, address trainer, Opening calldata opening) external view returns (bool) {
        return _verify(taskId, trainer, opening);
    }

    /// @dev The commit order of the model that stands in `round`, or 0.
    function _standingOrder(TaskId taskId, address trainer, uint256 round) internal view returns (uint64) {
        Run storage run_ = _runs[taskId][trainer];
        return run_.revealed && !run_.struck && run_.round <= round ? run_.commitOrder : 0;
    }

    function _run(TaskId taskId, address trainer) private view returns (Run storage run_) {
        run_ = _runs[taskId][trainer];
        if (run_.specDigest == 0) revert UnknownRun(trainer);
    }

    function _segments(TaskConfig storage config, Run storage run_) private view returns (uint64) {
        uint64 stopped = run_.stopped;
        return stopped == 0 ? config.segmentCount() : stopped;
    }

    function _verify(TaskId taskId, address trainer, Opening calldata opening) private view returns (bool) {
        Anchor[] storage list = _anchors[taskId][trainer];
        if (opening.anchorIndex >= list.length) return false;
        Anchor storage anchored = list[opening.anchorIndex];
        Segment calldata segment = opening.segment;
        if (segment.index < anchored.first || !_boundsHold(_config(taskId), segment)) return false;
        uint256 position = segment.index - anchored.first;
        return MerkleProof.verify(anchored.root, Transcript.leaf(segment), position, anchored.count, opening.siblings);
    }

    /// @dev Every segment has `segmentLength` steps but the task's last, which ends with it. (A run that ends early has
    /// whole segments only.)
    function _boundsHold(TaskConfig storage config, Segment calldata segment) private view returns (bool) {
        uint256 from = uint256(segment.index) * config.segmentLength;
        uint256 to = from + config.segmentLength;
        if (to > config.steps) to = config.steps;
        return segment.startStep == from && segment.endStep == to;
    }
}
