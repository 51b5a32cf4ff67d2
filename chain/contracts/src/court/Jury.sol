// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Case, IChallengeManager, Stage, Tally} from "../interfaces/IChallengeManager.sol";
import {Court} from "../interfaces/ITasks.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {Terms} from "../libraries/Terms.sol";
import {Beacon, CaseId, Role, TaskId, Verdict} from "../types/Types.sol";
import {Docket} from "./Docket.sol";

/// @title The jury
/// @notice Who sits, what they vote and what it comes to. See IChallengeManager.
/// @dev A sitting is a level, or what follows its second serving; ballots belong to a sitting, the jury to a level.
abstract contract Jury is Docket {
    using Beacons for Beacon;

    struct Ballot {
        bytes32 commitment;
        bool cast; // revealed, or openly "unavailable"
    }

    mapping(CaseId => mapping(uint256 sitting => mapping(address juror => Ballot))) private _ballots;
    mapping(CaseId => mapping(uint256 sitting => mapping(bytes32 reproduction => uint256))) private _reproductions;

    /* SITTINGS */

    /// @dev Begins the first sitting of the case's level, and promises its jury's block.
    function _openLevel(CaseId caseId, Case storage case_, Court memory court) internal {
        delete case_.jury;
        if (case_.level < court.appeals) case_.jury.request();
        _openSitting(caseId, case_, court);
    }

    /// @dev Begins to vote from nothing, with the jury that the level has.
    function _openSitting(CaseId caseId, Case storage case_, Court memory court) internal {
        delete case_.tally;
        uint64 commitBy = _enter(case_, Stage.Voting, court.voteWindow);
        case_.revealBy = commitBy + court.voteWindow;
        emit VotingOpened(caseId, case_.level, commitBy, case_.revealBy, case_.jury.blockNumber);
    }

    /// @dev Distinct for every sitting of a case: a case is served again once.
    function _sitting(Case storage case_) private view returns (uint256) {
        return 2 * uint256(case_.level) + (case_.servedAgain ? 1 : 0);
    }

    /// @inheritdoc IChallengeManager
    function latchJury(CaseId caseId) external {
        Case storage case_ = _at(caseId, Stage.Voting);
        if (case_.jury.expired()) {
            emit JuryRequested(caseId, case_.level, case_.jury.request());
            return;
        }
        bytes32 beacon = case_.jury.latch();
        emit JuryLatched(caseId, case_.level, beacon);
    }

    /* VOTES */

    /// @inheritdoc IChallengeManager
    function commitVote(CaseId caseId, bytes32 commitment) external {
        Case storage case_ = _at(caseId, Stage.Voting);
        _requireWeight(caseId, case_);
        Ballot storage ballot = _freshBallot(caseId, case_);

        ballot.commitment = commitment;
        emit VoteCommitted(caseId, msg.sender, commitment);
    }

    /// @inheritdoc IChallengeManager
    function revealVote(CaseId caseId, bool uphold, bytes32 reproduction, bytes32 salt) external {
        Case storage case_ = _in(caseId, Stage.Voting);
        Schedule.requireWithin(case_.deadline, case_.revealBy);
        Ballot storage ballot = _ballots[caseId][_sitting(case_)][msg.sender];
        if (ballot.commitment == 0) revert VoteNotCommitted();
        if (ballot.cast) revert AlreadyDone();
        bytes32 commitment = Commitments.vote(caseId, msg.sender, uphold, reproduction, salt);
        if (commitment != ballot.commitment) revert BadVoteReveal();

        ballot.cast = true;
        uint256 weight = jurorWeight(caseId, msg.sender);
        if (uphold) _countUphold(caseId, case_, reproduction, uint128(weight));
        else case_.tally.reject += uint128(weight);
        emit VoteRevealed(caseId, msg.sender, uphold, reproduction, weight);
    }

    function _countUphold(CaseId caseId, Case storage case_, bytes32 reproduction, uint128 weight) private {
        case_.tally.uphold += weight;
        if (reproduction == 0) return;
        if (++_reproductions[caseId][_sitting(case_)][reproduction] == 2) case_.tally.reproduced = true;
    }

    /// @inheritdoc IChallengeManager
    function voteUnavailable(CaseId caseId) external {
        Case storage case_ = _at(caseId, Stage.Voting);
        uint256 weight = _requireWeight(caseId, case_);
        Ballot storage ballot = _freshBallot(caseId, case_);
        Court memory court = _court(case_);

        ballot.cast = true;
        case_.tally.unavailable += uint128(weight);
        emit UnavailableVoted(caseId, msg.sender, weight);
        if (!case_.servedAgain && _unavailable(case_.tally, _wholeWeight(caseId, case_, court))) {
            emit ServingAsked(caseId, _enter(case_, Stage.Serving, court.answerWindow));
        }
    }

    function _freshBallot(CaseId caseId, Case storage case_) private view returns (Ballot storage ballot) {
        ballot = _ballots[caseId][_sitting(case_)][msg.sender];
        if (ballot.commitment != 0 || ballot.cast) revert AlreadyDone();
    }

    /// @inheritdoc IChallengeManager
    function voteCommitment(CaseId caseId, address juror) external view returns (bytes32) {
        return _ballots[caseId][_sitting(_known(caseId))][juror].commitment;
    }

    /* WEIGHTS */

    /// @inheritdoc IChallengeManager
    function jurorWeight(CaseId caseId, address account) public view returns (uint256) {
        Case storage case_ = _known(caseId);
        return account == case_.challenger ? 0 : _weightOf(caseId, case_, _court(case_), account);
    }

    function _requireWeight(CaseId caseId, Case storage case_) private view returns (uint256 weight) {
        if (case_.jury.blockNumber != 0 && case_.jury.value == 0) revert JuryNotLatched();
        weight = jurorWeight(caseId, msg.sender);
        if (weight == 0) revert NotJuror(msg.sender);
    }

    /// @dev The challenger's as well, which is not counted.
    function _weightOf(CaseId caseId, Case storage case_, Court memory court, address account)
        private
        view
        returns (uint256)
    {
        TaskId taskId = case_.taskId;
        if (vault.role(taskId, account) != Role.Validator) return 0;
        (uint256 from, uint256 own) = vault.range(taskId, account);
        if (case_.level == court.appeals) return own * court.slashBps / Terms.BPS; // as staked: also once withdrawn
        bytes32 beacon = case_.jury.value;
        if (beacon == 0) return 0;
        (uint256 total,) = vault.totals(taskId, Role.Validator);
        return caseRules.jurorDraws(caseId, case_.level, beacon, _draws(case_.level, court), from, own, total);
    }

    /// @dev Of everybody who may vote, rounded down by less than a wei a validator.
    function _wholeWeight(CaseId caseId, Case storage case_, Court memory court) private view returns (uint256) {
        uint256 whole = _draws(case_.level, court);
        if (case_.level == court.appeals) {
            (uint256 own,) = vault.totals(case_.taskId, Role.Validator);
            whole = own * court.slashBps / Terms.BPS;
        }
        return whole - _weightOf(caseId, case_, court, case_.challenger);
    }

    /// @dev Each jury has one more than twice as many draws as the one below.
    function _draws(uint8 level, Court memory court) private pure returns (uint256) {
        return ((uint256(court.jurors) + 1) << level) - 1;
    }

    /* VERDICT */

    /// @dev What the votes of the present sitting come to.
    function _votedVerdict(CaseId caseId, Case storage case_, Court memory court) internal view returns (Verdict) {
        Tally memory tally = case_.tally;
        uint256 whole = _wholeWeight(caseId, case_, court);
        if (_unavailable(tally, whole)) return Verdict.Upheld;
        uint256 revealed = uint256(tally.uphold) + tally.reject;
        if (2 * revealed < whole) return Verdict.Inconclusive;
        if (tally.reproduced && 3 * uint256(tally.uphold) >= 2 * revealed) return Verdict.Upheld;
        return 2 * uint256(tally.reject) > revealed ? Verdict.Rejected : Verdict.Inconclusive;
    }

    function _unavailable(Tally memory tally, uint256 whole) private pure returns (bool) {
        return tally.unavailable != 0 && 3 * uint256(tally.unavailable) >= 2 * whole;
    }
}
