// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Beacon, TaskId} from "../types/Types.sol";

/// @notice How a trainer did in a ranked round.
/// @param aggregate Consensus of the scores, WAD.
/// @param rank From 1; 0 = not ranked.
struct Result {
    uint128 aggregate;
    uint16 rank;
}

/// @notice How far the settlement of a round is. Each count runs to the number of trainers or validators staked.
/// @param scoredRound The round whose scores rank this one; 0 until its aggregation began.
/// @param aggregated Trainers whose scores are aggregated.
/// @param standing Models that stand; they are ranked if there are scores.
/// @param ranked Whether the round is ranked.
/// @param trainersPaid Trainers dealt with.
/// @param validatorsWeighed Validators whose weights are known.
/// @param validatorsPaid Validators dealt with.
/// @param settled Whether everybody is dealt with.
/// @param trainersPool R_T, wei.
/// @param validatorsPool R_V, wei.
/// @param trainersWeight Sum of the ranked trainers' weights.
/// @param validatorsWeight Sum of the weights of the validators weighed so far.
struct Progress {
    uint16 scoredRound;
    uint16 aggregated;
    uint16 standing;
    bool ranked;
    uint16 trainersPaid;
    uint16 validatorsWeighed;
    uint16 validatorsPaid;
    bool settled;
    uint128 trainersPool;
    uint128 validatorsPool;
    uint256 trainersWeight;
    uint256 validatorsWeight;
}

/// @title Scores, ranking and rewards
/// @notice Validators commit and reveal scores; anyone settles a round, in as many transactions as it takes; the chain
/// computes every share itself. Holds no tokens.
/// @dev The reward equations and their rounding are ITaskRules'. Settling a round: rankRound until it is ranked, then
/// payTrainers and weighValidators, in any order and any chunks, and payValidators when all are weighed. However it is
/// cut into chunks, and whoever calls, it pays the same, to the wei. A round is settled whole before the next is ranked:
/// caps and delegators' indices add up over rounds. Without a standing model or revealed scores a round is settled as
/// soon as it is ranked, with nothing allocated. The round's reward is roundReward (final round: finalReward) and what
/// sponsors added.
/// The final round (`rounds + 1`) is scored on the hidden data set. Its scores count only if validators with at least
/// half of all validators' stake (delegations included) revealed them, which attests that the set was opened and could
/// be had; otherwise the last submission round's scores rank it, so an absent creator stalls nobody and saves nothing.
/// Scores of models that do not stand are ignored. Committed scores that are not revealed earn nothing and cost nothing.
interface IScoring {
    /// @notice A validator promised its scores of a round.
    event ScoresCommitted(TaskId indexed taskId, uint16 indexed round, address indexed validator, bytes32 commitment);
    /// @notice A validator showed its promised scores: bps, two bytes each, in the trainers' staking order.
    event ScoresRevealed(TaskId indexed taskId, uint16 indexed round, address indexed validator, bytes row);
    /// @notice The creator opened the hidden data set; it lies at `cid`.
    event FinalSetOpened(TaskId indexed taskId, bytes32 finalRoot, string cid);
    /// @notice The round was ranked by the scores of round `scoredRound`; `standing` models stand. Without any scores
    /// (both pools 0) they have no rank.
    event RoundRanked(
        TaskId indexed taskId,
        uint16 indexed round,
        uint16 scoredRound,
        uint256 standing,
        uint256 trainersPool,
        uint256 validatorsPool
    );
    /// @notice A standing model was ranked and its trainer allocated `amount` wei.
    event TrainerRewarded(
        TaskId indexed taskId,
        uint16 indexed round,
        address indexed trainer,
        uint256 rank,
        uint256 aggregate,
        uint256 amount
    );
    /// @notice A validator at `distance` (WAD) from consensus was allocated `amount` wei.
    event ValidatorRewarded(
        TaskId indexed taskId, uint16 indexed round, address indexed validator, uint256 distance, uint256 amount
    );
    /// @notice Everybody in the round was dealt with.
    event RoundSettled(TaskId indexed taskId, uint16 indexed round);
    /// @notice The block that picks the watermark leaves was promised.
    event OpeningBeaconRequested(TaskId indexed taskId, uint64 blockNumber);
    /// @notice The hash that picks the watermark leaves is known.
    event OpeningBeaconLatched(TaskId indexed taskId, bytes32 beacon);

    /// @notice The caller committed scores of this round before.
    error ScoresAlreadyCommitted();
    /// @notice The caller committed no scores of this round.
    error ScoresNotCommitted();
    /// @notice The caller revealed its scores of this round before.
    error ScoresAlreadyRevealed();
    /// @notice The revealed values do not hash to the caller's own commitment.
    error BadScoresReveal();
    /// @notice Score `index` is above 10,000.
    error BadScores(uint256 index);
    /// @notice A row has two bytes a staked trainer.
    error BadScoresLength(uint256 have, uint256 need);
    /// @notice The creator did not open the final data set, so there is nothing to score.
    error FinalSetNotOpened();
    /// @notice The final data set was opened before.
    error FinalSetAlreadyOpened();
    /// @notice Root and salt do not hash to the commitment in the terms.
    error BadFinalSet();
    /// @notice Rounds are settled in order, each whole; `next` is the next to rank.
    error WrongRound(uint16 next);
    /// @notice The round is not ranked yet.
    error NotRanked(uint16 round);
    /// @notice Validators are paid when all are weighed; `left` are not.
    error NotWeighed(uint256 left);
    /// @notice There is nothing left to do of this in the round.
    error Done(uint16 round);

    /// @notice Promises the caller's scores of `round`.
    /// @param commitment SHA256(abi.encode("aiarena/scores/v1", chainid, scoring, taskId, round, validator,
    /// SHA256(row), salt)).
    function commitScores(TaskId taskId, uint16 round, bytes32 commitment) external;

    /// @notice Shows the promised scores.
    /// @param row Bps as big-endian uint16, one a trainer in the order of StakeVault.operators.
    function revealScores(TaskId taskId, uint16 round, bytes calldata row, bytes32 salt) external;

    /// @notice Opens the hidden final data set. Creator only, once.
    function openFinalSet(TaskId taskId, bytes32 finalRoot, bytes32 salt, string calldata cid) external;

    /// @notice Aggregates the scores of the next `columns` trainers (at most those left), and ranks when all are done.
    /// The first call also fixes whose scores count, and with what weight; 0 columns do that alone.
    /// @dev This and the three below: anyone may call, from settleFrom until settleUntil.
    function rankRound(TaskId taskId, uint16 round, uint256 columns) external;

    /// @notice Allocates the rewards of the next `count` trainers of a ranked round, in staking order.
    function payTrainers(TaskId taskId, uint16 round, uint256 count) external;

    /// @notice Finds distance and weight of the next `count` validators of a ranked round, in staking order.
    function weighValidators(TaskId taskId, uint16 round, uint256 count) external;

    /// @notice Allocates the rewards of the next `count` validators, when all are weighed, in staking order.
    function payValidators(TaskId taskId, uint16 round, uint256 count) external;

    /// @notice Promises the block that picks which watermark leaves accusers open. Anyone, once all models are shown;
    /// again only if its hash was never latched and is out of reach.
    function requestOpeningBeacon(TaskId taskId) external;

    /// @notice Stores the hash of that block. Anyone may call.
    function latchOpeningBeacon(TaskId taskId) external;

    /// @notice The beacon that picks the watermark leaves.
    function openingBeacon(TaskId taskId) external view returns (Beacon memory);

    /// @notice Merkle root of the final data set; 0 until opened.
    function finalSetRoot(TaskId taskId) external view returns (bytes32);

    /// @notice Whether the creator did its part: the final set was opened, and the final round was ranked by its own
    /// scores, or there was nothing to score (no standing model) or nobody to (no validator). False until it is ranked;
    /// what it says once the task is closed is final.
    function attested(TaskId taskId) external view returns (bool);

    /// @notice The revealed row, empty if none.
    function scoresOf(TaskId taskId, uint16 round, address validator) external view returns (bytes memory);

    /// @notice The validator's promise; 0 if none.
    function scoresCommitment(TaskId taskId, uint16 round, address validator) external view returns (bytes32);

    /// @notice How every trainer did in a ranked round, in staking order; empty until it is ranked.
    function results(TaskId taskId, uint16 round) external view returns (Result[] memory);

    /// @notice How far the settlement of a round is.
    function progress(TaskId taskId, uint16 round) external view returns (Progress memory);

    /// @notice Rounds settled so far, 0 to `rounds + 1`.
    function settledRounds(TaskId taskId) external view returns (uint16);
}
