// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IArenaToken} from "../interfaces/IArenaToken.sol";
import {IRewardEscrow} from "../interfaces/IRewardEscrow.sol";
import {ITaskRules} from "../interfaces/ITaskRules.sol";
import {ITasks, PhaseTimes, RoundTimes, TaskConfig} from "../interfaces/ITasks.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {UnknownTask, WrongPhase} from "../types/Errors.sol";
import {Phase, TaskId} from "../types/Types.sol";

/// @title Tasks
/// @notice See ITasks.
abstract contract Tasks is ITasks {
    using SafeERC20 for IArenaToken;
    using Schedule for TaskConfig;

    IArenaToken public immutable token;
    IRewardEscrow public immutable escrow;
    /// @notice The bounds on terms and the reward equations.
    ITaskRules public immutable rules;

    /// @inheritdoc ITasks
    uint256 public taskCount;
    /// @inheritdoc ITasks
    mapping(TaskId => address) public creatorOf;

    mapping(TaskId => TaskConfig) private _configs;

    constructor(IArenaToken token_, IRewardEscrow escrow_, ITaskRules rules_) {
        token = token_;
        escrow = escrow_;
        rules = rules_;
    }

    /// @inheritdoc ITasks
    function createTask(TaskConfig memory config, string calldata metadataCid) external returns (TaskId taskId) {
        rules.check(config);
        uint128 budget = 2 * config.roundReward + config.finalReward;

        taskId = TaskId.wrap(++taskCount);
        _configs[taskId] = config;
        creatorOf[taskId] = msg.sender;
        emit TaskCreated(taskId, msg.sender, budget, metadataCid);

        token.safeTransferFrom(msg.sender, address(escrow), budget);
        escrow.fund(taskId, budget);
    }

    /// @inheritdoc ITasks
    function taskConfig(TaskId taskId) public view returns (TaskConfig memory) {
        return _config(taskId);
    }

    /// @inheritdoc ITasks
    function phase(TaskId taskId) external view returns (Phase) {
        return _config(taskId).phase();
    }

    /// @inheritdoc ITasks
    function phaseTimes(TaskId taskId) external view returns (PhaseTimes memory) {
        return _config(taskId).phaseTimes();
    }

    /// @inheritdoc ITasks
    function roundTimes(TaskId taskId, uint256 round) external view returns (RoundTimes memory) {
        return _config(taskId).roundTimes(round);
    }

    /// @inheritdoc ITasks
    function segmentCount(TaskId taskId) external view returns (uint64) {
        return _config(taskId).segmentCount();
    }

    function _config(TaskId taskId) internal view returns (TaskConfig storage config) {
        config = _configs[taskId];
        if (config.start == 0) revert UnknownTask(taskId);
    }

    function _requireSubmission(TaskConfig storage config) internal view {
        Phase have = config.phase();
        if (have != Phase.Submission) revert WrongPhase(have, Phase.Submission);
    }
}
