// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskId} from "../types/Types.sol";

/// @notice The ledger of a task: `allocated` never exceeds `budget`.
struct Budget {
    uint128 budget;
    uint128 allocated;
    bool reclaimed;
}

/// @title Reward escrow
/// @notice Holds task budgets until the challenging phase is over, then pays on request.
/// @dev Of an operator's R, delegators share pool = floor(R * (10,000 - commission) * t_d / (10,000 * (t_n + t_d))),
/// each floor(pool * d / t_d); the operator takes R - pool. Dust below one wei a delegator stays in the escrow. The
/// challenged lose the whole of R, delegators' part included.
interface IRewardEscrow {
    /// @notice A task's budget arrived.
    event Funded(TaskId indexed taskId, uint256 amount);
    /// @notice `amount` (more) wei were set aside for an operator and its delegators.
    event Allocated(TaskId indexed taskId, address indexed operator, uint256 amount);
    /// @notice A trainer forfeited `amount` wei: `burned` were destroyed, the rest went to the ChallengeManager.
    event Redirected(TaskId indexed taskId, address indexed trainer, uint256 amount, uint256 burned);
    /// @notice An operator was paid its part.
    event Claimed(TaskId indexed taskId, address indexed operator, uint256 amount);
    /// @notice A delegator was paid its part of an operator's reward.
    event DelegatedClaimed(TaskId indexed taskId, address indexed operator, address indexed delegator, uint256 amount);
    /// @notice The creator was paid back what was never allocated.
    event Reclaimed(TaskId indexed taskId, address indexed creator, uint256 amount);

    /// @notice Allocations would reach `need` of a budget of `have` wei.
    error OverBudget(uint256 have, uint256 need);
    /// @notice `trainer` lost its reward to a conviction.
    error AlreadyForfeited(address trainer);

    /// @notice Books the budget that the Arena has just moved here. Arena only.
    function fund(TaskId taskId, uint128 amount) external;

    /// @notice Sets `amount` aside for an operator; nothing for a forfeited one. Arena only.
    /// @return allocated_ What was set aside.
    function allocate(TaskId taskId, address operator, uint128 amount) external returns (uint256 allocated_);

    /// @notice Forfeits a trainer for good: burns burnBps of all it was allocated (rounded down) and sends the rest to
    /// the ChallengeManager. ChallengeManager only.
    /// @return redirected What was sent.
    function redirect(TaskId taskId, address trainer) external returns (uint256 redirected);

    /// @notice Pays the caller's part as an operator: once, when closed, with no case pending against it.
    function claim(TaskId taskId) external;

    /// @notice Pays the caller's part as a delegator of `operator`, under the same conditions.
    function claimDelegated(TaskId taskId, address operator) external;

    /// @notice Pays what was never allocated back to the creator: once, when closed.
    function reclaim(TaskId taskId) external;

    /// @notice What claim would pay now.
    function claimable(TaskId taskId, address operator) external view returns (uint256);

    /// @notice What claimDelegated would pay now.
    function claimableDelegated(TaskId taskId, address operator, address delegator) external view returns (uint256);

    /// @notice Everything set aside for the operator and its delegators, before any claim.
    function allocated(TaskId taskId, address operator) external view returns (uint256);

    /// @notice Whether the trainer lost its reward for good.
    function forfeited(TaskId taskId, address trainer) external view returns (bool);

    /// @notice The task's ledger.
    function budgetOf(TaskId taskId) external view returns (Budget memory);
}
