// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Role, TaskId} from "../types/Types.sol";

/// @notice One operator's stake, as it counts for weights and splits: as staked, never reduced.
struct Stake {
    address operator;
    uint128 own;
    uint128 delegated;
}

/// @title Stake vault
/// @notice Holds all principal: what trainers and validators stake, and what delegators lend them.
/// @dev Stakes enter before a task starts and leave after it is closed. The amounts that weights and splits are taken
/// from never change after the start; withdrawals are flags. Rewards and bonds are held elsewhere.
interface IStakeVault {
    /// @notice An operator staked for a role.
    event Staked(TaskId indexed taskId, address indexed operator, Role role, uint128 amount, uint16 commissionBps);
    /// @notice A delegator lent `amount` (more) wei to an operator.
    event Delegated(TaskId indexed taskId, address indexed operator, address indexed delegator, uint128 amount);
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
    /// @notice A delegation must not be empty.
    error ZeroAmount();

    /// @notice Stakes for a role, once a task and account, during registration. Needs an allowance for the vault.
    /// @param commissionBps The operator's share of what its delegators' stake earns.
    function stake(TaskId taskId, Role role, uint128 amount, uint16 commissionBps) external;

    /// @notice Lends the caller's tokens to a staked operator, during registration; adds up.
    function delegate(TaskId taskId, address operator, uint128 amount) external;

    /// @notice Pays the caller's own stake back, less what was slashed; once closed, with no case pending against it.
    /// @dev A trainer that registered a run and never revealed a submission is slashed here first.
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

    /// @notice Own stake as staked.
    function ownStake(TaskId taskId, address operator) external view returns (uint256);

    /// @notice Everything delegated to the operator, as delegated.
    function delegatedStake(TaskId taskId, address operator) external view returns (uint256);

    /// @notice What `delegator` lent to the operator, as delegated.
    function delegationOf(TaskId taskId, address operator, address delegator) external view returns (uint256);

    /// @notice The operator's commission.
    function commissionBps(TaskId taskId, address operator) external view returns (uint16);

    /// @notice All operators of a role, in the order they staked (at most 32).
    function operators(TaskId taskId, Role role_) external view returns (address[] memory);

    /// @notice The same operators with their stakes.
    function stakes(TaskId taskId, Role role_) external view returns (Stake[] memory);
}
