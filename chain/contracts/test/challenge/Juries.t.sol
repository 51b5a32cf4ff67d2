// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Case, IChallengeManager, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {Court} from "../../src/interfaces/ITasks.sol";
import {BeaconNotReady, TooEarly, TooLate} from "../../src/types/Errors.sol";
import {CaseId, Verdict} from "../../src/types/Types.sol";
import {CourtTest} from "./CourtTest.sol";

/// @dev Juries of 5 and 11 draws, then everybody. Vera challenges Alice, who answers.
contract JuriesTest is CourtTest {
    bytes32 private constant SAME = keccak256("what both replays gave");

    CaseId private caseId;

    function setUp() public override {
        super.setUp();
        _submit(alice, 1);
        caseId = _drawAndRespond(vera, alice);
    }

    function _courtTerms() internal view override returns (Court memory court) {
        court = super._courtTerms();
        court.appeals = 2;
    }

    function _latch() private {
        _mine(3);
        manager.latchJury(caseId);
    }

    function _weights() private view returns (uint256[4] memory weights, uint256 sum) {
        for (uint256 j; j < validators.length; ++j) {
            weights[j] = _hitsOf(validators[j]);
            sum += weights[j];
        }
    }

    /// @dev The draws that hit a validator, worked out apart from the contract.
    function _hitsOf(address validator) private view returns (uint256 hits) {
        Case memory case_ = manager.caseOf(caseId);
        (uint256 from, uint256 own) = vault.range(taskId, validator);
        bytes32 domain = "aiarena/jury-draw/v1";
        uint256 draws = case_.level == 0 ? 5 : 11;
        for (uint256 k; k < draws; ++k) {
            uint256 point = uint256(sha256(abi.encode(domain, case_.jury.value, caseId, case_.level, k))) % 2_000e18;
            if (from <= point && point < from + own) ++hits;
        }
    }

    /* DRAWS */

    function test_everyDrawHitsOneValidator() public {
        uint256 challengersDraws;
        for (uint256 n; n < 20; ++n) {
            if (n != 0) caseId = _drawAndRespond(vera, alice);
            _latch();
            (uint256[4] memory weights, uint256 sum) = _weights();
            assertEq(sum, 5);
            assertEq(manager.jurorWeight(caseId, vera), 0);
            for (uint256 j = 1; j < 4; ++j) {
                assertEq(manager.jurorWeight(caseId, validators[j]), weights[j]);
            }
            challengersDraws += weights[0];
        }
        assertGt(challengersDraws, 0, "some draws hit the challenger, whom they do not seat");
    }

    function test_trainersAndStrangersAreNeverDrawn() public {
        _latch();
        assertEq(manager.jurorWeight(caseId, alice), 0);
        assertEq(manager.jurorWeight(caseId, bob), 0);
        assertEq(manager.jurorWeight(caseId, stranger), 0);
    }

    function test_theJuryIsDrawnByAPromisedBlockOnce() public {
        uint256 promised = block.number + 2;
        assertEq(manager.caseOf(caseId).jury.blockNumber, promised);
        vm.prank(victor);
        vm.expectRevert(IChallengeManager.JuryNotLatched.selector);
        manager.commitVote(caseId, SALT);
        vm.roll(promised);
        vm.expectRevert(abi.encodeWithSelector(BeaconNotReady.selector, promised));
        manager.latchJury(caseId);
        vm.roll(promised + 1);
        vm.expectEmit(address(manager));
        emit IChallengeManager.JuryLatched(caseId, 0, blockhash(promised));
        vm.prank(stranger);
        manager.latchJury(caseId);
        vm.expectRevert();
        manager.latchJury(caseId);
    }

    function test_anExpiredJuryIsPromisedAnew() public {
        vm.roll(block.number + 259);
        vm.expectEmit(address(manager));
        emit IChallengeManager.JuryRequested(caseId, 0, uint64(block.number + 2));
        manager.latchJury(caseId);
        _latch();
        (, uint256 sum) = _weights();
        assertEq(sum, 5);
    }

    function test_aJuryIsLatchedWhileVotesAreCommitted() public {
        _mine(3);
        uint256 commitBy = _deadline(caseId);
        vm.warp(commitBy);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, commitBy));
        manager.latchJury(caseId);
        _settleAt(caseId, commitBy + 8 hours, Verdict.Inconclusive);
    }

    function test_whoWasNotDrawnDoesNotVote() public {
        for (uint256 n; n < 40; ++n) {
            _latch();
            for (uint256 j = 1; j < 4; ++j) {
                if (_hitsOf(validators[j]) != 0) continue;
                vm.prank(validators[j]);
                vm.expectRevert(abi.encodeWithSelector(IChallengeManager.NotJuror.selector, validators[j]));
                manager.commitVote(caseId, SALT);
                return;
            }
            caseId = _drawAndRespond(vera, alice);
        }
        fail();
    }

    /* VERDICTS OF A DRAWN JURY */

    function _allVote(bool uphold) private {
        _latch();
        for (uint256 j = 1; j < 4; ++j) {
            if (_hitsOf(validators[j]) != 0) _commitVote(caseId, validators[j], uphold, uphold ? SAME : bytes32(0));
        }
        vm.warp(_deadline(caseId));
        for (uint256 j = 1; j < 4; ++j) {
            if (_hitsOf(validators[j]) != 0) _revealVote(caseId, validators[j], uphold, uphold ? SAME : bytes32(0));
        }
        vm.warp(manager.caseOf(caseId).revealBy);
    }

    function _everybodyVotes(bool uphold) private {
        for (uint256 j = 1; j < 4; ++j) {
            _commitVote(caseId, validators[j], uphold, uphold ? SAME : bytes32(0));
        }
        vm.warp(_deadline(caseId));
        for (uint256 j = 1; j < 4; ++j) {
            _revealVote(caseId, validators[j], uphold, uphold ? SAME : bytes32(0));
        }
        vm.warp(manager.caseOf(caseId).revealBy);
    }

    function _appealed(address who, Verdict against, uint256 bond) private {
        uint256 before = token.balanceOf(who);
        uint8 level = manager.caseOf(caseId).level + 1;
        vm.expectEmit(address(manager));
        emit IChallengeManager.CaseAppealed(caseId, who, level, against, bond);
        vm.prank(who);
        manager.appeal(caseId);
        assertEq(token.balanceOf(who), before - bond);
        assertEq(manager.caseOf(caseId).level, level);
        assertEq(manager.caseOf(caseId).tally.uphold + manager.caseOf(caseId).tally.reject, 0);
    }

    function test_aVerdictRestsUntilAppealsAreOver() public {
        _allVote(false);
        uint256 end = manager.caseOf(caseId).revealBy + 2 hours;
        vm.warp(end - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, end));
        manager.settle(caseId);
        _settleAt(caseId, end, Verdict.Rejected);
        assertEq(manager.credit(alice), 3 * COST);
        _holdsCreditsOnly();
    }

    function test_appealsComeInTheirWindow() public {
        _allVote(false);
        uint256 revealBy = manager.caseOf(caseId).revealBy;
        vm.startPrank(vera);
        vm.warp(revealBy - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, revealBy));
        manager.appeal(caseId);
        vm.warp(revealBy + 2 hours);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, revealBy + 2 hours));
        manager.appeal(caseId);
    }

    /// @dev Five draws reject, eleven uphold, everybody rejects: the last word stands, who was right is paid back.
    function test_theLastLevelDecidesAndTheBondsFollow() public {
        _allVote(false);
        _appealed(vera, Verdict.Rejected, 2 * BOND); // wrong in the end
        bytes32 second = manager.caseOf(caseId).jury.value;
        assertEq(second, 0, "a jury of its own");
        _allVote(true);
        (, uint256 sum) = _weights();
        assertEq(sum, 11);
        _appealed(alice, Verdict.Upheld, 4 * BOND); // right
        _everybodyVotes(false);
        vm.prank(alice);
        vm.expectRevert(IChallengeManager.NoAppeal.selector);
        manager.appeal(caseId);

        uint256 supply = token.totalSupply();
        vm.expectEmit(address(manager));
        emit IChallengeManager.AppealSettled(caseId, vera, 0, 2 * BOND);
        vm.expectEmit(address(manager));
        emit IChallengeManager.AppealSettled(caseId, alice, 4 * BOND, 0);
        manager.settle(caseId);
        _verdictIs(caseId, Verdict.Rejected);
        assertEq(manager.credit(alice), 4 * BOND + 3 * COST);
        assertEq(manager.credit(vera), 0);
        assertEq(supply - token.totalSupply(), 2 * BOND + BOND - 3 * COST);
        assertEq(vault.burnedOf(alice), 0);
        _holdsCreditsOnly();
    }

    /// @dev The twin: the higher jury upholds what the lower rejected.
    function test_aWonAppealConvicts() public {
        _allVote(false);
        _appealed(vera, Verdict.Rejected, 2 * BOND);
        _allVote(true);
        _settleAt(caseId, manager.caseOf(caseId).revealBy + 2 hours, Verdict.Upheld);
        assertEq(manager.credit(vera), 3 * BOND);
        assertEq(vault.burnedOf(alice), 1_000e18);
    }

    function test_anUnansweredDefaultHasNoAppeal() public {
        CaseId silent = _draw(vera, alice);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.WrongStage.selector, Stage.Drawn));
        manager.appeal(silent);
    }

    /* UNAVAILABLE TO A DRAWN JURY */

    function _allUnavailable() private {
        for (uint256 j = 1; j < 4; ++j) {
            if (_hitsOf(validators[j]) != 0 && manager.caseOf(caseId).stage == Stage.Voting) {
                if (3 * manager.caseOf(caseId).tally.unavailable < 2 * (5 - _hitsOf(vera))) {
                    _voteUnavailable(caseId, validators[j]);
                }
            }
        }
    }

    /// @dev The jury that asked is the jury that is served: nobody re-rolls it.
    function test_theJuryServedAgainIsTheSame() public {
        _latch();
        bytes32 drawn = manager.caseOf(caseId).jury.value;
        _allUnavailable();
        _stageIs(caseId, Stage.Serving);
        vm.prank(alice);
        manager.serveAgain(caseId, "bafy-again");
        assertEq(manager.caseOf(caseId).jury.value, drawn);
        assertEq(manager.caseOf(caseId).level, 0);
    }

    /// @dev Jurors who lie twice about what was served are overruled by a higher jury.
    function test_unavailableTwiceMayBeAppealed() public {
        _latch();
        _allUnavailable();
        vm.prank(alice);
        manager.serveAgain(caseId, "bafy-again");
        _allUnavailable();
        _stageIs(caseId, Stage.Voting);
        vm.warp(manager.caseOf(caseId).revealBy);
        _appealed(alice, Verdict.Upheld, 2 * BOND);
        _allVote(false);
        _settleAt(caseId, manager.caseOf(caseId).revealBy + 2 hours, Verdict.Rejected);
        assertEq(manager.credit(alice), 2 * BOND + 3 * COST);
        _holdsCreditsOnly();
    }
}
