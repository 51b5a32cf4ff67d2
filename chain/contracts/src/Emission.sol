// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {Enlisted, Fund, IEmission} from "./interfaces/IEmission.sol";
import {IRewardEscrow} from "./interfaces/IRewardEscrow.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {Clock, ITasks} from "./interfaces/ITasks.sol";
import {ArenaMath} from "./libraries/ArenaMath.sol";
import {Schedule} from "./libraries/Schedule.sol";
import {TooEarly} from "./types/Errors.sol";
import {Role, TaskId} from "./types/Types.sol";

/// @title Daily emission
/// @notice See IEmission.
/// @dev A task weighs at least about 1e18, so a day raises the index by less than 2^197, and no life of this contract
/// has 2^59 days.
contract Emission is IEmission, ReentrancyGuardTransient {
    using SafeERC20 for IArenaToken;
    using Schedule for Clock;

    /// @param index What one unit of weight earned on all days before, in units of 2^-128 wei.
    struct Day {
        uint256 joining;
        uint256 leaving;
        uint256 index;
    }

    IArenaToken public immutable token;
    IArena public immutable arena;
    IStakeVault public immutable vault;
    IRewardEscrow public immutable escrow;

    /// @inheritdoc IEmission
    uint64 public poked;
    uint256 private _weight; // of the last day poked

    Fund private _fund;
    mapping(uint64 day => Day) private _days;
    mapping(TaskId => Enlisted) private _enlisted;
    mapping(TaskId => mapping(uint16 round => bool)) private _paid;

    constructor(IArenaToken token_, IArena arena_, IStakeVault vault_, IRewardEscrow escrow_, Fund memory fund_) {
        if (fund_.decay > ArenaMath.WAD) revert BadFund("decay");
        if (fund_.period == 0) revert BadFund("period");
        if (fund_.beta > 2 * ArenaMath.WAD) revert BadFund("beta");
        if (fund_.leastStake < ArenaMath.WAD) revert BadFund("leastStake");
        token = token_;
        arena = arena_;
        vault = vault_;
        escrow = escrow_;
        _fund = fund_;
    }

    /// @inheritdoc IEmission
    function enlist(TaskId taskId) external {
        if (_enlisted[taskId].weight != 0) revert AlreadyEnlisted(taskId);
        Clock memory clock = arena.clock(taskId);
        uint64 firstDay = _daysOver(clock.start) + 1;
        uint64 end = _daysOver(clock.phaseTimes().finalFrom);
        Schedule.requireWithin(clock.start, _fund.epoch + firstDay * 1 days);
        if (end <= firstDay) revert TaskTooShort();
        uint256 weight = _weigh(taskId);

        _enlisted[taskId] = Enlisted({weight: weight, firstDay: firstDay, lastDay: end - 1});
        _days[firstDay].joining += weight;
        _days[end].leaving += weight;
        emit EnlistedTask(taskId, weight, firstDay, end - 1);
    }

    /// @inheritdoc IEmission
    function poke(uint256 days_) external {
        uint64 day = poked;
        uint64 over = _daysOver(block.timestamp);
        uint256 weight = _weight;
        for (; days_ > 0 && day < over; --days_) {
            Day storage today = _days[day];
            weight = weight + today.joining - today.leaving;
            uint256 raise = weight == 0 ? 0 : ArenaMath.perUnit(amountOf(day), weight);
            _days[++day].index = today.index + raise;
        }
        poked = day;
        _weight = weight;
        emit Poked(day, weight);
    }

    /// @inheritdoc IEmission
    function pay(TaskId taskId, uint16 round) external nonReentrant {
        uint64 opensAt = arena.roundTimes(taskId, round).opensAt;
        if (block.timestamp < opensAt) revert TooEarly(opensAt);
        if (_paid[taskId][round]) revert AlreadyPaid(round);
        uint256 amount = earned(taskId, round);

        _paid[taskId][round] = true;
        emit Emitted(taskId, round, amount);

        token.forceApprove(address(escrow), amount);
        escrow.sponsor(taskId, round, SafeCast.toUint128(amount)); // refuses nothing, and what comes too late
    }

    /* VIEWS */

    /// @inheritdoc IEmission
    function fund() external view returns (Fund memory) {
        return _fund;
    }

    /// @inheritdoc IEmission
    function enlisted(TaskId taskId) external view returns (Enlisted memory) {
        return _enlisted[taskId];
    }

    /// @inheritdoc IEmission
    function amountOf(uint64 day) public view returns (uint256 amount) {
        amount = _fund.firstAmount;
        uint256 decay = _fund.decay;
        if (decay == ArenaMath.WAD) return amount;
        for (uint256 left = day / _fund.period; left > 0 && amount > 0; --left) {
            amount = amount * decay / ArenaMath.WAD;
        }
    }

    /// @inheritdoc IEmission
    function earned(TaskId taskId, uint16 round) public view returns (uint256) {
        Enlisted memory task = _enlisted[taskId];
        if (task.weight == 0) revert NotEnlisted(taskId);
        Clock memory clock = arena.clock(taskId);
        if (round == 0 || round > clock.rounds) revert ITasks.UnknownRound(round);
        uint64 begin = clock.start + uint64(round - 1) * clock.roundLength;
        uint64 first = _daysOver(begin);
        if (first < task.firstDay) first = task.firstDay;
        uint64 end = _daysOver(begin + clock.roundLength);
        if (end <= first) return 0;
        if (end > poked) revert NotPoked(poked, end);
        return ArenaMath.earned(task.weight, _days[end].index - _days[first].index);
    }

    function _weigh(TaskId taskId) private view returns (uint256) {
        uint256 deposit = arena.pay(taskId).deposit;
        if (deposit < _fund.leastDeposit) revert TaskTooSmall(deposit, _fund.leastDeposit);
        (uint256 trainers,) = vault.totals(taskId, Role.Trainer);
        (uint256 validators,) = vault.totals(taskId, Role.Validator);
        uint256 own = trainers + validators;
        if (own < _fund.leastStake) revert TaskTooSmall(own, _fund.leastStake);
        return ArenaMath.stakePower(own, _fund.beta);
    }

    /// @dev How many days are over at `time`.
    function _daysOver(uint256 time) private view returns (uint64) {
        uint64 epoch = _fund.epoch;
        if (time < epoch) revert TooEarly(epoch);
        return uint64((time - epoch) / 1 days);
    }
}
