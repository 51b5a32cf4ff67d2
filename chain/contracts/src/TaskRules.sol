// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ITaskRules, Outcome, Round} from "./interfaces/ITaskRules.sol";
import {TaskConfig} from "./interfaces/ITasks.sol";
import {Rewards} from "./libraries/Rewards.sol";
import {Terms} from "./libraries/Terms.sol";

/// @title Task rules
/// @notice See ITaskRules. A part of the Arena, which deploys it in its constructor: one contract would pass the limit
/// on code size.
contract TaskRules is ITaskRules {
    /// @inheritdoc ITaskRules
    function check(TaskConfig memory config) external view {
        Terms.check(config);
    }

    /// @inheritdoc ITaskRules
    function settle(TaskConfig memory config, Round memory round) external pure returns (Outcome memory) {
        return Rewards.compute(config, round);
    }
}
