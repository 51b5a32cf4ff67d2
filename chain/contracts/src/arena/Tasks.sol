// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IArenaToken} from "../interfaces/IArenaToken.sol";
import {IRewardEscrow} from "../interfaces/IRewardEscrow.sol";
import {ITaskRules} from "../interfaces/ITaskRules.sol";
import {Clock, Court, ITasks, Pay, PhaseTimes, RoundTimes, TaskConfig, Work} from "../interfaces/ITasks.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {UnknownTask, WrongPhase} from "../types/Errors.sol";
import {Phase, TaskId} from "../types/Types.sol";

/// @title Tasks
/// @notice See ITasks.
abstract contract Tasks is ITasks {
    using SafeERC20 for IArenaToken;
    using Schedule for Clock;

    IArenaToken public immutable token;
    IRewardEscrow public immutable escrow;
    /// @inheritdoc ITasks
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
        Pay memory terms = config.pay;
        uint128 budget = config.clock.rounds * terms.roundReward + terms.finalReward;

        taskId = TaskId.wrap(++taskCount);
        _configs[taskId] = config;
        creatorOf[taskId] = msg.sender;
        emit TaskCreated(taskId, msg.sender, budget, terms.deposit, metadataCid);

        token.safeTransferFrom(msg.sender, address(escrow), budget + terms.deposit);
        escrow.fund(taskId, budget, terms.deposit);
    }

    /// @inheritdoc ITasks
    function clock(TaskId taskId) public view returns (Clock memory) {
        return _config(taskId).clock;
    }

    /// @inheritdoc ITasks
    function work(TaskId taskId) external view returns (Work memory) {
        return _config(taskId).work;
    }

    /// @inheritdoc ITasks
    function pay(TaskId taskId) external view returns (Pay memory) {
        return _config(taskId).pay;
    }

    /// @inheritdoc ITasks
    function court(TaskId taskId) external view returns (Court memory) {
        return _config(taskId).court;
    }

    /// @inheritdoc ITasks
    function phase(TaskId taskId) external view returns (Phase) {
        return clock(taskId).phase();
    }

    /// @inheritdoc ITasks
    function phaseTimes(TaskId taskId) external view returns (PhaseTimes memory) {
        return clock(taskId).phaseTimes();
    }

    /// @inheritdoc ITasks
    function currentRound(TaskId taskId) external view returns (uint16) {
        return clock(taskId).currentRound();
    }

    /// @inheritdoc ITasks
    function roundTimes(TaskId taskId, uint16 round) external view returns (RoundTimes memory) {
        return clock(taskId).roundTimes(round);
    }

    /// @inheritdoc ITasks
    function segmentCount(TaskId taskId) external view returns (uint64) {
        return _segmentCount(_config(taskId));
    }

    function _config(TaskId taskId) internal view returns (TaskConfig storage config) {
        config = _configs[taskId];
        if (config.clock.start == 0) revert UnknownTask(taskId);
    }

    function _segmentCount(TaskConfig storage config) internal view returns (uint64) {
        return Schedule.segmentCount(config.work.steps, config.work.segmentLength);
    }

    function _requireSubmission(TaskId taskId) internal view {
        Phase have = clock(taskId).phase();
        if (have != Phase.Submission) revert WrongPhase(have, Phase.Submission);
    }
}
