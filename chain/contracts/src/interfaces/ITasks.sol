// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Aggregator, Numerics, Phase, TaskId} from "../types/Types.sol";
import {ITaskRules} from "./ITaskRules.sol";

// The terms of a task: fixed at creation, for ever. WAD is 1e18, bps are parts of 10,000, times are seconds, amounts
// are wei. Every window is at least ITaskRules.leastWindow, so that nobody is kept out by a sequencer that censors.

/// @notice When things happen.
/// @param start When registration ends and the first round begins.
/// @param roundLength Length of each submission round; at least three windows.
/// @param window Length of each reveal, score-commit and score-reveal window.
/// @param challengeLength Length of the challenging phase; at least the longest case (Schedule.longestCase) and, to seal
/// cases in, one least window.
/// @param rounds How many submission rounds there are, 1 to 64. The final validation is round `rounds + 1`.
struct Clock {
    uint64 start;
    uint32 roundLength;
    uint32 window;
    uint32 challengeLength;
    uint16 rounds;
}

/// @notice What is to be trained, and what a spec may say. The contract binds these; verifiers and jurors compare.
/// @param programDigest The training program.
/// @param trainRoot Merkle root of the training data; 0 = free, each run names its own in its spec
/// and is registered before the first model is shown.
/// @param evalRoot Merkle root of the data the submission rounds are scored on.
/// @param finalSetCommitment SHA256(abi.encode("aiarena/final-set/v1", finalRoot, salt)): the hidden final data set.
/// @param basesRoot Merkle root record over the digests of the accepted base models, each digest being a leaf as it
/// is (a leaf of 0 accepts runs that start from the seed); 0 = no list, every run starts from the seed.
/// @param classesRoot Merkle root record over the digests of the accepted machine classes, each being a leaf as it is;
/// 0 = any, which Numerics.Machine may not have.
/// @param configBounds Digest of the bounds on configurations that the metadata names; 0 = none.
/// @param stepVerifier Decides disputes over single segments by recomputation (IStepVerifier); 0 = none.
/// @param numerics What replays must agree on.
/// @param steps Optimiser steps of a complete run.
/// @param segmentLength Steps of a segment (the last one may be shorter).
struct Work {
    bytes32 programDigest;
    bytes32 trainRoot;
    bytes32 evalRoot;
    bytes32 finalSetCommitment;
    bytes32 basesRoot;
    bytes32 classesRoot;
    bytes32 configBounds;
    address stepVerifier;
    Numerics numerics;
    uint64 steps;
    uint32 segmentLength;
}

/// @notice Who earns what, and who may take part.
/// @param aggregator Stake-weighted mean or stake-weighted median.
/// @param q Ratio of the geometric series over ranks, WAD, in (0, 1].
/// @param alphaTrainer Exponent of a trainer's stake, WAD, at most 2.
/// @param alphaValidator Exponent of a validator's stake, WAD, at most 2.
/// @param lambda How sharply a validator's distance from consensus costs it, WAD. The type keeps it below 18.45, so
/// exp(-lambda) keeps at least ten significant digits.
/// @param gammaBps The least share of a round's reward each side is sure of, at most 5,000.
/// @param roundReward Reward of each submission round.
/// @param finalReward Reward of the final validation. The budget is rounds * roundReward + finalReward.
/// @param deposit The creator's, burned unless the final set was opened and attested (IScoring.attested).
/// @param minTrainerStake Least own stake of a trainer, positive.
/// @param minValidatorStake Least own stake of a validator, positive.
/// @param maxTrainers Most trainers, 1 to 256; maxTrainers * maxValidators is at most 70,000.
/// @param maxValidators Most validators, 1 to 460; in more than 16 rounds 1 to 400.
/// @param runBond What registering a run costs if nothing comes of it.
/// @param minDelegation Least amount of each delegation, positive.
struct Pay {
    Aggregator aggregator;
    uint64 q;
    uint64 alphaTrainer;
    uint64 alphaValidator;
    uint64 lambda;
    uint16 gammaBps;
    uint128 roundReward;
    uint128 finalReward;
    uint128 deposit;
    uint128 minTrainerStake;
    uint128 minValidatorStake;
    uint16 maxTrainers;
    uint16 maxValidators;
    uint128 runBond;
    uint128 minDelegation;
}

/// @notice How cases are tried.
/// @param bond What sealing a case costs if it is rejected or lapses; at least openingCost * (sampled + named). Appeal k (from 1) costs
/// bond * 2^k.
/// @param openingCost What a case that is rejected, or ends inconclusive, pays the trainer per opened segment.
/// @param sampled Segments that the beacon draws, 1 to 16; all of a run that has fewer.
/// @param named Segments that the challenger may name besides, at most 16.
/// @param burnBps Share of a redirected reward that is burned.
/// @param slashBps Share of a convicted trainer's own stake that is burned; also caps what it can earn.
/// @param showWindow Time to show a sealed case.
/// @param answerWindow Time to latch a case's seed, again to answer it, and again to serve what jurors could not have.
/// @param voteWindow Time to commit votes, and again to reveal them.
/// @param appealWindow Time to appeal after votes are revealed.
/// @param jurors Draws of the first jury, 1 to 31; each appeal's jury has 2n + 1.
/// @param appeals How often a verdict may be appealed, at most 3. The last jury is all validators: with 0 the first.
struct Court {
    uint128 bond;
    uint128 openingCost;
    uint16 sampled;
    uint16 named;
    uint16 burnBps;
    uint16 slashBps;
    uint32 showWindow;
    uint32 answerWindow;
    uint32 voteWindow;
    uint32 appealWindow;
    uint8 jurors;
    uint8 appeals;
}

/// @notice All terms of a task.
struct TaskConfig {
    Clock clock;
    Work work;
    Pay pay;
    Court court;
}

/// @notice The windows of one round, each half open: open [opensAt, scoresFrom), commit scores [scoresFrom,
/// revealFrom), reveal scores [revealFrom, settleFrom), settle [settleFrom, settleUntil).
/// @param opensAt Submission rounds: submissions are revealed from here. Final round: the final set is opened from here.
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
    /// @notice A task was published; its budget and its creator's deposit went into the RewardEscrow.
    event TaskCreated(
        TaskId indexed taskId, address indexed creator, uint256 budget, uint256 deposit, string metadataCid
    );

    /// @notice The terms are unusable; `field` names the first that is.
    error BadTerms(string field);
    /// @notice Rounds count from 1 to the task's `rounds`, and the final round comes after.
    error UnknownRound(uint256 round);

    /// @notice Publishes a task. The caller must have approved the Arena for budget and deposit.
    /// @dev The terms must pass ITaskRules.check. Calls escrow.fund.
    /// Warning: nobody can change or cancel a task. Whoever stakes agrees to its terms, lengths included.
    /// @param metadataCid Where the program and the task's description are found.
    function createTask(TaskConfig memory config, string calldata metadataCid) external returns (TaskId taskId);

    /// @notice The bounds on terms and the reward equations; deployed by the Arena.
    function rules() external view returns (ITaskRules);

    /// @notice How many tasks exist; ids run from 1 to this.
    function taskCount() external view returns (uint256);

    /// @notice The terms of time; reverts with UnknownTask, as do the three below.
    function clock(TaskId taskId) external view returns (Clock memory);

    /// @notice The terms of training.
    function work(TaskId taskId) external view returns (Work memory);

    /// @notice The terms of rewards and stakes.
    function pay(TaskId taskId) external view returns (Pay memory);

    /// @notice The terms of cases.
    function court(TaskId taskId) external view returns (Court memory);

    /// @notice Who published the task.
    function creatorOf(TaskId taskId) external view returns (address);

    /// @notice The phase at this block's time.
    function phase(TaskId taskId) external view returns (Phase);

    /// @notice When the phases begin.
    function phaseTimes(TaskId taskId) external view returns (PhaseTimes memory);

    /// @notice The round at this block's time: 0 in registration, then 1 to `rounds`, and `rounds + 1` ever after.
    function currentRound(TaskId taskId) external view returns (uint16);

    /// @notice When the windows of `round` (1 to `rounds + 1`) begin.
    function roundTimes(TaskId taskId, uint16 round) external view returns (RoundTimes memory);

    /// @notice Segments that the task promises: ceil(steps / segmentLength). (Of one run: IRuns.runSegments.)
    function segmentCount(TaskId taskId) external view returns (uint64);
}
