// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Pay, TaskConfig} from "./ITasks.sol";

/// @title Task rules
/// @notice Which terms a task may have, and what the rewards of a round come to. Stateless: anyone can ask, any time.
/// @dev The reward equations and their rounding, R being the round's reward, all in wei:
///  - Split: R_T = floor(R * (g + (1-2g) * T/(T+S))) and R_V = R - R_T, with T and S the own stakes of all staked
///    trainers and validators (delegations do not count) and g = gammaBps/10,000. One division, rounded down.
///  - Stakes of a round are own + delegated, a delegation counting from the round after it was made.
///  - Consensus over the validators j that revealed, w_j their stakes in the round: the mean
///    rbar_i = floor(sum_j w_j * score_ji * 1e14 / sum_j w_j), or the lower weighted median: the least score at which
///    the weights of the scores up to it reach half of all; WAD.
///  - Rank k of the standing models by (rbar descending, commit order ascending), from 1.
///  - Trainer i: weight = floor(q^(k-1) * stake^alphaTrainer), R_i = floor(R_T * weight_i / sum of weights).
///    Powers of q are built by repeated multiplication, rounded down each time. Then R_i is cut so that all the trainer
///    was ever allocated stays within its slashable stake: a conviction burns at least what it redirects.
///  - Validator j that revealed: D_j = floor of the mean over standing models of |score_ji * 1e14 - rbar_i|, WAD;
///    weight = floor(stake^alphaValidator * exp(-floor(lambda * D_j))),
///    V_j = floor(R_V * weight_j / sum of weights).
///  - stake^alpha is the stake itself for alpha = 1, else Solady's powWad on the stake in whole tokens (WAD).
///  - No standing model, no revealed scores, or all weights zero: nothing is allocated. What is not allocated, dust
///    and cuts included, returns to the creator as far as it is its own (IRewardEscrow.reclaim).
interface ITaskRules {
    /// @notice Reverts with ITasks.BadTerms unless a task may be created with these terms at this block's time.
    function check(TaskConfig memory config) external view;

    /// @notice The least length of any window, seconds: more than the chain's delay for forced inclusion. Constructor's.
    function leastWindow() external view returns (uint32);

    /// @notice R_T and R_V.
    /// @param trainers Sum of the trainers' own stakes; not both sums zero.
    function split(Pay memory pay, uint256 reward, uint256 trainers, uint256 validators)
        external
        pure
        returns (uint256 toTrainers, uint256 toValidators);

    /// @notice The weights of trainers, from their stakes (own + delegated, wei) and ranks; rank 0 weighs nothing.
    /// @dev Any part of a round's trainers, in any order: each weight depends on its own stake and rank alone.
    function trainerWeights(Pay memory pay, uint256[] memory stakes, uint256[] memory ranks)
        external
        pure
        returns (uint256[] memory);

    /// @notice The weights of validators, from their stakes (own + delegated, wei; 0 weighs nothing) and distances (WAD).
    function validatorWeights(Pay memory pay, uint256[] memory stakes, uint256[] memory distances)
        external
        pure
        returns (uint256[] memory);
}
