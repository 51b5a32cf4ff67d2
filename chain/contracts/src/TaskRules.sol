// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ITaskRules} from "./interfaces/ITaskRules.sol";
import {Pay, TaskConfig} from "./interfaces/ITasks.sol";
import {ArenaMath} from "./libraries/ArenaMath.sol";
import {Terms} from "./libraries/Terms.sol";

/// @title Task rules
/// @notice See ITaskRules. A part of the Arena, which deploys it in its constructor: one contract would pass the limit
/// on code size.
contract TaskRules is ITaskRules {
    /// @inheritdoc ITaskRules
    uint32 public immutable leastWindow;

    constructor(uint32 leastWindow_) {
        leastWindow = leastWindow_;
    }

    /// @inheritdoc ITaskRules
    function check(TaskConfig memory config) external view {
        Terms.check(config, leastWindow);
    }

    /// @inheritdoc ITaskRules
    function split(Pay memory pay, uint256 reward, uint256 trainers, uint256 validators)
        external
        pure
        returns (uint256 toTrainers, uint256 toValidators)
    {
        return ArenaMath.split(reward, pay.gammaBps, trainers, validators);
    }

    /// @inheritdoc ITaskRules
    function trainerWeights(Pay memory pay, uint256[] memory stakes, uint256[] memory ranks)
        external
        pure
        returns (uint256[] memory weights)
    {
        weights = new uint256[](stakes.length);
        uint256[] memory powers = _powers(pay.q, _highest(ranks));
        for (uint256 i; i < stakes.length; ++i) {
            if (ranks[i] == 0) continue;
            weights[i] = ArenaMath.mulWad(ArenaMath.stakePower(stakes[i], pay.alphaTrainer), powers[ranks[i] - 1]);
        }
    }

    /// @inheritdoc ITaskRules
    function validatorWeights(Pay memory pay, uint256[] memory stakes, uint256[] memory distances)
        external
        pure
        returns (uint256[] memory weights)
    {
        weights = new uint256[](stakes.length);
        for (uint256 j; j < stakes.length; ++j) {
            uint256 staked = ArenaMath.stakePower(stakes[j], pay.alphaValidator);
            weights[j] = ArenaMath.mulWad(staked, ArenaMath.closeness(pay.lambda, distances[j]));
        }
    }

    /// @dev 1, q, q^2, ..., each rounded down from the one before.
    function _powers(uint256 q, uint256 count) private pure returns (uint256[] memory powers) {
        powers = new uint256[](count);
        uint256 power = ArenaMath.WAD;
        for (uint256 k; k < count; ++k) {
            powers[k] = power;
            power = ArenaMath.mulWad(power, q);
        }
    }

    function _highest(uint256[] memory values) private pure returns (uint256 highest) {
        for (uint256 i; i < values.length; ++i) {
            if (values[i] > highest) highest = values[i];
        }
    }
}
