// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Role, TaskId} from "../types/Types.sol";

/// @notice One operator's stake in a round, as it counts for weights and splits: as staked, never reduced.
/// @param commissionBps The operator's share of what its delegators' stake earns.
/// @param delegated Delegated before the round.
struct Stake {
    address operator;
    uint16 commissionBps;
    uint128 own;
    uint128 delegated;
}

/// @notice What a delegator has at work with an operator from one round on, until its next stretch.
/// @param from The first round it counts in, from 1.
/// @param amount All that it has lent by then.
struct Stretch {
    uint16 from;
    uint128 amount;
}

/// @title Stake vault
/// @notice Holds all principal: what trainers and validators stake, and what delegators lend them.
/// @dev Own stakes enter before a task starts, delegations until its submissions end; both leave after it is closed. A
/// delegation made in registration counts from round 1, one made in round r from round r + 1. The amounts that weights
/// and splits are taken from never shrink; withdrawals are flags. Rewards and bonds are held elsewhere.
interface IStakeVault {
    /// @notice An operator staked for a role.
    event Staked(TaskId indexed taskId, address indexed operator, Role role, uint128 amount, uint16 commissionBps);
    /// @notice A delegator lent `amount` (more) wei to an operator, counting from round `from`.
    event Delegated(
        TaskId indexed taskId, address indexed operator, address indexed delegator, uint128 amount, uint16 from
    );
    /// @notice An operator's own stake, less what was slashed, was paid back.
    event Withdrawn(TaskId indexed taskId, address indexed operator, uint256 amount);
    /// @notice A delegation was paid back in full.
    event Undelegated(TaskId indexed taskId, address indexed operator, address indexed delegator, uint256 amount);
    /// @notice `burned` wei of an operator's own stake were destroyed.
    event Slashed(TaskId indexed taskId, address indexed operator, uint256 burned);

    /// @notice `operator` has a role in the task already.
    error AlreadyStaked(address operator);
    /// @notice A stake is for a trainer or a validator.
    error BadRole();
    /// @notice A commission is at most 10,000 bps.
    error BadCommission(uint16 commissionBps);
    /// @notice The task asks for at least `need` wei.
    error StakeTooLow(uint256 have, uint256 need);
    /// @notice The task has `limit` operators of this role already.
    error TooManyOperators(uint256 limit);
    /// @notice `operator` has no role in the task.
    error NotStaked(address operator);
    /// @notice The task asks for delegations of at least `need` wei.
    error DelegationTooLow(uint256 have, uint256 need);

    /// @notice Stakes for a role, once a task and account, during registration. Needs an allowance for the vault.
    /// @param commissionBps The operator's share of what its delegators' stake earns.
    function stake(TaskId taskId, Role role, uint128 amount, uint16 commissionBps) external;

    /// @notice Lends the caller's tokens to a staked operator, until submissions end; adds up.
    function delegate(TaskId taskId, address operator, uint128 amount) external;

    /// @notice Pays the caller's own stake back, less what was slashed; once closed, with no case pending against it.
    function withdraw(TaskId taskId) external;

    /// @notice Pays the caller's delegation back in full, once closed. Delegators' principal is never slashed.
    function undelegate(TaskId taskId, address operator) external;

    /// @notice Burns the slashable part of an operator's own stake, once. ChallengeManager only.
    /// @return burned What was burned, wei; 0 if it was slashed before.
    function slash(TaskId taskId, address operator) external returns (uint256 burned);

    /// @notice What a conviction would burn now: floor(own * slashBps / 10,000), or 0 once slashed.
    function slashable(TaskId taskId, address operator) external view returns (uint256);

    /// @notice What was burned of the operator's stake.
    function slashed(TaskId taskId, address operator) external view returns (uint256);

    /// @notice The account's role in the task.
    function role(TaskId taskId, address account) external view returns (Role);

    /// @notice All operators of a role, in the order they staked (at most Pay.maxTrainers or Pay.maxValidators).
    function operators(TaskId taskId, Role role_) external view returns (address[] memory);

    /// @notice Sum of the own stakes of a role, as staked, and how many operators it has.
    function totals(TaskId taskId, Role role_) external view returns (uint256 own, uint256 count);

    /// @notice The stakes of operators [from, from + count) of a role as they count in `round`, in staking order; fewer
    /// if the list ends.
    function stakesAt(TaskId taskId, Role role_, uint16 round, uint256 from, uint256 count)
        external
        view
        returns (Stake[] memory);

    /// @notice The operator's own stake as points [from, from + own) of its role's total, in staking order: a drawn
    /// point hits the operator if it lies in its range. Both 0 for an account without a role.
    function range(TaskId taskId, address operator) external view returns (uint256 from, uint256 own);

    /// @notice What the delegator lent to the operator, from its first stretch to its last; empty if nothing.
    function delegationHistory(TaskId taskId, address operator, address delegator)
        external
        view
        returns (Stretch[] memory);
}
