// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Case} from "../../src/interfaces/IChallengeManager.sol";
import {Run} from "../../src/interfaces/IRuns.sol";
import {PhaseTimes, RoundTimes} from "../../src/interfaces/ITasks.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {CaseId, Phase, Role, Verdict} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev Random lives of one task. `act` does what the phase allows, `elapse` moves time to the next deadline (or just
/// short of it), `meddle` tries what must never work. What must not happen and did is noted in `violation`.
contract Handler is StoryTest {
    bytes32 private constant SAME = keccak256("same");
    bytes32 private constant OTHER = keccak256("other");

    string public violation;
    uint256 public vaultIn;
    uint256 public vaultOut;
    uint256 public reclaimed;
    Phase public lastPhase;
    mapping(address operator => uint256) public paidFor;
    mapping(address operator => mapping(address delegator => uint256)) public lent;

    address[] internal people;
    uint16[][] private _rows;
    mapping(CaseId => mapping(address juror => uint256)) private _ballots;

    function setUp() public override {
        super.setUp();
        people = [creator, alice, bob, mallory, vera, victor, viola, vance, dora, dan, stranger, deployer];
        vaultIn = token.balanceOf(address(vault));
        (lent[alice][dora], lent[alice][dan], lent[vera][dan]) = (300e18, 100e18, 200e18);
        segmentsOf[mallory][6].startDigest = keccak256("a broken join");
    }

    /// @dev Straight to the challenging phase, so that a random life has time for disputes. The last round is left to be
    /// settled before, between or after them.
    function skipToChallenging() external {
        stopAfter[bob] = 2; // fewer than a case samples
        _playToFinalScores();
        _warpTo(Phase.Challenging);
    }

    /// @dev The segments a trainer's run has when it is whole, to this handler's knowledge.
    function endOf(address trainer) external view returns (uint64) {
        return _endOf(trainer);
    }

    function everybody() external view returns (address[] memory) {
        return people;
    }

    function _draw(uint256 seed, string memory what, uint256 limit) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what))) % limit;
    }

    function _pick(address[] storage list, uint256 seed) private view returns (address) {
        return list[_draw(seed, "who", list.length)];
    }

    function _check(bool holds, string memory what) private {
        if (!holds) violation = what;
    }

    /* TIME */

    function elapse(uint256 seed) external {
        uint256 next = _nextDeadline();
        uint256 early = _draw(seed, "early", 5) == 0 ? 1 : 0;
        if (next != type(uint256).max && next - early > block.timestamp) vm.warp(next - early);
        else vm.warp(block.timestamp + 1);
        _mine(_draw(seed, "late", 12) == 0 ? 300 : 3);
        Phase now_ = arena.phase(taskId);
        _check(now_ >= lastPhase, "the phase went back");
        lastPhase = now_;
    }

    function _nextDeadline() private view returns (uint256 next) {
        next = type(uint256).max;
        PhaseTimes memory phases = _phases();
        next = _sooner(_sooner(next, phases.submissionFrom), phases.finalFrom);
        next = _sooner(_sooner(next, phases.challengeFrom), phases.closedFrom);
        for (uint256 round = 1; round <= 3; ++round) {
            RoundTimes memory times = _times(round);
            next = _sooner(_sooner(next, times.opensAt), times.scoresFrom);
            next = _sooner(_sooner(next, times.revealFrom), times.settleFrom);
        }
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            next = _sooner(_sooner(next, case_.latchBy), case_.answerBy);
            next = _sooner(_sooner(next, case_.commitBy), case_.revealBy);
        }
    }

    function _sooner(uint256 next, uint256 time) private view returns (uint256) {
        return time > block.timestamp && time < next ? time : next;
    }

    /* WHAT THE PHASE ALLOWS */

    function act(uint256 seed) external {
        Phase now_ = arena.phase(taskId);
        if (now_ == Phase.Registration) _lend(seed);
        else if (now_ == Phase.Closed) _depart(seed);
        else if (now_ == Phase.Challenging && _draw(seed, "case", 8) != 0) _dispute(seed);
        else _compete(seed);
    }

    function _lend(uint256 seed) private {
        address operator = _pick(_draw(seed, "role", 2) == 0 ? trainers : validators, seed);
        address delegator = _draw(seed, "delegator", 2) == 0 ? dora : dan;
        uint128 amount = uint128(1 + _draw(seed, "amount", 500e18));
        _delegate(delegator, operator, amount);
        lent[operator][delegator] += amount;
        vaultIn += amount;
    }

    /// @dev Tries each step of the submission and final phases; the ones out of their window do nothing.
    function _compete(uint256 seed) private {
        address trainer = _pick(trainers, seed);
        try this.trainAndCommit(trainer, seed) {} catch {}
        try this.revealModel(trainer) {} catch {}
        for (uint256 round = 1; round <= 3; ++round) {
            try this.score(round, seed) {} catch {}
            if (_draw(seed, "settle", 3) != 0) try arena.settleRound(taskId, round) {} catch {}
        }
        if (_draw(seed, "final", 4) != 0) {
            vm.prank(creator);
            try arena.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "") {} catch {}
        }
    }

    /// @dev Half of the runs end early, after any number of segments.
    function trainAndCommit(address trainer, uint256 seed) external {
        if (_draw(seed, "stops", 2) == 0) stopAfter[trainer] = uint64(1 + _draw(seed, "segments", SEGMENTS - 1));
        _train(trainer);
        _commitModel(trainer, _model(trainer));
    }

    function revealModel(address trainer) external {
        _revealModel(trainer, _model(trainer));
    }

    /// @dev In the commit window three validators in four commit; in the reveal window they reveal.
    function score(uint256 round, uint256 seed) external {
        bool commits = block.timestamp < _times(round).revealFrom;
        for (uint256 j; j < validators.length; ++j) {
            if (commits && _draw(seed, validators[j] == vera ? "v0" : vm.toString(j), 4) == 0) continue;
            uint16[] memory row = _scoresFor(round, j);
            if (commits) _commitScores(validators[j], round, row);
            else if (arena.scoresCommitment(taskId, round, validators[j]) != 0) _revealScores(validators[j], round, row);
        }
    }

    function _scoresFor(uint256 round, uint256 j) private view returns (uint16[] memory row) {
        row = new uint16[](3);
        for (uint256 i; i < 3; ++i) {
            if (arena.standing(taskId, trainers[i], round)) {
                row[i] = uint16(_draw(round * 64 + j * 8 + i, "score", 10_001));
            }
        }
    }

    /* CASES */

    function _dispute(uint256 seed) private {
        uint256 count = manager.caseCount();
        for (uint256 k = 1; k <= count; ++k) {
            try this.advance(CaseId.wrap(k), seed) {} catch {}
        }
        if (count < 6 && _draw(seed, "open", 2) == 0) _openCase(_pick(validators, seed), _pick(trainers, seed >> 1));
    }

    /// @dev Whatever can be done about one case now, by parties whose habits follow from its number.
    function advance(CaseId caseId, uint256 seed) external {
        uint256 habit = uint256(keccak256(abi.encode(CaseId.unwrap(caseId), arena.run(taskId, alice).beacon.value))) % 6;
        if (manager.caseOf(caseId).answerBy == 0) _latchOrWait(caseId, habit);
        Case memory case_ = manager.caseOf(caseId);
        if (case_.answerBy != 0 && case_.commitBy == 0) _answerOrNot(caseId, case_, habit);
        case_ = manager.caseOf(caseId);
        if (block.timestamp < case_.commitBy) _castVotes(caseId, case_, habit, seed);
        else if (case_.commitBy != 0) _countVotes(caseId);
        try manager.settle(caseId) {} catch {}
    }

    function _latchOrWait(CaseId caseId, uint256 habit) private {
        if (habit == 0) return; // lapses, if nobody else cares
        _mine(3);
        try manager.latchSeed(caseId) {} catch {}
    }

    function _answerOrNot(CaseId caseId, Case memory case_, uint256 habit) private {
        if (case_.trainer == mallory && habit == 1) {
            manager.proveDiscontinuity(caseId, _opening(mallory, 5), _opening(mallory, 6));
        } else if (habit != 2) {
            Opening[] memory openings = _drawnOpenings(caseId, case_.trainer);
            vm.prank(case_.trainer);
            try manager.respond(caseId, openings, "") {} catch {}
        }
    }

    /// @dev Ballots: 1 uphold with SAME, 2 uphold with OTHER, 3 uphold with none, 4 reject.
    function _castVotes(CaseId caseId, Case memory case_, uint256 habit, uint256 seed) private {
        for (uint256 j; j < validators.length; ++j) {
            address juror = validators[j];
            if (juror == case_.challenger || _ballots[caseId][juror] != 0) continue;
            bool swims = _draw(seed, vm.toString(juror), 4) != 0; // three in four follow the jury's mood
            uint256 ballot = swims ? (habit % 2 == 1 ? 1 : 4) : 1 + _draw(seed, vm.toString(j), 4);
            _ballots[caseId][juror] = ballot;
            _commitVote(caseId, juror, ballot != 4, _reproduction(ballot));
        }
    }

    function _countVotes(CaseId caseId) private {
        for (uint256 j; j < validators.length; ++j) {
            uint256 ballot = _ballots[caseId][validators[j]];
            if (ballot == 0) continue;
            vm.prank(validators[j]);
            try manager.revealVote(caseId, ballot != 4, _reproduction(ballot), SALT) {} catch {}
        }
    }

    function _reproduction(uint256 ballot) private pure returns (bytes32) {
        return ballot == 1 ? SAME : ballot == 2 ? OTHER : bytes32(0);
    }

    /* LEAVING */

    function _depart(uint256 seed) private {
        uint256 count = manager.caseCount();
        if (count != 0) try manager.settle(CaseId.wrap(1 + _draw(seed, "which", count))) {} catch {}
        takeAll(_pick(people, seed));
    }

    /// @dev Everything one account can take out; what is not (yet) due reverts inside and is skipped.
    function takeAll(address who) public {
        _takeStake(who);
        _takeReward(who);
        for (uint256 i; i < trainers.length; ++i) {
            _takeDelegation(who, trainers[i]);
        }
        for (uint256 j; j < validators.length; ++j) {
            _takeDelegation(who, validators[j]);
        }
        vm.prank(who);
        try manager.withdrawCredit() {} catch {}
        uint256 before = token.balanceOf(who);
        vm.prank(who);
        try escrow.reclaim(taskId) {
            reclaimed += token.balanceOf(who) - before;
            _check(who == creator, "a stranger reclaimed");
        } catch {}
    }

    function _takeStake(address who) private {
        uint256 before = token.balanceOf(who);
        vm.prank(who);
        try vault.withdraw(taskId) {
            vaultOut += token.balanceOf(who) - before;
            _check(_isDue(who), "stake left before its time");
        } catch {}
    }

    function _takeReward(address who) private {
        uint256 due = escrow.claimable(taskId, who);
        uint256 before = token.balanceOf(who);
        vm.prank(who);
        try escrow.claim(taskId) {
            paidFor[who] += token.balanceOf(who) - before;
            _check(token.balanceOf(who) - before == due, "view and action disagree");
            _check(_isDue(who), "a reward left before its time");
        } catch {
            _check(due == 0, "a due reward was refused");
        }
    }

    function _takeDelegation(address who, address operator) private {
        uint256 before = token.balanceOf(who);
        vm.prank(who);
        try vault.undelegate(taskId, operator) {
            vaultOut += token.balanceOf(who) - before;
            _check(token.balanceOf(who) - before == lent[operator][who], "not the delegator's own");
        } catch {}
        uint256 due = escrow.claimableDelegated(taskId, operator, who);
        before = token.balanceOf(who);
        vm.prank(who);
        try escrow.claimDelegated(taskId, operator) {
            paidFor[operator] += token.balanceOf(who) - before;
            _check(token.balanceOf(who) - before == due, "view and action disagree");
            _check(_isDue(operator), "a reward left before its time");
        } catch {
            _check(due == 0, "a due reward was refused");
        }
    }

    /// @dev Independent of the contracts' own idea: closed by the clock, and no case against the account is open.
    function _isDue(address operator) private view returns (bool) {
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            if (case_.trainer == operator && case_.verdict == Verdict.Pending) return false;
        }
        return block.timestamp >= _phases().closedFrom;
    }

    /* WHAT MUST NEVER WORK */

    function meddle(uint256 seed) external {
        address who = _pick(people, seed);
        address victim = trainers[_draw(seed, "victim", 3)];
        _refused(who, address(vault), abi.encodeCall(vault.slash, (taskId, victim)));
        _refused(who, address(escrow), abi.encodeCall(escrow.redirect, (taskId, victim)));
        _refused(who, address(escrow), abi.encodeCall(escrow.allocate, (taskId, who, 1e18)));
        _refused(who, address(escrow), abi.encodeCall(escrow.fund, (taskId, 1e18)));
        _refused(stranger, address(vault), abi.encodeCall(vault.undelegate, (taskId, victim)));
        _refused(stranger, address(vault), abi.encodeCall(vault.withdraw, (taskId)));
        _refused(stranger, address(escrow), abi.encodeCall(escrow.claimDelegated, (taskId, victim)));
        _refused(stranger, address(manager), abi.encodeCall(manager.openCase, (taskId, victim, SAME)));
        _refused(stranger, address(arena), abi.encodeCall(arena.declareStop, (taskId, 1)));
        Run memory run = arena.run(taskId, victim);
        if (run.commitOrder != 0) {
            _refused(victim, address(arena), abi.encodeCall(arena.anchor, (taskId, run.anchored, 1, SAME)));
            _refused(victim, address(arena), abi.encodeCall(arena.declareStop, (taskId, run.anchored)));
        }
        if (arena.phase(taskId) != Phase.Registration) {
            bytes memory late = abi.encodeCall(vault.stake, (taskId, Role.Trainer, uint128(1_000e18), uint16(0)));
            _refused(stranger, address(vault), late);
            _refused(dora, address(vault), abi.encodeCall(vault.delegate, (taskId, victim, 1e18)));
        }
        if (arena.phase(taskId) != Phase.Closed) takeAll(who); // nothing is due yet: _isDue notes what leaves
    }

    function _refused(address who, address target, bytes memory data) private {
        vm.prank(who);
        (bool succeeded,) = target.call(data);
        _check(!succeeded, "what must never work did");
    }
}
