// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {Opening, Segment} from "../../src/libraries/Transcript.sol";
import {WrongPhase} from "../../src/types/Errors.sol";
import {Phase} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev A run that ends early says so while it may anchor, or is not submitted. Alice has anchored five of eight segments.
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
        arena.anchorReference(taskId, opening);
        _mine(3);
        arena.latchMark(taskId, trainer);
    }

    /* DECLARING */

    function test_theStopIsOnRecord() public {
        _mine(7);
        vm.expectEmit(address(arena));
        emit IRuns.RunStopped(taskId, alice, FIRST_ANCHOR);
        _declareStop(alice, FIRST_ANCHOR);
        Run memory run = arena.run(taskId, alice);
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
        assertEq(arena.run(taskId, alice).stopped, 0);
    }

    function test_aRunIsStoppedOnce() public {
        _declareStop(alice, FIRST_ANCHOR);
        uint64 declaredIn = uint64(block.number);
        _mine(1);
        _stopRefused(alice, FIRST_ANCHOR, FIRST_ANCHOR, FIRST_ANCHOR);
        _stopRefused(alice, FIRST_ANCHOR - 1, FIRST_ANCHOR, FIRST_ANCHOR);
        assertEq(arena.run(taskId, alice).stopBlock, declaredIn);
    }

    function test_nobodyStopsAnotherTrainersRun() public {
        vm.expectRevert(abi.encodeWithSelector(IRuns.UnknownRun.selector, stranger));
        _declareStop(stranger, FIRST_ANCHOR);
        _register(bob);
        _anchor(bob, 0, FIRST_ANCHOR);
        _declareStop(bob, FIRST_ANCHOR);
        assertEq(arena.run(taskId, alice).stopped, 0);
        assertEq(arena.runSegments(taskId, alice), SEGMENTS);
        assertEq(arena.runSegments(taskId, bob), FIRST_ANCHOR);
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
        for (uint64 first = FIRST_ANCHOR - 1; first <= FIRST_ANCHOR + 1; ++first) {
            vm.prank(alice);
            vm.expectRevert(abi.encodeWithSelector(IRuns.BadAnchor.selector, FIRST_ANCHOR, FIRST_ANCHOR));
            arena.anchor(taskId, first, 1, SALT);
        }
    }

    function test_aRunCutShortInSilenceIsNotSubmitted() public {
        _latchReference(alice);
        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.TranscriptIncomplete.selector, FIRST_ANCHOR, SEGMENTS));
        arena.commitSubmission(taskId, SALT);
        vm.warp(_phases().finalFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(IRuns.TranscriptIncomplete.selector, FIRST_ANCHOR, SEGMENTS));
        arena.commitSubmission(taskId, SALT);
    }

    /// @dev The honest twin, all the way to a standing model.
    function test_aStoppedRunIsSubmitted() public {
        _declareStop(alice, FIRST_ANCHOR);
        vm.prank(alice);
        vm.expectRevert(IRuns.MarkNotLatched.selector);
        arena.commitSubmission(taskId, SALT);
        _latchReference(alice); // the state to be marked may be named after the stop
        _commitModel(alice, _model(alice));
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        assertTrue(arena.standing(taskId, alice, 1));
    }

    function test_aSubmittedRunIsNotStopped() public {
        _anchor(alice, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        _latchReference(alice);
        _commitModel(alice, _model(alice));
        _stopRefused(alice, SEGMENTS, SEGMENTS, SEGMENTS);
        _stopRefused(alice, FIRST_ANCHOR, SEGMENTS, SEGMENTS);
    }

    function test_theSegmentsBeforeTheStopOpenAndNoOthers() public {
        _declareStop(alice, FIRST_ANCHOR);
        for (uint64 i; i < FIRST_ANCHOR; ++i) {
            assertTrue(arena.verifyOpening(taskId, alice, _opening(alice, i)));
        }
        Opening memory beyond = _opening(alice, FIRST_ANCHOR);
        for (uint64 index; index < 2; ++index) {
            beyond.anchorIndex = index;
            assertFalse(arena.verifyOpening(taskId, alice, beyond));
        }
    }

    /// @dev Only the promised last segment may be short: a stop cuts between segments, never inside one.
    function test_theLastSegmentOfAStoppedRunIsWhole() public {
        stopAfter[bob] = FIRST_ANCHOR;
        stopAfter[mallory] = FIRST_ANCHOR;
        segmentsOf[mallory][FIRST_ANCHOR - 1].endStep -= 1;
        _train(bob);
        _train(mallory);
        assertTrue(arena.verifyOpening(taskId, bob, _opening(bob, FIRST_ANCHOR - 1)));
        assertFalse(arena.verifyOpening(taskId, mallory, _opening(mallory, FIRST_ANCHOR - 1)));
    }

    /* ANY RUN */

    /// @dev Any tries to anchor and to stop, in any order: what can be submitted is whole, or was declared to be shorter.
    function testFuzz_whatIsSubmittedIsWholeOrDeclared(uint256 seed, uint8 tries) public {
        _register(bob);
        _anchor(bob, 0, 1);
        Opening memory opening;
        opening.segment = segmentsOf[bob][0];
        vm.prank(bob);
        arena.anchorReference(taskId, opening);
        _mine(3);
        arena.latchMark(taskId, bob);
        uint64 declared;
        for (uint256 k; k < tries % 12; ++k) {
            seed = uint256(keccak256(abi.encode(seed)));
            Run memory before = arena.run(taskId, bob);
            uint64 some = uint64((seed >> 8) % (SEGMENTS + 2));
            if (seed % 4 == 0) {
                bool sound = declared == 0 && some == before.anchored && some < SEGMENTS;
                assertEq(_tried(abi.encodeCall(arena.declareStop, (taskId, some))), sound, "stop");
                if (sound) declared = some;
            } else {
                bool sound = declared == 0 && some != 0 && some <= SEGMENTS - before.anchored;
                bytes memory data = abi.encodeCall(arena.anchor, (taskId, before.anchored, some, SALT));
                assertEq(_tried(data), sound, "anchor");
            }
        }
        Run memory run = arena.run(taskId, bob);
        assertEq(run.stopped, declared);
        assertEq(arena.runSegments(taskId, bob), declared == 0 ? SEGMENTS : declared);
        bool whole = run.anchored == SEGMENTS || run.anchored == declared;
        assertEq(_tried(abi.encodeCall(arena.commitSubmission, (taskId, SALT))), whole, "submission");
    }

    function _tried(bytes memory data) private returns (bool succeeded) {
        vm.prank(bob);
        (succeeded,) = address(arena).call(data);
    }
}
