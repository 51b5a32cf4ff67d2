// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskId} from "../types/Types.sol";
import {Stake} from "./IStakeVault.sol";

/// @notice The ledger of a task: `allocated` never exceeds `budget + sponsored`.
/// @param budget What the creator paid for rewards.
/// @param sponsored What others added.
/// @param deposit The creator's deposit; 0 once paid back or burned.
/// @param reclaimed Whether the creator was paid back what was never allocated.
struct Budget {
    uint128 budget;
    uint128 sponsored;
    uint128 allocated;
    uint128 deposit;
    bool reclaimed;
}

/// @title Reward escrow
/// @notice Holds task budgets and creators' deposits until the challenging phase is over, then pays on request.
/// @dev Of an operator's R_r of round r, its delegators of that round share
/// pool_r = floor(R_r * (10,000 - commission) * t_d / (10,000 * (t_n + t_d))); the operator takes R_r - pool_r.
/// The pool raises the operator's index: index_r = index_(r-1) + floor(pool_r * 2^128 / t_d), unchanged where t_d = 0.
/// A delegator is paid floor(amount * (index_b - index_a) / 2^128) for every stretch of rounds (a, b] in which its
/// amount did not change: less than two wei a stretch below its exact part. Dust stays in the escrow.
/// The challenged lose the whole of R, delegators' part included.
interface IRewardEscrow {
    /// @notice A task's budget and its creator's deposit arrived.
    event Funded(TaskId indexed taskId, uint256 budget, uint256 deposit);
    /// @notice `sponsor` added to the reward of a round.
    event Sponsored(TaskId indexed taskId, uint16 indexed round, address indexed sponsor, uint256 amount);
    /// @notice `amount` wei of a round were set aside for an operator and its delegators.
    event Allocated(TaskId indexed taskId, uint16 indexed round, address indexed operator, uint256 amount);
    /// @notice A trainer forfeited `amount` wei: `burned` were destroyed, the rest went to the ChallengeManager.
    event Redirected(TaskId indexed taskId, address indexed trainer, uint256 amount, uint256 burned);
    /// @notice An operator was paid its part.
    event Claimed(TaskId indexed taskId, address indexed operator, uint256 amount);
    /// @notice A delegator was paid its part of an operator's reward.
    event DelegatedClaimed(TaskId indexed taskId, address indexed operator, address indexed delegator, uint256 amount);
    /// @notice The creator was paid back what was never allocated of its budget, and its deposit if that is its to have;
    /// what was never allocated of the sponsors' money was burned.
    event Reclaimed(TaskId indexed taskId, address indexed creator, uint256 amount, uint256 burned);
    /// @notice The deposit of an absent creator was destroyed.
    event DepositBurned(TaskId indexed taskId, uint256 amount);

    /// @notice Allocations would reach `need` of `have` wei.
    error OverBudget(uint256 have, uint256 need);
    /// @notice `trainer` lost its reward to a conviction.
    error AlreadyForfeited(address trainer);
    /// @notice A sponsor must give something.
    error ZeroAmount();
    /// @notice The final set was opened and attested: the deposit is the creator's.
    error DepositEarned();

    /// @notice Books the budget and the deposit that the Arena moves here in the same transaction. Arena only.
    function fund(TaskId taskId, uint128 budget, uint128 deposit) external;

    /// @notice Adds the caller's tokens to the reward of a round, before its settlement may begin (RoundTimes.settleFrom).
    /// Anyone; needs an allowance for the escrow.
    function sponsor(TaskId taskId, uint16 round, uint128 amount) external;

    /// @notice Sets `amounts[k]` of `round` aside for `stakes[k].operator`, whose pool for delegators follows from the
    /// stake as it is given; nothing for a forfeited one. Scoring only; rounds come in order, an operator once a round.
    /// @return total What was set aside.
    function allocate(TaskId taskId, uint16 round, Stake[] calldata stakes, uint256[] calldata amounts)
        external
        returns (uint256 total);

    /// @notice Forfeits a trainer for good: burns burnBps of all it was allocated (rounded down) and sends the rest to
    /// the ChallengeManager. ChallengeManager only, once a trainer.
    /// @return redirected What was sent.
    function redirect(TaskId taskId, address trainer) external returns (uint256 redirected);

    /// @notice Pays the caller's part as an operator: once, when closed, with no case pending against it.
    function claim(TaskId taskId) external;

    /// @notice Pays the caller's part as a delegator of `operator`, under the same conditions.
    function claimDelegated(TaskId taskId, address operator) external;

    /// @notice When closed, once: pays the creator max(0, budget - allocated), and its deposit if scoring.attested; burns
    /// the rest of what was not allocated. The creator's money is spent first, so no sponsor adds to what it gets back.
    /// Creator only.
    function reclaim(TaskId taskId) external;

    /// @notice When closed, once: destroys the deposit of a creator whose final set was not attested. Anyone may call.
    function burnDeposit(TaskId taskId) external;

    /// @notice What claim would pay now.
    function claimable(TaskId taskId, address operator) external view returns (uint256);

    /// @notice What claimDelegated would pay now.
    function claimableDelegated(TaskId taskId, address operator, address delegator) external view returns (uint256);

    /// @notice Everything set aside for the operator and its delegators, of all rounds, before any claim.
    function allocated(TaskId taskId, address operator) external view returns (uint256);

    /// @notice Whether the trainer lost its reward for good.
    function forfeited(TaskId taskId, address trainer) external view returns (bool);

    /// @notice What sponsors added to the reward of a round.
    function sponsored(TaskId taskId, uint16 round) external view returns (uint256);

    /// @notice The task's ledger.
    function budgetOf(TaskId taskId) external view returns (Budget memory);
}
