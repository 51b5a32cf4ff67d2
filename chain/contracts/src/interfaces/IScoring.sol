// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Beacon, TaskId} from "../types/Types.sol";

/// @notice How a trainer did in a settled round.
/// @param aggregate Stake-weighted mean score, WAD.
/// @param rank From 1; 0 = not ranked.
struct Result {
    uint128 aggregate;
    uint8 rank;
}

/// @title Scores, ranking and rewards
/// @notice Validators commit and reveal scores; anyone settles a round; the chain computes every share itself.
/// @dev The reward equations and their rounding are ITaskRules'.
/// Round 3 (final validation) is scored on the hidden data set. Its scores count only if validators with at least half
/// of all validators' stake (delegations included) revealed them, which attests that the set was opened and could be
/// had; otherwise round 2's scores rank it, so an absent creator stalls nobody and saves nothing.
interface IScoring {
    /// @notice A validator promised its scores of a round.
    event ScoresCommitted(TaskId indexed taskId, uint256 indexed round, address indexed validator, bytes32 commitment);
    /// @notice A validator showed its promised scores: bps, in the trainers' staking order.
    event ScoresRevealed(TaskId indexed taskId, uint256 indexed round, address indexed validator, uint16[] scores);
    /// @notice The creator opened the hidden data set; it lies at `cid`.
    event FinalSetOpened(TaskId indexed taskId, bytes32 finalRoot, string cid);
    /// @notice The round was settled on the scores of round `scoredRound`.
    event RoundSettled(
        TaskId indexed taskId,
        uint256 indexed round,
        uint256 scoredRound,
        uint256 trainersPool,
        uint256 validatorsPool,
        uint256 allocated
    );
    /// @notice A standing model was ranked and its trainer allocated `amount` wei.
    event TrainerRewarded(
        TaskId indexed taskId,
        uint256 indexed round,
        address indexed trainer,
        uint256 rank,
        uint256 aggregate,
        uint256 amount
    );
    /// @notice A validator at `distance` (WAD) from consensus was allocated `amount` wei.
    event ValidatorRewarded(
        TaskId indexed taskId, uint256 indexed round, address indexed validator, uint256 distance, uint256 amount
    );
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
    /// @notice Score `index` is above 10,000, or not 0 for a model that does not stand.
    error BadScores(uint256 index);
    /// @notice There must be one score a staked trainer.
    error BadScoresLength(uint256 have, uint256 need);
    /// @notice The creator did not open the final data set, so there is nothing to score.
    error FinalSetNotOpened();
    /// @notice The final data set was opened before.
    error FinalSetAlreadyOpened();
    /// @notice Root and salt do not hash to the commitment in the terms.
    error BadFinalSet();
    /// @notice Rounds are settled once each, in order; `next` is the next.
    error WrongRound(uint256 next);

    /// @notice Promises the caller's scores of `round`.
    /// @param commitment SHA256(abi.encode("aiarena/scores/v1", chainid, arena, taskId, round, validator,
    /// SHA256(scores as big-endian uint16), salt)).
    function commitScores(TaskId taskId, uint256 round, bytes32 commitment) external;

    /// @notice Shows the promised scores: bps, one a trainer in the order of StakeVault.operators, 0 if not standing.
    function revealScores(TaskId taskId, uint256 round, uint16[] calldata scores, bytes32 salt) external;

    /// @notice Opens the hidden final data set. Creator only, once.
    function openFinalSet(TaskId taskId, bytes32 finalRoot, bytes32 salt, string calldata cid) external;

    /// @notice Ranks, computes and allocates a round's rewards. Anyone may call, once a round, in order.
    function settleRound(TaskId taskId, uint256 round) external;

    /// @notice Promises the block that picks which watermark leaves accusers open. Anyone, once all models are shown;
    /// again only if its hash was never latched and is out of reach.
    function requestOpeningBeacon(TaskId taskId) external;

    /// @notice Stores the hash of that block. Anyone may call.
    function latchOpeningBeacon(TaskId taskId) external;

    /// @notice The beacon that picks the watermark leaves.
    function openingBeacon(TaskId taskId) external view returns (Beacon memory);

    /// @notice Merkle root of the final data set; 0 until opened.
    function finalSetRoot(TaskId taskId) external view returns (bytes32);

    /// @notice The revealed scores, empty if none.
    function scoresOf(TaskId taskId, uint256 round, address validator) external view returns (uint16[] memory);

    /// @notice The validator's promise; 0 if none.
    function scoresCommitment(TaskId taskId, uint256 round, address validator) external view returns (bytes32);

    /// @notice Aggregate score and rank of a trainer in a settled round.
    function result(TaskId taskId, uint256 round, address trainer) external view returns (Result memory);

    /// @notice Rounds settled so far, 0 to 3.
    function settledRounds(TaskId taskId) external view returns (uint256);
}
