// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Case, Charge, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {Court} from "../../src/interfaces/ITasks.sol";
import {CaseId, Verdict} from "../../src/types/Types.sol";
import {CourtTest} from "./CourtTest.sol";

/// @dev Cases played at random, by whoever may act: however each goes, it can be ended by anyone once its windows are
/// over, nothing is left in the manager but credits, and nobody gains by it but a challenger who convicts.
contract DocketTest is CourtTest {
    uint256 private dice;
    CaseId[] private cases;

    function _courtTerms() internal view override returns (Court memory court) {
        court = super._courtTerms();
        court.appeals = 1;
        court.jurors = 3;
    }

    function setUp() public override {
        super.setUp();
        segmentsOf[mallory][6].startDigest = keccak256("not where segment 5 ends");
        _submit(alice, 1);
        _submit(bob, 2);
        _submit(mallory, 3);
    }

    function _roll(uint256 sides) private returns (uint256) {
        dice = uint256(keccak256(abi.encode(dice)));
        return dice % sides;
    }

    /// @dev One move in one case; what is out of turn is refused and changes nothing.
    function _move() private {
        CaseId caseId = cases[_roll(cases.length)];
        Case memory case_ = manager.caseOf(caseId);
        address trainer = case_.charge.trainer;
        uint256 move = _roll(9);
        if (move == 0) vm.warp(vm.getBlockTimestamp() + _roll(4 hours));
        _mine(_roll(4));
        if (move == 1) try manager.latchSeed(caseId) {} catch {}
        if (move == 2) try manager.latchJury(caseId) {} catch {}
        if (move == 3 && case_.stage == Stage.Drawn && _roll(3) != 0) {
            if (vm.getBlockTimestamp() < case_.deadline && !case_.answered) _respond(caseId, trainer);
        }
        address juror = validators[_roll(4)];
        bool uphold = trainer == mallory;
        bytes32 commitment = _voteOf(caseId, juror, uphold, uphold ? SALT : bytes32(0));
        vm.startPrank(juror);
        if (move == 4) try manager.commitVote(caseId, commitment) {} catch {}
        if (move == 5) try manager.revealVote(caseId, uphold, uphold ? SALT : bytes32(0), SALT) {} catch {}
        if (move == 6 && _roll(2) == 0) try manager.voteUnavailable(caseId) {} catch {}
        vm.stopPrank();
        vm.startPrank(trainer);
        if (move == 7) try manager.serveAgain(caseId, "again") {} catch {}
        if (move == 8) try manager.appeal(caseId) {} catch {}
        vm.stopPrank();
        if (_roll(5) == 0) try manager.settle(caseId) {} catch {}
    }

    function testFuzz_everyCaseEndsAndEveryBondIsAccountedFor(uint256 seed) public {
        dice = seed;
        uint256 count = 1 + _roll(4);
        for (uint256 n; n < count; ++n) {
            cases.push(_show(validators[_roll(4)], _charge(trainers[_roll(3)])));
        }
        cases.push(_seal(vera, _charge(alice)));
        for (uint256 n; n < 80; ++n) {
            _move();
        }
        _endAll();
    }

    /// @dev Strangers end whatever is left.
    function _endAll() private {
        uint256 supply = token.totalSupply();
        uint256 held = token.balanceOf(address(manager));
        vm.warp(arena.closedFrom() + 1 days);
        for (uint256 n; n < cases.length; ++n) {
            if (manager.caseOf(cases[n]).stage != Stage.Settled) manager.settle(cases[n]);
            assertGt(uint256(manager.caseOf(cases[n]).verdict), uint256(Verdict.Pending));
        }
        for (uint256 i; i < trainers.length; ++i) {
            assertEq(manager.pendingCases(taskId, trainers[i]), 0);
            uint256 lost = vault.burnedOf(trainers[i]);
            if (lost != 0) manager.award(taskId, trainers[i]);
            assertGe(lost, REWARD - escrow.allotted(trainers[i]), "a slash burns at least what is redirected");
        }
        assertLe(token.totalSupply(), supply);
        assertLe(token.balanceOf(address(manager)), held + 3 * REWARD);
        _holdsCreditsOnly();
        _everybodyWithdraws();
        assertEq(token.balanceOf(address(manager)), 0);
    }

    function _everybodyWithdraws() private {
        for (uint256 i; i < trainers.length; ++i) {
            _withdraw(trainers[i]);
        }
        for (uint256 j; j < validators.length; ++j) {
            _withdraw(validators[j]);
        }
    }

    function _withdraw(address who) private {
        if (manager.credit(who) == 0) return;
        vm.prank(who);
        manager.withdrawCredit();
    }
}
