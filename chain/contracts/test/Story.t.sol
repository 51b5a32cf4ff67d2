// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {CaseId, Phase, Verdict} from "../src/types/Types.sol";
import {StoryTest} from "./StoryTest.sol";

/// @dev The whole story once: a thief is caught, a wrong challenger loses its bond, every wei is accounted for.
contract StoryEndToEndTest is StoryTest {
    bytes32 private constant REPLAY = keccak256("what the jurors' replay gave");

    function test_theThiefIsCaughtAndTheWrongChallengerPays() public {
        _playToChallenging();
        uint256 stolen = escrow.allocated(taskId, mallory);
        uint256 earned = escrow.allocated(taskId, alice);
        assertGt(stolen, 0);

        CaseId against = _openAndLatch(vera, mallory);
        CaseId wrong = _openAndLatch(victor, alice);
        _respond(against, mallory);
        _respond(wrong, alice);
        _vote(against, true, REPLAY, [victor, viola, vance]);
        _vote(wrong, false, 0, [vera, viola, vance]);
        vm.warp(block.timestamp + 6 hours);
        _reveal(against, true, REPLAY, [victor, viola, vance]);
        _reveal(wrong, false, 0, [vera, viola, vance]);
        vm.warp(block.timestamp + 6 hours);
        manager.settle(against);
        manager.settle(wrong);

        assertEq(uint256(manager.caseOf(against).verdict), uint256(Verdict.Upheld));
        assertEq(uint256(manager.caseOf(wrong).verdict), uint256(Verdict.Rejected));
        assertEq(manager.credit(vera), 20e18 + stolen - stolen / 10);
        assertEq(manager.credit(victor), 0);
        assertEq(manager.credit(alice), 6e18);
        assertEq(vault.slashed(taskId, mallory), 1_000e18);

        _warpTo(Phase.Closed);
        _everybodyLeaves();
        assertEq(token.balanceOf(mallory), 10_000e18 - 1_000e18);
        assertEq(token.balanceOf(victor), 10_000e18 - 20e18 + escrow.allocated(taskId, victor));
        // 80 % of what the delegators' 400 of 1,400 earned is theirs; 3/4 of that is Dora's
        uint256 pool = earned * 8_000 * 400 / (10_000 * 1_400);
        assertEq(token.balanceOf(alice), 10_000e18 + 6e18 + earned - pool);
        assertEq(token.balanceOf(dora), 10_000e18 + pool * 3 / 4);
        assertEq(token.balanceOf(address(vault)), 0);
        assertEq(token.balanceOf(address(manager)), 0);
        assertLe(token.balanceOf(address(escrow)), 2);
        assertEq(token.totalSupply(), SUPPLY - 1_000e18 - stolen / 10 - 14e18);
    }

    function _vote(CaseId caseId, bool uphold, bytes32 reproduction, address[3] memory jurors) private {
        for (uint256 j; j < 3; ++j) {
            _commitVote(caseId, jurors[j], uphold, reproduction);
        }
    }

    function _reveal(CaseId caseId, bool uphold, bytes32 reproduction, address[3] memory jurors) private {
        for (uint256 j; j < 3; ++j) {
            _revealVote(caseId, jurors[j], uphold, reproduction);
        }
    }

    function _everybodyLeaves() private {
        address[8] memory operators = [alice, bob, mallory, vera, victor, viola, vance, stranger];
        for (uint256 i; i < operators.length; ++i) {
            vm.startPrank(operators[i]);
            if (operators[i] != stranger) vault.withdraw(taskId);
            if (escrow.claimable(taskId, operators[i]) != 0) escrow.claim(taskId);
            if (manager.credit(operators[i]) != 0) manager.withdrawCredit();
            vm.stopPrank();
        }
        _delegatorLeaves(dora, alice);
        _delegatorLeaves(dan, alice);
        _delegatorLeaves(dan, vera);
        vm.prank(creator);
        escrow.reclaim(taskId);
    }

    function _delegatorLeaves(address delegator, address operator) private {
        vm.startPrank(delegator);
        vault.undelegate(taskId, operator);
        escrow.claimDelegated(taskId, operator);
        vm.stopPrank();
    }
}
