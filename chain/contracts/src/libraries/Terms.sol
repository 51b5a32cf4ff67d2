// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ITasks, TaskConfig} from "../interfaces/ITasks.sol";

/// @title What terms a task may have
/// @notice Bounds under which no later computation can overflow, divide by zero or loop for long.
library Terms {
    uint256 internal constant WAD = 1e18;
    uint256 internal constant BPS = 10_000;
    uint256 internal constant MAX_SEGMENTS = 2 ** 16;

    /// @notice Reverts with BadTerms, naming the first field that is out of bounds.
    function check(TaskConfig memory config) internal view {
        _checkClock(config);
        _checkRun(config);
        _checkRewards(config);
        _checkChallenges(config);
    }

    function _checkClock(TaskConfig memory config) private view {
        _require(config.start > block.timestamp && config.start <= type(uint40).max, "start");
        _require(config.window > 0, "window");
        _require(config.roundLength >= 3 * uint256(config.window), "roundLength");
        _require(config.answerWindow > 0, "answerWindow");
        _require(config.voteWindow > 0, "voteWindow");
        uint256 longestCase = 2 * uint256(config.answerWindow) + 2 * uint256(config.voteWindow);
        _require(config.challengeLength > longestCase, "challengeLength");
    }

    function _checkRun(TaskConfig memory config) private pure {
        _require(config.segmentLength > 0, "segmentLength");
        _require(config.steps > 0 && config.steps <= MAX_SEGMENTS * config.segmentLength, "steps");
        uint256 segments = (uint256(config.steps) + config.segmentLength - 1) / config.segmentLength;
        uint256 sampled = config.sampledSegments;
        _require(sampled > 0 && sampled <= 16 && sampled <= segments, "sampledSegments");
    }

    function _checkRewards(TaskConfig memory config) private pure {
        _require(config.q > 0 && config.q <= WAD, "q");
        _require(config.alphaTrainer <= 2 * WAD, "alphaTrainer");
        _require(config.alphaValidator <= 2 * WAD, "alphaValidator");
        _require(config.gammaBps <= BPS / 2, "gammaBps");
        _require(config.minTrainerStake > 0, "minTrainerStake");
        _require(config.minValidatorStake > 0, "minValidatorStake");
        uint256 budget = 2 * uint256(config.roundReward) + config.finalReward;
        _require(budget <= type(uint128).max, "roundReward");
    }

    function _checkChallenges(TaskConfig memory config) private pure {
        uint256 costs = uint256(config.openingCost) * config.sampledSegments;
        _require(config.challengeBond > 0 && config.challengeBond >= costs, "challengeBond");
        _require(config.burnBps <= BPS, "burnBps");
        _require(config.slashBps <= BPS, "slashBps");
    }

    function _require(bool holds, string memory field) private pure {
        if (!holds) revert ITasks.BadTerms(field);
    }
}
