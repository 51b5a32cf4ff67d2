// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {Emission} from "../src/Emission.sol";
import {IArenaToken} from "../src/interfaces/IArenaToken.sol";
import {Enlisted, Fund, IEmission} from "../src/interfaces/IEmission.sol";
import {IRewardEscrow} from "../src/interfaces/IRewardEscrow.sol";
import {ITasks, TaskConfig} from "../src/interfaces/ITasks.sol";
import {TooEarly, TooLate, UnknownTask} from "../src/types/Errors.sol";
import {Role, TaskId} from "../src/types/Types.sol";
import {BaseTest} from "./BaseTest.sol";

/// @dev A fund of 1,000 a day, four fifths of it after every third day, by stakes. A task starts an hour before the end
/// of a day unless a test says otherwise, has two rounds of three days, and so shares in five days.
abstract contract EmissionTest is BaseTest {
    uint256 internal constant DAILY = 1_000e18;

    Emission internal emission;
    uint64 internal epoch;

    function setUp() public virtual override {
        super.setUp();
        epoch = uint64(block.timestamp);
        emission = _newEmission(_terms());
        deal(address(token), address(emission), 100 * DAILY);
        deal(address(token), creator, 1e30);
        deal(address(token), alice, 1e30);
    }

    function _terms() internal view returns (Fund memory) {
        return Fund({
            firstAmount: uint128(DAILY),
            epoch: epoch,
            decay: 0.8e18,
            period: 3,
            beta: 1e18,
            leastStake: 100e18,
            leastDeposit: 30e18
        });
    }

    function _newEmission(Fund memory terms) internal returns (Emission) {
        return new Emission(IArenaToken(address(token)), arena, vault, escrow, terms);
    }

    function _day(uint256 number) internal view returns (uint64) {
        return epoch + uint64(number * 1 days);
    }

    /// @dev A task that starts at `start` and in which Alice alone has `own`.
    function _task(uint64 start, uint32 roundLength, uint128 own) internal returns (TaskId) {
        TaskConfig memory config = _config();
        (config.clock.start, config.clock.roundLength) = (start, roundLength);
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, own, 0);
        return taskId;
    }

    function _enlist(TaskId task) internal {
        vm.warp(arena.clock(task).start);
        emission.enlist(task);
    }

    /// @dev Pays a round when it is over and says how much.
    function _payRound(TaskId task, uint16 round) internal returns (uint256 paid) {
        vm.warp(arena.roundTimes(task, round).opensAt);
        emission.poke(1_000);
        uint256 before = token.balanceOf(address(escrow));
        emission.pay(task, round);
        paid = token.balanceOf(address(escrow)) - before;
        assertEq(paid, escrow.sponsored(task, round), "it raises that round's reward");
    }
}

contract EnlistingTest is EmissionTest {
    function test_anyoneEnlistsATaskOnTheDayItStarts() public {
        TaskId task = _task(_day(1) - 1 hours, 3 days, 500e18);
        vm.warp(_day(1) - 1 hours - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _day(1) - 1 hours));
        emission.enlist(task);
        vm.warp(_day(1));
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _day(1)));
        emission.enlist(task);
        vm.warp(_day(1) - 1);
        vm.expectEmit(address(emission));
        emit IEmission.EnlistedTask(task, 500e18, 1, 5);
        vm.prank(stranger);
        emission.enlist(task);
        assertEq(abi.encode(emission.enlisted(task)), abi.encode(Enlisted(500e18, 1, 5)));
        vm.expectRevert(abi.encodeWithSelector(IEmission.AlreadyEnlisted.selector, task));
        emission.enlist(task);
    }

    function test_theTaskMustBeWorthIt() public {
        TaskConfig memory config = _config();
        (config.clock.start, config.clock.roundLength) = (_day(1), 3 days);
        config.pay.deposit = 30e18 - 1;
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, 500e18, 0);
        vm.warp(_day(1));
        vm.expectRevert(abi.encodeWithSelector(IEmission.TaskTooSmall.selector, 30e18 - 1, 30e18));
        emission.enlist(taskId);

        taskId = _task(_day(2), 3 days, 100e18);
        _enlist(taskId);
        config = _config();
        (config.clock.start, config.pay.minTrainerStake) = (_day(3), 1);
        taskId = _createTask(config);
        _stake(alice, Role.Trainer, 30e18, 0);
        _stake(vera, Role.Validator, 70e18 - 1, 0);
        _delegate(dora, alice, 500e18);
        vm.warp(_day(3));
        vm.expectRevert(abi.encodeWithSelector(IEmission.TaskTooSmall.selector, 100e18 - 1, 100e18));
        emission.enlist(taskId);
        vm.expectRevert(abi.encodeWithSelector(UnknownTask.selector, TaskId.wrap(99)));
        emission.enlist(TaskId.wrap(99));
    }

    /// @dev Two rounds of six hours from noon: the day they end on is not over when they end.
    function test_aTaskWithoutAWholeDayTakesNoPart() public {
        TaskId task = _task(_day(1) + 12 hours, 6 hours, 500e18);
        vm.warp(_day(1) + 12 hours);
        vm.expectRevert(IEmission.TaskTooShort.selector);
        emission.enlist(task);
        task = _task(_day(2) + 12 hours, 18 hours, 500e18);
        _enlist(task);
        assertEq(emission.enlisted(task).lastDay, 3);
        task = _task(_day(4) + 12 hours, 18 hours - 1, 500e18);
        vm.warp(_day(4) + 12 hours);
        vm.expectRevert(IEmission.TaskTooShort.selector);
        emission.enlist(task);
    }

    function test_nothingHappensBeforeTheFundBegins() public {
        Fund memory terms = _terms();
        terms.epoch = _day(2);
        Emission late = _newEmission(terms);
        TaskId task = _task(_day(1), 3 days, 500e18);
        vm.warp(_day(1));
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _day(2)));
        late.enlist(task);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _day(2)));
        late.poke(1);
    }

    function test_unusableFundsAreRefused() public {
        Fund memory terms = _terms();
        assertEq(abi.encode(emission.fund()), abi.encode(terms));
        terms.decay = 1e18 + 1;
        vm.expectRevert(abi.encodeWithSelector(IEmission.BadFund.selector, "decay"));
        _newEmission(terms);
        terms = _terms();
        terms.period = 0;
        vm.expectRevert(abi.encodeWithSelector(IEmission.BadFund.selector, "period"));
        _newEmission(terms);
        terms = _terms();
        terms.beta = 2e18 + 1;
        vm.expectRevert(abi.encodeWithSelector(IEmission.BadFund.selector, "beta"));
        _newEmission(terms);
        terms = _terms();
        terms.leastStake = 1e18 - 1;
        vm.expectRevert(abi.encodeWithSelector(IEmission.BadFund.selector, "leastStake"));
        _newEmission(terms);
    }
}

contract PayingTest is EmissionTest {
    /// @dev Days 1 to 5 end within the rounds: two in the first, three in the second. Day 0 is the start's.
    function test_aTaskAloneGetsItsDays() public {
        TaskId task = _task(_day(1) - 1 hours, 3 days, 500e18);
        _enlist(task);
        assertApproxEqAbs(_payRound(task, 1), 2_000e18, 2);
        assertApproxEqAbs(_payRound(task, 2), 2_400e18, 2);
    }

    function test_tasksShareADayByTheirStakes() public {
        TaskId small = _task(_day(1) - 1 hours, 2 days, 300e18);
        _enlist(small);
        TaskId large = _task(_day(2) - 1 hours, 2 days, 900e18);
        _enlist(large);
        assertApproxEqAbs(_payRound(small, 1), 1_000e18, 2, "day 1, alone");
        assertApproxEqAbs(_payRound(large, 1), 750e18, 2, "day 2");
        assertApproxEqAbs(_payRound(small, 2), 250e18 + 200e18, 2, "days 2 and 3");
        assertApproxEqAbs(_payRound(large, 2), 600e18 + 800e18, 2, "days 3 and 4, when it is alone");
    }

    function test_aRoundIsPaidOnceBetweenItsEndAndItsSettlement() public {
        TaskId task = _task(_day(1) - 1 hours, 3 days, 500e18);
        _enlist(task);
        vm.warp(_times(1).opensAt - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(1).opensAt));
        emission.pay(task, 1);
        vm.warp(_times(1).settleFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(IEmission.NotPoked.selector, 0, 3));
        emission.pay(task, 1);
        emission.poke(2);
        vm.expectRevert(abi.encodeWithSelector(IEmission.NotPoked.selector, 2, 3));
        emission.pay(task, 1);
        emission.poke(1);
        uint256 due = emission.earned(task, 1);
        vm.expectEmit(address(emission));
        emit IEmission.Emitted(task, 1, due);
        vm.prank(stranger);
        emission.pay(task, 1);
        assertEq(escrow.sponsored(task, 1), due, "view and action agree");
        assertEq(token.allowance(address(emission), address(escrow)), 0);
        vm.expectRevert(abi.encodeWithSelector(IEmission.AlreadyPaid.selector, 1));
        emission.pay(task, 1);

        vm.warp(_times(2).settleFrom);
        emission.poke(100);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(2).settleFrom));
        emission.pay(task, 2);
    }

    function test_whoIsNotEnlistedAndTheFinalRoundEarnNothing() public {
        TaskId task = _task(_day(1) - 1 hours, 3 days, 500e18);
        vm.warp(_times(1).opensAt);
        vm.expectRevert(abi.encodeWithSelector(IEmission.NotEnlisted.selector, task));
        emission.pay(task, 1);
        task = _task(_day(6) - 1 hours, 3 days, 500e18);
        _enlist(task);
        vm.warp(_times(3).opensAt);
        emission.poke(100);
        vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, 3));
        emission.pay(task, 3);
        vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, 0));
        emission.pay(task, 0);
    }

    /// @dev Three rounds of sixteen hours from one o'clock: one ends on the day of the start, when another task has part
    /// in the day, one on the next, and the third takes all that there is.
    function test_aRoundWithoutTheEndOfADayEarnsNothing() public {
        TaskId other = _task(_day(1) - 1 hours, 3 days, 500e18);
        _enlist(other);
        TaskConfig memory config = _config();
        (config.clock.start, config.clock.roundLength, config.clock.rounds) = (_day(2) + 1 hours, 16 hours, 3);
        TaskId task = _createTask(config);
        taskId = task;
        _stake(alice, Role.Trainer, 500e18, 0);
        _enlist(task);
        vm.warp(_times(1).opensAt);
        emission.poke(100);
        assertEq(emission.earned(task, 1), 0);
        vm.warp(_times(2).opensAt);
        emission.poke(100);
        assertEq(emission.earned(task, 1), 0);
        assertEq(emission.earned(task, 2), 0);
        vm.expectRevert(IRewardEscrow.ZeroAmount.selector);
        emission.pay(task, 2);
        assertApproxEqAbs(_payRound(task, 3), 400e18, 2, "half of day 3");
    }

    function test_aDryFundPaysWhenSomebodyAddsToIt() public {
        TaskId task = _task(_day(1) - 1 hours, 3 days, 500e18);
        _enlist(task);
        deal(address(token), address(emission), 1e18);
        vm.warp(_times(1).opensAt);
        emission.poke(100);
        uint256 due = emission.earned(task, 1);
        bytes4 poor = IERC20Errors.ERC20InsufficientBalance.selector;
        vm.expectRevert(abi.encodeWithSelector(poor, address(emission), 1e18, due));
        emission.pay(task, 1);
        vm.prank(creator);
        token.transfer(address(emission), due - 1e18);
        emission.pay(task, 1);
        assertEq(token.balanceOf(address(emission)), 0);
    }

    function test_theIndexIsKnownForDaysThatAreOver() public {
        vm.warp(_day(5) - 1);
        emission.poke(100);
        assertEq(emission.poked(), 4);
        vm.warp(_day(5));
        vm.expectEmit(address(emission));
        emit IEmission.Poked(5, 0);
        emission.poke(1);
        emission.poke(1);
        assertEq(emission.poked(), 5);
    }

    /// @dev A day that has begun pays the same whatever anybody enlists in it.
    function test_nobodyMovesADayThatHasBegun() public {
        TaskId task = _task(_day(1) - 1 hours, 1 days, 500e18);
        TaskId other = _task(_day(1), 1 days, 1e30 - 500e18);
        _enlist(task);
        _enlist(other); // when day 1 begins
        assertApproxEqAbs(_payRound(task, 2), 1_000e18, 2);
    }
}

/// @dev Laws over random lives of a fund.
contract EmissionLawsTest is EmissionTest {
    uint256 private constant TASKS = 4;

    TaskId[TASKS] private _tasks;

    function _enlistRandomTasks(uint256[TASKS] memory seeds) private {
        for (uint256 k; k < TASKS; ++k) {
            uint64 start = _day(k) + uint64(bound(seeds[k], 1 hours, 1 days - 1));
            uint32 length = uint32(bound(seeds[k] >> 32, 1 days, 4 days));
            uint128 own = uint128(bound(seeds[k] >> 64, 100e18, 10 ** (20 + seeds[k] % 9)));
            _tasks[k] = _task(start, length, own);
            _enlist(_tasks[k]);
        }
    }

    function _isActive(uint256 k, uint256 day) private view returns (bool) {
        Enlisted memory task = emission.enlisted(_tasks[k]);
        return task.firstDay <= day && day <= task.lastDay;
    }

    function _weightOf(uint256 day) private view returns (uint256 sum) {
        for (uint256 k; k < TASKS; ++k) {
            if (_isActive(k, day)) sum += emission.enlisted(_tasks[k]).weight;
        }
    }

    /// @dev The sum of whole parts, day by day. Every day of a task ends in one of its rounds.
    function _byDays(uint256 k) private view returns (uint256 sum) {
        Enlisted memory task = emission.enlisted(_tasks[k]);
        for (uint64 day = task.firstDay; day <= task.lastDay; ++day) {
            sum += Math.mulDiv(emission.amountOf(day), task.weight, _weightOf(day));
        }
    }

    function testFuzz_everyDayIsHandedOutByWeight(uint256[TASKS] memory seeds) public {
        _enlistRandomTasks(seeds);
        vm.warp(_day(20));
        emission.poke(100);
        uint256 all;
        for (uint256 k; k < TASKS; ++k) {
            uint256 got = emission.earned(_tasks[k], 1) + emission.earned(_tasks[k], 2);
            uint256 days_ = emission.enlisted(_tasks[k]).lastDay - emission.enlisted(_tasks[k]).firstDay + 1;
            uint256 whole = _byDays(k);
            assertLe(got, whole + days_);
            assertGe(got + 4, whole, "less than two wei a round short");
            all += got;
        }
        uint256 emitted;
        for (uint64 day; day < 20; ++day) {
            if (_weightOf(day) > 0) emitted += emission.amountOf(day);
        }
        assertLe(all, emitted, "never more than the days had");
        assertGe(all + 4 * TASKS, emitted);
    }

    /// @dev However it is poked, and whenever: the same index.
    function testFuzz_pokingInPartsIsPokingAtOnce(uint256[TASKS] memory seeds, uint8[30] memory parts) public {
        uint256 start = vm.snapshotState();
        _enlistRandomTasks(seeds);
        vm.warp(_day(20));
        emission.poke(type(uint256).max);
        assertEq(emission.poked(), 20);
        uint256[TASKS] memory atOnce = _earnings();
        vm.revertToState(start);

        emission.poke(1);
        _enlistRandomTasks(seeds);
        for (uint256 i; i < parts.length; ++i) {
            vm.warp(_max(block.timestamp, _day(i)));
            emission.poke(parts[i] % 4);
        }
        emission.poke(30);
        uint256[TASKS] memory inParts = _earnings();
        for (uint256 k; k < TASKS; ++k) {
            assertEq(inParts[k], atOnce[k]);
        }
    }

    function _earnings() private view returns (uint256[TASKS] memory sums) {
        for (uint256 k; k < TASKS; ++k) {
            sums[k] = emission.earned(_tasks[k], 1) + emission.earned(_tasks[k], 2);
        }
    }

    function _max(uint256 a, uint256 b) private pure returns (uint256) {
        return a > b ? a : b;
    }

    function testFuzz_amountsDecayByPeriods(uint128 first, uint64 decay, uint32 period, uint8 day) public {
        Fund memory terms = _terms();
        (terms.firstAmount, terms.decay) = (first, uint64(bound(decay, 0, 1e18)));
        terms.period = uint32(bound(period, 1, 40));
        emission = _newEmission(terms);
        assertEq(emission.amountOf(0), first);
        uint256 before = emission.amountOf(day);
        uint256 next = emission.amountOf(uint64(day) + 1);
        bool falls = (uint256(day) + 1) % terms.period == 0;
        assertEq(next, falls ? before * terms.decay / 1e18 : before);
    }

    /* THE MODEL */

    string private _json;

    /// @dev tests/golden/emission.json is what chain/rewards.py says, in 50 digits; here it is paid. The weights are powers
    /// with 18 digits.
    function test_paymentsAreTheModels() public {
        _json = vm.readFile(string.concat(vm.projectRoot(), "/../../tests/golden/emission.json"));
        uint256 cases;
        for (; vm.keyExistsJson(_json, _path(cases, "beta")); ++cases) {
            uint256 start = vm.snapshotState();
            _play(cases);
            vm.revertToState(start);
        }
        assertGt(cases, 5, "the golden file was read");
    }

    function _path(uint256 number, string memory field) private pure returns (string memory) {
        return string.concat(".cases[", vm.toString(number), "].", field);
    }

    function _uints(uint256 number, string memory field) private view returns (uint256[] memory) {
        return vm.parseJsonUintArray(_json, _path(number, field));
    }

    function _termsOf(uint256 number) private view returns (Fund memory terms) {
        terms = _terms();
        terms.beta = uint64(vm.parseJsonUint(_json, _path(number, "beta")));
        terms.decay = uint64(vm.parseJsonUint(_json, _path(number, "decay")));
        terms.period = uint32(vm.parseJsonUint(_json, _path(number, "period")));
        terms.firstAmount = uint128(vm.parseJsonUint(_json, _path(number, "first_amount")));
    }

    function _play(uint256 number) private {
        emission = _newEmission(_termsOf(number));
        uint256[] memory starts = _uints(number, "starts");
        uint256[] memory lengths = _uints(number, "round_lengths");
        uint256[] memory stakes = _uints(number, "stakes");
        TaskId[] memory tasks = new TaskId[](starts.length);
        for (uint256 k; k < starts.length; ++k) {
            tasks[k] = _task(epoch + uint64(starts[k]), uint32(lengths[k]), uint128(stakes[k]));
            _enlist(tasks[k]);
        }
        vm.warp(_day(200));
        emission.poke(200);
        for (uint16 round = 1; round < 3; ++round) {
            uint256[] memory expected = _uints(number, round == 1 ? "first_round" : "second_round");
            for (uint256 k; k < tasks.length; ++k) {
                uint256 have = emission.earned(tasks[k], round);
                assertApproxEqAbs(have, expected[k], 2 + expected[k] / 1e16, vm.toString(number));
            }
        }
    }
}
