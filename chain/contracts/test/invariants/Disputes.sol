// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Case, Charge, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {Court} from "../../src/interfaces/ITasks.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {CaseId, Ground, RunId, Verdict} from "../../src/types/Types.sol";
import {Competition} from "./Competition.sol";

/// @dev Random cases: every party has habits that follow from the case's number. Votes are counted here as well, by
/// stake and draws, and what every case should come to is booked from the terms.
abstract contract Disputes is Competition {
    struct Votes {
        uint256 uphold;
        uint256 reject;
        uint256 unavailable;
        uint256 same; // jurors who named SAME
        uint256 other;
    }

    struct Appeal {
        address appellant;
        Verdict against;
    }

    uint256 private constant SAME = 1;
    uint256 private constant OTHER = 2;
    uint256 private constant NONE = 3; // upholds, and names no reproduction
    uint256 private constant REJECT = 4;
    uint256 private constant UNAVAILABLE = 5;

    mapping(CaseId => uint256) private _habits;
    mapping(CaseId => Charge) private _charges;
    mapping(CaseId => mapping(uint256 sitting => Votes)) private _votes;
    mapping(CaseId => mapping(uint256 sitting => mapping(address juror => uint256))) private _ballots;
    mapping(CaseId => Appeal[]) private _appeals;
    mapping(CaseId => bytes32) public seedOf;
    mapping(CaseId => Verdict) public booked;

    function _dispute(uint256 seed) internal {
        uint256 count = manager.caseCount();
        for (uint256 k = 1; k <= count; ++k) {
            _pursue(CaseId.wrap(k), seed);
            if (_draw(seed + k, "settles", 2) == 0) _settleCase(CaseId.wrap(k)); // some wait until the task is closed
        }
        if (count < 6 && _draw(seed, "open", 2) == 0) try this.accuse(seed) {} catch {}
    }

    /// @dev As far as it goes before time must pass.
    function _pursue(CaseId caseId, uint256 seed) private {
        Stage before;
        for (Stage stage = Stage.Sealed; stage != before;) {
            before = manager.caseOf(caseId).stage;
            try this.advance(caseId, seed) {} catch {}
            stage = manager.caseOf(caseId).stage;
        }
    }

    /* THE CHARGE */

    function accuse(uint256 seed) external {
        address challenger = _pick(_draw(seed, "side", 4) == 0 ? trainers : validators, seed);
        Charge memory charge = _charge(_pick(trainers, seed >> 1));
        charge.named = new uint64[](_draw(seed, "names", 3));
        for (uint64 k; k < charge.named.length; ++k) {
            charge.named[k] = k;
        }
        if (_draw(seed, "claims", 2) == 0 && RunId.unwrap(runOf[challenger]) != 0) {
            (charge.ground, charge.claim) = (Ground.Watermark, runOf[challenger]);
        }
        CaseId caseId = _seal(challenger, charge);
        (_charges[caseId], _habits[caseId]) = (charge, _draw(seed, "habit", 10));
    }

    /// @dev Whatever can be done about one case now.
    function advance(CaseId caseId, uint256 seed) external {
        Case memory case_ = manager.caseOf(caseId);
        uint256 habit = _habits[caseId];
        if (case_.stage == Stage.Sealed && habit != 0) _showOrSteal(caseId, case_.challenger, seed);
        else if (case_.stage == Stage.Shown && habit != 1) _latchSeed(caseId);
        else if (case_.stage == Stage.Drawn) _answer(caseId, case_, habit);
        else if (case_.stage == Stage.Voting) _sit(caseId, case_, seed);
        else if (case_.stage == Stage.Serving && habit % 2 == 0) _serveAgain(caseId, case_.charge.trainer);
    }

    function _showOrSteal(CaseId caseId, address challenger, uint256 seed) private {
        address thief = _pick(people, seed);
        if (thief != challenger) {
            vm.prank(thief);
            try manager.showCase(caseId, _charges[caseId], SALT) {
                return _check(false, "I15: another showed the sealed case");
            } catch {}
        }
        _show(caseId, challenger, _charges[caseId]);
    }

    function _latchSeed(CaseId caseId) private {
        _mine(3);
        manager.latchSeed(caseId);
        seedOf[caseId] = manager.caseOf(caseId).seed.value;
    }

    /// @dev Mallory's segments 5 and 6 do not join.
    function _answer(CaseId caseId, Case memory case_, uint256 habit) private {
        if (case_.charge.trainer == mallory && habit % 3 == 0) {
            manager.proveDiscontinuity(caseId, _opening(mallory, 5), _opening(mallory, 6));
            _book(caseId, case_, Verdict.Upheld);
        } else if (habit != 2 && !case_.answered) {
            _respond(caseId, case_.charge.trainer);
        }
    }

    function _serveAgain(CaseId caseId, address trainer) private {
        vm.prank(trainer);
        manager.serveAgain(caseId, "");
    }

    /* THE JURY */

    function _sit(CaseId caseId, Case memory case_, uint256 seed) private {
        if (case_.jury.blockNumber != 0 && case_.jury.value == 0 && block.timestamp < case_.deadline) {
            _mine(3);
            manager.latchJury(caseId);
        }
        for (uint256 j; j < validators.length; ++j) {
            if (block.timestamp < case_.deadline) {
                try this.promiseVote(caseId, validators[j], seed + j) {} catch {}
            } else {
                try this.castVote(caseId, validators[j]) {} catch {}
            }
        }
        if (block.timestamp >= case_.revealBy && _draw(seed, "appeals", 2) == 0) _appealCase(caseId, seed);
    }

    function _sitting(Case memory case_) private pure returns (uint256) {
        return 2 * uint256(case_.level) + (case_.servedAgain ? 1 : 0);
    }

    /// @dev Three in four follow the jury's mood; the sybil saves the thief, and convicts whom she can.
    function promiseVote(CaseId caseId, address juror, uint256 seed) external {
        Case memory case_ = manager.caseOf(caseId);
        uint256 sitting = _sitting(case_);
        uint256 mood = 1 + _draw(uint256(seedOf[caseId]) + sitting, "mood", 5);
        uint256 ballot = _draw(seed, "swims", 4) != 0 ? mood : 1 + _draw(seed, "ballot", 5);
        if (juror == sybil) ballot = case_.charge.trainer == mallory ? REJECT : SAME;
        if (ballot != UNAVAILABLE) {
            _commitVote(caseId, juror, ballot != REJECT, _reproduction(ballot));
        } else {
            uint256 weight = _weightOf(caseId, case_, juror);
            vm.prank(juror);
            manager.voteUnavailable(caseId);
            _votes[caseId][sitting].unavailable += weight;
        }
        require(_ballots[caseId][sitting][juror] == 0, "a second vote");
        _ballots[caseId][sitting][juror] = ballot;
    }

    function castVote(CaseId caseId, address juror) external {
        Case memory case_ = manager.caseOf(caseId);
        uint256 ballot = _ballots[caseId][_sitting(case_)][juror];
        _revealVote(caseId, juror, ballot != REJECT, _reproduction(ballot));
        Votes storage votes = _votes[caseId][_sitting(case_)];
        if (ballot == REJECT) votes.reject += _weightOf(caseId, case_, juror);
        else votes.uphold += _weightOf(caseId, case_, juror);
        if (ballot == SAME) ++votes.same;
        if (ballot == OTHER) ++votes.other;
    }

    function _reproduction(uint256 ballot) private pure returns (bytes32) {
        return ballot == SAME || ballot == OTHER ? keccak256(abi.encode(ballot)) : bytes32(0);
    }

    /// @dev On the last level own stake, what of it can be slashed; below it the draws.
    function _weightOf(CaseId caseId, Case memory case_, address juror) private view returns (uint256) {
        if (juror == case_.challenger) return 0;
        if (case_.level < _court().appeals) return manager.jurorWeight(caseId, juror);
        (, uint256 own) = vault.range(taskId, juror);
        return own * _court().slashBps / 10_000;
    }

    function _appealCase(CaseId caseId, uint256 seed) private {
        Verdict against = _voted(caseId, manager.caseOf(caseId));
        address appellant = _pick(people, seed);
        vm.prank(appellant);
        manager.appeal(caseId);
        _appeals[caseId].push(Appeal(appellant, against));
    }

    /* THE VERDICT, COUNTED AGAIN */

    function _voted(CaseId caseId, Case memory case_) private view returns (Verdict) {
        Votes memory votes = _votes[caseId][_sitting(case_)];
        uint256 whole;
        for (uint256 j; j < validators.length; ++j) {
            whole += _weightOf(caseId, case_, validators[j]);
        }
        if (votes.unavailable != 0 && 3 * votes.unavailable >= 2 * whole) return Verdict.Upheld;
        uint256 revealed = votes.uphold + votes.reject;
        if (2 * revealed < whole) return Verdict.Inconclusive;
        bool reproduced = votes.same > 1 || votes.other > 1;
        if (reproduced && 3 * votes.uphold >= 2 * revealed) return Verdict.Upheld;
        return 2 * votes.reject > revealed ? Verdict.Rejected : Verdict.Inconclusive;
    }

    function _due(CaseId caseId, Case memory case_) private view returns (Verdict) {
        if (case_.stage == Stage.Voting) return _voted(caseId, case_);
        if (case_.stage < Stage.Drawn) return Verdict.Lapsed;
        return case_.charge.ground == Ground.Watermark ? Verdict.Rejected : Verdict.Upheld; // no leaves are opened here
    }

    function _end(Case memory case_) private pure returns (uint256) {
        if (case_.stage != Stage.Voting) return case_.deadline;
        Court memory court = _court();
        return case_.revealBy + (case_.level < court.appeals ? court.appealWindow : 0);
    }

    function _settleCase(CaseId caseId) internal {
        Case memory case_ = manager.caseOf(caseId);
        Verdict due = case_.stage == Stage.Settled ? case_.verdict : _due(caseId, case_);
        try manager.settle(caseId) {
            _check(case_.stage != Stage.Settled, "I19: a case was settled twice");
            _check(block.timestamp >= _end(case_), "I19: a case was settled before its end");
            _check(manager.caseOf(caseId).verdict == due, "jury: another verdict than was voted");
            _book(caseId, case_, due);
        } catch {
            _check(case_.stage == Stage.Settled || block.timestamp < _end(case_), "I19: a case that is over is stuck");
        }
    }

    /// @dev Everybody's cases, by anyone.
    function settleAll() external {
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            _settleCase(CaseId.wrap(k));
        }
    }

    /* WHAT FOLLOWS */

    function _book(CaseId caseId, Case memory case_, Verdict verdict) private {
        Court memory court = _court();
        booked[caseId] = verdict;
        uint256 toTrainer;
        bool paid = verdict == Verdict.Rejected || verdict == Verdict.Inconclusive;
        if (paid && case_.answered) toTrainer = court.openingCost * _opened(case_);
        uint256 toChallenger = verdict == Verdict.Inconclusive ? court.bond - toTrainer : 0;
        if (verdict == Verdict.Upheld) toChallenger = court.bond;
        creditDue[case_.challenger] += toChallenger;
        creditDue[case_.charge.trainer] += toTrainer;
        burned += court.bond - toChallenger - toTrainer;
        for (uint256 k; k < _appeals[caseId].length; ++k) {
            Appeal memory appeal = _appeals[caseId][k];
            if (appeal.against != verdict) creditDue[appeal.appellant] += court.bond << (k + 1);
            else burned += court.bond << (k + 1);
        }
        if (verdict == Verdict.Upheld) _convict(caseId, case_.charge.trainer);
    }

    function _opened(Case memory case_) private view returns (uint256) {
        uint256 segments = _endOf(case_.charge.trainer);
        return case_.charge.named.length + (segments < _court().sampled ? segments : _court().sampled);
    }

    function _convict(CaseId caseId, address trainer) private {
        uint256 first = CaseId.unwrap(firstUpheld[trainer]);
        if (first == 0 || CaseId.unwrap(caseId) < first) firstUpheld[trainer] = caseId;
        if (first != 0) return;
        (, uint256 own) = vault.range(taskId, trainer);
        uint256 reward = escrow.allocated(taskId, trainer);
        uint256 lost = reward * _court().burnBps / 10_000;
        burned += own * _court().slashBps / 10_000 + lost;
        pot[trainer] = reward - lost;
    }

    /// @dev Bonds and appeals' bonds of the cases that are not settled.
    function bondsPending() external view returns (uint256 held) {
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            if (case_.stage == Stage.Settled) continue;
            for (uint256 level; level <= case_.level; ++level) {
                held += _court().bond << level;
            }
        }
    }
}
