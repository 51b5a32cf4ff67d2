// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IArenaToken} from "../interfaces/IArenaToken.sol";
import {BlockOpening} from "../interfaces/ICaseRules.sol";
import {Case, IChallengeManager, Stage} from "../interfaces/IChallengeManager.sol";
import {IRewardEscrow} from "../interfaces/IRewardEscrow.sol";
import {Court} from "../interfaces/ITasks.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {Opening} from "../libraries/Transcript.sol";
import {CasePending, NothingToPay, TooEarly, WrongPhase} from "../types/Errors.sol";
import {CaseId, Ground, Phase, TaskId, Verdict} from "../types/Types.sol";
import {Answers} from "./Answers.sol";

/// @title The bench
/// @notice How cases end, and who is owed what then. See IChallengeManager.
abstract contract Bench is Answers {
    using SafeERC20 for IArenaToken;

    struct Appeal {
        address appellant;
        Verdict against;
    }

    /// @dev `first` is the lowest id of an upheld case against a trainer in a task; `pot` what it will be awarded.
    struct Conviction {
        CaseId first;
        uint256 pot;
    }

    IRewardEscrow public immutable escrow;

    /// @inheritdoc IChallengeManager
    mapping(address account => uint256) public credit;

    mapping(CaseId => Appeal[]) private _appeals;
    mapping(TaskId => mapping(address trainer => Conviction)) private _convictions;

    constructor(IRewardEscrow escrow_) {
        escrow = escrow_;
    }

    /* DECIDED BY CODE */

    /// @inheritdoc IChallengeManager
    function proveDiscontinuity(CaseId caseId, Opening calldata a, Opening calldata b) external nonReentrant {
        caseRules.requireDiscontinuity(_drawn(caseId).runId, a, b);
        _uphold(caseId, "proveDiscontinuity");
    }

    /// @inheritdoc IChallengeManager
    function proveBadBounds(CaseId caseId, Opening calldata opening, uint64 position) external nonReentrant {
        caseRules.requireBadBounds(_drawn(caseId).runId, opening, position);
        _uphold(caseId, "proveBadBounds");
    }

    /// @inheritdoc IChallengeManager
    function proveWrongStart(
        CaseId caseId,
        Opening calldata first,
        BlockOpening calldata mine,
        BlockOpening calldata base,
        bytes calldata block_
    ) external nonReentrant {
        caseRules.requireWrongStart(_drawn(caseId).runId, first, mine, base, block_);
        _uphold(caseId, "proveWrongStart");
    }

    /// @inheritdoc IChallengeManager
    function proveStep(CaseId caseId, Opening calldata opening, bytes calldata proof) external nonReentrant {
        caseRules.requireRefuted(_drawn(caseId).runId, opening, proof);
        _uphold(caseId, "proveStep");
    }

    /// @dev The case, once its segments are drawn and until it is settled, whatever its windows say.
    function _drawn(CaseId caseId) private view returns (Case storage case_) {
        case_ = _known(caseId);
        Stage stage = case_.stage;
        if (stage < Stage.Drawn || stage == Stage.Settled) revert WrongStage(stage);
    }

    function _uphold(CaseId caseId, bytes32 what) private {
        Case storage case_ = _known(caseId);
        emit WrongProven(caseId, what);
        _close(caseId, case_, _court(case_), Verdict.Upheld);
    }

    /* APPEAL */

    /// @inheritdoc IChallengeManager
    function appeal(CaseId caseId) external nonReentrant {
        Case storage case_ = _in(caseId, Stage.Voting);
        Court memory court = _court(case_);
        if (case_.level == court.appeals) revert NoAppeal();
        Schedule.requireWithin(case_.revealBy, uint256(case_.revealBy) + court.appealWindow);

        Verdict against = _votedVerdict(caseId, case_, court);
        _appeals[caseId].push(Appeal(msg.sender, against));
        uint256 bond = uint256(court.bond) << ++case_.level;
        emit CaseAppealed(caseId, msg.sender, case_.level, against, bond);
        _openLevel(caseId, case_, court);

        token.safeTransferFrom(msg.sender, address(this), bond);
    }

    /* SETTLEMENT */

    /// @inheritdoc IChallengeManager
    function settle(CaseId caseId) external nonReentrant {
        Case storage case_ = _known(caseId);
        if (case_.stage == Stage.Settled) revert WrongStage(case_.stage);
        Court memory court = _court(case_);
        uint256 from = _settleFrom(case_, court);
        if (block.timestamp < from) revert TooEarly(from);
        _close(caseId, case_, court, _judge(caseId, case_, court));
    }

    /// @dev The end of the last window of the stage.
    function _settleFrom(Case storage case_, Court memory court) private view returns (uint256) {
        if (case_.stage != Stage.Voting) return case_.deadline;
        return case_.level == court.appeals ? case_.revealBy : uint256(case_.revealBy) + court.appealWindow;
    }

    function _judge(CaseId caseId, Case storage case_, Court memory court) private view returns (Verdict) {
        Stage stage = case_.stage;
        if (stage == Stage.Voting) return _votedVerdict(caseId, case_, court);
        if (stage < Stage.Drawn) return Verdict.Lapsed;
        bool proofless = case_.charge.ground == Ground.Watermark && !case_.leavesOpened;
        return proofless ? Verdict.Rejected : Verdict.Upheld; // what was drawn, or asked for again, was not served
    }

    function _close(CaseId caseId, Case storage case_, Court memory court, Verdict verdict) private {
        if (case_.stage != Stage.Sealed) --pendingCases[case_.taskId][case_.charge.trainer];
        bool undecided = verdict == Verdict.Inconclusive;
        uint256 toTrainer = undecided || verdict == Verdict.Rejected ? _openingCosts(caseId, case_, court) : 0;
        case_.verdict = verdict;
        case_.stage = Stage.Settled;

        uint256 toChallenger = undecided || verdict == Verdict.Upheld ? court.bond - toTrainer : 0;
        uint256 burned = court.bond - toChallenger - toTrainer;
        credit[case_.challenger] += toChallenger;
        credit[case_.charge.trainer] += toTrainer;
        emit CaseSettled(caseId, verdict, toChallenger, toTrainer, burned);
        burned += _closeAppeals(caseId, court.bond, verdict);

        token.burn(burned);
        if (verdict == Verdict.Upheld) _convict(caseId, case_.taskId, case_.charge.trainer);
    }

    /// @dev What the answer cost the trainer; never more than the bond, which covers the task's sample and names.
    function _openingCosts(CaseId caseId, Case storage case_, Court memory court) private view returns (uint256) {
        return case_.answered ? court.openingCost * segmentsToOpen(caseId).length : 0;
    }

    function _closeAppeals(CaseId caseId, uint256 bond, Verdict verdict) private returns (uint256 burned) {
        Appeal[] storage appeals = _appeals[caseId];
        for (uint256 k; k < appeals.length; ++k) {
            bond *= 2;
            Appeal memory appeal_ = appeals[k];
            bool right = appeal_.against != verdict;
            if (right) credit[appeal_.appellant] += bond;
            else burned += bond;
            emit AppealSettled(caseId, appeal_.appellant, right ? bond : 0, right ? 0 : bond);
        }
    }

    /// @dev The first conviction to be settled slashes and brings the reward here; the first sealed will be paid it.
    function _convict(CaseId caseId, TaskId taskId, address trainer) private {
        Conviction storage conviction = _convictions[taskId][trainer];
        uint256 first = CaseId.unwrap(conviction.first);
        if (first == 0 || CaseId.unwrap(caseId) < first) conviction.first = caseId;
        if (first != 0) return;
        vault.slash(taskId, trainer);
        conviction.pot = escrow.redirect(taskId, trainer);
    }

    /* CREDIT */

    /// @inheritdoc IChallengeManager
    function award(TaskId taskId, address trainer) external nonReentrant {
        Phase have = arena.phase(taskId);
        if (have != Phase.Closed) revert WrongPhase(have, Phase.Closed);
        if (pendingCases[taskId][trainer] != 0) revert CasePending(trainer);
        Conviction storage conviction = _convictions[taskId][trainer];
        uint256 amount = conviction.pot;
        if (amount == 0) revert NothingToPay(trainer);

        conviction.pot = 0;
        credit[_known(conviction.first).challenger] += amount;
        emit Awarded(taskId, trainer, conviction.first, amount);
    }

    /// @inheritdoc IChallengeManager
    function withdrawCredit() external nonReentrant {
        uint256 amount = credit[msg.sender];
        if (amount == 0) revert NothingToPay(msg.sender);

        credit[msg.sender] = 0;
        emit CreditWithdrawn(msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }
}
