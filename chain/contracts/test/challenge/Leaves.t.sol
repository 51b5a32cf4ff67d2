// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ICaseRules, LeafRange, MarkChannel} from "../../src/interfaces/ICaseRules.sol";
import {Charge, IChallengeManager, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {Run} from "../../src/interfaces/IRuns.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {BeaconNotRequested, NotAllowed} from "../../src/types/Errors.sol";
import {CaseId, Ground, RunId, TaskId, Verdict} from "../../src/types/Types.sol";
import {Golden} from "../helpers/Golden.sol";
import {CourtTest} from "./CourtTest.sol";

/// @dev Watermarks: Alice submitted first, and says that Mallory's model carries her mark. Her key is the golden one of
/// two channels.
contract LeavesTest is CourtTest {
    string private json = Golden.read("mark.json");
    string private row = Golden.row(2);
    MarkChannel[] private shape;
    LeafRange[] private ranges;
    CaseId private caseId;

    function setUp() public override {
        super.setUp();
        MarkChannel[] memory channels = Golden.shape(json, row);
        LeafRange[] memory opened = Golden.ranges(json, row);
        for (uint256 c; c < channels.length; ++c) {
            shape.push(channels[c]);
        }
        for (uint256 k; k < opened.length; ++k) {
            ranges.push(opened[k]);
        }
        scoring.setBeacon(vm.parseJsonBytes32(json, string.concat(row, ".beacon")));
        _submit(alice, 1);
        _submit(mallory, 2);
        _submit(bob, 3);
        caseId = _draw(alice, _accusation(mallory, alice));
    }

    function _adjust(address trainer, Run memory run) internal view override {
        if (trainer == alice) run.keyRoot = vm.parseJsonBytes32(json, string.concat(row, ".key_root"));
    }

    function _accusation(address trainer, address claimant) private view returns (Charge memory charge) {
        charge = _charge(trainer);
        (charge.ground, charge.claim) = (Ground.Watermark, _runOf(claimant));
    }

    function _openLeaves(uint256 from, uint256 count) private {
        LeafRange[] memory some = new LeafRange[](count);
        for (uint256 k; k < count; ++k) {
            some[k] = ranges[from + k];
        }
        vm.prank(alice);
        manager.openLeaves(caseId, shape, some);
    }

    function _badLeaf(uint256 k) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICaseRules.BadLeaf.selector, k);
    }

    function test_leavesAndAnswersOpenTheVote() public {
        _openLeaves(0, ranges.length);
        assertTrue(manager.caseOf(caseId).leavesOpened);
        _stageIs(caseId, Stage.Drawn);
        _respond(caseId, mallory);
        _stageIs(caseId, Stage.Voting);
    }

    function test_theOrderOfBothDoesNotMatter() public {
        _respond(caseId, mallory);
        _stageIs(caseId, Stage.Drawn);
        _openLeaves(0, ranges.length);
        _stageIs(caseId, Stage.Voting);
    }

    /// @dev While the leaves are awaited, too: what is served does not change under those who look at it.
    function test_aTrainerAnswersOnce() public {
        _respond(caseId, mallory);
        Opening[] memory openings = _answers(caseId, mallory);
        vm.prank(mallory);
        vm.expectRevert(IChallengeManager.AlreadyDone.selector);
        manager.respond(caseId, openings, "bafy-other");
    }

    function test_leavesAreOpenedInChunks() public {
        _respond(caseId, mallory);
        _openLeaves(0, 4);
        uint256 opened;
        for (uint256 k; k < 4; ++k) {
            opened += ranges[k].secrets.length / 2;
        }
        assertEq(manager.caseOf(caseId).leaves, opened);
        assertFalse(manager.caseOf(caseId).leavesOpened);
        vm.expectRevert(_badLeaf(0));
        _openLeaves(0, 4); // the same again
        vm.expectRevert(_badLeaf(0));
        _openLeaves(5, 4); // one left out
        _openLeaves(4, ranges.length - 4);
        _stageIs(caseId, Stage.Voting);
    }

    /// @dev The attack: accuse, and never show the key. Rejected by code; who answered is paid for it.
    function test_unopenedLeavesRejectTheCase() public {
        _respond(caseId, mallory);
        _openLeaves(0, ranges.length - 1);
        uint256 supply = token.totalSupply();
        _settleAt(caseId, _deadline(caseId), Verdict.Rejected);
        assertEq(manager.credit(mallory), 3 * COST);
        assertEq(manager.credit(alice), 0);
        assertEq(supply - token.totalSupply(), BOND - 3 * COST);
        _holdsCreditsOnly();
    }

    function test_neitherSideComesAndTheCaseIsRejected() public {
        _settleAt(caseId, _deadline(caseId), Verdict.Rejected);
        assertEq(manager.credit(mallory), 0);
    }

    function test_openedLeavesAndSilenceAreADefault() public {
        _openLeaves(0, ranges.length);
        _settleAt(caseId, _deadline(caseId), Verdict.Upheld);
        assertEq(vault.burnedOf(mallory), 1_000e18);
    }

    function test_onlyTheDrawnLeavesOfTheKeyAreOpened() public {
        LeafRange memory kept = ranges[1];
        ranges[1] = ranges[2];
        vm.expectRevert(_badLeaf(1)); // other leaves of the key
        _openLeaves(0, 3);
        ranges[1] = kept;
        ranges[1].secrets[0] = keccak256("a seed that would match");
        vm.expectRevert(_badLeaf(1));
        _openLeaves(0, 3);
        ranges[1] = kept;
        ranges[1].secrets = new bytes32[](0);
        vm.expectRevert(_badLeaf(1));
        _openLeaves(0, 3);
        ranges[1] = kept;
        vm.expectRevert(_badLeaf(type(uint256).max));
        _openLeaves(0, 0);
        ranges.push(kept);
        vm.expectRevert(_badLeaf(ranges.length - 1)); // more than were drawn
        _openLeaves(0, ranges.length);
        shape[0].groups += 1;
        vm.expectRevert();
        _openLeaves(0, 3); // the key's root binds how many leaves it has
    }

    /// @dev The attack: a key is ground until leaves that nobody drew match, and they are shown beside one that was drawn.
    function test_whatLiesBesideADrawnLeafIsNotOpened() public {
        LeafRange[] memory some = new LeafRange[](1);
        some[0] = Golden.range(json, string.concat(row, ".undrawn"));
        vm.prank(alice);
        vm.expectRevert(_badLeaf(0));
        manager.openLeaves(caseId, shape, some);
        _openLeaves(0, 1);
    }

    function test_onlyTheChallengerOpensAndOnce() public {
        vm.prank(vera);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, vera));
        manager.openLeaves(caseId, shape, ranges);
        _openLeaves(0, ranges.length);
        vm.prank(alice);
        vm.expectRevert(IChallengeManager.AlreadyDone.selector);
        manager.openLeaves(caseId, shape, ranges);
    }

    function test_withoutTheTasksBeaconNothingIsOpened() public {
        scoring.setBeacon(0);
        vm.expectRevert(BeaconNotRequested.selector);
        _openLeaves(0, 1);
    }

    /// @dev The attack: Bob, who committed last, claims what was there before him.
    function test_aLaterCommitmentClaimsNothing() public {
        CaseId late = _draw(bob, _accusation(alice, bob));
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(ICaseRules.NotEarlier.selector, 3, 1));
        manager.openLeaves(late, shape, ranges);
        _settleAt(late, _deadline(late), Verdict.Rejected);
    }

    function test_aRunWithoutAModelClaimsNothing() public {
        Run memory run = arena.run(_runOf(alice));
        run.firstOrder = 0;
        arena.setRun(_runOf(alice), run);
        vm.expectRevert(abi.encodeWithSelector(ICaseRules.NotEarlier.selector, 0, 2));
        _openLeaves(0, 1);
    }

    function test_onlyARunOfOnesOwnIsClaimed() public {
        Charge memory charge = _accusation(mallory, alice);
        bytes memory bad = abi.encodeWithSelector(IChallengeManager.BadClaim.selector, _runOf(alice));
        CaseId sealed_ = _seal(vera, charge);
        vm.prank(vera);
        vm.expectRevert(bad);
        manager.showCase(sealed_, charge, SALT);

        Run memory run = arena.run(_runOf(alice));
        run.taskId = TaskId.wrap(2);
        arena.setRun(_runOf(alice), run);
        sealed_ = _seal(alice, charge);
        vm.prank(alice);
        vm.expectRevert(bad);
        manager.showCase(sealed_, charge, SALT);

        charge.claim = RunId.wrap(0);
        sealed_ = _seal(alice, charge);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadClaim.selector, 0));
        manager.showCase(sealed_, charge, SALT);
    }

    function test_aReplayCaseOpensNoLeaves() public {
        caseId = _draw(alice, _charge(mallory));
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadClaim.selector, 0));
        _openLeaves(0, 1);
    }
}
