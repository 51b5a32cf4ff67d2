// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {Opening, Segment} from "../../src/libraries/Transcript.sol";
import {NotAllowed, WrongPhase} from "../../src/types/Errors.sol";
import {Phase, RunId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev A run that ends early says so while it may anchor, or does not stand in the final round. Alice has anchored five of eight segments.
contract EarlyStopTest is StoryTest {
    function setUp() public override {
        super.setUp();
        _warpTo(Phase.Submission);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
    }

    function _stopRefused(address trainer, uint64 segments, uint64 have, uint64 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IRuns.BadStop.selector, have, limit));
        _declareStop(trainer, segments);
    }

    function _latchReference(address trainer) private {
        Opening memory opening = _opening(trainer, 0);
        vm.prank(trainer);
        arena.anchorReference(runOf[trainer], opening);
        _mine(3);
        arena.latchMark(runOf[trainer]);
    }

    /* DECLARING */

    function test_theStopIsOnRecord() public {
        _mine(7);
        vm.expectEmit(address(arena));
        emit IRuns.RunStopped(runOf[alice], FIRST_ANCHOR);
        _declareStop(alice, FIRST_ANCHOR);
        Run memory run = _run(alice);
        assertEq(run.stopped, FIRST_ANCHOR);
        assertEq(run.stopBlock, block.number);
        assertEq(run.anchored, FIRST_ANCHOR);
    }

    function test_theDeclaredNumberIsTheAnchoredOne() public {
        _stopRefused(alice, 0, FIRST_ANCHOR, SEGMENTS);
        _stopRefused(alice, FIRST_ANCHOR - 1, FIRST_ANCHOR, SEGMENTS);
        _stopRefused(alice, FIRST_ANCHOR + 1, FIRST_ANCHOR, SEGMENTS);
        _stopRefused(alice, type(uint64).max, FIRST_ANCHOR, SEGMENTS);
        _declareStop(alice, FIRST_ANCHOR);
    }

    function test_aRunWithoutSegmentsHasNothingToStopAt() public {
        _register(bob);
        _stopRefused(bob, 0, 0, SEGMENTS);
        _stopRefused(bob, 1, 0, SEGMENTS);
    }

    function test_aWholeRunIsNotStopped() public {
        _anchor(alice, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        _stopRefused(alice, SEGMENTS, SEGMENTS, SEGMENTS);
        assertEq(_run(alice).stopped, 0);
    }

    function test_aRunIsStoppedOnce() public {
        _declareStop(alice, FIRST_ANCHOR);
        uint64 declaredIn = uint64(block.number);
        _mine(1);
        _stopRefused(alice, FIRST_ANCHOR, FIRST_ANCHOR, FIRST_ANCHOR);
        _stopRefused(alice, FIRST_ANCHOR - 1, FIRST_ANCHOR, FIRST_ANCHOR);
        assertEq(_run(alice).stopBlock, declaredIn);
    }

    function test_nobodyStopsAnotherTrainersRun() public {
        RunId runId = runOf[alice];
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, stranger));
        arena.declareStop(runId, FIRST_ANCHOR);
        _register(bob);
        _anchor(bob, 0, FIRST_ANCHOR);
        _declareStop(bob, FIRST_ANCHOR);
        assertEq(_run(alice).stopped, 0);
        assertEq(arena.runSegments(runOf[alice]), SEGMENTS);
        assertEq(arena.runSegments(runOf[bob]), FIRST_ANCHOR);
        _anchor(alice, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
    }

    function test_aStopBelongsToTheSubmissionPhase() public {
        vm.warp(_phases().finalFrom);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission));
        _declareStop(alice, FIRST_ANCHOR);
        vm.warp(_phases().submissionFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.Registration, Phase.Submission));
        _declareStop(alice, FIRST_ANCHOR);
        vm.warp(_phases().finalFrom - 1);
        _declareStop(alice, FIRST_ANCHOR);
    }

    /* WHAT IT CHANGES */

    function test_nothingIsAnchoredAfterTheStop() public {
        _declareStop(alice, FIRST_ANCHOR);
        RunId runId = runOf[alice];
        for (uint64 first = FIRST_ANCHOR - 1; first <= FIRST_ANCHOR + 1; ++first) {
            vm.prank(alice);
            vm.expectRevert(abi.encodeWithSelector(IRuns.BadAnchor.selector, FIRST_ANCHOR, FIRST_ANCHOR));
            arena.anchor(runId, first, 1, SALT);
        }
    }

    /// @dev It stands while the trunk may still grow, and not once that is over.
    function test_aRunCutShortInSilenceDoesNotStandInTheFinalRound() public {
        _latchReference(alice);
        _commitNewModel(alice);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        assertEq(arena.standingOrder(taskId, alice, 1), 1);
        assertEq(arena.standingOrder(taskId, alice, 2), 1);
        assertEq(arena.standingOrder(taskId, alice, FINAL), 0);
        vm.warp(_phases().finalFrom);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission));
        _declareStop(alice, FIRST_ANCHOR);
    }

    /// @dev The honest twins: one declares where it stops, one anchors the rest, both after they have submitted.
    function test_aRunThatIsWholeInTheEndStandsInTheFinalRound() public {
        _register(bob);
        _anchor(bob, 0, FIRST_ANCHOR);
        _latchReference(alice);
        _latchReference(bob);
        _commitNewModel(alice);
        _commitNewModel(bob);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        _revealModel(bob, _model(bob));
        vm.warp(_phases().finalFrom - 1);
        _declareStop(alice, FIRST_ANCHOR);
        assertEq(arena.standingOrder(taskId, alice, FINAL), 1);
        assertEq(arena.standingOrder(taskId, bob, FINAL), 0);
        _anchor(bob, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        assertEq(arena.standingOrder(taskId, bob, FINAL), 2);
    }

    function test_aStoppedRunIsSubmitted() public {
        _declareStop(alice, FIRST_ANCHOR);
        RunId runId = runOf[alice];
        vm.prank(alice);
        vm.expectRevert(IRuns.MarkNotLatched.selector);
        arena.commitSubmission(runId, SALT);
        _latchReference(alice); // the state to be marked may be named after the stop
        _commitNewModel(alice);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        assertEq(arena.standingOrder(taskId, alice, FINAL), 1);
    }

    function test_aSubmittedWholeRunIsNotStopped() public {
        _anchor(alice, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        _latchReference(alice);
        _commitNewModel(alice);
        _stopRefused(alice, SEGMENTS, SEGMENTS, SEGMENTS);
        _stopRefused(alice, FIRST_ANCHOR, SEGMENTS, SEGMENTS);
    }

    function test_theSegmentsBeforeTheStopOpenAndNoOthers() public {
        _declareStop(alice, FIRST_ANCHOR);
        for (uint64 i; i < FIRST_ANCHOR; ++i) {
            assertTrue(arena.verifyOpening(runOf[alice], _opening(alice, i)));
        }
        Opening memory beyond = _opening(alice, FIRST_ANCHOR);
        for (uint64 index; index < 2; ++index) {
            beyond.anchorIndex = index;
            assertFalse(arena.verifyOpening(runOf[alice], beyond));
        }
    }

    /// @dev Only the promised last segment may be short: a stop cuts between segments, never inside one.
    function test_theLastSegmentOfAStoppedRunIsWhole() public {
        stopAfter[bob] = FIRST_ANCHOR;
        stopAfter[mallory] = FIRST_ANCHOR;
        segmentsOf[mallory][FIRST_ANCHOR - 1].endStep -= 1;
        _train(bob);
        _train(mallory);
        assertTrue(arena.verifyOpening(runOf[bob], _opening(bob, FIRST_ANCHOR - 1)));
        assertFalse(arena.verifyOpening(runOf[mallory], _opening(mallory, FIRST_ANCHOR - 1)));
    }

    /* ANY RUN */

    /// @dev Any tries to anchor and to stop, in any order: what stands in the end is whole, or was declared to be shorter.
    function testFuzz_whatStandsInTheEndIsWholeOrDeclared(uint256 seed, uint8 tries) public {
        _register(bob);
        _anchor(bob, 0, 1);
        Opening memory opening;
        opening.segment = segmentsOf[bob][0];
        RunId runId = runOf[bob];
        vm.prank(bob);
        arena.anchorReference(runId, opening);
        _mine(3);
        arena.latchMark(runId);
        _commitNewModel(bob);
        uint64 declared;
        for (uint256 k; k < tries % 12; ++k) {
            seed = uint256(keccak256(abi.encode(seed)));
            Run memory before = _run(bob);
            uint64 some = uint64((seed >> 8) % (SEGMENTS + 2));
            if (seed % 4 == 0) {
                bool sound = declared == 0 && some == before.anchored && some < SEGMENTS;
                assertEq(_tried(abi.encodeCall(arena.declareStop, (runId, some))), sound, "stop");
                if (sound) declared = some;
            } else {
                bool sound = declared == 0 && some != 0 && some <= SEGMENTS - before.anchored;
                bytes memory data = abi.encodeCall(arena.anchor, (runId, before.anchored, some, SALT));
                assertEq(_tried(data), sound, "anchor");
            }
        }
        vm.warp(_times(1).opensAt);
        _revealShown(bob);
        Run memory run = _run(bob);
        assertEq(run.stopped, declared);
        assertEq(arena.runSegments(runId), declared == 0 ? SEGMENTS : declared);
        bool whole = run.anchored == SEGMENTS || run.anchored == declared;
        assertEq(arena.standingOrder(taskId, bob, FINAL), whole ? 1 : 0);
    }

    function _revealShown(address trainer) private {
        _revealModel(trainer, _model(trainer));
        assertEq(arena.standingOrder(taskId, trainer, 1), 1);
    }

    function _tried(bytes memory data) private returns (bool succeeded) {
        vm.prank(bob);
        (succeeded,) = address(arena).call(data);
    }
}
