// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ICaseRules} from "../../src/interfaces/ICaseRules.sol";
import {IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {CaseId, Phase, RunId, Verdict} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";
import {Tree} from "../helpers/Tree.sol";

/// @dev The attacks: a log cut short is passed off as the whole run (its tail held something embarrassing, or was never
/// trained), or one job has two histories, of which the convenient one is shown. Mallory attacks, Alice is the honest
/// twin.
contract TruncatedLogTest is StoryTest {
    function setUp() public override {
        super.setUp();
        _warpTo(Phase.Submission);
    }

    /* TRUNCATION */

    /// @dev Only a declared stop makes a run shorter (EarlyStopTest); a log that ends in silence is not in the final.
    function test_aTruncatedLogDoesNotStandInTheFinalRound() public {
        _register(mallory);
        _anchorSome(mallory);
        _train(alice);
        _commitNewModel(mallory);
        _commitNewModel(alice);
        vm.warp(_times(1).opensAt);
        _revealModel(mallory, _model(mallory));
        _revealModel(alice, _model(alice));
        assertEq(arena.standingOrder(taskId, mallory, FINAL), 0);
        assertEq(arena.standingOrder(taskId, alice, FINAL), 2);
    }

    /// @dev All is anchored, but the promised submission is of the first part. The Arena hashes the digest that it holds.
    function test_aDroppedTailIsNotWhatWasAnchored() public {
        _register(mallory);
        _anchorSome(mallory);
        bytes32 model = _newModel(mallory);
        bytes32 firstPart = _commitmentTo(mallory, model);
        _anchorRest(mallory);
        RunId runId = runOf[mallory];
        vm.prank(mallory);
        arena.commitSubmission(runId, firstPart);
        _train(alice);
        _commitNewModel(alice);

        vm.warp(_times(1).opensAt);
        string memory cid = _cid(mallory);
        vm.prank(mallory);
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(taskId, 1, REFERENCE, model, cid, SALT);
        _revealModel(alice, _model(alice));
    }

    /// @dev Anchored after the promise, and claimed to be of it: the branch must lie in what was anchored before.
    function test_aTailThatGrewLaterIsNotOfThePromise() public {
        _register(mallory);
        _anchorSome(mallory);
        _commitNewModel(mallory);
        _anchorRest(mallory);
        vm.warp(_times(1).opensAt);
        (bytes32 model, string memory cid) = (_model(mallory), _cid(mallory));
        vm.prank(mallory);
        vm.expectRevert(abi.encodeWithSelector(IRuns.BadBranch.selector, REFERENCE, FIRST_ANCHOR));
        arena.revealSubmission(taskId, 1, SEGMENTS - 1, model, cid, SALT);
        _revealModel(mallory, model); // the honest twin: from where it did leave the trunk
    }

    /// @dev The count is promised apart from the root: an anchor that holds fewer or more leaves than it says opens none.
    function test_anAnchorOfAnotherSizeThanPromisedOpensNowhere() public {
        for (uint64 size = FIRST_ANCHOR - 1; size <= FIRST_ANCHOR + 1; ++size) {
            address trainer = trainers[size - (FIRST_ANCHOR - 1)];
            _register(trainer);
            bytes32[] memory leaves = _leaves(trainer, 0, size);
            bytes32 root = Tree.root(leaves);
            RunId runId = runOf[trainer];
            vm.prank(trainer);
            arena.anchor(runId, 0, FIRST_ANCHOR, root);
            for (uint64 i; i < size; ++i) {
                Opening memory opening = _opening(trainer, i);
                opening.siblings = Tree.siblings(leaves, i);
                opening.anchorIndex = 0;
                assertEq(arena.verifyOpening(runId, opening), size == FIRST_ANCHOR);
            }
        }
    }

    /* TWO ROOTS FOR ONE JOB */

    function test_noSegmentIsAnchoredTwice() public {
        _train(mallory);
        Run memory before = _run(mallory);
        RunId runId = runOf[mallory];
        segmentsOf[mallory][6].endDigest = keccak256("the other history");
        for (uint64 first; first < SEGMENTS; ++first) {
            bytes32 root = Tree.root(_leaves(mallory, first, SEGMENTS - first));
            vm.prank(mallory);
            vm.expectRevert(abi.encodeWithSelector(IRuns.BadAnchor.selector, SEGMENTS, SEGMENTS));
            arena.anchor(runId, first, SEGMENTS - first, root);
        }
        assertEq(keccak256(abi.encode(_run(mallory))), keccak256(abi.encode(before)));
        assertEq(_anchorsOf(mallory).length, 2);
    }

    /// @dev The other history is another run: of another seed, at the price of another bond, and each opens its own only.
    function test_aSecondHistoryIsASecondRun() public {
        _train(mallory);
        RunId first = runOf[mallory];
        Opening memory mine = _opening(mallory, 6);
        segmentsOf[mallory][6].endDigest = keccak256("the other history");
        _train(mallory);
        RunId second = runOf[mallory];
        Opening memory other = _opening(mallory, 6);
        assertNotEq(arena.run(first).beacon.value, arena.run(second).beacon.value);
        assertEq(token.balanceOf(address(arena)), 2 * uint256(_pay().runBond));
        assertTrue(arena.verifyOpening(first, mine) && arena.verifyOpening(second, other));
        assertFalse(arena.verifyOpening(first, other) || arena.verifyOpening(second, mine));
    }

    /// @dev Mallory answers a case from the history that she did not anchor; Alice from the one she did.
    function test_theOtherHistoryDoesNotOpen() public {
        _playToChallenging();
        CaseId caseId = _openAndLatch(vera, mallory);
        for (uint64 i; i < SEGMENTS; ++i) {
            segmentsOf[mallory][i].batchRoot = keccak256("the other history");
        }
        Opening[] memory openings = _drawnOpenings(caseId, mallory);
        vm.prank(mallory);
        vm.expectRevert(abi.encodeWithSelector(ICaseRules.BadOpening.selector, 0));
        manager.respond(caseId, openings, "");
        CaseId twin = _openAndLatch(vera, alice);
        _respond(twin, alice);
        vm.warp(block.timestamp + _court().answerWindow);
        manager.settle(caseId);
        assertEq(uint256(manager.caseOf(caseId).verdict), uint256(Verdict.Upheld));
    }
}
