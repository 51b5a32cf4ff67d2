// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IChallengeManager} from "../../src/interfaces/IChallengeManager.sol";
import {IRuns, Run} from "../../src/interfaces/IRuns.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {CaseId, Phase, Verdict} from "../../src/types/Types.sol";
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

    /// @dev Only a declared stop makes a run shorter (EarlyStopTest).
    function test_aTruncatedLogIsNotSubmitted() public {
        _register(mallory);
        _anchor(mallory, 0, FIRST_ANCHOR);
        vm.startPrank(mallory);
        arena.anchorReference(taskId, _opening(mallory, 3));
        _mine(3);
        arena.latchMark(taskId, mallory);
        vm.expectRevert(abi.encodeWithSelector(IRuns.TranscriptIncomplete.selector, FIRST_ANCHOR, SEGMENTS));
        arena.commitSubmission(taskId, SALT);
        assertTrue(arena.abandoned(taskId, mallory), "and its stake pays for it");
        vm.stopPrank();

        _train(alice);
        _commitModel(alice, _model(alice));
    }

    /// @dev All is anchored, but the promised submission is of the first part. The Arena hashes the digest that it holds.
    function test_aDroppedTailIsNotWhatWasAnchored() public {
        _register(mallory);
        _anchor(mallory, 0, FIRST_ANCHOR);
        bytes32 firstPart = _commitmentTo(mallory, _model(mallory));
        vm.startPrank(mallory);
        arena.anchorReference(taskId, _opening(mallory, 3));
        vm.stopPrank();
        _anchor(mallory, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        _mine(3);
        arena.latchMark(taskId, mallory);
        vm.prank(mallory);
        arena.commitSubmission(taskId, firstPart);
        _train(alice);
        _commitModel(alice, _model(alice));

        vm.warp(_times(1).opensAt);
        (bytes32 model, string memory cid) = (_model(mallory), _cid(mallory));
        vm.prank(mallory);
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(taskId, model, cid, SALT);
        _revealModel(alice, _model(alice));
    }

    /// @dev The count is promised apart from the root: an anchor that holds fewer or more leaves than it says opens none.
    function test_anAnchorOfAnotherSizeThanPromisedOpensNowhere() public {
        for (uint64 size = FIRST_ANCHOR - 1; size <= FIRST_ANCHOR + 1; ++size) {
            address trainer = trainers[size - (FIRST_ANCHOR - 1)];
            _register(trainer);
            bytes32[] memory leaves = _leaves(trainer, 0, size);
            bytes32 root = Tree.root(leaves);
            vm.prank(trainer);
            arena.anchor(taskId, 0, FIRST_ANCHOR, root);
            for (uint64 i; i < size; ++i) {
                Opening memory opening = _opening(trainer, i);
                opening.siblings = Tree.siblings(leaves, i);
                opening.anchorIndex = 0;
                assertEq(arena.verifyOpening(taskId, trainer, opening), size == FIRST_ANCHOR);
            }
        }
    }

    /* TWO ROOTS FOR ONE JOB */

    function test_noSegmentIsAnchoredTwice() public {
        _train(mallory);
        Run memory before = arena.run(taskId, mallory);
        segmentsOf[mallory][6].endDigest = keccak256("the other history");
        for (uint64 first; first < SEGMENTS; ++first) {
            bytes32 root = Tree.root(_leaves(mallory, first, SEGMENTS - first));
            vm.prank(mallory);
            vm.expectRevert(abi.encodeWithSelector(IRuns.BadAnchor.selector, SEGMENTS, SEGMENTS));
            arena.anchor(taskId, first, SEGMENTS - first, root);
        }
        assertEq(keccak256(abi.encode(arena.run(taskId, mallory))), keccak256(abi.encode(before)));
        assertEq(_anchorsOf(mallory).length, 2);
    }

    function test_aSecondRunOfTheJobIsRefused() public {
        _train(mallory);
        vm.prank(mallory);
        vm.expectRevert(abi.encodeWithSelector(IRuns.RunExists.selector, mallory));
        arena.registerRun(taskId, keccak256("another spec"), keccak256("other keys"));
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
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadOpening.selector, 0));
        manager.respond(caseId, openings, "");
        CaseId twin = _openAndLatch(vera, alice);
        _respond(twin, alice);
        vm.warp(block.timestamp + 4 hours);
        manager.settle(caseId);
        assertEq(uint256(manager.caseOf(caseId).verdict), uint256(Verdict.Upheld));
    }
}
