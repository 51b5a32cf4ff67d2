// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ICaseRules, LeafOpening, MarkChannel} from "../../src/interfaces/ICaseRules.sol";
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
    LeafOpening[] private leaves;
    CaseId private caseId;

    function setUp() public override {
        super.setUp();
        MarkChannel[] memory channels = Golden.shape(json, row);
        LeafOpening[] memory opened = Golden.leaves(json, row);
        for (uint256 c; c < channels.length; ++c) {
            shape.push(channels[c]);
        }
        for (uint256 k; k < opened.length; ++k) {
            leaves.push(opened[k]);
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
        LeafOpening[] memory some = new LeafOpening[](count);
        for (uint256 k; k < count; ++k) {
            some[k] = leaves[from + k];
        }
        vm.prank(alice);
        manager.openLeaves(caseId, shape, some);
    }

    function _badLeaf(uint256 k) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICaseRules.BadLeaf.selector, k);
    }

    function test_leavesAndAnswersOpenTheVote() public {
        _openLeaves(0, leaves.length);
        assertTrue(manager.caseOf(caseId).leavesOpened);
        _stageIs(caseId, Stage.Drawn);
        _respond(caseId, mallory);
        _stageIs(caseId, Stage.Voting);
    }

    function test_theOrderOfBothDoesNotMatter() public {
        _respond(caseId, mallory);
        _stageIs(caseId, Stage.Drawn);
        _openLeaves(0, leaves.length);
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
        _openLeaves(0, 20);
        assertEq(manager.caseOf(caseId).leaves, 20);
        assertFalse(manager.caseOf(caseId).leavesOpened);
        vm.expectRevert(_badLeaf(0));
        _openLeaves(0, 20); // the same again
        vm.expectRevert(_badLeaf(0));
        _openLeaves(21, 20); // one left out
        _openLeaves(20, leaves.length - 20);
        _stageIs(caseId, Stage.Voting);
    }

    /// @dev The attack: accuse, and never show the key. Rejected by code; who answered is paid for it.
    function test_unopenedLeavesRejectTheCase() public {
        _respond(caseId, mallory);
        _openLeaves(0, leaves.length - 1);
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
        _openLeaves(0, leaves.length);
        _settleAt(caseId, _deadline(caseId), Verdict.Upheld);
        assertEq(vault.burnedOf(mallory), 1_000e18);
    }

    function test_onlyTheDrawnLeavesOfTheKeyAreOpened() public {
        LeafOpening memory kept = leaves[1];
        leaves[1] = leaves[2];
        vm.expectRevert(_badLeaf(1)); // another leaf of the key
        _openLeaves(0, 3);
        leaves[1] = kept;
        leaves[1].seed = keccak256("a seed that would match");
        vm.expectRevert(_badLeaf(1));
        _openLeaves(0, 3);
        leaves[1] = kept;
        vm.expectRevert(_badLeaf(type(uint256).max));
        _openLeaves(0, 0);
        leaves.push(kept);
        vm.expectRevert(_badLeaf(type(uint256).max));
        _openLeaves(0, leaves.length);
        shape[0].groups += 1;
        vm.expectRevert();
        _openLeaves(0, 3); // the key's root binds how many leaves it has
    }

    function test_onlyTheChallengerOpensAndOnce() public {
        vm.prank(vera);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, vera));
        manager.openLeaves(caseId, shape, leaves);
        _openLeaves(0, leaves.length);
        vm.prank(alice);
        vm.expectRevert(IChallengeManager.AlreadyDone.selector);
        manager.openLeaves(caseId, shape, leaves);
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
        manager.openLeaves(late, shape, leaves);
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
