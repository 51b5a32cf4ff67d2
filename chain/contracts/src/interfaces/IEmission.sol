// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskId} from "../types/Types.sol";

/// @notice The terms of a fund, fixed for ever.
/// @param firstAmount What day 0 hands out, wei.
/// @param epoch When day 0 begins, seconds since 1970.
/// @param decay What is left of a day's amount after every `period` days, WAD, at most 1.
/// @param period Days, positive.
/// @param beta Exponent of what is staked in a task, WAD, at most 2.
/// @param leastStake Least sum of own stakes of a task that takes part; at least a whole token.
/// @param leastDeposit Least deposit of its creator.
struct Fund {
    uint128 firstAmount;
    uint64 epoch;
    uint64 decay;
    uint32 period;
    uint64 beta;
    uint128 leastStake;
    uint128 leastDeposit;
}

/// @notice What a task takes part with.
/// @param weight (Sum of all own stakes)^beta, WAD; 0 = not enlisted.
/// @param firstDay The first day it shares in: the one after the day it starts.
/// @param lastDay The last day it shares in: the last that ends within its submission rounds.
struct Enlisted {
    uint256 weight;
    uint64 firstDay;
    uint64 lastDay;
}

/// @title Daily emission
/// @notice Pays a fixed fund out day by day over the tasks that are running, by what is staked in them. Optional: tasks
/// need no emission, and nobody owns this one.
/// @dev Days count from 0 at `epoch`. Day d hands out E_d = firstAmount, times decay after every `period` days, rounded
/// down each time, wei. It raises an index: index_(d+1) = index_d + floor(E_d * 2^128 / sum of the weights of all tasks of
/// day d), unchanged without tasks. A task enlisted with weight W is paid floor(W * (index_b - index_a) / 2^128) for the
/// days [a, b) that ended in a round, which is its part E_d * W / sum of each, less than two wei short in all. Enlisting
/// ends with the day of the task's start and counts from the next, so a day's total is final before the day begins and
/// nobody can move it. What a day without tasks and rounding leave over stays in the fund for good.
/// The fund is whatever tokens this contract holds: whoever deploys it sends them. If it runs dry nobody is paid until
/// somebody adds to it.
interface IEmission {
    /// @notice A task takes part from day `firstDay` to `lastDay`.
    event EnlistedTask(TaskId indexed taskId, uint256 weight, uint64 firstDay, uint64 lastDay);
    /// @notice The index is known up to day `day`, the day before having had `total` weight.
    event Poked(uint64 day, uint256 total);
    /// @notice What a task earned on the days that ended in a round went into its reward.
    event Emitted(TaskId indexed taskId, uint16 indexed round, uint256 amount);

    /// @notice The task was enlisted before.
    error AlreadyEnlisted(TaskId taskId);
    /// @notice The task was not enlisted.
    error NotEnlisted(TaskId taskId);
    /// @notice Own stakes or the creator's deposit are below what the fund asks for.
    error TaskTooSmall(uint256 have, uint256 need);
    /// @notice No day begins after the task's start's and ends within its submission rounds.
    error TaskTooShort();
    /// @notice The fund's terms are unusable; `field` names the first that is.
    error BadFund(string field);
    /// @notice The index is known up to day `have` only and asked for up to `need`: poke first.
    error NotPoked(uint64 have, uint64 need);
    /// @notice The round was paid before.
    error AlreadyPaid(uint16 round);

    /// @notice Lets a task take part. Anyone, once, after its start and before the day of the start ends.
    function enlist(TaskId taskId) external;

    /// @notice Brings the index forward by at most `days_` days, never past the days that are over. Anyone may call.
    function poke(uint256 days_) external;

    /// @notice Moves what the task earned on the days that ended within `round` into its reward (escrow.sponsor); once a
    /// round, between the round's end and RoundTimes.settleFrom. Anyone may call. The final round earns nothing.
    function pay(TaskId taskId, uint16 round) external;

    /// @notice The terms of the fund.
    function fund() external view returns (Fund memory);

    /// @notice Days that the index is known of: all before this one.
    function poked() external view returns (uint64);

    /// @notice What the task takes part with.
    function enlisted(TaskId taskId) external view returns (Enlisted memory);

    /// @notice E_d, wei.
    function amountOf(uint64 day) external view returns (uint256);

    /// @notice What `pay` would move if it were time; reverts with NotEnlisted and NotPoked as it would.
    function earned(TaskId taskId, uint16 round) external view returns (uint256);
}
