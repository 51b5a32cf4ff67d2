// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {Case, IChallengeManager} from "./interfaces/IChallengeManager.sol";
import {IRewardEscrow} from "./interfaces/IRewardEscrow.sol";
import {IStakeVault, Stake} from "./interfaces/IStakeVault.sol";
import {TaskConfig} from "./interfaces/ITasks.sol";
import {Beacons} from "./libraries/Beacons.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Schedule} from "./libraries/Schedule.sol";
import {Opening} from "./libraries/Transcript.sol";
import {NotAllowed, NotTrainer, NotValidator, NothingToPay, TooEarly, TooLate, WrongPhase} from "./types/Errors.sol";
import {Beacon, CaseId, Phase, Role, TaskId, Verdict} from "./types/Types.sol";

/// @title Challenge manager
/// @notice See IChallengeManager.
contract ChallengeManager is IChallengeManager, ReentrancyGuardTransient {
    using Beacons for Beacon;
    using SafeERC20 for IArenaToken;

    struct Vote {
        bytes32 commitment;
        bool revealed;
    }

    /// @dev The last round: whoever stands in it may be challenged for any submission of the task.
    uint256 private constant ANY_ROUND = Schedule.FINAL_ROUND;

    IArenaToken public immutable token;
    IArena public immutable arena;
    IStakeVault public immutable vault;
    IRewardEscrow public immutable escrow;

    /// @inheritdoc IChallengeManager
    uint256 public caseCount;
    /// @inheritdoc IChallengeManager
    mapping(TaskId => mapping(address trainer => uint256)) public pendingCases;
    /// @inheritdoc IChallengeManager
    mapping(address account => uint256) public credit;

    mapping(CaseId => Case) private _cases;
    mapping(CaseId => mapping(address juror => Vote)) private _votes;
    mapping(CaseId => mapping(bytes32 reproduction => uint256)) private _reproductions;

    constructor(IArenaToken token_, IArena arena_, IStakeVault vault_, IRewardEscrow escrow_) {
        token = token_;
        arena = arena_;
        vault = vault_;
        escrow = escrow_;
    }

    /* OPENING */

    /// @inheritdoc IChallengeManager
    function openCase(TaskId taskId, address trainer, bytes32 evidenceDigest)
        external
        nonReentrant
        returns (CaseId caseId)
    {
        TaskConfig memory config = arena.taskConfig(taskId);
        _requireTimeForCase(taskId, config);
        if (vault.role(taskId, msg.sender) != Role.Validator) revert NotValidator(msg.sender);
        if (!arena.standing(taskId, trainer, ANY_ROUND)) revert NotStanding(trainer);
        if (escrow.forfeited(taskId, trainer)) revert NothingAtStake(trainer);

        caseId = CaseId.wrap(++caseCount);
        Case storage case_ = _cases[caseId];
        case_.taskId = taskId;
        case_.trainer = trainer;
        case_.challenger = msg.sender;
        case_.evidenceDigest = evidenceDigest;
        case_.latchBy = uint64(block.timestamp + config.answerWindow);
        case_.verdict = Verdict.Pending;
        uint64 seedBlock = case_.seed.request();
        ++pendingCases[taskId][trainer];
        emit CaseOpened(caseId, taskId, trainer, msg.sender, evidenceDigest, seedBlock);

        token.safeTransferFrom(msg.sender, address(this), config.challengeBond);
    }

    /// @dev The challenging phase, and every window of a case opened now ends by its end.
    function _requireTimeForCase(TaskId taskId, TaskConfig memory config) private view {
        Phase have = arena.phase(taskId);
        if (have != Phase.Challenging) revert WrongPhase(have, Phase.Challenging);
        uint256 longest = 2 * uint256(config.answerWindow) + 2 * uint256(config.voteWindow);
        uint256 last = arena.phaseTimes(taskId).closedFrom - longest;
        if (block.timestamp > last) revert TooLate(last + 1);
    }

    /// @inheritdoc IChallengeManager
    function latchSeed(CaseId caseId) external {
        Case storage case_ = _pending(caseId);
        if (block.timestamp >= case_.latchBy) revert TooLate(case_.latchBy);
        if (case_.seed.expired()) {
            emit SeedRequested(caseId, case_.seed.request());
            return;
        }
        bytes32 beacon = case_.seed.latch();
        case_.answerBy = uint64(block.timestamp + arena.taskConfig(case_.taskId).answerWindow);
        emit SeedLatched(caseId, beacon, case_.answerBy);
    }

    /* ANSWER */

    /// @inheritdoc IChallengeManager
    function respond(CaseId caseId, Opening[] calldata openings, string calldata bundleCid) external {
        Case storage case_ = _pending(caseId);
        if (msg.sender != case_.trainer) revert NotTrainer(msg.sender);
        if (case_.commitBy != 0) revert AlreadyAnswered();
        uint64[] memory drawn = sampledSegments(caseId);
        if (block.timestamp >= case_.answerBy) revert TooLate(case_.answerBy);
        if (openings.length != drawn.length) revert WrongOpeningCount(openings.length, drawn.length);
        for (uint256 k; k < drawn.length; ++k) {
            if (openings[k].segment.index != drawn[k] || !_verifies(case_, openings[k])) revert BadOpening(k);
        }

        uint256 voteWindow = arena.taskConfig(case_.taskId).voteWindow;
        case_.commitBy = uint64(block.timestamp + voteWindow);
        case_.revealBy = uint64(block.timestamp + 2 * voteWindow);
        emit CaseAnswered(caseId, bundleCid, case_.commitBy, case_.revealBy);
    }

    /// @inheritdoc IChallengeManager
    function proveDiscontinuity(CaseId caseId, Opening calldata a, Opening calldata b) external nonReentrant {
        Case storage case_ = _pending(caseId);
        if (!_verifies(case_, a)) revert BadOpening(0);
        if (b.segment.index != a.segment.index + 1 || !_verifies(case_, b)) revert BadOpening(1);
        if (a.segment.endDigest == b.segment.startDigest) revert NoDiscontinuity();

        emit DiscontinuityProven(caseId, b.segment.index);
        _close(caseId, case_, Verdict.Upheld);
    }

    function _verifies(Case storage case_, Opening calldata opening) private view returns (bool) {
        return arena.verifyOpening(case_.taskId, case_.trainer, opening);
    }

    /* VOTE */

    /// @inheritdoc IChallengeManager
    function commitVote(CaseId caseId, bytes32 commitment) external {
        Case storage case_ = _answered(caseId);
        if (block.timestamp >= case_.commitBy) revert TooLate(case_.commitBy);
        if (msg.sender == case_.challenger) revert NotAllowed(msg.sender);
        if (vault.role(case_.taskId, msg.sender) != Role.Validator) revert NotValidator(msg.sender);
        Vote storage vote = _votes[caseId][msg.sender];
        if (vote.commitment != 0) revert VoteAlreadyCommitted();

        vote.commitment = commitment;
        emit VoteCommitted(caseId, msg.sender, commitment);
    }

    /// @inheritdoc IChallengeManager
    function revealVote(CaseId caseId, bool uphold, bytes32 reproduction, bytes32 salt) external {
        Case storage case_ = _answered(caseId);
        Schedule.requireWithin(case_.commitBy, case_.revealBy);
        Vote storage vote = _votes[caseId][msg.sender];
        if (vote.commitment == 0) revert VoteNotCommitted();
        if (vote.revealed) revert VoteAlreadyRevealed();
        bytes32 commitment = Commitments.vote(caseId, msg.sender, uphold, reproduction, salt);
        if (commitment != vote.commitment) revert BadVoteReveal();

        vote.revealed = true;
        uint256 weight = vault.ownStake(case_.taskId, msg.sender);
        if (uphold) _countUphold(caseId, case_, reproduction, uint128(weight));
        else case_.rejectWeight += uint128(weight);
        emit VoteRevealed(caseId, msg.sender, uphold, reproduction, weight);
    }

    function _countUphold(CaseId caseId, Case storage case_, bytes32 reproduction, uint128 weight) private {
        case_.upholdWeight += weight;
        if (reproduction != 0 && ++_reproductions[caseId][reproduction] == 2) case_.reproduced = true;
    }

    /* SETTLEMENT */

    /// @inheritdoc IChallengeManager
    function settle(CaseId caseId) external nonReentrant {
        Case storage case_ = _pending(caseId);
        uint256 from = _settleFrom(case_);
        if (block.timestamp < from) revert TooEarly(from);
        _close(caseId, case_, _judge(case_));
    }

    /// @dev The end of the window the case is in.
    function _settleFrom(Case storage case_) private view returns (uint256) {
        if (case_.answerBy == 0) return case_.latchBy;
        return case_.revealBy == 0 ? case_.answerBy : case_.revealBy;
    }

    function _judge(Case storage case_) private view returns (Verdict) {
        if (case_.answerBy == 0) return Verdict.Lapsed;
        if (case_.revealBy == 0) return Verdict.Upheld;
        (uint256 uphold, uint256 reject) = (case_.upholdWeight, case_.rejectWeight);
        uint256 revealed = uphold + reject;
        if (2 * revealed < _jurorWeight(case_)) return Verdict.Inconclusive;
        if (case_.reproduced && 3 * uphold >= 2 * revealed) return Verdict.Upheld;
        return 2 * reject > revealed ? Verdict.Rejected : Verdict.Inconclusive;
    }

    /// @dev Own stake of all validators but the challenger.
    function _jurorWeight(Case storage case_) private view returns (uint256 sum) {
        Stake[] memory validators = vault.stakes(case_.taskId, Role.Validator);
        for (uint256 j; j < validators.length; ++j) {
            if (validators[j].operator != case_.challenger) sum += validators[j].own;
        }
    }

    function _close(CaseId caseId, Case storage case_, Verdict verdict) private {
        TaskConfig memory config = arena.taskConfig(case_.taskId);
        case_.verdict = verdict;
        --pendingCases[case_.taskId][case_.trainer];

        uint256 bond = config.challengeBond;
        uint256 toChallenger = verdict == Verdict.Upheld || verdict == Verdict.Inconclusive ? bond : 0;
        uint256 toTrainer = verdict == Verdict.Rejected ? _openingCosts(case_, config) : 0;
        uint256 burned = bond - toChallenger - toTrainer;
        if (verdict == Verdict.Upheld) toChallenger += _convict(case_.taskId, case_.trainer);
        credit[case_.challenger] += toChallenger;
        credit[case_.trainer] += toTrainer;
        emit CaseSettled(caseId, verdict, toChallenger, toTrainer, burned);

        token.burn(burned);
    }

    /// @dev What the answer cost the trainer; never more than the bond, which covers the task's sample.
    function _openingCosts(Case storage case_, TaskConfig memory config) private view returns (uint256) {
        (uint256 sampled,) = _sample(case_, config);
        return config.openingCost * sampled;
    }

    /// @dev Burns the slashable stake and brings the forfeited reward here; nothing if another case did so before.
    function _convict(TaskId taskId, address trainer) private returns (uint256 redirected) {
        if (escrow.forfeited(taskId, trainer)) return 0;
        vault.slash(taskId, trainer);
        return escrow.redirect(taskId, trainer);
    }

    /// @inheritdoc IChallengeManager
    function withdrawCredit() external nonReentrant {
        uint256 amount = credit[msg.sender];
        if (amount == 0) revert NothingToPay(msg.sender);

        credit[msg.sender] = 0;
        emit CreditWithdrawn(msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }

    /* VIEWS */

    /// @inheritdoc IChallengeManager
    function caseOf(CaseId caseId) external view returns (Case memory) {
        return _known(caseId);
    }

    /// @inheritdoc IChallengeManager
    function sampledSegments(CaseId caseId) public view returns (uint64[] memory) {
        Case storage case_ = _known(caseId);
        bytes32 beacon = case_.seed.value;
        if (beacon == 0) revert SeedNotLatched();
        (uint256 sampled, uint256 segments) = _sample(case_, arena.taskConfig(case_.taskId));
        return Commitments.draws(caseId, beacon, sampled, segments);
    }

    /// @inheritdoc IChallengeManager
    function voteCommitment(CaseId caseId, address juror) external view returns (bytes32) {
        return _votes[caseId][juror].commitment;
    }

    /// @dev How many segments a case opens, of how many: a run that ended early may have fewer than the task samples.
    function _sample(Case storage case_, TaskConfig memory config)
        private
        view
        returns (uint256 sampled, uint256 segments)
    {
        segments = arena.runSegments(case_.taskId, case_.trainer);
        sampled = Math.min(config.sampledSegments, segments);
    }

    function _known(CaseId caseId) private view returns (Case storage case_) {
        case_ = _cases[caseId];
        if (case_.verdict == Verdict.None) revert UnknownCase(caseId);
    }

    function _pending(CaseId caseId) private view returns (Case storage case_) {
        case_ = _known(caseId);
        if (case_.verdict != Verdict.Pending) revert CaseSettledAlready(case_.verdict);
    }

    function _answered(CaseId caseId) private view returns (Case storage case_) {
        case_ = _pending(caseId);
        if (case_.commitBy == 0) revert NotAnswered();
    }
}
