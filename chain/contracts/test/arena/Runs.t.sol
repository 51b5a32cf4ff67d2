// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {BaseModel, Bond, IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {TaskConfig} from "../../src/interfaces/ITasks.sol";
import {Commitments} from "../../src/libraries/Commitments.sol";
import {Anchor, Opening} from "../../src/libraries/Transcript.sol";
import {
    BeaconAlreadyRequested,
    BeaconExpired,
    BeaconNotReady,
    BeaconNotRequested,
    NotAllowed,
    NotTrainer,
    TooLate,
    UnknownTask,
    WrongPhase
} from "../../src/types/Errors.sol";
import {Phase, Role, RunId, TaskId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";
import {Tree} from "../helpers/Tree.sol";

contract RunsTest is StoryTest {
    bytes32 private constant SPEC = keccak256("spec");
    bytes32 private constant KEYS = keccak256("keys");

    function _registerAs(address trainer) private returns (RunId runId) {
        vm.prank(trainer);
        return arena.registerRun(taskId, SPEC, KEYS, _noBase());
    }

    /* REGISTRATION AND SEED */

    function test_registeringPromisesABlockAhead() public {
        RunId runId = RunId.wrap(1);
        vm.expectEmit(address(arena));
        emit IRuns.RunRegistered(runId, taskId, alice, SPEC, KEYS, 0, uint64(block.number + 2));
        assertEq(RunId.unwrap(_registerAs(alice)), 1);
        Run memory run = arena.run(runId);
        assertEq(TaskId.unwrap(run.taskId), TaskId.unwrap(taskId));
        assertEq(run.trainer, alice);
        assertEq(uint256(run.bond), uint256(Bond.Held));
        assertEq(run.specDigest, SPEC);
        assertEq(run.keyRoot, KEYS);
        assertEq(run.baseDigest, 0);
        assertEq(run.transcriptDigest, SPEC);
        assertEq(run.beacon.blockNumber, block.number + 2);
        assertEq(run.beacon.value, 0);
    }

    function test_eachRunHasABondAndABeaconOfItsOwn() public {
        RunId first = _registerAs(alice);
        _mine(1);
        RunId second = _registerAs(alice);
        RunId bobs = _registerAs(bob);
        RunId[] memory runs = arena.runsOf(taskId, alice);
        assertEq(runs.length, 2);
        assertEq(RunId.unwrap(runs[0]), RunId.unwrap(first));
        assertEq(RunId.unwrap(runs[1]), RunId.unwrap(second));
        assertEq(arena.runsOf(taskId, bob).length, 1);
        assertEq(RunId.unwrap(bobs), 3);
        assertEq(token.balanceOf(address(arena)), 3 * uint256(_pay().runBond));
        assertEq(arena.run(second).beacon.blockNumber, arena.run(first).beacon.blockNumber + 1);
        _mine(3);
        arena.latchBeacon(first);
        assertEq(arena.run(second).beacon.value, 0);
        arena.latchBeacon(second);
        assertNotEq(arena.run(second).beacon.value, arena.run(first).beacon.value);
    }

    function test_aRunIsNotRegisteredWithoutItsBond() public {
        vm.startPrank(alice);
        token.approve(address(arena), _pay().runBond - 1);
        vm.expectPartialRevert(IERC20Errors.ERC20InsufficientAllowance.selector);
        arena.registerRun(taskId, SPEC, KEYS, _noBase());
        token.approve(address(arena), _pay().runBond);
        arena.registerRun(taskId, SPEC, KEYS, _noBase());
        assertEq(token.allowance(alice, address(arena)), 0);
    }

    function test_aTaskMustExist() public {
        taskId = TaskId.wrap(2);
        vm.expectRevert(abi.encodeWithSelector(UnknownTask.selector, taskId));
        _registerAs(alice);
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
        arena.registerRun(taskId, 0, KEYS, _noBase());
        vm.expectRevert(IRuns.EmptyDigest.selector);
        arena.registerRun(taskId, SPEC, 0, _noBase());
    }

    function test_runsAreRegisteredUntilSubmissionsEnd() public {
        vm.warp(_phases().finalFrom - 1);
        _registerAs(alice);
        vm.warp(_phases().finalFrom);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission));
        _registerAs(bob);
    }

    /// @dev Where each run brings its own data, none is promised once a model can be seen.
    function test_freeDataIsPromisedBeforeTheFirstModelIsShown() public {
        TaskConfig memory config = _config();
        config.work.trainRoot = 0;
        TaskId fixedData = taskId;
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, 1_000e18, 0);
        uint64 shown = _times(1).opensAt;
        vm.warp(shown - 1);
        _registerAs(alice);
        vm.warp(shown);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, shown));
        _registerAs(alice);
        taskId = fixedData;
        _registerAs(alice);
    }

    function test_theSeedIsDrawnFromTheHashOfThePromisedBlock() public {
        RunId runId = _registerAs(alice);
        uint256 promised = block.number + 2;
        vm.roll(promised);
        vm.expectRevert(abi.encodeWithSelector(BeaconNotReady.selector, promised));
        arena.latchBeacon(runId);
        vm.roll(promised + 1);
        vm.prank(stranger);
        arena.latchBeacon(runId);
        assertEq(arena.run(runId).beacon.value, Commitments.runBeacon(runId, blockhash(promised)));
        assertNotEq(blockhash(promised), 0);
    }

    function test_theSeedIsTheSameHoweverLateItIsLatched() public {
        RunId runId = _registerAs(alice);
        uint256 promised = block.number + 2;
        vm.roll(promised + 1);
        bytes32 early = blockhash(promised);
        vm.roll(promised + 256);
        arena.latchBeacon(runId);
        assertEq(arena.run(runId).beacon.value, Commitments.runBeacon(runId, early));
    }

    function test_anUnlatchedRunIsNeverSeeded() public {
        RunId runId = _registerAs(alice);
        uint256 promised = block.number + 2;
        vm.roll(promised + 257);
        vm.expectRevert(abi.encodeWithSelector(BeaconExpired.selector, promised));
        arena.latchBeacon(runId);
        _warpTo(Phase.Submission);
        vm.prank(alice);
        vm.expectRevert(IRuns.BeaconNotLatched.selector);
        arena.anchor(runId, 0, 1, SPEC);
    }

    function test_aRunIsSeededOnce() public {
        RunId runId = _registerAs(alice);
        uint256 promised = block.number + 2;
        _mine(3);
        arena.latchBeacon(runId);
        _mine(10);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised));
        arena.latchBeacon(runId);
    }

    function test_noRunNoBeacon() public {
        RunId runId = RunId.wrap(1);
        vm.expectRevert(abi.encodeWithSelector(IRuns.UnknownRun.selector, runId));
        arena.latchBeacon(runId);
        vm.expectRevert(abi.encodeWithSelector(IRuns.UnknownRun.selector, runId));
        arena.run(runId);
        _registerAs(alice);
        vm.expectRevert(BeaconNotRequested.selector);
        arena.latchMark(runId);
    }

    function test_onlyItsTrainerActsForARun() public {
        _warpTo(Phase.Submission);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        Opening memory opening = _opening(alice, REFERENCE);
        RunId runId = runOf[alice];
        bytes memory refused = abi.encodeWithSelector(NotAllowed.selector, bob);
        vm.startPrank(bob);
        vm.expectRevert(refused);
        arena.anchor(runId, FIRST_ANCHOR, 1, SPEC);
        vm.expectRevert(refused);
        arena.declareStop(runId, FIRST_ANCHOR);
        vm.expectRevert(refused);
        arena.anchorReference(runId, opening);
        vm.expectRevert(refused);
        arena.commitSubmission(runId, SPEC);
        vm.expectRevert(refused);
        arena.releaseRunBond(runId);
    }

    /* BASE MODELS */

    bytes32 private constant GPT = keccak256("gpt");
    bytes32 private constant LLAMA = keccak256("llama");

    /// @dev A task that starts from either base model, or (a leaf of 0) from the seed if `seed`.
    function _createTaskWithBases(bool seed) private returns (bytes32[] memory leaves) {
        leaves = new bytes32[](seed ? 3 : 2);
        (leaves[0], leaves[1]) = (GPT, LLAMA);
        TaskConfig memory config = _config();
        config.work.basesRoot = Tree.root(leaves);
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, 1_000e18, 0);
    }

    function _base(bytes32[] memory leaves, uint64 position) private pure returns (BaseModel memory) {
        bytes32[] memory path = Tree.siblings(leaves, position);
        return BaseModel({
            digest: leaves[position], position: position, count: uint64(leaves.length), siblings: path
        });
    }

    function _baseRefused(BaseModel memory base) private {
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.BadBase.selector, base.digest));
        arena.registerRun(taskId, SPEC, KEYS, base);
    }

    function test_aRunStartsFromAnAcceptedBase() public {
        bytes32[] memory leaves = _createTaskWithBases(false);
        for (uint64 position; position < 2; ++position) {
            BaseModel memory base = _base(leaves, position);
            vm.prank(alice);
            RunId runId = arena.registerRun(taskId, SPEC, KEYS, base);
            assertEq(arena.run(runId).baseDigest, leaves[position]);
        }
        _baseRefused(_noBase());
        BaseModel memory another = _base(leaves, 1);
        another.digest = keccak256("another");
        _baseRefused(another);
        BaseModel memory moved = _base(leaves, 1);
        moved.position = 0;
        _baseRefused(moved);
    }

    function test_aLeafOfZeroAcceptsRunsFromTheSeed() public {
        bytes32[] memory leaves = _createTaskWithBases(true);
        vm.startPrank(alice);
        assertEq(arena.run(arena.registerRun(taskId, SPEC, KEYS, _base(leaves, 0))).baseDigest, GPT);
        assertEq(arena.run(arena.registerRun(taskId, SPEC, KEYS, _base(leaves, 2))).baseDigest, 0);
        vm.stopPrank();
        _baseRefused(_noBase());
    }

    function test_withoutAListNoBaseIsAccepted() public {
        BaseModel memory base;
        base.digest = GPT;
        _baseRefused(base);
        (base.digest, base.count) = (0, 1);
        _baseRefused(base);
    }

    /* ANCHORS */

    function test_anchorsAppendAndFoldIntoTheTranscript() public {
        _warpTo(Phase.Submission);
        _register(alice);
        bytes32 spec = _run(alice).specDigest;
        bytes32 root = Tree.root(_leaves(alice, 0, 5));
        bytes memory link = abi.encodePacked(spec, uint64(0), uint64(5), root);
        bytes32 folded = sha256(abi.encodePacked("aiarena/transcript/v1", link));
        vm.expectEmit(address(arena));
        emit IRuns.Anchored(runOf[alice], 0, 0, 5, root, folded);
        vm.prank(alice);
        arena.anchor(runOf[alice], 0, 5, root);
        _mine(7);
        _anchor(alice, 5, 3);

        Anchor[] memory list = _anchorsOf(alice);
        assertEq(list.length, 2);
        assertEq(list[0].root, root);
        assertEq(list[1].first, 5);
        assertEq(list[1].count, 3);
        assertEq(list[1].blockNumber, block.number);
        assertEq(_run(alice).anchored, 8);
    }

    /// @dev A run may have 65,536 anchors; whoever asks reads as many at a time as its node allows.
    function testFuzz_anchorsAreReadInPages(uint256 from, uint256 count) public {
        _warpTo(Phase.Submission);
        _register(alice);
        for (uint64 k; k < SEGMENTS; ++k) {
            _anchor(alice, k, 1);
        }
        from = bound(from, 0, SEGMENTS + 1);
        if (count % 2 == 0) count = bound(count, 0, SEGMENTS + 1);
        Anchor[] memory page = arena.anchors(runOf[alice], from, count);
        uint256 left = from < SEGMENTS ? SEGMENTS - from : 0;
        assertEq(page.length, count < left ? count : left);
        for (uint256 k; k < page.length; ++k) {
            assertEq(page[k].first, from + k);
        }
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
        arena.anchor(runOf[alice], 8, 1, SPEC);
    }

    function _anchorRefused(uint64 first, uint64 count) private {
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.BadAnchor.selector, 5, 8));
        arena.anchor(runOf[alice], first, count, SPEC);
    }

    function test_anchorsBelongToTheSubmissionPhase() public {
        _register(alice);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.Registration, Phase.Submission));
        arena.anchor(runOf[alice], 0, 5, SPEC);
        vm.warp(_phases().finalFrom - 1);
        _anchor(alice, 0, 5);
        vm.warp(_phases().finalFrom);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission));
        arena.anchor(runOf[alice], 5, 3, SPEC);
    }

    /* REFERENCE AND MARK */

    function test_theReferenceIsAnAnchoredState() public {
        _warpTo(Phase.Submission);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        Opening memory opening = _opening(alice, 3);
        vm.expectEmit(address(arena));
        emit IRuns.ReferenceAnchored(runOf[alice], 3, _state(alice, 4), uint64(block.number + 2));
        vm.prank(alice);
        arena.anchorReference(runOf[alice], opening);
        assertEq(_run(alice).referenceDigest, _state(alice, 4));
        assertEq(_run(alice).referenceSegment, 3);

        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.ReferenceExists.selector, 3));
        arena.anchorReference(runOf[alice], opening);
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
        arena.anchorReference(runOf[alice], invented);
        vm.expectRevert(IRuns.BadOpeningProof.selector);
        arena.anchorReference(runOf[alice], unanchored);
        vm.expectRevert(IRuns.BadOpeningProof.selector);
        arena.anchorReference(runOf[alice], bobs);
    }

    function test_anUnlatchedMarkVoidsTheRun() public {
        _warpTo(Phase.Submission);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        _anchor(alice, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        Opening memory opening = _opening(alice, 3);
        vm.prank(alice);
        arena.anchorReference(runOf[alice], opening);
        uint256 promised = block.number + 2;
        vm.roll(promised + 257);
        vm.expectRevert(abi.encodeWithSelector(BeaconExpired.selector, promised));
        arena.latchMark(runOf[alice]);
        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.ReferenceExists.selector, 3));
        arena.anchorReference(runOf[alice], opening);
        vm.expectRevert(IRuns.MarkNotLatched.selector);
        arena.commitSubmission(runOf[alice], SPEC);
    }

    /* OPENINGS */

    function test_everyAnchoredSegmentOpens() public {
        _warpTo(Phase.Submission);
        _train(alice);
        _train(bob);
        for (uint64 i; i < SEGMENTS; ++i) {
            assertTrue(arena.verifyOpening(runOf[alice], _opening(alice, i)));
            assertFalse(arena.verifyOpening(runOf[bob], _opening(alice, i)), "another trainer's");
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
            assertFalse(arena.verifyOpening(runOf[alice], bad[k]));
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
        assertFalse(arena.verifyOpening(runOf[alice], opening));
        opening.siblings = new bytes32[](path.length + 1);
        for (uint256 i; i < path.length; ++i) {
            opening.siblings[i] = path[i];
        }
        assertFalse(arena.verifyOpening(runOf[alice], opening));
    }

    /// @dev A trainer may anchor anything; steps other than the task's cannot be opened afterwards, but shown to be wrong.
    function test_committedButWrongStepsDoNotOpen() public {
        _warpTo(Phase.Submission);
        segmentsOf[alice][7].endStep = 80; // the run ends at 75
        segmentsOf[alice][2].startStep = 21;
        _train(alice);
        assertFalse(arena.verifyOpening(runOf[alice], _opening(alice, 7)));
        assertFalse(arena.verifyOpening(runOf[alice], _opening(alice, 2)));
        assertTrue(arena.verifyOpening(runOf[alice], _opening(alice, 6)));
        assertTrue(arena.anchoredAt(runOf[alice], _opening(alice, 7), 2));
        assertTrue(arena.anchoredAt(runOf[alice], _opening(alice, 2), 2));
    }

    /// @dev Whatever a leaf says of itself: only what is anchored, and only where it is.
    function test_aLeafIsShownWhereItIsAnchored() public {
        _warpTo(Phase.Submission);
        segmentsOf[alice][6].index = 3; // in the place of segment 6
        _register(alice);
        _anchorRestOf(alice);
        Opening memory opening = _opening(alice, 6);
        assertTrue(arena.anchoredAt(runOf[alice], opening, 1));
        assertFalse(arena.anchoredAt(runOf[alice], opening, 0));
        assertFalse(arena.anchoredAt(runOf[alice], opening, 3));
        assertFalse(arena.verifyOpening(runOf[alice], opening), "not as segment 3");
        opening.segment.index = 6;
        assertFalse(arena.anchoredAt(runOf[alice], opening, 1), "nor as segment 6");
        assertFalse(arena.verifyOpening(runOf[alice], opening));
        opening.anchorIndex = 2;
        assertFalse(arena.anchoredAt(runOf[alice], opening, 1));
        assertFalse(arena.anchoredAt(RunId.wrap(99), opening, 1));
        assertFalse(arena.verifyOpening(RunId.wrap(99), opening));
    }

    function _anchorRestOf(address trainer) private {
        _anchor(trainer, 0, FIRST_ANCHOR);
        _anchor(trainer, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
    }

    /* SEVERAL RUNS */

    function test_theRunsOfATrainerGrowApart() public {
        _warpTo(Phase.Submission);
        _train(alice);
        RunId first = runOf[alice];
        bytes32 before = keccak256(abi.encode(arena.run(first)));
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        _declareStop(alice, FIRST_ANCHOR);
        assertEq(keccak256(abi.encode(arena.run(first))), before);
        assertEq(arena.runSegments(first), SEGMENTS);
        assertEq(arena.runSegments(runOf[alice]), FIRST_ANCHOR);
        assertTrue(arena.verifyOpening(first, _opening(alice, 6)));
        assertFalse(arena.verifyOpening(runOf[alice], _opening(alice, 6)));
    }
}
