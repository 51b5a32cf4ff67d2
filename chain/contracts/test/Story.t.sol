// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IScoring} from "../src/interfaces/IScoring.sol";
import {Clock} from "../src/interfaces/ITasks.sol";
import {CaseId, Phase, RunId, Verdict} from "../src/types/Types.sol";
import {StoryTest} from "./StoryTest.sol";

/// @dev The whole story once: a thief is caught, a wrong challenger loses its bond, every wei is accounted for.
contract StoryEndToEndTest is StoryTest {
    bytes32 private constant REPLAY = keccak256("what the jurors' replay gave");

    function test_theThiefIsCaughtAndTheWrongChallengerPays() public {
        _playToChallenging();
        uint256 stolen = escrow.allocated(taskId, mallory);
        uint256 earned = escrow.allocated(taskId, alice);
        assertGt(stolen, 0);

        CaseId against = _openAndLatch(vera, mallory);
        CaseId wrong = _openAndLatch(victor, alice);
        _respond(against, mallory);
        _respond(wrong, alice);
        _vote(against, true, REPLAY, [victor, viola, vance]);
        _vote(wrong, false, 0, [vera, viola, vance]);
        vm.warp(block.timestamp + 6 hours);
        _reveal(against, true, REPLAY, [victor, viola, vance]);
        _reveal(wrong, false, 0, [vera, viola, vance]);
        vm.warp(block.timestamp + 6 hours);
        manager.settle(against);
        manager.settle(wrong);

        assertEq(uint256(manager.caseOf(against).verdict), uint256(Verdict.Upheld));
        assertEq(uint256(manager.caseOf(wrong).verdict), uint256(Verdict.Rejected));
        assertEq(manager.credit(vera), 20e18);
        assertEq(manager.credit(victor), 0);
        assertEq(manager.credit(alice), 6e18);
        assertEq(vault.slashed(taskId, mallory), 1_000e18);

        _warpTo(Phase.Closed);
        manager.award(taskId, mallory);
        assertEq(manager.credit(vera), 20e18 + stolen - stolen / 10);
        arena.voidRun(runOf[mallory]);
        _everybodyLeaves();
        assertEq(token.balanceOf(mallory), 10_000e18 - 1_000e18 - 10e18);
        assertEq(token.balanceOf(victor), 10_000e18 - 20e18 + escrow.allocated(taskId, victor));
        // 80 % of what the delegators' 400 of 1,400 earned is theirs; 3/4 of that is Dora's
        uint256 pool = earned * 8_000 * 400 / (10_000 * 1_400);
        assertApproxEqAbs(token.balanceOf(alice), 10_000e18 + 6e18 + earned - pool, 3);
        assertApproxEqAbs(token.balanceOf(dora), 10_000e18 + pool * 3 / 4, 3);
        assertEq(token.balanceOf(address(arena)), 0);
        assertEq(token.balanceOf(address(vault)), 0);
        assertEq(token.balanceOf(address(manager)), 0);
        assertLe(token.balanceOf(address(escrow)), 8);
        assertEq(token.totalSupply(), SUPPLY - 1_000e18 - 10e18 - stolen / 10 - 14e18);
    }

    function _vote(CaseId caseId, bool uphold, bytes32 reproduction, address[3] memory jurors) private {
        for (uint256 j; j < 3; ++j) {
            _commitVote(caseId, jurors[j], uphold, reproduction);
        }
    }

    function _reveal(CaseId caseId, bool uphold, bytes32 reproduction, address[3] memory jurors) private {
        for (uint256 j; j < 3; ++j) {
            _revealVote(caseId, jurors[j], uphold, reproduction);
        }
    }

    function _everybodyLeaves() private {
        address[8] memory operators = [alice, bob, mallory, vera, victor, viola, vance, stranger];
        for (uint256 i; i < operators.length; ++i) {
            vm.startPrank(operators[i]);
            if (operators[i] != stranger) vault.withdraw(taskId);
            if (escrow.claimable(taskId, operators[i]) != 0) escrow.claim(taskId);
            if (manager.credit(operators[i]) != 0) manager.withdrawCredit();
            vm.stopPrank();
        }
        _runEnds(alice);
        _runEnds(bob);
        _delegatorLeaves(dora, alice);
        _delegatorLeaves(dan, alice);
        _delegatorLeaves(dan, vera);
        vm.prank(creator);
        escrow.reclaim(taskId);
    }

    function _runEnds(address trainer) private {
        vm.prank(trainer);
        arena.releaseRunBond(runOf[trainer]);
    }

    function _delegatorLeaves(address delegator, address operator) private {
        vm.startPrank(delegator);
        vault.undelegate(taskId, operator);
        escrow.claimDelegated(taskId, operator);
        vm.stopPrank();
    }
}

/// @dev A task of five rounds: daily submissions, a second run, delegators who come in between, a creator who is absent.
contract StoryOfManyRoundsTest is StoryTest {
    function _clock() internal view override returns (Clock memory clock) {
        clock = super._clock();
        clock.rounds = 5;
    }

    function test_everyRoundRanksWhatWasSubmittedLast() public {
        _warpTo(Phase.Submission);
        _register(alice);
        _anchorSome(alice);
        _train(bob);
        for (uint16 round = 1; round <= 5; ++round) {
            _playRound(round);
        }
        assertEq(_rank(5, 0), 1, "Alice");
        assertEq(_rank(1, 1), 2, "Bob has stood since round 1");
        assertEq(_rank(5, 1), 2, "and is second to the end");
        assertEq(_rank(2, 2), 0, "Mallory comes in round 3");
        assertEq(_rank(3, 2), 3);

        // nobody opens the final set: round 5's scores rank the final round, and the deposit burns
        vm.warp(_times(6).scoresFrom);
        vm.expectRevert(IScoring.FinalSetNotOpened.selector);
        vm.prank(vera);
        scoring.commitScores(taskId, 6, keccak256("anything"));
        _settleRound(6);
        assertEq(scoring.progress(taskId, 6).scoredRound, 5);
        assertEq(scoring.settledRounds(taskId), 6);
        _warpTo(Phase.Closed);
        assertFalse(scoring.attested(taskId));
        escrow.burnDeposit(taskId);
        assertEq(token.totalSupply(), SUPPLY - 30e18);
        _balancesAddUp();
    }

    /// @dev Alice submits every day from a run that grows, Bob only on the first, Mallory from the third on, from a
    /// second run. Dora lends to Bob in round 2, which counts from round 3.
    function _playRound(uint16 round) private {
        _commitNewModel(alice);
        if (round == 1) _commitNewModel(bob);
        if (round == 2) _delegate(dora, bob, 500e18);
        if (round == 3) _secondRun(mallory);
        if (round >= 3) _commitNewModel(mallory);
        if (round == 4) _anchorRest(alice);
        vm.warp(_times(round).opensAt);
        _revealModel(alice, _model(alice));
        if (round == 1) _revealModel(bob, _model(bob));
        if (round >= 3) _revealModel(mallory, _model(mallory));
        _scoreAll(round, _row(9_000, 8_000, 7_000));
        _settleRound(round);
    }

    function _secondRun(address trainer) private {
        _register(trainer);
        RunId first = runOf[trainer];
        _train(trainer);
        assertEq(arena.runsOf(taskId, trainer).length, 2);
        assertNotEq(arena.run(first).beacon.value, _run(trainer).beacon.value);
    }

    function _rank(uint16 round, uint256 index) private view returns (uint256) {
        return scoring.results(taskId, round)[index].rank;
    }

    /// @dev Nobody was challenged: all that was allocated is claimed, the unused run's bond burns, the rest returns.
    function _balancesAddUp() private {
        RunId unused = arena.runsOf(taskId, mallory)[0];
        arena.voidRun(unused);
        for (uint256 i; i < trainers.length; ++i) {
            vm.startPrank(trainers[i]);
            arena.releaseRunBond(runOf[trainers[i]]);
            _leave();
            vm.stopPrank();
        }
        for (uint256 j; j < validators.length; ++j) {
            vm.startPrank(validators[j]);
            _leave();
            vm.stopPrank();
        }
        _delegatorLeaves(dora, alice);
        _delegatorLeaves(dora, bob);
        _delegatorLeaves(dan, alice);
        _delegatorLeaves(dan, vera);
        vm.prank(creator);
        escrow.reclaim(taskId);
        assertEq(token.balanceOf(address(arena)) + token.balanceOf(address(vault)), 0);
        assertLe(token.balanceOf(address(escrow)), 40, "dust: two wei a stretch, one a round and operator");
        assertEq(token.totalSupply(), SUPPLY - 30e18 - 10e18);
    }

    function _leave() private {
        vault.withdraw(taskId);
        escrow.claim(taskId);
    }

    function _delegatorLeaves(address delegator, address operator) private {
        vm.startPrank(delegator);
        vault.undelegate(taskId, operator);
        escrow.claimDelegated(taskId, operator);
        vm.stopPrank();
    }
}
