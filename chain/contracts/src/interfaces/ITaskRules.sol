// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Stake} from "./IStakeVault.sol";
import {TaskConfig} from "./ITasks.sol";

/// @notice A round as it is settled; arrays run in staking order.
/// @param reward The round's reward, wei.
/// @param orders Commit order of each trainer's standing model; 0 = none stands.
/// @param room What each trainer may still be allocated, wei.
/// @param scores Each validator's revealed scores in bps, one a trainer; empty = none revealed.
struct Round {
    uint256 reward;
    Stake[] trainers;
    Stake[] validators;
    uint64[] orders;
    uint256[] room;
    uint16[][] scores;
}

/// @notice What a round comes to; arrays run in staking order.
/// @param aggregates Weighted mean score of each standing trainer, WAD.
/// @param ranks From 1; 0 = no standing model.
/// @param distances Of each validator that revealed from the consensus, WAD.
struct Outcome {
    uint256 trainersPool;
    uint256 validatorsPool;
    uint256[] aggregates;
    uint256[] ranks;
    uint256[] distances;
    uint256[] toTrainers;
    uint256[] toValidators;
}

/// @title Task rules
/// @notice Which terms a task may have, and what a round of it comes to. Stateless: anyone can ask, any time.
/// @dev The reward equations and their rounding, R being the round's reward, all in wei:
///  - Split: R_T = floor(R * (g + (1-2g) * T/(T+S))) and R_V = R - R_T, with T and S the own stakes of all staked
///    trainers and validators (delegations do not count) and g = gammaBps/10,000. One division, rounded down.
///  - Consensus: w_j = own + delegated stake of each validator j that revealed;
///    rbar_i = floor(sum_j w_j * score_ji * 1e14 / sum_j w_j), WAD.
///  - Rank k of the standing models by (rbar descending, commit order ascending), from 1.
///  - Trainer i: weight = floor(q^(k-1) * (own+delegated)^alphaTrainer), R_i = floor(R_T * weight_i / sum of weights).
///    Powers of q are built by repeated multiplication, rounded down each time. Then R_i is cut so that all the trainer
///    was ever allocated stays within its slashable stake: a conviction burns at least what it redirects.
///  - Validator j that revealed: D_j = floor of the mean over standing models of |score_ji * 1e14 - rbar_i|, WAD;
///    weight = floor((own+delegated)^alphaValidator * exp(-floor(lambda * D_j))),
///    V_j = floor(R_V * weight_j / sum of weights).
///  - stake^alpha is the stake itself for alpha = 1, else Solady's powWad on the stake in whole tokens (WAD).
///  - No standing model, no revealed scores, or all weights zero: nothing is allocated. What is not allocated, dust
///    and cuts included, returns to the creator.
interface ITaskRules {
    /// @notice Reverts with ITasks.BadTerms unless a task may be created with these terms at this block's time.
    function check(TaskConfig memory config) external view;

    /// @notice Ranks, distances and shares of a round. All zero without a standing model or without revealed scores.
    function settle(TaskConfig memory config, Round memory round) external pure returns (Outcome memory);
}
