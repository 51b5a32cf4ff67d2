// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IArenaToken} from "../interfaces/IArenaToken.sol";
import {IChallengeManager} from "../interfaces/IChallengeManager.sol";
import {BaseModel, Bond, IRuns, Run} from "../interfaces/IRuns.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {Clock, TaskConfig} from "../interfaces/ITasks.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {MerkleProof} from "../libraries/MerkleProof.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {Anchor, Opening, Segment, Transcript} from "../libraries/Transcript.sol";
import {CasePending, NotAllowed, NotTrainer, WrongPhase} from "../types/Errors.sol";
import {Beacon, Phase, Role, RunId, TaskId} from "../types/Types.sol";
import {Tasks} from "./Tasks.sol";

/// @title Runs
/// @notice See IRuns: what a run promises, its trunk and its bond.
abstract contract Runs is Tasks, IRuns {
    using Beacons for Beacon;
    using SafeERC20 for IArenaToken;
    using Schedule for Clock;

    IStakeVault public immutable vault;
    IChallengeManager public immutable manager;

    uint256 private _runCount;
    mapping(RunId => Run) internal _runs;
    mapping(RunId => Anchor[]) private _anchors;
    mapping(TaskId => mapping(address trainer => RunId[])) private _runsOf;

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
        _requireRegistering(taskId, config.work.trainRoot == 0);
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

    /// @dev Free data is chosen before any model is shown: nobody picks it to imitate what others made.
    function _requireRegistering(TaskId taskId, bool freeData) private view {
        Clock memory clock_ = clock(taskId);
        Phase have = clock_.phase();
        if (have > Phase.Submission) revert WrongPhase(have, Phase.Submission);
        if (freeData) Schedule.requireWithin(0, clock_.roundTimes(1).opensAt);
    }

    function _requireAccepted(bytes32 basesRoot, BaseModel calldata base) private view {
        bool accepted = basesRoot == 0
            ? base.digest == 0 && base.position == 0 && base.count == 0 && base.siblings.length == 0
            : MerkleProof.verify(basesRoot, base.digest, base.position, base.count, base.siblings);
        if (!accepted) revert BadBase(base.digest);
    }

    /// @inheritdoc IRuns
    function latchBeacon(RunId runId) external {
        Run storage run_ = _run(runId);
        bytes32 beacon = Commitments.runBeacon(runId, run_.beacon.latch());

        run_.beacon.value = beacon;
        emit BeaconLatched(runId, beacon);
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
    function anchors(RunId runId, uint256 from, uint256 count) external view returns (Anchor[] memory page) {
        Anchor[] storage list = _anchors[runId];
        uint256 left = from < list.length ? list.length - from : 0;
        page = new Anchor[](count < left ? count : left);
        for (uint256 k; k < page.length; ++k) {
            page[k] = list[from + k];
        }
    }

    /// @inheritdoc IRuns
    function runSegments(RunId runId) external view returns (uint64) {
        return _segments(_run(runId));
    }

    /// @inheritdoc IRuns
    function verifyOpening(RunId runId, Opening calldata opening) external view returns (bool) {
        return _verify(runId, opening);
    }

    /// @inheritdoc IRuns
    function anchoredAt(RunId runId, Opening calldata opening, uint64 position) external view returns (bool) {
        return _anchoredAt(runId, opening, position);
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
    function _growing(RunId runId) internal view returns (Run storage run_) {
        run_ = _ownRun(runId);
        _requireSubmission(run_.taskId);
    }

    function _segments(Run storage run_) internal view returns (uint64) {
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
