// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Case} from "../../src/interfaces/IChallengeManager.sol";
import {Stake} from "../../src/interfaces/IStakeVault.sol";
import {PhaseTimes, RoundTimes} from "../../src/interfaces/ITasks.sol";
import {CaseId, Phase, Role, RunId} from "../../src/types/Types.sol";
import {Disputes} from "./Disputes.sol";

/// @dev Random lives of one task. `act` does what the phase allows, `elapse` moves time to the next deadline (or just
/// short of it), mostly after an act, `meddle` tries what must never work.
contract Handler is Disputes {
    Phase public lastPhase;

    function setUp() public override {
        super.setUp();
        segmentsOf[mallory][6].startDigest = keccak256("a broken join");
    }

    /// @dev Straight to the challenging phase, so that a random life has time for disputes. The last round is left to be
    /// settled before, between or after them.
    function skipToChallenging() external {
        stopAfter[bob] = 2; // fewer than a case samples
        _playToFinalScores();
        _warpTo(Phase.Challenging);
        lastPhase = Phase.Challenging;
    }

    /// @dev The segments a trainer's run has when it is whole, to this handler's knowledge.
    function endOf(address trainer) external view returns (uint64) {
        return _endOf(trainer);
    }

    /* TIME */

    function elapse(uint256 seed) external {
        if (_draw(seed, "awake", 3) != 0) try this.act(seed) {} catch {}
        uint256 next = _nextDeadline();
        uint256 early = _draw(seed, "early", 5) == 0 ? 1 : 0;
        if (next != type(uint256).max && next - early > block.timestamp) vm.warp(next - early);
        else vm.warp(block.timestamp + 1);
        _mine(_draw(seed, "late", 12) == 0 ? 300 : 3);
        Phase now_ = arena.phase(taskId);
        _check(now_ >= lastPhase, "I14: the phase went back");
        lastPhase = now_;
    }

    function _nextDeadline() private view returns (uint256 next) {
        next = type(uint256).max;
        PhaseTimes memory phases = _phases();
        next = _sooner(_sooner(next, phases.submissionFrom), phases.finalFrom);
        next = _sooner(_sooner(next, phases.challengeFrom), phases.closedFrom);
        for (uint16 round = 1; round <= FINAL; ++round) {
            RoundTimes memory times = _times(round);
            next = _sooner(_sooner(next, times.opensAt), times.scoresFrom);
            next = _sooner(_sooner(next, times.revealFrom), times.settleFrom);
        }
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            next = _sooner(_sooner(next, case_.deadline), case_.revealBy);
            if (case_.revealBy != 0) next = _sooner(next, case_.revealBy + _court().appealWindow);
        }
    }

    function _sooner(uint256 next, uint256 time) private view returns (uint256) {
        return time > block.timestamp && time < next ? time : next;
    }

    /* WHAT THE PHASE ALLOWS */

    function act(uint256 seed) external {
        Phase now_ = arena.phase(taskId);
        if (now_ == Phase.Registration) this.lend(seed);
        else if (now_ == Phase.Closed) _depart(seed);
        else if (now_ == Phase.Challenging && _draw(seed, "case", 8) != 0) _dispute(seed);
        else _compete(seed);
    }

    /// @dev Who is accused hurries away before the case is settled.
    function _depart(uint256 seed) private {
        uint256 count = manager.caseCount();
        if (count != 0) {
            CaseId caseId = CaseId.wrap(1 + _draw(seed, "which", count));
            address accused = manager.caseOf(caseId).charge.trainer;
            if (accused != address(0)) takeAll(accused);
            _settleCase(caseId);
        }
        tidy(_pick(trainers, seed));
        takeAll(_pick(people, seed));
    }

    /* WHAT MUST NEVER WORK */

    function meddle(uint256 seed) external {
        address who = _pick(people, seed);
        address victim = _pick(trainers, seed >> 1);
        _grab(who, victim);
        _impersonate(who == victim ? stranger : who, victim);
        if (arena.phase(taskId) != Phase.Registration) {
            bytes memory late = abi.encodeCall(vault.stake, (taskId, Role.Trainer, uint128(1_000e18), uint16(0)));
            _refused(stranger, address(vault), late);
        }
        if (arena.phase(taskId) > Phase.Submission) {
            _refused(dora, address(vault), abi.encodeCall(vault.delegate, (taskId, victim, 1e18)));
        }
        tidy(victim);
        if (arena.phase(taskId) != Phase.Closed) takeAll(who); // nothing is due yet: _isDue notes what leaves
    }

    /// @dev What only the contracts themselves may do, and what belongs to others.
    function _grab(address who, address victim) private {
        Stake[] memory stakes = new Stake[](1);
        (stakes[0].operator, stakes[0].own) = (who, 1e18);
        uint256[] memory amounts = new uint256[](1);
        amounts[0] = 1e18;
        _refused(who, address(vault), abi.encodeCall(vault.slash, (taskId, victim)));
        _refused(who, address(escrow), abi.encodeCall(escrow.redirect, (taskId, victim)));
        _refused(who, address(escrow), abi.encodeCall(escrow.allocate, (taskId, 1, stakes, amounts)));
        _refused(who, address(escrow), abi.encodeCall(escrow.fund, (taskId, 1e18, 1e18)));
        _refused(stranger, address(vault), abi.encodeCall(vault.undelegate, (taskId, victim)));
        _refused(stranger, address(vault), abi.encodeCall(vault.withdraw, (taskId)));
        _refused(stranger, address(escrow), abi.encodeCall(escrow.claimDelegated, (taskId, victim)));
        _refused(stranger, address(manager), abi.encodeCall(manager.sealCase, (taskId, SALT)));
    }

    /// @dev What only a run's trainer, a committed validator or a juror may do.
    function _impersonate(address who, address victim) private {
        RunId runId = runOf[victim];
        _refused(who, address(arena), abi.encodeCall(arena.anchor, (runId, _endOf(victim), 1, SALT)));
        _refused(who, address(arena), abi.encodeCall(arena.declareStop, (runId, 1)));
        _refused(who, address(arena), abi.encodeCall(arena.commitSubmission, (runId, SALT)));
        _refused(who, address(arena), abi.encodeCall(arena.releaseRunBond, (runId)));
        _refused(stranger, address(scoring), abi.encodeCall(scoring.commitScores, (taskId, 1, SALT)));
        _refused(stranger, address(scoring), abi.encodeCall(scoring.openFinalSet, (taskId, FINAL_ROOT, FINAL_SALT, "")));
        uint256 count = manager.caseCount();
        for (uint256 k = 1; k <= count; ++k) {
            _refused(stranger, address(manager), abi.encodeCall(manager.commitVote, (CaseId.wrap(k), SALT)));
            _refused(stranger, address(manager), abi.encodeCall(manager.voteUnavailable, (CaseId.wrap(k))));
            _refused(stranger, address(manager), abi.encodeCall(manager.serveAgain, (CaseId.wrap(k), "")));
        }
    }

    function _refused(address who, address target, bytes memory data) private {
        vm.prank(who);
        (bool succeeded,) = target.call(data);
        _check(!succeeded, "I13: what must never work did");
    }
}
