// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SSTORE2} from "solady/utils/SSTORE2.sol";

import {IArena} from "./interfaces/IArena.sol";
import {IRewardEscrow} from "./interfaces/IRewardEscrow.sol";
import {IScoring, Progress, Result} from "./interfaces/IScoring.sol";
import {IStakeVault, Stake} from "./interfaces/IStakeVault.sol";
import {ITaskRules} from "./interfaces/ITaskRules.sol";
import {Clock, Pay, RoundTimes} from "./interfaces/ITasks.sol";
import {ArenaMath} from "./libraries/ArenaMath.sol";
import {Consensus} from "./libraries/Consensus.sol";
import {Ranking} from "./libraries/Ranking.sol";
import {Rows} from "./libraries/Rows.sol";
import {Schedule} from "./libraries/Schedule.sol";
import {Scores} from "./scoring/Scores.sol";
import {Aggregator, Role, TaskId} from "./types/Types.sol";

/// @title Scoring
/// @notice See IScoring; the scores come in in scoring/Scores, the rounds are settled here.
contract Scoring is Scores {
    using Schedule for Clock;

    /// @dev A round being settled: how far it is, and four Rows.
    /// @param scores Of every validator, in staking order, the row of scores that counts (as an address).
    /// @param weights Of every validator its stake; 0 = its scores do not count, it revealed none. No row (0) if nobody did.
    /// @param aggregates Of every trainer aggregated so far, in staking order.
    /// @param ranks Of every trainer; no row (0) if there were no scores to rank by.
    struct Book {
        Progress state;
        address scores;
        address weights;
        address aggregates;
        address ranks;
    }

    IRewardEscrow public immutable escrow;
    ITaskRules public immutable rules;

    /// @inheritdoc IScoring
    mapping(TaskId => uint16) public settledRounds;

    mapping(TaskId => mapping(uint16 round => Book)) private _books;

    constructor(IArena arena_, IStakeVault vault_, IRewardEscrow escrow_) Scores(arena_, vault_) {
        escrow = escrow_;
        rules = arena_.rules();
    }

    /* RANKING */

    /// @inheritdoc IScoring
    function rankRound(TaskId taskId, uint16 round, uint256 columns) external {
        Clock memory clock = _requireSettling(taskId, round);
        if (round != settledRounds[taskId] + 1) revert WrongRound(settledRounds[taskId] + 1);
        Book storage book = _books[taskId][round];
        if (book.state.ranked) revert Done(round);

        if (book.state.scoredRound == 0) _seat(taskId, round, clock.finalRound(), book);
        bool scored = book.weights != address(0);
        uint256 left = _count(taskId, Role.Trainer) - book.state.aggregated;
        if (columns > left) columns = left;
        Pay memory pay = arena.pay(taskId);
        if (scored && columns != 0) _aggregate(book, pay.aggregator, columns);
        if (!scored || columns == left) _rank(taskId, round, clock.finalRound(), pay, book);
    }

    /// @dev Fixes whose scores count in the round, and with what weight.
    function _seat(TaskId taskId, uint16 round, uint16 finalRound, Book storage book) private {
        Stake[] memory validators = vault.stakesAt(taskId, Role.Validator, round, 0, _count(taskId, Role.Validator));
        (uint256[] memory rows, uint256[] memory weights, uint256 revealed) = _revealed(taskId, round, validators);
        bool enough = revealed != 0 && 2 * revealed >= _sum(_weights(validators));
        if (round == finalRound && !enough) (rows, weights, revealed) = _revealed(taskId, --round, validators);

        book.state.scoredRound = round;
        if (revealed == 0) return;
        book.scores = Rows.store(rows, Rows.POINTER);
        book.weights = Rows.store(weights, Rows.WEIGHT);
    }

    /// @dev Of every validator its row of scores of the round and its weight, 0 where it revealed none; and their sum.
    function _revealed(TaskId taskId, uint16 scoredRound, Stake[] memory validators)
        private
        view
        returns (uint256[] memory rows, uint256[] memory weights, uint256 sum)
    {
        mapping(address => address) storage scores = _scores[taskId][scoredRound];
        (rows, weights) = (new uint256[](validators.length), _weights(validators));
        for (uint256 j; j < validators.length; ++j) {
            rows[j] = uint160(scores[validators[j].operator]);
            if (rows[j] == 0) weights[j] = 0;
            sum += weights[j];
        }
    }

    function _aggregate(Book storage book, Aggregator aggregator, uint256 columns) private {
        uint256 from = book.state.aggregated;
        uint256[] memory rows = Rows.load(book.scores, Rows.POINTER);
        uint256[] memory weights = Rows.load(book.weights, Rows.WEIGHT);
        bytes[] memory scores = new bytes[](rows.length);
        for (uint256 j; j < rows.length; ++j) {
            if (rows[j] == 0) continue;
            scores[j] = SSTORE2.read(address(uint160(rows[j])), Rows.SCORE * from, Rows.SCORE * (from + columns));
        }
        uint256[] memory aggregates = aggregator == Aggregator.Mean
            ? Consensus.means(scores, weights, columns)
            : Consensus.medians(scores, weights, columns);
        book.aggregates = Rows.append(book.aggregates, aggregates, Rows.AGGREGATE);
        book.state.aggregated = uint16(from + columns);
    }

    function _rank(TaskId taskId, uint16 round, uint16 finalRound, Pay memory pay, Book storage book) private {
        Progress storage state = book.state;
        uint64[] memory orders = arena.standingOrders(taskId, round);
        uint256 standing = Ranking.standing(orders);
        state.ranked = true;
        state.standing = uint16(standing);
        if (standing != 0 && book.weights != address(0)) {
            uint256[] memory ranks = Ranking.rank(Rows.load(book.aggregates, Rows.AGGREGATE), orders);
            book.ranks = Rows.store(ranks, Rows.RANK);
            Stake[] memory trainers = vault.stakesAt(taskId, Role.Trainer, round, 0, ranks.length);
            state.trainersWeight = _sum(rules.trainerWeights(pay, _weights(trainers), ranks));
            uint256 reward = round == finalRound ? pay.finalReward : pay.roundReward;
            _split(taskId, pay, reward + escrow.sponsored(taskId, round), state);
        }
        (uint256 toTrainers, uint256 toValidators) = (state.trainersPool, state.validatorsPool);
        emit RoundRanked(taskId, round, state.scoredRound, standing, toTrainers, toValidators);
        if (book.ranks == address(0)) _settle(taskId, round, state);
    }

    function _split(TaskId taskId, Pay memory pay, uint256 reward, Progress storage state) private {
        (uint256 trainers,) = vault.totals(taskId, Role.Trainer);
        (uint256 validators,) = vault.totals(taskId, Role.Validator);
        (uint256 toTrainers, uint256 toValidators) = rules.split(pay, reward, trainers, validators);
        state.trainersPool = uint128(toTrainers); // both within what the token's holders can pay in
        state.validatorsPool = uint128(toValidators);
    }

    /* PAYING */

    /// @inheritdoc IScoring
    function payTrainers(TaskId taskId, uint16 round, uint256 count) external {
        Book storage book = _requireRanked(taskId, round);
        Progress storage state = book.state;
        uint256 from = state.trainersPaid;
        count = _next(round, from, count, _count(taskId, Role.Trainer));
        Stake[] memory trainers = vault.stakesAt(taskId, Role.Trainer, round, from, count);
        uint256[] memory ranks = Rows.load(book.ranks, Rows.RANK, from, count);
        uint256[] memory amounts = rules.trainerWeights(arena.pay(taskId), _weights(trainers), ranks);
        for (uint256 i; i < count; ++i) {
            uint256 share = ArenaMath.portion(state.trainersPool, amounts[i], state.trainersWeight);
            amounts[i] = share == 0 ? 0 : _capped(taskId, trainers[i].operator, share);
        }

        state.trainersPaid = uint16(from + count);
        _reportTrainers(taskId, round, book, trainers, ranks, amounts);
        _settleIfPaid(taskId, round, state);
        escrow.allocate(taskId, round, trainers, amounts);
    }

    /// @dev What of the share keeps all that the trainer was ever allocated within its slashable stake.
    function _capped(TaskId taskId, address trainer, uint256 share) private view returns (uint256) {
        uint256 cap = vault.slashable(taskId, trainer);
        uint256 allocated = escrow.allocated(taskId, trainer);
        uint256 room = cap > allocated ? cap - allocated : 0;
        return share < room ? share : room;
    }

    function _reportTrainers(
        TaskId taskId,
        uint16 round,
        Book storage book,
        Stake[] memory trainers,
        uint256[] memory ranks,
        uint256[] memory amounts
    ) private {
        uint256 from = book.state.trainersPaid - ranks.length;
        uint256[] memory aggregates = Rows.load(book.aggregates, Rows.AGGREGATE, from, ranks.length);
        for (uint256 i; i < ranks.length; ++i) {
            if (ranks[i] == 0) continue;
            emit TrainerRewarded(taskId, round, trainers[i].operator, ranks[i], aggregates[i], amounts[i]);
        }
    }

    /// @inheritdoc IScoring
    function weighValidators(TaskId taskId, uint16 round, uint256 count) external {
        Book storage book = _requireRanked(taskId, round);
        uint256 from = book.state.validatorsWeighed;
        count = _next(round, from, count, _count(taskId, Role.Validator));
        (, uint256[] memory weights) = _weigh(taskId, book, from, count);
        book.state.validatorsWeighed = uint16(from + count);
        book.state.validatorsWeight += _sum(weights);
    }

    /// @inheritdoc IScoring
    function payValidators(TaskId taskId, uint16 round, uint256 count) external {
        Book storage book = _requireRanked(taskId, round);
        Progress storage state = book.state;
        uint256 all = _count(taskId, Role.Validator);
        if (state.validatorsWeighed != all) revert NotWeighed(all - state.validatorsWeighed);
        uint256 from = state.validatorsPaid;
        count = _next(round, from, count, all);
        Stake[] memory validators = vault.stakesAt(taskId, Role.Validator, round, from, count);
        (uint256[] memory distances, uint256[] memory amounts) = _weigh(taskId, book, from, count);
        uint256[] memory revealed = Rows.load(book.weights, Rows.WEIGHT, from, count);
        for (uint256 j; j < count; ++j) {
            if (revealed[j] == 0) continue;
            amounts[j] = ArenaMath.portion(state.validatorsPool, amounts[j], state.validatorsWeight);
            emit ValidatorRewarded(taskId, round, validators[j].operator, distances[j], amounts[j]);
        }

        state.validatorsPaid = uint16(from + count);
        _settleIfPaid(taskId, round, state);
        escrow.allocate(taskId, round, validators, amounts);
    }

    /// @dev Distances and weights of the validators [from, from + count), both 0 for one that revealed nothing. Cheaper to
    /// find twice than to keep.
    function _weigh(TaskId taskId, Book storage book, uint256 from, uint256 count)
        private
        view
        returns (uint256[] memory distances, uint256[] memory weights)
    {
        uint256[] memory models = _models(book);
        uint256[] memory rows = Rows.load(book.scores, Rows.POINTER, from, count);
        distances = new uint256[](count);
        for (uint256 j; j < count; ++j) {
            if (rows[j] == 0) continue;
            distances[j] = Consensus.distance(SSTORE2.read(address(uint160(rows[j]))), models);
        }
        uint256[] memory stakes = Rows.load(book.weights, Rows.WEIGHT, from, count);
        weights = rules.validatorWeights(arena.pay(taskId), stakes, distances);
    }

    /// @dev The ranked models as Consensus.distance takes them.
    function _models(Book storage book) private view returns (uint256[] memory models) {
        models = new uint256[](book.state.standing);
        uint256[] memory ranks = Rows.load(book.ranks, Rows.RANK);
        uint256[] memory aggregates = Rows.load(book.aggregates, Rows.AGGREGATE);
        for (uint256 i; i < ranks.length; ++i) {
            if (ranks[i] != 0) models[ranks[i] - 1] = i << 64 | aggregates[i];
        }
    }

    function _settleIfPaid(TaskId taskId, uint16 round, Progress storage state) private {
        if (state.trainersPaid != _count(taskId, Role.Trainer)) return;
        if (state.validatorsPaid == _count(taskId, Role.Validator)) _settle(taskId, round, state);
    }

    function _settle(TaskId taskId, uint16 round, Progress storage state) private {
        state.settled = true;
        settledRounds[taskId] = round;
        emit RoundSettled(taskId, round);
    }

    /* VIEWS */

    /// @inheritdoc IScoring
    function attested(TaskId taskId) external view returns (bool) {
        uint16 finalRound = arena.clock(taskId).finalRound();
        Progress storage state = _books[taskId][finalRound].state;
        if (finalSetRoot[taskId] == 0 || !state.ranked) return false;
        return state.scoredRound == finalRound || state.standing == 0 || _count(taskId, Role.Validator) == 0;
    }

    /// @inheritdoc IScoring
    function results(TaskId taskId, uint16 round) external view returns (Result[] memory all) {
        Book storage book = _books[taskId][round];
        if (!book.state.ranked) return all;
        all = new Result[](_count(taskId, Role.Trainer));
        uint256[] memory ranks = Rows.load(book.ranks, Rows.RANK);
        uint256[] memory aggregates = Rows.load(book.aggregates, Rows.AGGREGATE);
        for (uint256 i; i < ranks.length; ++i) {
            if (ranks[i] != 0) all[i] = Result({aggregate: uint128(aggregates[i]), rank: uint16(ranks[i])});
        }
    }

    /// @inheritdoc IScoring
    function progress(TaskId taskId, uint16 round) external view returns (Progress memory) {
        return _books[taskId][round].state;
    }

    /* INSIDE */

    function _requireSettling(TaskId taskId, uint16 round) private view returns (Clock memory clock) {
        clock = arena.clock(taskId);
        RoundTimes memory times = clock.roundTimes(round);
        Schedule.requireWithin(times.settleFrom, times.settleUntil);
    }

    function _requireRanked(TaskId taskId, uint16 round) private view returns (Book storage book) {
        _requireSettling(taskId, round);
        book = _books[taskId][round];
        if (!book.state.ranked) revert NotRanked(round);
        if (book.state.settled) revert Done(round);
    }

    /// @dev How many of `all` come next, `count` at most; reverts with Done if none is left.
    function _next(uint16 round, uint256 from, uint256 count, uint256 all) private pure returns (uint256) {
        if (from == all) revert Done(round);
        return count < all - from ? count : all - from;
    }

    /// @dev What the stakes weigh: own and delegated.
    function _weights(Stake[] memory stakes) private pure returns (uint256[] memory weights) {
        weights = new uint256[](stakes.length);
        for (uint256 i; i < stakes.length; ++i) {
            weights[i] = uint256(stakes[i].own) + stakes[i].delegated;
        }
    }

    function _sum(uint256[] memory values) private pure returns (uint256 sum) {
        for (uint256 i; i < values.length; ++i) {
            sum += values[i];
        }
    }
}
