// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Identifies a task; counts from 1.
type TaskId is uint256;

/// @notice Identifies a run (one trunk of training of one trainer in one task); counts from 1 over the whole arena.
type RunId is uint256;

/// @notice Identifies a case (one challenge of one submission); counts from 1.
type CaseId is uint256;

/// @notice What an account is in a task. An account holds at most one role a task.
enum Role {
    None,
    Trainer,
    Validator
}

/// @notice Where a task stands; a pure function of its terms and of block.timestamp.
enum Phase {
    Registration,
    Submission,
    FinalValidation,
    Challenging,
    Closed
}

/// @notice How the scores of a round become one number a model.
enum Aggregator {
    Mean,
    Median
}

/// @notice What replays must agree on: the bits on one class of machine, or the bits on any machine (exact arithmetic).
/// Tolerances have no value here: a task that pays never takes them.
enum Numerics {
    Machine,
    Exact
}

/// @notice What a challenger says is wrong: the training does not replay, or the model carries another's watermark.
enum Ground {
    Replay,
    Watermark
}

/// @notice How a case ended; Pending until it is settled.
enum Verdict {
    None,
    Pending,
    Upheld,
    Rejected,
    Inconclusive,
    Lapsed
}

/// @notice A block promised before its hash can be known, and the hash once it is latched.
/// @param blockNumber The promised block; 0 if none was requested.
/// @param value Its hash (of a run's: drawn from it, IRuns.Run); 0 until latched.
struct Beacon {
    uint64 blockNumber;
    bytes32 value;
}
