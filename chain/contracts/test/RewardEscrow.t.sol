// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRewardEscrow} from "../src/interfaces/IRewardEscrow.sol";
import {CasePending, NotAllowed, NothingToPay, WrongPhase} from "../src/types/Errors.sol";
import {CaseId, Phase} from "../src/types/Types.sol";
import {StoryTest} from "./StoryTest.sol";

contract RewardEscrowTest is StoryTest {
    function _allocate(address operator, uint128 amount) private returns (uint256) {
        vm.prank(address(arena));
        return escrow.allocate(taskId, operator, amount);
    }

    function _claim(address who) private {
        vm.prank(who);
        escrow.claim(taskId);
    }

    function _claimDelegated(address who, address operator) private {
        vm.prank(who);
        escrow.claimDelegated(taskId, operator);
    }

    /* BOOKS */

    function test_onlyTheArenaBooksAndOnlyTheManagerRedirects() public {
        bytes memory refused = abi.encodeWithSelector(NotAllowed.selector, creator);
        vm.startPrank(creator);
        vm.expectRevert(refused);
        escrow.fund(taskId, 1);
        vm.expectRevert(refused);
        escrow.allocate(taskId, creator, 1);
        vm.expectRevert(refused);
        escrow.redirect(taskId, alice);
    }

    function test_nobodyIsAllocatedMoreThanTheBudget() public {
        _createTask(_config()); // another task's money lies in the same contract
        _allocate(alice, 300e18);
        vm.expectRevert(abi.encodeWithSelector(IRewardEscrow.OverBudget.selector, 380e18, 380e18 + 1));
        _allocate(bob, 80e18 + 1);
        _allocate(bob, 80e18);
        assertEq(escrow.budgetOf(taskId).allocated, 380e18);
    }

    /* CLAIMS */

    function test_nothingIsPaidBeforeTheTaskIsClosed() public {
        _allocate(alice, 100e18);
        bytes memory wrong = abi.encodeWithSelector(WrongPhase.selector, Phase.Challenging, Phase.Closed);
        vm.warp(_phases().closedFrom - 1);
        assertEq(escrow.claimable(taskId, alice), 0);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), 0);
        vm.expectRevert(wrong);
        _claim(alice);
        vm.expectRevert(wrong);
        _claimDelegated(dora, alice);
        vm.expectRevert(wrong);
        vm.prank(creator);
        escrow.reclaim(taskId);
        vm.warp(_phases().closedFrom);
        _claim(alice);
        _claimDelegated(dora, alice);
    }

    /// @dev 400 of Alice's 1,400 are delegated, commission 20 %: the delegators share 100 * 0.8 * 400/1,400.
    function test_theRewardIsSharedByStakeAndCommission() public {
        _allocate(alice, 100e18);
        _warpTo(Phase.Closed);
        uint256 pool = 22_857142857142857142;
        assertEq(escrow.claimable(taskId, alice), 100e18 - pool);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), pool * 3 / 4);
        assertEq(escrow.claimableDelegated(taskId, alice, dan), pool / 4);
        uint256[3] memory before = [token.balanceOf(alice), token.balanceOf(dora), token.balanceOf(dan)];
        _claim(alice);
        _claimDelegated(dora, alice);
        _claimDelegated(dan, alice);
        assertEq(token.balanceOf(alice) - before[0], 100e18 - pool, "view and action agree");
        assertEq(token.balanceOf(dora) - before[1], pool * 3 / 4);
        assertEq(token.balanceOf(dan) - before[2], pool / 4);
    }

    function test_theSplitDoesNotChangeWhenPrincipalLeavesFirst() public {
        _allocate(alice, 100e18);
        _warpTo(Phase.Closed);
        uint256 due = escrow.claimableDelegated(taskId, alice, dora);
        vm.prank(alice);
        vault.withdraw(taskId);
        vm.prank(dan);
        vault.undelegate(taskId, alice);
        vm.prank(dora);
        vault.undelegate(taskId, alice);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), due);
        _claimDelegated(dora, alice);
        _claimDelegated(dan, alice);
        _claim(alice);
    }

    function test_everyPartIsPaidOnce() public {
        _allocate(alice, 100e18);
        _warpTo(Phase.Closed);
        _claim(alice);
        _claimDelegated(dora, alice);
        assertEq(escrow.claimable(taskId, alice), 0);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), 0);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, alice));
        _claim(alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, dora));
        _claimDelegated(dora, alice);
    }

    function test_strangersHaveNothingToClaim() public {
        _allocate(alice, 100e18);
        _warpTo(Phase.Closed);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, stranger));
        _claim(stranger);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, stranger));
        _claimDelegated(stranger, alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, alice));
        _claimDelegated(alice, alice);
    }

    function test_theCreatorReclaimsWhatWasNotAllocatedOnce() public {
        _allocate(alice, 100e18);
        _warpTo(Phase.Closed);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, stranger));
        escrow.reclaim(taskId);
        uint256 before = token.balanceOf(creator);
        vm.startPrank(creator);
        escrow.reclaim(taskId);
        assertEq(token.balanceOf(creator), before + 280e18);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, creator));
        escrow.reclaim(taskId);
        vm.stopPrank();
        _claim(alice);
    }

    /* FORFEIT */

    function test_redirectingTakesTheWholeRewardForGood() public {
        _allocate(alice, 100e18 + 9);
        uint256 supply = token.totalSupply();
        vm.startPrank(address(manager));
        assertEq(escrow.redirect(taskId, alice), 90e18 + 9, "the burn rounds down");
        vm.expectRevert(abi.encodeWithSelector(IRewardEscrow.AlreadyForfeited.selector, alice));
        escrow.redirect(taskId, alice);
        vm.stopPrank();
        assertEq(token.balanceOf(address(manager)), 90e18 + 9);
        assertEq(token.totalSupply(), supply - 10e18);

        assertEq(_allocate(alice, 50e18), 0, "dropped");
        assertEq(escrow.budgetOf(taskId).allocated, 100e18 + 9);
        _warpTo(Phase.Closed);
        bytes memory gone = abi.encodeWithSelector(IRewardEscrow.AlreadyForfeited.selector, alice);
        vm.expectRevert(gone);
        _claim(alice);
        vm.expectRevert(gone);
        _claimDelegated(dora, alice);
        assertEq(escrow.claimable(taskId, alice), 0);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), 0);
    }

    function test_aPendingCaseHoldsTheRewardOfThatTrainerAlone() public {
        _playToChallenging();
        CaseId caseId = _openCase(vera, alice);
        _warpTo(Phase.Closed);
        bytes memory pending = abi.encodeWithSelector(CasePending.selector, alice);
        vm.expectRevert(pending);
        _claim(alice);
        vm.expectRevert(pending);
        _claimDelegated(dora, alice);
        assertEq(escrow.claimable(taskId, alice), 0);
        _claim(bob);
        manager.settle(caseId);
        _claim(alice);
        _claimDelegated(dora, alice);
    }
}
