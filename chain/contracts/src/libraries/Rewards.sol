// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Stake} from "../interfaces/IStakeVault.sol";
import {Outcome, Round} from "../interfaces/ITaskRules.sol";
import {TaskConfig} from "../interfaces/ITasks.sol";
import {ArenaMath} from "./ArenaMath.sol";

/// @title Settling a round
/// @notice The equations of ITaskRules over whole arrays, in memory; no storage, no calls.
/// @dev At most 32 trainers and 32 validators, so every loop is short.
library Rewards {
    /// @notice Ranks, distances and shares of a round. All zero without a standing model or without revealed scores.
    function compute(TaskConfig memory config, Round memory round) internal pure returns (Outcome memory outcome) {
        outcome.aggregates = new uint256[](round.trainers.length);
        outcome.ranks = new uint256[](round.trainers.length);
        outcome.toTrainers = new uint256[](round.trainers.length);
        outcome.distances = new uint256[](round.validators.length);
        outcome.toValidators = new uint256[](round.validators.length);
        uint256[] memory ranked = _standing(round.orders);
        if (ranked.length == 0 || !_aggregate(round, ranked, outcome)) return outcome;

        _rank(round, ranked, outcome);
        (outcome.trainersPool, outcome.validatorsPool) =
            ArenaMath.split(round.reward, config.gammaBps, _ownSum(round.trainers), _ownSum(round.validators));
        _rewardTrainers(config, round, ranked, outcome);
        _rewardValidators(config, round, ranked, outcome);
    }

    /// @dev Indices of the trainers whose model stands.
    function _standing(uint64[] memory orders) private pure returns (uint256[] memory indices) {
        uint256 count;
        for (uint256 i; i < orders.length; ++i) {
            if (orders[i] != 0) ++count;
        }
        indices = new uint256[](count);
        count = 0;
        for (uint256 i; i < orders.length; ++i) {
            if (orders[i] != 0) indices[count++] = i;
        }
    }

    /// @dev Fills the aggregates; false if nobody revealed.
    function _aggregate(Round memory round, uint256[] memory ranked, Outcome memory outcome)
        private
        pure
        returns (bool)
    {
        uint256 total;
        for (uint256 j; j < round.validators.length; ++j) {
            if (round.scores[j].length == 0) continue;
            uint256 weight = _sum(round.validators[j]);
            total += weight;
            for (uint256 n; n < ranked.length; ++n) {
                outcome.aggregates[ranked[n]] += weight * round.scores[j][ranked[n]] * ArenaMath.SCORE_UNIT;
            }
        }
        if (total == 0) return false;
        for (uint256 n; n < ranked.length; ++n) {
            outcome.aggregates[ranked[n]] /= total;
        }
        return true;
    }

    /// @dev Sorts `ranked` in place (insertion), best first, and fills the ranks.
    function _rank(Round memory round, uint256[] memory ranked, Outcome memory outcome) private pure {
        for (uint256 n = 1; n < ranked.length; ++n) {
            uint256 current = ranked[n];
            uint256 place = n;
            while (place > 0 && _before(round, outcome, current, ranked[place - 1])) {
                ranked[place] = ranked[place - 1];
                --place;
            }
            ranked[place] = current;
        }
        for (uint256 n; n < ranked.length; ++n) {
            outcome.ranks[ranked[n]] = n + 1;
        }
    }

    /// @dev Whether trainer a ranks before b: higher aggregate, then earlier commit (orders never tie).
    function _before(Round memory round, Outcome memory outcome, uint256 a, uint256 b) private pure returns (bool) {
        if (outcome.aggregates[a] != outcome.aggregates[b]) return outcome.aggregates[a] > outcome.aggregates[b];
        return round.orders[a] < round.orders[b];
    }

    function _rewardTrainers(
        TaskConfig memory config,
        Round memory round,
        uint256[] memory ranked,
        Outcome memory outcome
    ) private pure {
        uint256[] memory weights = new uint256[](ranked.length);
        uint256 total;
        uint256 power = ArenaMath.WAD;
        for (uint256 n; n < ranked.length; ++n) {
            uint256 staked = ArenaMath.stakePower(_sum(round.trainers[ranked[n]]), config.alphaTrainer);
            weights[n] = ArenaMath.mulWad(staked, power);
            total += weights[n];
            power = ArenaMath.mulWad(power, config.q);
        }
        for (uint256 n; n < ranked.length; ++n) {
            uint256 i = ranked[n];
            uint256 share = ArenaMath.portion(outcome.trainersPool, weights[n], total);
            outcome.toTrainers[i] = share < round.room[i] ? share : round.room[i];
        }
    }

    function _rewardValidators(
        TaskConfig memory config,
        Round memory round,
        uint256[] memory ranked,
        Outcome memory outcome
    ) private pure {
        uint256[] memory weights = new uint256[](round.validators.length);
        uint256 total;
        for (uint256 j; j < weights.length; ++j) {
            if (round.scores[j].length == 0) continue;
            outcome.distances[j] = _distance(round.scores[j], ranked, outcome.aggregates);
            uint256 staked = ArenaMath.stakePower(_sum(round.validators[j]), config.alphaValidator);
            weights[j] = ArenaMath.mulWad(staked, ArenaMath.closeness(config.lambda, outcome.distances[j]));
            total += weights[j];
        }
        for (uint256 j; j < weights.length; ++j) {
            outcome.toValidators[j] = ArenaMath.portion(outcome.validatorsPool, weights[j], total);
        }
    }

    /// @dev Mean absolute difference over the standing models, WAD.
    function _distance(uint16[] memory scores, uint256[] memory ranked, uint256[] memory aggregates)
        private
        pure
        returns (uint256 sum)
    {
        for (uint256 n; n < ranked.length; ++n) {
            uint256 score = scores[ranked[n]] * ArenaMath.SCORE_UNIT;
            uint256 mean = aggregates[ranked[n]];
            sum += score > mean ? score - mean : mean - score;
        }
        return sum / ranked.length;
    }

    function _sum(Stake memory staked) private pure returns (uint256) {
        return uint256(staked.own) + staked.delegated;
    }

    function _ownSum(Stake[] memory staked) private pure returns (uint256 sum) {
        for (uint256 i; i < staked.length; ++i) {
            sum += staked[i].own;
        }
    }
}
