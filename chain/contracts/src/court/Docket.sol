// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IArena} from "../interfaces/IArena.sol";
import {IArenaToken} from "../interfaces/IArenaToken.sol";
import {ICaseRules} from "../interfaces/ICaseRules.sol";
import {Case, Charge, IChallengeManager, Stage} from "../interfaces/IChallengeManager.sol";
import {Run, Submission} from "../interfaces/IRuns.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {Court} from "../interfaces/ITasks.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {NotAllowed, TooLate, WrongPhase} from "../types/Errors.sol";
import {Beacon, CaseId, Ground, Phase, Role, RunId, TaskId, Verdict} from "../types/Types.sol";

/// @title The docket
/// @notice Cases from the sealed charge to the drawn segments. See IChallengeManager.
abstract contract Docket is IChallengeManager, ReentrancyGuardTransient {
    using Beacons for Beacon;
    using SafeERC20 for IArenaToken;

    IArenaToken public immutable token;
    IArena public immutable arena;
    IStakeVault public immutable vault;
    /// @inheritdoc IChallengeManager
    ICaseRules public immutable caseRules;

    /// @inheritdoc IChallengeManager
    uint256 public caseCount;
    /// @inheritdoc IChallengeManager
    mapping(TaskId => mapping(address trainer => uint256)) public pendingCases;

    mapping(CaseId => Case) private _cases;

    constructor(IArenaToken token_, IArena arena_, IStakeVault vault_, ICaseRules caseRules_) {
        token = token_;
        arena = arena_;
        vault = vault_;
        caseRules = caseRules_;
    }

    /* SEALED */

    /// @inheritdoc IChallengeManager
    function sealCase(TaskId taskId, bytes32 commitment) external nonReentrant returns (CaseId caseId) {
        Court memory court = arena.court(taskId);
        _requireTimeForCase(taskId, court);
        if (vault.role(taskId, msg.sender) == Role.None) revert NotAllowed(msg.sender);

        caseId = CaseId.wrap(++caseCount);
        Case storage case_ = _cases[caseId];
        case_.taskId = taskId;
        case_.challenger = msg.sender;
        case_.verdict = Verdict.Pending;
        case_.commitment = commitment;
        uint64 showBy = _enter(case_, Stage.Sealed, court.showWindow);
        emit CaseSealed(caseId, taskId, msg.sender, commitment, showBy);

        token.safeTransferFrom(msg.sender, address(this), court.bond);
    }

    /// @dev The challenging phase, and every window of a case sealed now ends by its end.
    function _requireTimeForCase(TaskId taskId, Court memory court) private view {
        Phase have = arena.phase(taskId);
        if (have != Phase.Challenging) revert WrongPhase(have, Phase.Challenging);
        uint256 last = arena.phaseTimes(taskId).closedFrom - Schedule.longestCase(court);
        if (block.timestamp > last) revert TooLate(last + 1);
    }

    /* SHOWN */

    /// @inheritdoc IChallengeManager
    function showCase(CaseId caseId, Charge calldata charge, bytes32 salt) external {
        Case storage case_ = _at(caseId, Stage.Sealed);
        TaskId taskId = case_.taskId;
        if (msg.sender != case_.challenger) revert NotAllowed(msg.sender);
        if (Commitments.charge(taskId, msg.sender, charge, salt) != case_.commitment) revert BadCharge();
        RunId runId = _challengedRun(taskId, charge);
        Court memory court = arena.court(taskId);
        _requireNames(charge.named, court.named, arena.run(runId).anchored);
        _requireClaim(taskId, charge.ground, charge.claim);

        case_.runId = runId;
        case_.charge = charge;
        ++pendingCases[taskId][charge.trainer];
        _enter(case_, Stage.Shown, court.answerWindow);
        uint64 seedBlock = case_.seed.request();
        emit CaseShown(caseId, charge.trainer, runId, charge, seedBlock);
    }

    function _challengedRun(TaskId taskId, Charge calldata charge) private view returns (RunId) {
        Submission memory submission = arena.submission(taskId, charge.trainer, charge.round);
        if (!submission.revealed || submission.struck) revert NotStanding(charge.trainer, charge.round);
        return submission.runId;
    }

    function _requireNames(uint64[] calldata named, uint256 limit, uint64 anchored) private pure {
        if (named.length > limit) revert BadNames(limit);
        for (uint256 k; k < named.length; ++k) {
            if (named[k] >= anchored) revert BadNames(limit);
            for (uint256 j; j < k; ++j) {
                if (named[j] == named[k]) revert BadNames(limit);
            }
        }
    }

    function _requireClaim(TaskId taskId, Ground ground, RunId claim) private view {
        bool claims = RunId.unwrap(claim) != 0;
        if (claims != (ground == Ground.Watermark)) revert BadClaim(claim);
        if (!claims) return;
        Run memory mine = arena.run(claim);
        bool own = mine.trainer == msg.sender && TaskId.unwrap(mine.taskId) == TaskId.unwrap(taskId);
        if (!own) revert BadClaim(claim);
    }

    /* DRAWN */

    /// @inheritdoc IChallengeManager
    function latchSeed(CaseId caseId) external {
        Case storage case_ = _at(caseId, Stage.Shown);
        if (case_.seed.expired()) {
            emit SeedRequested(caseId, case_.seed.request());
            return;
        }
        bytes32 beacon = case_.seed.latch();
        uint64 answerBy = _enter(case_, Stage.Drawn, _court(case_).answerWindow);
        emit SeedLatched(caseId, beacon, answerBy);
    }

    /// @inheritdoc IChallengeManager
    function segmentsToOpen(CaseId caseId) public view returns (uint64[] memory) {
        Case storage case_ = _known(caseId);
        bytes32 beacon = case_.seed.value;
        if (beacon == 0) revert WrongStage(case_.stage);
        return caseRules.segmentsToOpen(caseId, case_.runId, beacon, case_.charge.named);
    }

    /* CASES */

    /// @inheritdoc IChallengeManager
    function caseOf(CaseId caseId) external view returns (Case memory) {
        return _known(caseId);
    }

    /// @dev Begins a stage that lasts `window` seconds.
    function _enter(Case storage case_, Stage stage, uint32 window) internal returns (uint64 deadline) {
        deadline = uint64(block.timestamp + window);
        case_.stage = stage;
        case_.deadline = deadline;
    }

    function _court(Case storage case_) internal view returns (Court memory) {
        return arena.court(case_.taskId);
    }

    function _known(CaseId caseId) internal view returns (Case storage case_) {
        case_ = _cases[caseId];
        if (case_.stage == Stage.None) revert UnknownCase(caseId);
    }

    /// @dev The case, if it is in this stage.
    function _in(CaseId caseId, Stage stage) internal view returns (Case storage case_) {
        case_ = _known(caseId);
        if (case_.stage != stage) revert WrongStage(case_.stage);
    }

    /// @dev The case, if it is in this stage and before its deadline.
    function _at(CaseId caseId, Stage stage) internal view returns (Case storage case_) {
        case_ = _in(caseId, stage);
        if (block.timestamp >= case_.deadline) revert TooLate(case_.deadline);
    }
}
