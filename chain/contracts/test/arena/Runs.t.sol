// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {Anchor, Opening} from "../../src/libraries/Transcript.sol";
import {
    BeaconAlreadyRequested,
    BeaconExpired,
    BeaconNotReady,
    BeaconNotRequested,
    NotTrainer,
    WrongPhase
} from "../../src/types/Errors.sol";
import {Phase, TaskId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";
import {Tree} from "../helpers/Tree.sol";

contract RunsTest is StoryTest {
    bytes32 private constant SPEC = keccak256("spec");
    bytes32 private constant KEYS = keccak256("keys");

    function _registerAs(address trainer) private {
        vm.prank(trainer);
        arena.registerRun(taskId, SPEC, KEYS);
    }

    /* REGISTRATION AND SEED */

    function test_registeringPromisesABlockAhead() public {
        vm.expectEmit(address(arena));
        emit IRuns.RunRegistered(taskId, alice, SPEC, KEYS, uint64(block.number + 2));
        _registerAs(alice);
        Run memory run = arena.run(taskId, alice);
        assertEq(run.specDigest, SPEC);
        assertEq(run.keyRoot, KEYS);
        assertEq(run.transcriptDigest, SPEC);
        assertEq(run.beacon.blockNumber, block.number + 2);
        assertEq(run.beacon.value, 0);
    }

    function test_onlyStakedTrainersRegister() public {
        vm.expectRevert(abi.encodeWithSelector(NotTrainer.selector, stranger));
        _registerAs(stranger);
        vm.expectRevert(abi.encodeWithSelector(NotTrainer.selector, vera));
        _registerAs(vera);
    }

    function test_emptyDigestsAreRefused() public {
        vm.startPrank(alice);
        vm.expectRevert(IRuns.EmptyDigest.selector);
        arena.registerRun(taskId, 0, KEYS);
        vm.expectRevert(IRuns.EmptyDigest.selector);
        arena.registerRun(taskId, SPEC, 0);
    }

    function test_runsAreRegisteredUntilSubmissionsEnd() public {
        vm.warp(_phases().finalFrom - 1);
        _registerAs(alice);
        vm.warp(_phases().finalFrom);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission));
        _registerAs(bob);
    }

    function test_theSeedIsTheHashOfThePromisedBlock() public {
        _registerAs(alice);
        uint256 promised = block.number + 2;
        vm.roll(promised);
        vm.expectRevert(abi.encodeWithSelector(BeaconNotReady.selector, promised));
        arena.latchBeacon(taskId, alice);
        vm.roll(promised + 1);
        vm.prank(stranger);
        arena.latchBeacon(taskId, alice);
        assertEq(arena.run(taskId, alice).beacon.value, blockhash(promised));
        assertNotEq(blockhash(promised), 0);
    }

    function test_theSeedIsTheSameHoweverLateItIsLatched() public {
        _registerAs(alice);
        uint256 promised = block.number + 2;
        vm.roll(promised + 1);
        bytes32 early = blockhash(promised);
        vm.roll(promised + 256);
        arena.latchBeacon(taskId, alice);
        assertEq(arena.run(taskId, alice).beacon.value, early);
    }

    function test_anUnlatchedRunIsVoidForGood() public {
        _registerAs(alice);
        uint256 promised = block.number + 2;
        vm.roll(promised + 257);
        vm.expectRevert(abi.encodeWithSelector(BeaconExpired.selector, promised));
        arena.latchBeacon(taskId, alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.RunExists.selector, alice));
        _registerAs(alice);
        _warpTo(Phase.Submission);
        vm.prank(alice);
        vm.expectRevert(IRuns.BeaconNotLatched.selector);
        arena.anchor(taskId, 0, 1, SPEC);
        assertTrue(arena.abandoned(taskId, alice));
    }

    function test_aRunIsSeededOnce() public {
        _registerAs(alice);
        uint256 promised = block.number + 2;
        vm.expectRevert(abi.encodeWithSelector(IRuns.RunExists.selector, alice));
        _registerAs(alice);
        _mine(3);
        arena.latchBeacon(taskId, alice);
        _mine(10);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised));
        arena.latchBeacon(taskId, alice);
    }

    function test_noRunNoBeacon() public {
        vm.expectRevert(abi.encodeWithSelector(IRuns.UnknownRun.selector, alice));
        arena.latchBeacon(taskId, alice);
        _registerAs(alice);
        vm.expectRevert(BeaconNotRequested.selector);
        arena.latchMark(taskId, alice);
    }

    /* ANCHORS */

    function test_anchorsAppendAndFoldIntoTheTranscript() public {
        _warpTo(Phase.Submission);
        _register(alice);
        bytes32 spec = arena.run(taskId, alice).specDigest;
        bytes32 root = Tree.root(_leaves(alice, 0, 5));
        bytes memory link = abi.encodePacked(spec, uint64(0), uint64(5), root);
        bytes32 folded = sha256(abi.encodePacked("aiarena/transcript/v1", link));
        vm.expectEmit(address(arena));
        emit IRuns.Anchored(taskId, alice, 0, 0, 5, root, folded);
        vm.prank(alice);
        arena.anchor(taskId, 0, 5, root);
        _mine(7);
        _anchor(alice, 5, 3);

        Anchor[] memory list = _anchorsOf(alice);
        assertEq(list.length, 2);
        assertEq(list[0].root, root);
        assertEq(list[1].first, 5);
        assertEq(list[1].count, 3);
        assertEq(list[1].blockNumber, block.number);
        assertEq(arena.run(taskId, alice).anchored, 8);
    }

    function test_anchorsLeaveNoGapAndNoOverlap() public {
        _warpTo(Phase.Submission);
        _register(alice);
        _anchor(alice, 0, 5);
        _anchorRefused(4, 1);
        _anchorRefused(6, 1);
        _anchorRefused(5, 0);
        _anchorRefused(5, 4);
        _anchorRefused(5, type(uint64).max);
        _anchor(alice, 5, 3);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.BadAnchor.selector, 8, 8));
        arena.anchor(taskId, 8, 1, SPEC);
    }

    function _anchorRefused(uint64 first, uint64 count) private {
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.BadAnchor.selector, 5, 8));
        arena.anchor(taskId, first, count, SPEC);
    }

    function test_anchorsBelongToTheSubmissionPhase() public {
        _register(alice);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.Registration, Phase.Submission));
        arena.anchor(taskId, 0, 5, SPEC);
        vm.warp(_phases().finalFrom - 1);
        _anchor(alice, 0, 5);
        vm.warp(_phases().finalFrom);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission));
        arena.anchor(taskId, 5, 3, SPEC);
    }

    /* REFERENCE AND MARK */

    function test_theReferenceIsAnAnchoredState() public {
        _warpTo(Phase.Submission);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        Opening memory opening = _opening(alice, 3);
        vm.expectEmit(address(arena));
        emit IRuns.ReferenceAnchored(taskId, alice, 3, _state(alice, 4), uint64(block.number + 2));
        vm.prank(alice);
        arena.anchorReference(taskId, opening);
        assertEq(arena.run(taskId, alice).referenceDigest, _state(alice, 4));
        assertEq(arena.run(taskId, alice).referenceSegment, 3);

        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.ReferenceExists.selector, 3));
        arena.anchorReference(taskId, opening);
    }

    function test_anInventedReferenceIsRefused() public {
        _warpTo(Phase.Submission);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        Opening memory invented = _opening(alice, 3);
        invented.segment.endDigest = SPEC;
        Opening memory unanchored = _opening(alice, 6);
        _register(bob);
        _anchor(bob, 0, FIRST_ANCHOR);
        Opening memory bobs = _opening(bob, 3);
        vm.startPrank(alice);
        vm.expectRevert(IRuns.BadOpeningProof.selector);
        arena.anchorReference(taskId, invented);
        vm.expectRevert(IRuns.BadOpeningProof.selector);
        arena.anchorReference(taskId, unanchored);
        vm.expectRevert(IRuns.BadOpeningProof.selector);
        arena.anchorReference(taskId, bobs);
    }

    function test_anUnlatchedMarkVoidsTheRun() public {
        _warpTo(Phase.Submission);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        _anchor(alice, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        Opening memory opening = _opening(alice, 3);
        vm.prank(alice);
        arena.anchorReference(taskId, opening);
        uint256 promised = block.number + 2;
        vm.roll(promised + 257);
        vm.expectRevert(abi.encodeWithSelector(BeaconExpired.selector, promised));
        arena.latchMark(taskId, alice);
        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.ReferenceExists.selector, 3));
        arena.anchorReference(taskId, opening);
        vm.expectRevert(IRuns.MarkNotLatched.selector);
        arena.commitSubmission(taskId, SPEC);
    }

    /* OPENINGS */

    function test_everyAnchoredSegmentOpens() public {
        _warpTo(Phase.Submission);
        _train(alice);
        for (uint64 i; i < SEGMENTS; ++i) {
            assertTrue(arena.verifyOpening(taskId, alice, _opening(alice, i)));
            assertFalse(arena.verifyOpening(taskId, bob, _opening(alice, i)), "another trainer's");
        }
    }

    function test_anyChangedFieldFailsToOpen() public {
        _warpTo(Phase.Submission);
        _train(alice);
        Opening[8] memory bad;
        for (uint256 k; k < bad.length; ++k) {
            bad[k] = _opening(alice, 6);
        }
        bad[0].segment.index = 5;
        bad[1].segment.startStep = 61;
        bad[2].segment.endStep = 69;
        bad[3].segment.startDigest = SPEC;
        bad[4].segment.endDigest = SPEC;
        bad[5].segment.batchRoot = SPEC;
        bad[6].anchorIndex = 0;
        bad[7].anchorIndex = 2;
        for (uint256 k; k < bad.length; ++k) {
            assertFalse(arena.verifyOpening(taskId, alice, bad[k]));
        }
    }

    function test_tooFewOrTooManySiblingsFailToOpen() public {
        _warpTo(Phase.Submission);
        _train(alice);
        Opening memory opening = _opening(alice, 6);
        bytes32[] memory path = opening.siblings;
        opening.siblings = new bytes32[](path.length - 1);
        for (uint256 i; i + 1 < path.length; ++i) {
            opening.siblings[i] = path[i];
        }
        assertFalse(arena.verifyOpening(taskId, alice, opening));
        opening.siblings = new bytes32[](path.length + 1);
        for (uint256 i; i < path.length; ++i) {
            opening.siblings[i] = path[i];
        }
        assertFalse(arena.verifyOpening(taskId, alice, opening));
    }

    /// @dev A trainer may anchor anything; steps other than the task's cannot be opened afterwards.
    function test_committedButWrongStepsDoNotOpen() public {
        _warpTo(Phase.Submission);
        segmentsOf[alice][7].endStep = 80; // the run ends at 75
        segmentsOf[alice][2].startStep = 21;
        _train(alice);
        assertFalse(arena.verifyOpening(taskId, alice, _opening(alice, 7)));
        assertFalse(arena.verifyOpening(taskId, alice, _opening(alice, 2)));
        assertTrue(arena.verifyOpening(taskId, alice, _opening(alice, 6)));
    }
}
