// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {Anchor, Opening} from "../../src/libraries/Transcript.sol";
import {NotAllowed} from "../../src/types/Errors.sol";
import {Phase, RunId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev The attacks: promises, anchors and models are taken out of the mempool or off the chain, and passed off as one's
/// own. Bob steals, Alice is the honest twin.
contract ProofTheftTest is StoryTest {
    bytes32 private model;

    function setUp() public override {
        super.setUp();
        _warpTo(Phase.Submission);
        _train(alice);
        model = _newModel(alice);
    }

    function _bobsRevealRefused() private {
        (uint64 branch, string memory cid) = (_branch(alice), _cid(alice));
        vm.prank(bob);
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(taskId, 1, branch, model, cid, SALT);
    }

    function _promise(RunId runId, bytes32 commitment) private {
        vm.prank(bob);
        arena.commitSubmission(runId, commitment);
    }

    /// @dev Her commitment out of the mempool, and first in line; then her reveal.
    function test_aCopiedPromiseCannotBeShownByTheCopier() public {
        _train(bob);
        _promise(runOf[bob], _commitmentTo(alice, model));
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _bobsRevealRefused();
        _revealModel(alice, model);
        assertNotEq(arena.standingOrder(taskId, alice, 1), 0);
        assertEq(arena.standingOrder(taskId, bob, 1), 0);
    }

    /// @dev Her run with all its anchors: the copy is perfect, but of another seed, and her promise does not fit it.
    function test_aCopiedRunHasASeedOfItsOwn() public {
        Run memory alices = _run(alice);
        vm.prank(bob);
        RunId runId = arena.registerRun(taskId, alices.specDigest, alices.keyRoot, _noBase());
        _mine(3);
        arena.latchBeacon(runId);
        Anchor[] memory copied = _anchorsOf(alice);
        for (uint256 k; k < copied.length; ++k) {
            vm.prank(bob);
            arena.anchor(runId, copied[k].first, copied[k].count, copied[k].root);
        }
        Opening memory branching = _opening(alice, REFERENCE);
        vm.prank(bob);
        arena.anchorReference(runId, branching);
        _mine(3);
        arena.latchMark(runId);
        Run memory copy = arena.run(runId);
        assertEq(copy.transcriptDigest, alices.transcriptDigest, "a perfect copy");
        assertNotEq(copy.beacon.value, alices.beacon.value, "but of another seed");
        assertGt(arena.anchors(runId, 0, 1)[0].blockNumber, copied[0].blockNumber, "and younger");
        _promise(runId, _commitmentTo(alice, model));
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _bobsRevealRefused();
        _revealModel(alice, model);
    }

    /// @dev Nobody submits, anchors or opens from another's run.
    function test_aRunIsItsTrainersAlone() public {
        RunId runId = runOf[alice];
        bytes32 commitment = _commitmentTo(alice, model);
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, bob));
        arena.commitSubmission(runId, commitment);
        _register(bob);
        Opening memory hers = _opening(alice, REFERENCE);
        runId = runOf[bob];
        vm.prank(bob);
        vm.expectRevert(IRuns.BadOpeningProof.selector);
        arena.anchorReference(runId, hers);
        _commitModel(alice, model);
    }

    /// @dev Her model as soon as it is public, promised by himself: hers was promised before.
    function test_aPublishedModelIsNotPromisedAgain() public {
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        _train(bob);
        _commitModel(bob, model);
        vm.warp(_times(2).opensAt);
        (uint64 branch, string memory cid) = (_branch(bob), _cid(bob));
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(IRuns.DuplicateModel.selector, model, alice));
        arena.revealSubmission(taskId, 2, branch, model, cid, SALT);
        vm.warp(_times(2).scoresFrom);
        arena.voidRun(runOf[bob]); // and nothing came of the run
        assertEq(arena.standingOrder(taskId, alice, FINAL), 1);
    }
}
