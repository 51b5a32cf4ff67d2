// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Clock, ITasks, PhaseTimes, RoundTimes, TaskConfig} from "../../src/interfaces/ITasks.sol";
import {UnknownTask} from "../../src/types/Errors.sol";
import {Numerics, Phase, TaskId} from "../../src/types/Types.sol";
import {BaseTest} from "../BaseTest.sol";

contract TasksTest is BaseTest {
    function test_creatingMovesBudgetAndDepositIntoTheEscrow() public {
        uint256 before = token.balanceOf(creator);
        vm.expectEmit(address(arena));
        emit ITasks.TaskCreated(TaskId.wrap(2), creator, 380e18, 30e18, "bafy-task");
        TaskId second = _createTask(_config());

        assertEq(TaskId.unwrap(second), 2);
        assertEq(arena.taskCount(), 2);
        assertEq(arena.creatorOf(second), creator);
        assertEq(token.balanceOf(creator), before - 410e18);
        assertEq(token.balanceOf(address(escrow)), 2 * 410e18);
        assertEq(escrow.budgetOf(second).budget, 380e18);
        assertEq(escrow.budgetOf(second).deposit, 30e18);
    }

    function test_theTermsComeBackAsTheyWent() public view {
        TaskConfig memory config = _config();
        assertEq(abi.encode(arena.clock(taskId)), abi.encode(config.clock));
        assertEq(abi.encode(arena.work(taskId)), abi.encode(config.work));
        assertEq(abi.encode(arena.pay(taskId)), abi.encode(config.pay));
        assertEq(abi.encode(arena.court(taskId)), abi.encode(config.court));
        assertEq(arena.rules().leastWindow(), LEAST_WINDOW);
    }

    function test_withoutTheBudgetThereIsNoTask() public {
        TaskConfig memory config = _config();
        vm.prank(makeAddr("pauper"));
        vm.expectRevert();
        arena.createTask(config, "");
        assertEq(arena.taskCount(), 1);
    }

    function test_unknownTasksAndRoundsAreRefused() public {
        TaskId none = TaskId.wrap(9);
        bytes memory unknown = abi.encodeWithSelector(UnknownTask.selector, none);
        vm.expectRevert(unknown);
        arena.court(none);
        vm.expectRevert(unknown);
        arena.phase(none);
        vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, 0));
        arena.roundTimes(taskId, 0);
        vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, 4));
        arena.roundTimes(taskId, 4);
    }

    /* CLOCK */

    function test_phasesAreHalfOpen() public {
        PhaseTimes memory times = _phases();
        _phaseChangesAt(times.submissionFrom, Phase.Registration, Phase.Submission);
        _phaseChangesAt(times.finalFrom, Phase.Submission, Phase.FinalValidation);
        _phaseChangesAt(times.challengeFrom, Phase.FinalValidation, Phase.Challenging);
        _phaseChangesAt(times.closedFrom, Phase.Challenging, Phase.Closed);
    }

    function _phaseChangesAt(uint256 time, Phase before, Phase then_) private {
        vm.warp(time - 1);
        assertEq(uint256(arena.phase(taskId)), uint256(before));
        vm.warp(time);
        assertEq(uint256(arena.phase(taskId)), uint256(then_));
    }

    function test_roundsAreHalfOpen() public {
        uint64 start = arena.clock(taskId).start;
        uint64[3] memory begins = [start, start + 1 days, start + 2 days];
        for (uint16 round; round < 3; ++round) {
            vm.warp(begins[round] - 1);
            assertEq(arena.currentRound(taskId), round);
            vm.warp(begins[round]);
            assertEq(arena.currentRound(taskId), round + 1);
        }
        vm.warp(start + 1_000 days);
        assertEq(arena.currentRound(taskId), 3, "the final round has no end");
    }

    function test_theClockFollowsFromTheTerms() public view {
        uint256 start = arena.clock(taskId).start;
        PhaseTimes memory times = _phases();
        assertEq(times.submissionFrom, start);
        assertEq(times.finalFrom, start + 2 days);
        assertEq(times.challengeFrom, start + 2 days + 14 hours);
        assertEq(times.closedFrom, start + 5 days + 14 hours);
        _roundOpensAt(1, start + 1 days);
        _roundOpensAt(2, start + 2 days);
        _roundOpensAt(3, start + 2 days + 6 hours);
    }

    function _roundOpensAt(uint16 round, uint256 time) private view {
        RoundTimes memory times = _times(round);
        assertEq(times.opensAt, time);
        assertEq(times.scoresFrom, time + 2 hours);
        assertEq(times.revealFrom, time + 4 hours);
        assertEq(times.settleFrom, time + 6 hours);
        assertEq(times.settleUntil, _phases().closedFrom);
    }

    /// @dev Whatever the terms, each round's windows are over when the next one's begin, a round opens when its
    /// submissions are over, and the last round is settled before challenges begin.
    function testFuzz_windowsNeverOverlapTheNext(uint32 window, uint32 roundLength, uint40 start, uint16 rounds)
        public
    {
        TaskConfig memory config = _config();
        Clock memory clock = config.clock;
        clock.rounds = uint16(bound(rounds, 1, 64));
        clock.window = uint32(bound(window, LEAST_WINDOW, type(uint32).max / 3));
        clock.roundLength = uint32(bound(roundLength, 3 * uint256(clock.window), type(uint32).max));
        clock.start = uint64(bound(start, block.timestamp + 1, type(uint40).max));
        config.pay.roundReward = 1e18;
        taskId = _createTask(config);
        for (uint16 round = 1; round <= clock.rounds; ++round) {
            assertLe(_times(round).settleFrom, _times(round + 1).opensAt);
            vm.warp(_times(round).opensAt - 1);
            assertEq(arena.currentRound(taskId), round);
            vm.warp(_times(round).opensAt);
            assertEq(arena.currentRound(taskId), round + 1);
        }
        assertLe(_times(clock.rounds + 1).settleFrom, _phases().challengeFrom);
        assertEq(_times(clock.rounds).opensAt, _phases().finalFrom);
    }

    function testFuzz_segmentsCoverTheStepsExactly(uint64 steps, uint32 length) public {
        TaskConfig memory config = _config();
        uint256 each = bound(length, 1, type(uint32).max);
        uint256 all = bound(steps, 3 * each, 65_536 * each);
        (config.work.segmentLength, config.work.steps) = (uint32(each), uint64(all));
        taskId = _createTask(config);
        uint256 segments = arena.segmentCount(taskId);
        assertLe(segments, 65_536);
        assertGe(segments * each, all);
        assertLt((segments - 1) * each, all);
    }
}

contract TermsTest is BaseTest {
    TaskConfig private config;

    function setUp() public override {
        super.setUp();
        config = _config();
    }

    function test_theClockIsBounded() public {
        config.clock.start = uint64(block.timestamp);
        _refused("start");
        config.clock.start = uint64(block.timestamp + 1);
        _accepted();
        config.clock.start = uint64(type(uint40).max) + 1;
        _refused("start");
        config.clock.start = uint64(block.timestamp + 1);
        (config.clock.window, config.clock.roundLength) = (1 hours, 3 hours - 1);
        _refused("roundLength");
        config.clock.roundLength = 3 hours;
        _accepted();
        config.clock.rounds = 0;
        _refused("rounds");
        config.clock.rounds = 65;
        _refused("rounds");
        config.clock.rounds = 64;
        config.pay.roundReward = 1e18;
        _accepted();
    }

    function test_everyWindowIsLongerThanForcedInclusionTakes() public {
        config.clock.window = 1 hours - 1;
        _refused("window");
        (config.clock.window, config.court.showWindow) = (1 hours, 1 hours - 1);
        _refused("showWindow");
        (config.court.showWindow, config.court.answerWindow) = (1 hours, 1 hours - 1);
        _refused("answerWindow");
        (config.court.answerWindow, config.court.voteWindow) = (1 hours, 1 hours - 1);
        _refused("voteWindow");
        (config.court.voteWindow, config.court.appealWindow) = (1 hours, 1 hours - 1);
        _refused("appealWindow");
        config.court.appealWindow = 1 hours;
        _accepted();
    }

    function test_theLongestCaseMustFitIntoTheChallengingPhase() public {
        // show, latch and answer; two levels of votes, one appeal; one unavailable answer, served again
        config.court.appeals = 1;
        uint32 longest = 2 hours + 2 * 4 hours + 2 * 2 * 6 hours + 3 hours + 6 hours + 4 hours;
        config.clock.challengeLength = longest + 1 hours - 1; // less than the least window is left to seal it in
        _refused("challengeLength");
        config.clock.challengeLength = longest + 1 hours;
        _accepted();
        config.court.appeals = 4;
        _refused("appeals");
    }

    function test_theWorkIsBounded() public {
        config.work.segmentLength = 0;
        _refused("segmentLength");
        (config.work.segmentLength, config.work.steps) = (10, 0);
        _refused("steps");
        config.work.steps = 655_361;
        _refused("steps");
        config.work.steps = 655_360;
        _accepted();
    }

    function test_bitsOfAMachineNeedAListOfMachines() public {
        config.work.classesRoot = 0;
        _refused("classesRoot");
        config.work.numerics = Numerics.Exact;
        _accepted();
    }

    function test_theSampleIsBounded() public {
        config.court.sampled = 0;
        _refused("sampled");
        config.court.sampled = 9; // of eight
        _refused("sampled");
        config.court.sampled = 8;
        _accepted();
        (config.work.steps, config.court.sampled) = (1_000, 17);
        _refused("sampled");
        (config.court.sampled, config.court.named) = (3, 17);
        _refused("named");
    }

    function test_theRewardsAreBounded() public {
        config.pay.q = 0;
        _refused("q");
        config.pay.q = 1e18 + 1;
        _refused("q");
        (config.pay.q, config.pay.alphaTrainer) = (1e18, 2e18 + 1);
        _refused("alphaTrainer");
        (config.pay.alphaTrainer, config.pay.alphaValidator) = (2e18, 2e18 + 1);
        _refused("alphaValidator");
        config.pay.alphaValidator = 2e18;
        _accepted();
        config.pay.gammaBps = 5_001;
        _refused("gammaBps");
        config.pay.gammaBps = 5_000;
        // 2 * 2^127 is one too many, whichever part it is that passes
        config.pay.roundReward = 2 ** 127;
        _refused("roundReward");
        (config.pay.roundReward, config.pay.deposit) = (0, type(uint128).max);
        _refused("roundReward");
        config.pay.deposit = 0;
        _accepted();
    }

    function test_stakesAndOperatorsAreBounded() public {
        config.pay.minTrainerStake = 0;
        _refused("minTrainerStake");
        (config.pay.minTrainerStake, config.pay.minValidatorStake) = (1, 0);
        _refused("minValidatorStake");
        (config.pay.minValidatorStake, config.pay.minDelegation) = (1, 0);
        _refused("minDelegation");
        (config.pay.minDelegation, config.pay.maxTrainers) = (1, 0);
        _refused("maxTrainers");
        config.pay.maxTrainers = 257;
        _refused("maxTrainers");
        (config.pay.maxTrainers, config.pay.maxValidators) = (153, 0);
        _refused("maxValidators");
        config.pay.maxValidators = 458; // 153 * 458 > 70,000
        _refused("maxValidators");
        config.pay.maxValidators = 457;
        _accepted();
        (config.pay.maxTrainers, config.pay.maxValidators) = (1, 461);
        _refused("maxValidators");
    }

    /// @dev What settlement reads of an operator grows with the rounds: 456 could not be seated after 64.
    function test_longTasksHaveFewerValidators() public {
        (config.pay.maxTrainers, config.pay.maxValidators) = (110, 456);
        config.clock.rounds = 16;
        _accepted();
        config.clock.rounds = 17;
        _refused("maxValidators");
        config.pay.maxValidators = 400;
        _accepted();
    }

    function test_theBondCoversTheCosts() public {
        (config.court.bond, config.court.openingCost) = (0, 0);
        _refused("bond");
        (config.court.bond, config.court.openingCost) = (49, 10); // three drawn, two named
        _refused("bond");
        config.court.bond = 50;
        _accepted();
        config.court.bond = 2 ** 120;
        _refused("bond");
        (config.court.bond, config.court.burnBps) = (50, 10_001);
        _refused("burnBps");
        (config.court.burnBps, config.court.slashBps) = (10_000, 10_001);
        _refused("slashBps");
        config.court.slashBps = 10_000;
        _accepted();
    }

    function test_theFirstJuryIsBounded() public {
        config.court.jurors = 0;
        _refused("jurors");
        config.court.jurors = 32;
        _refused("jurors");
        config.court.jurors = 31;
        _accepted();
    }

    function _refused(string memory field) private {
        TaskConfig memory terms = config;
        vm.prank(creator);
        vm.expectRevert(abi.encodeWithSelector(ITasks.BadTerms.selector, field));
        arena.createTask(terms, "");
    }

    function _accepted() private {
        _createTask(config);
    }
}
