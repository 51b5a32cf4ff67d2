// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Phase, TaskId} from "../types/Types.sol";

/// @notice The terms of a task: fixed at creation, for ever.
/// @dev WAD is 1e18, bps are parts of 10,000, times are seconds.
/// @param programDigest The training program.
/// @param trainRoot Merkle root of the training data.
/// @param evalRoot Merkle root of the data the submission rounds are scored on.
/// @param finalSetCommitment SHA256(abi.encode("aiarena/final-set/v1", finalRoot, salt)): the hidden final data set.
/// @param machineClass The class of machines replays must agree on; 0 = any.
/// @param start When registration ends and the first round begins.
/// @param roundLength Length of each of the two submission rounds; at least three windows.
/// @param window Length of each reveal, score-commit and score-reveal window.
/// @param challengeLength Length of the challenging phase; at least two answer and two vote windows.
/// @param steps Optimiser steps of a complete run.
/// @param segmentLength Steps of a segment (the last one may be shorter).
/// @param q Ratio of the geometric series over ranks, WAD, in (0, 1].
/// @param alphaTrainer Exponent of a trainer's stake, WAD, at most 2.
/// @param alphaValidator Exponent of a validator's stake, WAD, at most 2.
/// @param lambda How sharply a validator's distance from consensus costs it, WAD. The type keeps it below 18.45, so
/// exp(-lambda) keeps at least ten significant digits.
/// @param gammaBps The least share of a round's reward each side is sure of, at most 5,000.
/// @param minTrainerStake Least own stake of a trainer, wei, positive.
/// @param minValidatorStake Least own stake of a validator, wei, positive.
/// @param roundReward Reward of each submission round, wei.
/// @param finalReward Reward of the final validation, wei. The budget is 2 * roundReward + finalReward.
/// @param challengeBond What opening a case costs if it fails, wei; at least openingCost * sampledSegments.
/// @param openingCost What a rejected case pays the trainer per opened segment, wei.
/// @param sampledSegments Segments a case opens, 1 to 16; all of a run that ended early with fewer.
/// @param burnBps Share of a redirected reward that is burned.
/// @param slashBps Share of a convicted trainer's own stake that is burned; also caps what it can earn.
/// @param answerWindow Time to latch a case's seed, and again to answer it.
/// @param voteWindow Time to commit votes, and again to reveal them.
struct TaskConfig {
    bytes32 programDigest;
    bytes32 trainRoot;
    bytes32 evalRoot;
    bytes32 finalSetCommitment;
    bytes32 machineClass;
    uint64 start;
    uint32 roundLength;
    uint32 window;
    uint32 challengeLength;
    uint64 steps;
    uint32 segmentLength;
    uint64 q;
    uint64 alphaTrainer;
    uint64 alphaValidator;
    uint64 lambda;
    uint16 gammaBps;
    uint128 minTrainerStake;
    uint128 minValidatorStake;
    uint128 roundReward;
    uint128 finalReward;
    uint128 challengeBond;
    uint128 openingCost;
    uint16 sampledSegments;
    uint16 burnBps;
    uint16 slashBps;
    uint32 answerWindow;
    uint32 voteWindow;
}

/// @notice The windows of one round, each half open: open [opensAt, scoresFrom), commit scores [scoresFrom,
/// revealFrom), reveal scores [revealFrom, settleFrom), settle [settleFrom, settleUntil).
/// @param opensAt Rounds 1 and 2: submissions are revealed from here. Round 3: the final set is opened from here.
struct RoundTimes {
    uint64 opensAt;
    uint64 scoresFrom;
    uint64 revealFrom;
    uint64 settleFrom;
    uint64 settleUntil;
}

/// @notice The ends of the phases, each half open; registration ends at `submissionFrom`.
struct PhaseTimes {
    uint64 submissionFrom;
    uint64 finalFrom;
    uint64 challengeFrom;
    uint64 closedFrom;
}

/// @title Tasks
/// @notice Publishing a task, its terms and its clock.
interface ITasks {
    /// @notice A task was published and its budget paid into the RewardEscrow.
    event TaskCreated(TaskId indexed taskId, address indexed creator, uint256 budget, string metadataCid);

    /// @notice The terms are unusable; `field` names the first that is.
    error BadTerms(string field);
    /// @notice Rounds count from 1 to 3.
    error UnknownRound(uint256 round);

    /// @notice Publishes a task. The caller must have approved the Arena for the budget.
    /// @dev The terms must pass ITaskRules.check.
    /// Warning: nobody can change or cancel a task. Whoever stakes agrees to its terms, lengths included.
    /// @param metadataCid Where the program and the task's description are found.
    function createTask(TaskConfig memory config, string calldata metadataCid) external returns (TaskId taskId);

    /// @notice How many tasks exist; ids run from 1 to this.
    function taskCount() external view returns (uint256);

    /// @notice The terms; reverts with UnknownTask.
    function taskConfig(TaskId taskId) external view returns (TaskConfig memory);

    /// @notice Who published the task.
    function creatorOf(TaskId taskId) external view returns (address);

    /// @notice The phase at this block's time.
    function phase(TaskId taskId) external view returns (Phase);

    /// @notice When the phases begin.
    function phaseTimes(TaskId taskId) external view returns (PhaseTimes memory);

    /// @notice When the windows of `round` (1 to 3) begin.
    function roundTimes(TaskId taskId, uint256 round) external view returns (RoundTimes memory);

    /// @notice Segments that the task promises: ceil(steps / segmentLength). (Of one trainer's run: IRuns.runSegments.)
    function segmentCount(TaskId taskId) external view returns (uint64);
}
