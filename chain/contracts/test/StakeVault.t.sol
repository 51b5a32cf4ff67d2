// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IStakeVault, Stake} from "../src/interfaces/IStakeVault.sol";
import {TaskConfig} from "../src/interfaces/ITasks.sol";
import {CasePending, NotAllowed, NothingToPay, UnknownTask, WrongPhase} from "../src/types/Errors.sol";
import {CaseId, Phase, Role, TaskId} from "../src/types/Types.sol";
import {BaseTest} from "./BaseTest.sol";
import {StoryTest} from "./StoryTest.sol";

contract StakingTest is BaseTest {
    function _refused(address who, Role role, uint128 amount, uint16 commission, bytes memory reason) private {
        vm.prank(who);
        vm.expectRevert(reason);
        vault.stake(taskId, role, amount, commission);
    }

    function test_stakingTakesTheTokensAndTheRole() public {
        vm.expectEmit(address(vault));
        emit IStakeVault.Staked(taskId, alice, Role.Trainer, 150e18, 2_000);
        _stake(alice, Role.Trainer, 150e18, 2_000);
        assertEq(token.balanceOf(address(vault)), 150e18);
        assertEq(uint256(vault.role(taskId, alice)), uint256(Role.Trainer));
        assertEq(vault.ownStake(taskId, alice), 150e18);
        assertEq(vault.commissionBps(taskId, alice), 2_000);
        assertEq(vault.slashable(taskId, alice), 150e18);
        assertEq(vault.slashable(taskId, stranger), 0);
    }

    function test_stakesEnterDuringRegistrationOnly() public {
        vm.warp(_phases().submissionFrom - 1);
        _stake(alice, Role.Trainer, 100e18, 0);
        vm.warp(_phases().submissionFrom);
        bytes memory wrong = abi.encodeWithSelector(WrongPhase.selector, Phase.Submission, Phase.Registration);
        _refused(bob, Role.Trainer, 100e18, 0, wrong);
        vm.prank(dora);
        vm.expectRevert(wrong);
        vault.delegate(taskId, alice, 1e18);
    }

    function test_unfitStakesAreRefused() public {
        _refused(alice, Role.None, 100e18, 0, abi.encodeWithSelector(IStakeVault.BadRole.selector));
        bytes memory low = abi.encodeWithSelector(IStakeVault.StakeTooLow.selector, 100e18 - 1, 100e18);
        _refused(alice, Role.Trainer, 100e18 - 1, 0, low);
        low = abi.encodeWithSelector(IStakeVault.StakeTooLow.selector, 50e18 - 1, 50e18);
        _refused(alice, Role.Validator, 50e18 - 1, 0, low);
        bytes memory greedy = abi.encodeWithSelector(IStakeVault.BadCommission.selector, 10_001);
        _refused(alice, Role.Trainer, 100e18, 10_001, greedy);
        _stake(alice, Role.Trainer, 100e18, 10_000);
        _stake(bob, Role.Validator, 50e18, 0);
    }

    function test_anAccountHasOneRoleATask() public {
        _stake(alice, Role.Trainer, 100e18, 0);
        bytes memory twice = abi.encodeWithSelector(IStakeVault.AlreadyStaked.selector, alice);
        _refused(alice, Role.Validator, 100e18, 0, twice);
        _refused(alice, Role.Trainer, 100e18, 0, twice);
        taskId = _createTask(_config());
        _stake(alice, Role.Validator, 100e18, 0);
    }

    function test_noTaskNoStake() public {
        taskId = TaskId.wrap(7);
        bytes memory unknown = abi.encodeWithSelector(UnknownTask.selector, taskId);
        _refused(alice, Role.Trainer, 100e18, 0, unknown);
    }

    function test_atMost32OperatorsARole() public {
        for (uint256 i; i < 32; ++i) {
            address operator = address(uint160(0x1000 + i));
            _fund(operator, 100e18);
            _stake(operator, Role.Trainer, 100e18, 0);
        }
        _refused(alice, Role.Trainer, 100e18, 0, abi.encodeWithSelector(IStakeVault.TooManyOperators.selector, 32));
        _stake(alice, Role.Validator, 100e18, 0);
        assertEq(vault.operators(taskId, Role.Trainer).length, 32);
    }

    function test_delegationsAddUp() public {
        _stake(alice, Role.Trainer, 100e18, 0);
        _delegate(dora, alice, 5e18);
        _delegate(dora, alice, 7e18);
        _delegate(dan, alice, 1e18);
        assertEq(vault.delegationOf(taskId, alice, dora), 12e18);
        assertEq(vault.delegatedStake(taskId, alice), 13e18);
        assertEq(vault.ownStake(taskId, alice), 100e18);
        assertEq(token.balanceOf(address(vault)), 113e18);
    }

    function test_delegationsGoToStakedOperators() public {
        vm.startPrank(dora);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NotStaked.selector, alice));
        vault.delegate(taskId, alice, 1e18);
        vm.stopPrank();
        _stake(alice, Role.Trainer, 100e18, 0);
        vm.prank(dora);
        vm.expectRevert(IStakeVault.ZeroAmount.selector);
        vault.delegate(taskId, alice, 0);
    }

    function test_operatorsAreListedInStakingOrder() public {
        _stake(bob, Role.Trainer, 100e18, 0);
        _stake(vera, Role.Validator, 60e18, 0);
        _stake(alice, Role.Trainer, 200e18, 0);
        _delegate(dora, alice, 5e18);
        Stake[] memory list = vault.stakes(taskId, Role.Trainer);
        assertEq(list.length, 2);
        assertEq(list[0].operator, bob);
        assertEq(list[1].operator, alice);
        assertEq(list[1].own, 200e18);
        assertEq(list[1].delegated, 5e18);
        assertEq(vault.operators(taskId, Role.Validator)[0], vera);
    }
}

contract LeavingTest is StoryTest {
    function _withdraw(address who) private {
        vm.prank(who);
        vault.withdraw(taskId);
    }

    function test_principalLeavesWhenClosed() public {
        vm.warp(_phases().closedFrom - 1);
        bytes memory wrong = abi.encodeWithSelector(WrongPhase.selector, Phase.Challenging, Phase.Closed);
        vm.expectRevert(wrong);
        _withdraw(alice);
        vm.prank(dora);
        vm.expectRevert(wrong);
        vault.undelegate(taskId, alice);

        vm.warp(_phases().closedFrom);
        _withdraw(alice);
        vm.prank(dora);
        vault.undelegate(taskId, alice);
        assertEq(token.balanceOf(alice), 10_000e18);
        assertEq(token.balanceOf(dora), 10_000e18);
        assertEq(vault.ownStake(taskId, alice), 1_000e18, "the record stays for the splits");
        assertEq(vault.delegationOf(taskId, alice, dora), 300e18);
    }

    function test_principalLeavesOnce() public {
        _warpTo(Phase.Closed);
        _withdraw(alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, alice));
        _withdraw(alice);
        vm.startPrank(dora);
        vault.undelegate(taskId, alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, dora));
        vault.undelegate(taskId, alice);
    }

    function test_onlyOnesOwnPrincipalLeaves() public {
        _warpTo(Phase.Closed);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, stranger));
        _withdraw(stranger);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, stranger));
        vault.undelegate(taskId, alice);
        vm.prank(dora);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, dora));
        vault.undelegate(taskId, vera);
    }

    function test_aPendingCaseHoldsTheStakeUntilAnyoneSettlesIt() public {
        _playToChallenging();
        CaseId caseId = _openCase(vera, alice);
        _warpTo(Phase.Closed);
        vm.expectRevert(abi.encodeWithSelector(CasePending.selector, alice));
        _withdraw(alice);
        _withdraw(bob);
        vm.prank(stranger);
        manager.settle(caseId);
        _withdraw(alice);
        assertEq(token.balanceOf(alice), 10_000e18);
    }

    /* SLASHING */

    function test_onlyTheChallengeManagerSlashes() public {
        vm.prank(creator);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, creator));
        vault.slash(taskId, alice);
    }

    function test_slashingBurnsOnceAndSparesDelegators() public {
        uint256 supply = token.totalSupply();
        vm.startPrank(address(manager));
        assertEq(vault.slash(taskId, alice), 1_000e18);
        assertEq(vault.slash(taskId, alice), 0);
        vm.stopPrank();
        assertEq(token.totalSupply(), supply - 1_000e18);
        assertEq(vault.slashed(taskId, alice), 1_000e18);
        assertEq(vault.slashable(taskId, alice), 0);
        assertEq(vault.ownStake(taskId, alice), 1_000e18);

        _warpTo(Phase.Closed);
        _withdraw(alice);
        assertEq(token.balanceOf(alice), 9_000e18);
        vm.prank(dora);
        vault.undelegate(taskId, alice);
        assertEq(token.balanceOf(dora), 10_000e18);
    }

    function test_theSlashIsTheShareInTheTerms() public {
        TaskConfig memory config = _config();
        config.slashBps = 3_333;
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, 100e18 + 1, 0);
        vm.prank(address(manager));
        assertEq(vault.slash(taskId, alice), 33.33e18, "rounded down");
    }

    /// @dev The attack: register runs under many names, keep the one with the luckiest seed. Each of the others costs.
    function test_anAbandonedRunBurnsTheSlashableStake() public {
        _warpTo(Phase.Submission);
        _register(bob);
        _warpTo(Phase.Closed);
        assertTrue(arena.abandoned(taskId, bob));
        vm.expectEmit(address(vault));
        emit IStakeVault.Slashed(taskId, bob, 1_000e18);
        _withdraw(bob);
        assertEq(token.balanceOf(bob), 9_000e18);
    }

    function test_stakingWithoutRegisteringARunCostsNothing() public {
        _warpTo(Phase.Closed);
        assertFalse(arena.abandoned(taskId, bob));
        _withdraw(bob);
        assertEq(token.balanceOf(bob), 10_000e18);
    }

    function test_anHonestRunIsNotAbandoned() public {
        _playToChallenging();
        _warpTo(Phase.Closed);
        _withdraw(bob);
        assertEq(token.balanceOf(bob), 10_000e18);
    }
}
