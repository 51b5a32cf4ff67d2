// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IScoring, Result} from "../interfaces/IScoring.sol";
import {Stake} from "../interfaces/IStakeVault.sol";
import {Outcome, Round} from "../interfaces/ITaskRules.sol";
import {RoundTimes, TaskConfig} from "../interfaces/ITasks.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {NotAllowed, NotValidator, TooEarly} from "../types/Errors.sol";
import {Beacon, Role, TaskId} from "../types/Types.sol";
import {Runs} from "./Runs.sol";

/// @title Scores, ranking and rewards
/// @notice See IScoring.
abstract contract Scoring is Runs, IScoring {
    using Beacons for Beacon;
    using Schedule for TaskConfig;

    uint256 private constant MAX_SCORE = 10_000;

    /// @inheritdoc IScoring
    mapping(TaskId => uint256) public settledRounds;
    /// @inheritdoc IScoring
    mapping(TaskId => bytes32) public finalSetRoot;
    /// @inheritdoc IScoring
    mapping(TaskId => mapping(uint256 round => mapping(address validator => bytes32))) public scoresCommitment;

    mapping(TaskId => mapping(uint256 round => mapping(address validator => uint16[]))) private _scores;
    mapping(TaskId => mapping(uint256 round => mapping(address trainer => Result))) private _results;
    mapping(TaskId => Beacon) private _openingBeacon;

    /* SCORES */

    /// @inheritdoc IScoring
    function commitScores(TaskId taskId, uint256 round, bytes32 commitment) external {
        RoundTimes memory times = _config(taskId).roundTimes(round);
        Schedule.requireWithin(times.scoresFrom, times.revealFrom);
        if (vault.role(taskId, msg.sender) != Role.Validator) revert NotValidator(msg.sender);
        if (round == Schedule.FINAL_ROUND && finalSetRoot[taskId] == 0) revert FinalSetNotOpened();
        if (scoresCommitment[taskId][round][msg.sender] != 0) revert ScoresAlreadyCommitted();

        scoresCommitment[taskId][round][msg.sender] = commitment;
        emit ScoresCommitted(taskId, round, msg.sender, commitment);
    }

    /// @inheritdoc IScoring
    function revealScores(TaskId taskId, uint256 round, uint16[] calldata scores, bytes32 salt) external {
        RoundTimes memory times = _config(taskId).roundTimes(round);
        Schedule.requireWithin(times.revealFrom, times.settleFrom);
        bytes32 commitment = scoresCommitment[taskId][round][msg.sender];
        if (commitment == 0) revert ScoresNotCommitted();
        if (_scores[taskId][round][msg.sender].length != 0) revert ScoresAlreadyRevealed();
        if (Commitments.scores(taskId, round, msg.sender, scores, salt) != commitment) revert BadScoresReveal();
        _checkScores(taskId, round, scores);

        _scores[taskId][round][msg.sender] = scores;
        emit ScoresRevealed(taskId, round, msg.sender, scores);
    }

    function _checkScores(TaskId taskId, uint256 round, uint16[] calldata scores) private view {
        address[] memory trainers = vault.operators(taskId, Role.Trainer);
        if (scores.length != trainers.length) revert BadScoresLength(scores.length, trainers.length);
        for (uint256 i; i < scores.length; ++i) {
            uint256 limit = _standingOrder(taskId, trainers[i], round) == 0 ? 0 : MAX_SCORE;
            if (scores[i] > limit) revert BadScores(i);
        }
    }

    /// @inheritdoc IScoring
    function openFinalSet(TaskId taskId, bytes32 finalRoot, bytes32 salt, string calldata cid) external {
        TaskConfig storage config = _config(taskId);
        if (msg.sender != creatorOf[taskId]) revert NotAllowed(msg.sender);
        RoundTimes memory times = config.roundTimes(Schedule.FINAL_ROUND);
        Schedule.requireWithin(times.opensAt, times.scoresFrom);
        if (finalSetRoot[taskId] != 0) revert FinalSetAlreadyOpened();
        if (finalRoot == 0 || Commitments.finalSet(finalRoot, salt) != config.finalSetCommitment) revert BadFinalSet();

        finalSetRoot[taskId] = finalRoot;
        emit FinalSetOpened(taskId, finalRoot, cid);
    }

    /* SETTLEMENT */

    /// @inheritdoc IScoring
    function settleRound(TaskId taskId, uint256 round) external {
        TaskConfig storage config = _config(taskId);
        RoundTimes memory times = config.roundTimes(round);
        Schedule.requireWithin(times.settleFrom, times.settleUntil);
        if (round != settledRounds[taskId] + 1) revert WrongRound(settledRounds[taskId] + 1);
        settledRounds[taskId] = round;

        (Round memory field, uint256 scoredRound) = _load(taskId, round);
        field.reward = round == Schedule.FINAL_ROUND ? config.finalReward : config.roundReward;
        Outcome memory outcome = rules.settle(taskConfig(taskId), field);
        uint256 allocated = _payTrainers(taskId, round, field, outcome) + _payValidators(taskId, round, field, outcome);
        emit RoundSettled(taskId, round, scoredRound, outcome.trainersPool, outcome.validatorsPool, allocated);
    }

    /// @dev The round as it is settled (its reward aside), and the round whose scores rank it.
    function _load(TaskId taskId, uint256 round) private view returns (Round memory field, uint256 scoredRound) {
        field.trainers = vault.stakes(taskId, Role.Trainer);
        field.validators = vault.stakes(taskId, Role.Validator);
        scoredRound = round;
        if (round == Schedule.FINAL_ROUND && !_hasQuorum(taskId, round, field.validators)) --scoredRound;

        field.orders = new uint64[](field.trainers.length);
        field.room = new uint256[](field.trainers.length);
        for (uint256 i; i < field.trainers.length; ++i) {
            address trainer = field.trainers[i].operator;
            field.orders[i] = _standingOrder(taskId, trainer, round);
            uint256 cap = vault.slashable(taskId, trainer);
            uint256 allocated = escrow.allocated(taskId, trainer);
            field.room[i] = cap > allocated ? cap - allocated : 0;
        }
        field.scores = new uint16[][](field.validators.length);
        for (uint256 j; j < field.validators.length; ++j) {
            field.scores[j] = _scores[taskId][scoredRound][field.validators[j].operator];
        }
    }

    /// @dev Whether validators with at least half of all validators' stake revealed scores of the round.
    function _hasQuorum(TaskId taskId, uint256 round, Stake[] memory validators) private view returns (bool) {
        uint256 revealed;
        uint256 total;
        for (uint256 j; j < validators.length; ++j) {
            uint256 weight = uint256(validators[j].own) + validators[j].delegated;
            total += weight;
            if (_scores[taskId][round][validators[j].operator].length != 0) revealed += weight;
        }
        return revealed != 0 && 2 * revealed >= total;
    }

    function _payTrainers(TaskId taskId, uint256 round, Round memory field, Outcome memory outcome)
        private
        returns (uint256 paid)
    {
        for (uint256 i; i < field.trainers.length; ++i) {
            if (outcome.ranks[i] == 0) continue;
            address trainer = field.trainers[i].operator;
            (uint256 rank, uint256 aggregate) = (outcome.ranks[i], outcome.aggregates[i]);
            _results[taskId][round][trainer] = Result({aggregate: uint128(aggregate), rank: uint8(rank)});
            uint256 amount = escrow.allocate(taskId, trainer, uint128(outcome.toTrainers[i]));
            paid += amount;
            emit TrainerRewarded(taskId, round, trainer, rank, aggregate, amount);
        }
    }

    function _payValidators(TaskId taskId, uint256 round, Round memory field, Outcome memory outcome)
        private
        returns (uint256 paid)
    {
        if (outcome.validatorsPool == 0) return 0;
        for (uint256 j; j < field.validators.length; ++j) {
            if (field.scores[j].length == 0) continue;
            address validator = field.validators[j].operator;
            uint256 amount = escrow.allocate(taskId, validator, uint128(outcome.toValidators[j]));
            paid += amount;
            emit ValidatorRewarded(taskId, round, validator, outcome.distances[j], amount);
        }
    }

    /* OPENING BEACON */

    /// @inheritdoc IScoring
    function requestOpeningBeacon(TaskId taskId) external {
        RoundTimes memory times = _config(taskId).roundTimes(Schedule.FINAL_ROUND - 1);
        if (block.timestamp < times.scoresFrom) revert TooEarly(times.scoresFrom);
        uint64 blockNumber = _openingBeacon[taskId].request();
        emit OpeningBeaconRequested(taskId, blockNumber);
    }

    /// @inheritdoc IScoring
    function latchOpeningBeacon(TaskId taskId) external {
        bytes32 beacon = _openingBeacon[taskId].latch();
        emit OpeningBeaconLatched(taskId, beacon);
    }

    /* VIEWS */

    /// @inheritdoc IScoring
    function openingBeacon(TaskId taskId) external view returns (Beacon memory) {
        return _openingBeacon[taskId];
    }

    /// @inheritdoc IScoring
    function scoresOf(TaskId taskId, uint256 round, address validator) external view returns (uint16[] memory) {
        return _scores[taskId][round][validator];
    }

    /// @inheritdoc IScoring
    function result(TaskId taskId, uint256 round, address trainer) external view returns (Result memory) {
        return _results[taskId][round][trainer];
    }
}
