// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ITasks, PhaseTimes, RoundTimes, TaskConfig} from "../../src/interfaces/ITasks.sol";
import {UnknownTask} from "../../src/types/Errors.sol";
import {Phase, TaskId} from "../../src/types/Types.sol";
import {BaseTest} from "../BaseTest.sol";

contract TasksTest is BaseTest {
    function test_creatingMovesTheBudgetIntoTheEscrow() public {
        uint256 before = token.balanceOf(creator);
        vm.expectEmit(address(arena));
        emit ITasks.TaskCreated(TaskId.wrap(2), creator, 380e18, "bafy-task");
        TaskId second = _createTask(_config());

        assertEq(TaskId.unwrap(second), 2);
        assertEq(arena.taskCount(), 2);
        assertEq(arena.creatorOf(second), creator);
        assertEq(token.balanceOf(creator), before - 380e18);
        assertEq(token.balanceOf(address(escrow)), 2 * 380e18);
        assertEq(escrow.budgetOf(second).budget, 380e18);
    }

    function test_theTermsComeBackAsTheyWent() public view {
        assertEq(abi.encode(arena.taskConfig(taskId)), abi.encode(_config()));
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
        arena.taskConfig(none);
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

    function test_theClockFollowsFromTheTerms() public view {
        TaskConfig memory config = arena.taskConfig(taskId);
        PhaseTimes memory times = _phases();
        assertEq(times.submissionFrom, config.start);
        assertEq(times.finalFrom, config.start + 2 days);
        assertEq(times.challengeFrom, config.start + 2 days + 14 hours);
        assertEq(times.closedFrom, config.start + 5 days + 14 hours);
        _roundOpensAt(1, config.start + 1 days);
        _roundOpensAt(2, config.start + 2 days);
        _roundOpensAt(3, config.start + 2 days + 6 hours);
    }

    function _roundOpensAt(uint256 round, uint256 time) private view {
        RoundTimes memory times = _times(round);
        assertEq(times.opensAt, time);
        assertEq(times.scoresFrom, time + 2 hours);
        assertEq(times.revealFrom, time + 4 hours);
        assertEq(times.settleFrom, time + 6 hours);
        assertEq(times.settleUntil, _phases().closedFrom);
    }

    /// @dev Whatever the terms, the rounds follow one another and the last is settled before challenges begin.
    function testFuzz_windowsNeverOverlapTheNext(uint32 window, uint32 roundLength, uint40 start) public {
        TaskConfig memory config = _config();
        config.window = uint32(bound(window, 1, type(uint32).max / 3));
        config.roundLength = uint32(bound(roundLength, 3 * uint256(config.window), type(uint32).max));
        config.start = uint64(bound(start, block.timestamp + 1, type(uint40).max));
        taskId = _createTask(config);
        assertLe(_times(1).settleFrom, _times(2).opensAt);
        assertLe(_times(2).settleFrom, _times(3).opensAt);
        assertLe(_times(3).settleFrom, _phases().challengeFrom);
        assertLe(_times(1).opensAt, _times(2).opensAt);
    }

    function testFuzz_segmentsCoverTheStepsExactly(uint64 steps, uint32 length) public {
        TaskConfig memory config = _config();
        config.segmentLength = uint32(bound(length, 1, type(uint32).max));
        config.steps = uint64(bound(steps, 3 * uint256(config.segmentLength), 65_536 * uint256(config.segmentLength)));
        taskId = _createTask(config);
        uint256 segments = arena.segmentCount(taskId);
        assertLe(segments, 65_536);
        assertGe(segments * config.segmentLength, config.steps);
        assertLt((segments - 1) * config.segmentLength, config.steps);
    }
}

contract TermsTest is BaseTest {
    TaskConfig private config;

    function setUp() public override {
        super.setUp();
        config = _config();
    }

    function test_theClockIsBounded() public {
        config.start = uint64(block.timestamp);
        _refused("start");
        config.start = uint64(block.timestamp + 1);
        _accepted();
        config.start = uint64(type(uint40).max) + 1;
        _refused("start");
        config.start = uint64(block.timestamp + 1);
        config.window = 0;
        _refused("window");
        (config.window, config.roundLength) = (100, 299);
        _refused("roundLength");
        config.roundLength = 300;
        _accepted();
    }

    function test_aCaseMustFitIntoTheChallengingPhase() public {
        (config.answerWindow, config.voteWindow, config.challengeLength) = (10, 20, 60);
        _refused("challengeLength");
        config.challengeLength = 61;
        _accepted();
        config.answerWindow = 0;
        _refused("answerWindow");
        (config.answerWindow, config.voteWindow) = (10, 0);
        _refused("voteWindow");
    }

    function test_theRunIsBounded() public {
        config.segmentLength = 0;
        _refused("segmentLength");
        (config.segmentLength, config.steps) = (10, 0);
        _refused("steps");
        config.steps = 655_361;
        _refused("steps");
        config.steps = 655_360;
        _accepted();
    }

    function test_theSampleIsBounded() public {
        config.sampledSegments = 0;
        _refused("sampledSegments");
        config.sampledSegments = 9; // of eight
        _refused("sampledSegments");
        config.sampledSegments = 8;
        _accepted();
        (config.steps, config.sampledSegments) = (1_000, 17);
        _refused("sampledSegments");
    }

    function test_theRewardsAreBounded() public {
        config.q = 0;
        _refused("q");
        config.q = 1e18 + 1;
        _refused("q");
        (config.q, config.alphaTrainer) = (1e18, 2e18 + 1);
        _refused("alphaTrainer");
        (config.alphaTrainer, config.alphaValidator) = (2e18, 2e18 + 1);
        _refused("alphaValidator");
        config.alphaValidator = 2e18;
        _accepted();
        config.gammaBps = 5_001;
        _refused("gammaBps");
        (config.gammaBps, config.minTrainerStake) = (5_000, 0);
        _refused("minTrainerStake");
        (config.minTrainerStake, config.minValidatorStake) = (1, 0);
        _refused("minValidatorStake");
        (config.minValidatorStake, config.roundReward) = (1, type(uint128).max);
        _refused("roundReward");
    }

    function test_theBondCoversTheCosts() public {
        (config.challengeBond, config.openingCost) = (0, 0);
        _refused("challengeBond");
        (config.challengeBond, config.openingCost) = (29, 10);
        _refused("challengeBond");
        config.challengeBond = 30;
        _accepted();
        config.burnBps = 10_001;
        _refused("burnBps");
        (config.burnBps, config.slashBps) = (10_000, 10_001);
        _refused("slashBps");
        config.slashBps = 10_000;
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
