// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {Anchor, Opening} from "../../src/libraries/Transcript.sol";
import {Phase, Role, RunId, TaskId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev The attack: what was anchored or promised for one job is used again for another (task, run, round or spec; of
/// chains and trainers see SubmissionsTest and ProofTheftTest), so that old work passes for new. What the contracts do
/// not see (the states inside a root) is left to the seed, which differs in every one of these jobs: a verifier's replay
/// leads elsewhere.
contract StaleAnchorTest is StoryTest {
    TaskId private first;
    TaskId private second;
    RunId private old;

    /// @dev Alice's run in one task is finished; the same people have staked in another that begins later.
    function setUp() public override {
        super.setUp();
        first = taskId;
        vm.warp(block.timestamp + 30 minutes);
        second = taskId = _createTask(_config());
        _stake(alice, Role.Trainer, 1_000e18, 0);
        _stake(bob, Role.Trainer, 1_000e18, 0);
        _warpTo(Phase.Submission); // of the second: both submission phases are on
        taskId = first;
        _train(alice);
        old = runOf[alice];
        taskId = second;
    }

    function test_anchorsOfAnotherTaskOpenNothing() public {
        _register(alice);
        _oldOpensNothing();
    }

    /// @dev Nor those of another run of the same trainer in the same task.
    function test_anchorsOfAnotherRunOpenNothing() public {
        taskId = first;
        _register(alice);
        _oldOpensNothing();
    }

    function _oldOpensNothing() private {
        RunId young = runOf[alice];
        for (uint64 i; i < SEGMENTS; ++i) {
            Opening memory stale = _opening(alice, i);
            assertTrue(arena.verifyOpening(old, stale));
            assertFalse(arena.verifyOpening(young, stale));
        }
        Opening memory branching = _opening(alice, REFERENCE);
        vm.prank(alice);
        vm.expectRevert(IRuns.BadOpeningProof.selector);
        arena.anchorReference(young, branching);
        _anchor(alice, 0, FIRST_ANCHOR); // the honest twin: anchored for this run
        vm.prank(alice);
        arena.anchorReference(young, branching);
    }

    /// @dev The same roots may be anchored again, but as what they are: promised now, after another beacon.
    function test_anOldRootIsAsYoungAsItsAnchor() public {
        _mine(100);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        (Run memory before, Run memory young) = (arena.run(old), _run(alice));
        assertEq(young.specDigest, before.specDigest, "even for one spec");
        assertNotEq(young.beacon.value, before.beacon.value, "the seeds differ");
        Anchor memory again = _anchorsOf(alice)[0];
        assertEq(again.root, arena.anchors(old, 0, 1)[0].root);
        assertEq(again.blockNumber, block.number);
        assertGt(again.blockNumber, young.beacon.blockNumber);
    }

    function test_theSameRootsUnderAnotherSpecAreAnotherTranscript() public {
        vm.prank(alice);
        runOf[alice] = arena.registerRun(second, keccak256("another spec"), keccak256("keys"), _noBase());
        _mine(3);
        arena.latchBeacon(runOf[alice]);
        _anchor(alice, 0, FIRST_ANCHOR);
        _anchor(alice, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        assertNotEq(_run(alice).transcriptDigest, arena.run(old).transcriptDigest);
    }

    /// @dev Alice shows in the second task what she promised in the first; promised anew, the same model stands.
    function test_aPromiseHoldsInItsOwnTaskOnly() public {
        taskId = first;
        bytes32 stale = _commitmentTo(alice, _newModel(alice));
        taskId = second;
        _onlyThePromiseMadeAnewIsShown(stale);
    }

    /// @dev The same from one of her runs to another, both with the same anchors.
    function test_aPromiseHoldsForItsOwnRunOnly() public {
        taskId = first;
        _onlyThePromiseMadeAnewIsShown(_commitmentTo(alice, _newModel(alice)));
    }

    /// @dev And from one round to the next, of one run.
    function test_aPromiseHoldsInItsOwnRoundOnly() public {
        taskId = first;
        bytes32 stale = _commitmentTo(alice, _newModel(alice));
        bytes32 model = _newModel(alice);
        vm.warp(_times(1).opensAt);
        vm.prank(alice);
        arena.commitSubmission(old, stale);
        vm.warp(_times(2).opensAt);
        _revealRefused(2, model);
    }

    function _onlyThePromiseMadeAnewIsShown(bytes32 stale) private {
        _train(alice);
        assertEq(_run(alice).transcriptDigest, arena.run(old).transcriptDigest);
        bytes32 model = _newModel(alice);
        uint256 before = vm.snapshotState();
        RunId young = runOf[alice];
        vm.prank(alice);
        arena.commitSubmission(young, stale);
        vm.warp(_times(1).opensAt);
        _revealRefused(1, model);

        vm.revertToState(before);
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        assertNotEq(arena.standingOrder(taskId, alice, 1), 0);
    }

    function _revealRefused(uint16 round, bytes32 model) private {
        string memory cid = _cid(alice);
        vm.prank(alice);
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(taskId, round, REFERENCE, model, cid, SALT);
    }
}
