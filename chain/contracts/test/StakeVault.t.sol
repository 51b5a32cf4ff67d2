// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {stdError} from "forge-std/StdError.sol";

import {IStakeVault, Stake, Stretch} from "../src/interfaces/IStakeVault.sol";
import {TaskConfig} from "../src/interfaces/ITasks.sol";
import {CasePending, NotAllowed, NothingToPay, UnknownTask, WrongPhase} from "../src/types/Errors.sol";
import {Phase, Role, TaskId} from "../src/types/Types.sol";
import {BaseTest} from "./BaseTest.sol";

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
        assertEq(vault.slashable(taskId, alice), 150e18);
        assertEq(vault.slashable(taskId, stranger), 0);
        Stake memory staked = vault.stakesAt(taskId, Role.Trainer, 1, 0, 1)[0];
        assertEq(abi.encode(staked), abi.encode(Stake(alice, 2_000, 150e18, 0)));
    }

    function test_stakesEnterDuringRegistrationOnly() public {
        vm.warp(_phases().submissionFrom - 1);
        _stake(alice, Role.Trainer, 100e18, 0);
        vm.warp(_phases().submissionFrom);
        bytes memory wrong = abi.encodeWithSelector(WrongPhase.selector, Phase.Submission, Phase.Registration);
        _refused(bob, Role.Trainer, 100e18, 0, wrong);
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

    function test_theTermsLimitTheOperatorsOfEachRole() public {
        TaskConfig memory config = _config();
        (config.pay.maxTrainers, config.pay.maxValidators) = (2, 1);
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, 100e18, 0);
        _stake(bob, Role.Trainer, 100e18, 0);
        _refused(mallory, Role.Trainer, 100e18, 0, abi.encodeWithSelector(IStakeVault.TooManyOperators.selector, 2));
        _stake(vera, Role.Validator, 100e18, 0);
        _refused(victor, Role.Validator, 100e18, 0, abi.encodeWithSelector(IStakeVault.TooManyOperators.selector, 1));
    }

    function test_operatorsAreListedInStakingOrder() public {
        _stake(bob, Role.Trainer, 100e18, 0);
        _stake(vera, Role.Validator, 60e18, 0);
        _stake(alice, Role.Trainer, 200e18, 0);
        address[] memory trainers = vault.operators(taskId, Role.Trainer);
        assertEq(trainers.length, 2);
        assertEq(trainers[0], bob);
        assertEq(trainers[1], alice);
        assertEq(vault.operators(taskId, Role.Validator)[0], vera);
        assertEq(vault.operators(taskId, Role.None).length, 0);
    }

    /// @dev What the court draws jurors by: every point of a side's total lies in one operator's range.
    function testFuzz_rangesAreTheTotalInStakingOrder(uint128[6] memory amounts, uint8 sides) public {
        address[6] memory people = [alice, bob, mallory, vera, victor, viola];
        uint256[3] memory ends;
        for (uint256 i; i < people.length; ++i) {
            Role role = Role(1 + (sides >> i) % 2);
            uint128 amount = uint128(bound(amounts[i], 100e18, 10_000e18));
            _stake(people[i], role, amount, 0);
            (uint256 from, uint256 own) = vault.range(taskId, people[i]);
            assertEq(from, ends[uint256(role)]);
            assertEq(own, amount);
            ends[uint256(role)] += own;
        }
        for (uint256 role = 1; role < 3; ++role) {
            (uint256 own, uint256 count) = vault.totals(taskId, Role(role));
            assertEq(own, ends[role]);
            assertEq(count, vault.operators(taskId, Role(role)).length);
        }
        (uint256 nowhere, uint256 none) = vault.range(taskId, stranger);
        assertEq(nowhere + none, 0);
    }

    function testFuzz_listsInPartsAreTheList(uint256 from, uint256 count) public {
        address[4] memory people = [alice, bob, mallory, vera];
        for (uint128 i; i < people.length; ++i) {
            _stake(people[i], Role.Trainer, 100e18 + i, uint16(i));
        }
        (from, count) = (bound(from, 0, 6), count % 2 == 0 ? count : count % 7);
        Stake[] memory whole = vault.stakesAt(taskId, Role.Trainer, 1, 0, 4);
        Stake[] memory part = vault.stakesAt(taskId, Role.Trainer, 1, from, count);
        uint256 left = from < 4 ? 4 - from : 0;
        assertEq(part.length, count < left ? count : left);
        for (uint256 i; i < part.length; ++i) {
            assertEq(abi.encode(part[i]), abi.encode(whole[from + i]));
        }
    }
}

contract DelegatingTest is BaseTest {
    uint16 private constant ROUNDS = 2; // and the final one

    mapping(address delegator => uint256[5]) private _lent; // by the round it counts from

    function setUp() public override {
        super.setUp();
        _stake(alice, Role.Trainer, 100e18, 0);
    }

    function _refused(address who, address operator, uint128 amount, bytes memory reason) private {
        vm.prank(who);
        vm.expectRevert(reason);
        vault.delegate(taskId, operator, amount);
    }

    function _delegated(uint16 round) private view returns (uint256) {
        return vault.stakesAt(taskId, Role.Trainer, round, 0, 1)[0].delegated;
    }

    /// @dev Rounds begin a day apart; 0 is the registration.
    function _warpToRound(uint256 round) private {
        if (round > 0) vm.warp(_phases().submissionFrom + (round - 1) * 1 days);
    }

    function test_delegationsCountFromTheNextRound() public {
        vm.expectEmit(address(vault));
        emit IStakeVault.Delegated(taskId, alice, dora, 5e18, 1);
        _delegate(dora, alice, 5e18);
        _delegate(dora, alice, 7e18);
        _warpToRound(1);
        vm.expectEmit(address(vault));
        emit IStakeVault.Delegated(taskId, alice, dan, 10e18, 2);
        _delegate(dan, alice, 10e18);
        _warpToRound(2);
        _delegate(dora, alice, 30e18);

        assertEq(_delegated(1), 12e18);
        assertEq(_delegated(2), 22e18);
        assertEq(_delegated(3), 52e18);
        assertEq(_delegated(0), 0);
        Stretch[] memory stretches = vault.delegationHistory(taskId, alice, dora);
        assertEq(stretches.length, 2, "what counts from one round is one stretch");
        assertEq(abi.encode(stretches[0]), abi.encode(Stretch(1, 12e18)));
        assertEq(abi.encode(stretches[1]), abi.encode(Stretch(3, 42e18)));
        assertEq(vault.delegationHistory(taskId, alice, stranger).length, 0);
        assertEq(token.balanceOf(address(vault)), 152e18);
    }

    function test_delegationsEnterUntilSubmissionsEnd() public {
        vm.warp(_phases().finalFrom - 1);
        _delegate(dora, alice, 5e18);
        assertEq(_delegated(ROUNDS + 1), 5e18, "it earns in the final round");
        vm.warp(_phases().finalFrom);
        bytes memory wrong = abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission);
        _refused(dora, alice, 5e18, wrong);
    }

    function test_unfitDelegationsAreRefused() public {
        _refused(dora, bob, 1e18, abi.encodeWithSelector(IStakeVault.NotStaked.selector, bob));
        bytes memory low = abi.encodeWithSelector(IStakeVault.DelegationTooLow.selector, 1e18 - 1, 1e18);
        _refused(dora, alice, 1e18 - 1, low);
        _delegate(dora, alice, 1e18);
        _refused(dora, alice, 1e18 - 1, low);
        taskId = TaskId.wrap(7);
        _refused(dora, alice, 1e18, abi.encodeWithSelector(UnknownTask.selector, taskId));
    }

    /// @dev Nobody can lend so much that an operator's sum does not fit, and settling stops.
    function test_whatAnOperatorIsLentHas128Bits() public {
        deal(address(token), dora, type(uint128).max);
        _delegate(dora, alice, type(uint128).max);
        _refused(dan, alice, 1e18, stdError.arithmeticError);
        assertEq(_delegated(1), type(uint128).max);
    }

    /// @dev Sums over the delegators' histories and the operator's own record are the same in every round (I1, I24).
    function testFuzz_everyRoundHasWhatWasLentBeforeIt(uint256[8] memory seeds) public {
        address[3] memory lenders = [dora, dan, stranger];
        uint16 round;
        for (uint256 i; i < seeds.length; ++i) {
            round += uint16(seeds[i] % 4 == 0 && round < ROUNDS ? 1 : 0);
            _warpToRound(round);
            address lender = lenders[(seeds[i] >> 8) % 3];
            uint128 amount = uint128(bound(seeds[i] >> 16, 1e18, 1_000e18));
            _delegate(lender, alice, amount);
            _lent[lender][round + 1] += amount;
        }
        for (uint16 r; r <= ROUNDS + 1; ++r) {
            uint256 sum;
            for (uint256 k; k < 3; ++k) {
                uint256 mine = _countedIn(r, lenders[k]);
                assertEq(_atWork(lenders[k], r), mine);
                sum += mine;
            }
            assertEq(_delegated(r), sum);
        }
    }

    function _countedIn(uint16 round, address lender) private view returns (uint256 sum) {
        for (uint16 r; r <= round; ++r) {
            sum += _lent[lender][r];
        }
    }

    function _atWork(address lender, uint16 round) private view returns (uint256 amount) {
        Stretch[] memory stretches = vault.delegationHistory(taskId, alice, lender);
        for (uint256 k; k < stretches.length && stretches[k].from <= round; ++k) {
            amount = stretches[k].amount;
        }
    }
}

contract LeavingTest is BaseTest {
    function setUp() public override {
        super.setUp();
        _stake(alice, Role.Trainer, 1_000e18, 2_000);
        _stake(bob, Role.Trainer, 1_000e18, 2_000);
        _stake(vera, Role.Validator, 500e18, 1_000);
        _delegate(dora, alice, 300e18);
        _delegate(dan, vera, 200e18);
    }

    function _withdraw(address who) private {
        vm.prank(who);
        vault.withdraw(taskId);
    }

    function _undelegate(address who, address operator) private {
        vm.prank(who);
        vault.undelegate(taskId, operator);
    }

    function _slash(address operator) private returns (uint256) {
        vm.prank(address(manager));
        return vault.slash(taskId, operator);
    }

    function _setPending(address trainer, uint256 cases) private {
        vm.mockCall(address(manager), abi.encodeCall(manager.pendingCases, (taskId, trainer)), abi.encode(cases));
    }

    function test_principalLeavesWhenClosed() public {
        vm.warp(_phases().closedFrom - 1);
        bytes memory wrong = abi.encodeWithSelector(WrongPhase.selector, Phase.Challenging, Phase.Closed);
        vm.expectRevert(wrong);
        _withdraw(alice);
        vm.expectRevert(wrong);
        _undelegate(dora, alice);

        vm.warp(_phases().closedFrom);
        _withdraw(alice);
        _undelegate(dora, alice);
        assertEq(token.balanceOf(alice), 10_000e18);
        assertEq(token.balanceOf(dora), 10_000e18);
        assertEq(vault.stakesAt(taskId, Role.Trainer, 1, 0, 1)[0].own, 1_000e18, "the record stays");
        assertEq(vault.delegationHistory(taskId, alice, dora)[0].amount, 300e18);
    }

    function test_principalLeavesOnce() public {
        _warpTo(Phase.Closed);
        _withdraw(alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, alice));
        _withdraw(alice);
        _undelegate(dora, alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, dora));
        _undelegate(dora, alice);
    }

    function test_onlyOnesOwnPrincipalLeaves() public {
        _warpTo(Phase.Closed);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, stranger));
        _withdraw(stranger);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, stranger));
        _undelegate(stranger, alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, dora));
        _undelegate(dora, vera);
    }

    /// @dev I12. The delegators' part cannot be slashed, so nothing holds it.
    function test_aPendingCaseHoldsThatTrainersStakeAlone() public {
        _setPending(alice, 1);
        _warpTo(Phase.Closed);
        vm.expectRevert(abi.encodeWithSelector(CasePending.selector, alice));
        _withdraw(alice);
        _withdraw(bob);
        _undelegate(dora, alice);
        _setPending(alice, 0);
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
        vm.expectEmit(address(vault));
        emit IStakeVault.Slashed(taskId, alice, 1_000e18);
        assertEq(_slash(alice), 1_000e18);
        assertEq(_slash(alice), 0);
        assertEq(token.totalSupply(), supply - 1_000e18);
        assertEq(vault.slashed(taskId, alice), 1_000e18);
        assertEq(vault.slashable(taskId, alice), 0);
        (, uint256 own) = vault.range(taskId, alice);
        assertEq(own, 1_000e18, "as staked");

        _warpTo(Phase.Closed);
        _withdraw(alice);
        assertEq(token.balanceOf(alice), 9_000e18);
        _undelegate(dora, alice);
        assertEq(token.balanceOf(dora), 10_000e18);
    }

    function test_theSlashIsTheShareInTheTerms() public {
        TaskConfig memory config = _config();
        config.court.slashBps = 3_333;
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, 100e18 + 1, 0);
        assertEq(_slash(alice), 33.33e18, "rounded down");
        assertEq(_slash(alice), 0, "the rest is not slashed again");
        _warpTo(Phase.Closed);
        _withdraw(alice);
        assertEq(token.balanceOf(alice), 8_966.67e18, "1,000 of it are in the other task");
    }

    /// @dev Were a conviction ever to come after the stake left, it must not burn what others have here.
    function test_aSlashTakesNothingThatIsSomebodyElses() public {
        _warpTo(Phase.Closed);
        _withdraw(alice);
        assertEq(vault.slashable(taskId, alice), 0);
        assertEq(_slash(alice), 0);
        assertEq(_slash(stranger), 0);
        _withdraw(bob);
        _withdraw(vera);
        _undelegate(dora, alice);
        _undelegate(dan, vera);
        assertEq(token.balanceOf(address(vault)), 0);
    }

    /// @dev I1, I10, I11: whoever was slashed, and in whatever order people leave, the last one is paid to the wei, and
    /// another task's stakes are not touched.
    function testFuzz_theLastOneToLeaveIsPaid(uint8 convicted, uint256 order, uint16 slashBps) public {
        _stake2(slashBps);
        uint256 burned;
        address[3] memory operators = [alice, bob, vera];
        for (uint256 k; k < 3; ++k) {
            if ((convicted >> k) % 2 == 1) burned += _slash(operators[k]);
        }
        assertEq(token.balanceOf(address(vault)), 3_000e18 + 3_000e18 - burned, "the first task's, and this one's");
        _warpTo(Phase.Closed);
        for (uint256 left = 5; left > 0; --left) {
            _leave(_take(left, order % left));
            order /= left;
        }
        assertEq(token.balanceOf(address(vault)), 3_000e18, "the first task's");
    }

    uint256[5] private _queue;

    function _stake2(uint16 slashBps) private {
        TaskConfig memory config = _config();
        config.court.slashBps = uint16(bound(slashBps, 0, 10_000));
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, 1_000e18 - 7, 0);
        _stake(bob, Role.Trainer, 1_000e18 + 3, 0);
        _stake(vera, Role.Validator, 500e18 + 4, 0);
        _delegate(dora, alice, 300e18);
        _delegate(dan, vera, 200e18);
        _queue = [uint256(0), 1, 2, 3, 4];
    }

    function _take(uint256 left, uint256 position) private returns (uint256 who) {
        who = _queue[position];
        _queue[position] = _queue[left - 1];
    }

    function _leave(uint256 who) private {
        if (who < 3) return _withdraw([alice, bob, vera][who]);
        if (who == 3) _undelegate(dora, alice);
        else _undelegate(dan, vera);
    }
}
