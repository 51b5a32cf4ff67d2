// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {Anchor, Opening} from "../../src/libraries/Transcript.sol";
import {Phase, Role, TaskId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev The attack: what was anchored or promised for one job is used again for another (task, chain, trainer or spec),
/// so that old work passes for new. What the contracts do not see (the states inside a root) is left to the seed, which
/// differs in every one of these jobs: a verifier's replay leads elsewhere.
contract StaleAnchorTest is StoryTest {
    TaskId private first;
    TaskId private second;

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
        taskId = second;
    }

    function test_anchorsOfAnotherTaskOpenNothing() public {
        _register(alice);
        for (uint64 i; i < SEGMENTS; ++i) {
            Opening memory stale = _opening(alice, i);
            assertTrue(arena.verifyOpening(first, alice, stale));
            assertFalse(arena.verifyOpening(second, alice, stale));
        }
        Opening memory branch = _opening(alice, 3);
        vm.prank(alice);
        vm.expectRevert(IRuns.BadOpeningProof.selector);
        arena.anchorReference(second, branch);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.TranscriptIncomplete.selector, 0, SEGMENTS));
        arena.commitSubmission(second, SALT);
        _anchor(alice, 0, FIRST_ANCHOR); // the honest twin: anchored for this task
        vm.prank(alice);
        arena.anchorReference(second, branch);
    }

    /// @dev The same roots may be anchored again, but as what they are: promised now, after another beacon.
    function test_anOldRootIsAsYoungAsItsAnchor() public {
        _mine(100);
        _register(alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        Run memory old = arena.run(first, alice);
        Run memory young = arena.run(second, alice);
        assertEq(young.specDigest, old.specDigest, "even for one spec");
        assertNotEq(young.beacon.value, old.beacon.value, "the seeds differ");
        Anchor memory again = arena.anchors(second, alice)[0];
        assertEq(again.root, arena.anchors(first, alice)[0].root);
        assertEq(again.blockNumber, block.number);
        assertGt(again.blockNumber, young.beacon.blockNumber);
    }

    function test_theSameRootsUnderAnotherSpecAreAnotherTranscript() public {
        vm.prank(alice);
        arena.registerRun(second, keccak256("another spec"), keccak256("keys"));
        _mine(3);
        arena.latchBeacon(second, alice);
        _anchor(alice, 0, FIRST_ANCHOR);
        _anchor(alice, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        assertNotEq(arena.run(second, alice).transcriptDigest, arena.run(first, alice).transcriptDigest);
    }

    /// @dev Alice shows in the second task what she promised in the first; promised anew, the same model stands.
    function test_aPromiseHoldsInItsOwnTaskOnly() public {
        taskId = first;
        bytes32 stale = _commitmentTo(alice, _model(alice));
        taskId = second;
        _train(alice);
        assertEq(arena.run(second, alice).transcriptDigest, arena.run(first, alice).transcriptDigest);
        uint256 before = vm.snapshotState();
        vm.prank(alice);
        arena.commitSubmission(second, stale);
        vm.warp(_times(1).opensAt);
        (bytes32 model, string memory cid) = (_model(alice), _cid(alice));
        vm.prank(alice);
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(second, model, cid, SALT);

        vm.revertToState(before);
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        assertTrue(arena.standing(second, alice, 1));
    }

    /// @dev A promise copied with all its anchors by another trainer (SubmissionsTest has the one of another chain).
    function test_aPromiseHoldsForItsOwnTrainerOnly() public {
        Run memory alices = arena.run(first, alice);
        taskId = first;
        bytes32 stale = _commitmentTo(alice, _model(alice));
        vm.prank(bob);
        arena.registerRun(first, alices.specDigest, alices.keyRoot);
        _mine(3);
        arena.latchBeacon(first, bob);
        Anchor[] memory copied = arena.anchors(first, alice);
        for (uint256 k; k < copied.length; ++k) {
            vm.prank(bob);
            arena.anchor(first, copied[k].first, copied[k].count, copied[k].root);
        }
        Opening memory branch = _opening(alice, 3);
        vm.prank(bob);
        arena.anchorReference(first, branch);
        _mine(3);
        arena.latchMark(first, bob);
        assertEq(arena.run(first, bob).transcriptDigest, alices.transcriptDigest, "a perfect copy");
        assertNotEq(arena.run(first, bob).beacon.value, alices.beacon.value, "but of another seed");
        vm.prank(bob);
        arena.commitSubmission(first, stale);
        _commitModel(alice, _model(alice));
        vm.warp(_times(1).opensAt);
        (bytes32 model, string memory cid) = (_model(alice), _cid(alice));
        vm.prank(bob);
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(first, model, cid, SALT);
        _revealModel(alice, model);
        assertTrue(arena.standing(first, alice, 1));
    }
}
