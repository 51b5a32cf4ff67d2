// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SSTORE2} from "solady/utils/SSTORE2.sol";

import {IArena} from "../interfaces/IArena.sol";
import {IScoring} from "../interfaces/IScoring.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {Clock, RoundTimes} from "../interfaces/ITasks.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {Rows} from "../libraries/Rows.sol";
import {Schedule} from "../libraries/Schedule.sol";
import {NotAllowed, NotValidator, TooEarly} from "../types/Errors.sol";
import {Beacon, Role, TaskId} from "../types/Types.sol";

/// @title Scores
/// @notice See IScoring: what validators say of the models, what the creator shows for it, and the opening beacon.
abstract contract Scores is IScoring {
    using Beacons for Beacon;
    using Schedule for Clock;

    IArena public immutable arena;
    IStakeVault public immutable vault;

    /// @inheritdoc IScoring
    mapping(TaskId => bytes32) public finalSetRoot;
    /// @inheritdoc IScoring
    mapping(TaskId => mapping(uint16 round => mapping(address validator => bytes32))) public scoresCommitment;

    /// @dev Where a validator's revealed scores are kept (Rows).
    mapping(TaskId => mapping(uint16 round => mapping(address validator => address))) internal _scores;

    mapping(TaskId => Beacon) private _openingBeacon;

    constructor(IArena arena_, IStakeVault vault_) {
        arena = arena_;
        vault = vault_;
    }

    /* SCORES */

    /// @inheritdoc IScoring
    function commitScores(TaskId taskId, uint16 round, bytes32 commitment) external {
        Clock memory clock = arena.clock(taskId);
        RoundTimes memory times = clock.roundTimes(round);
        Schedule.requireWithin(times.scoresFrom, times.revealFrom);
        if (vault.role(taskId, msg.sender) != Role.Validator) revert NotValidator(msg.sender);
        if (round == clock.finalRound() && finalSetRoot[taskId] == 0) revert FinalSetNotOpened();
        if (scoresCommitment[taskId][round][msg.sender] != 0) revert ScoresAlreadyCommitted();

        scoresCommitment[taskId][round][msg.sender] = commitment;
        emit ScoresCommitted(taskId, round, msg.sender, commitment);
    }

    /// @inheritdoc IScoring
    function revealScores(TaskId taskId, uint16 round, bytes calldata row, bytes32 salt) external {
        RoundTimes memory times = arena.clock(taskId).roundTimes(round);
        Schedule.requireWithin(times.revealFrom, times.settleFrom);
        bytes32 commitment = scoresCommitment[taskId][round][msg.sender];
        if (commitment == 0) revert ScoresNotCommitted();
        if (_scores[taskId][round][msg.sender] != address(0)) revert ScoresAlreadyRevealed();
        if (Commitments.scores(taskId, round, msg.sender, row, salt) != commitment) revert BadScoresReveal();
        uint256 count = _count(taskId, Role.Trainer);
        if (row.length != count * Rows.SCORE) revert BadScoresLength(row.length, count * Rows.SCORE);
        bytes memory scores = row;
        uint256 bad = Rows.firstBad(scores);
        if (bad != count) revert BadScores(bad);

        _scores[taskId][round][msg.sender] = SSTORE2.write(scores);
        emit ScoresRevealed(taskId, round, msg.sender, row);
    }

    /// @inheritdoc IScoring
    function openFinalSet(TaskId taskId, bytes32 finalRoot, bytes32 salt, string calldata cid) external {
        if (msg.sender != arena.creatorOf(taskId)) revert NotAllowed(msg.sender);
        Clock memory clock = arena.clock(taskId);
        RoundTimes memory times = clock.roundTimes(clock.finalRound());
        Schedule.requireWithin(times.opensAt, times.scoresFrom);
        if (finalSetRoot[taskId] != 0) revert FinalSetAlreadyOpened();
        bytes32 promised = arena.work(taskId).finalSetCommitment;
        if (finalRoot == 0 || Commitments.finalSet(finalRoot, salt) != promised) revert BadFinalSet();

        finalSetRoot[taskId] = finalRoot;
        emit FinalSetOpened(taskId, finalRoot, cid);
    }

    /// @inheritdoc IScoring
    function scoresOf(TaskId taskId, uint16 round, address validator) external view returns (bytes memory) {
        address row = _scores[taskId][round][validator];
        return row == address(0) ? bytes("") : SSTORE2.read(row);
    }

    /* OPENING BEACON */

    /// @inheritdoc IScoring
    function requestOpeningBeacon(TaskId taskId) external {
        Clock memory clock = arena.clock(taskId);
        RoundTimes memory times = clock.roundTimes(clock.rounds);
        if (block.timestamp < times.scoresFrom) revert TooEarly(times.scoresFrom);
        uint64 blockNumber = _openingBeacon[taskId].request();
        emit OpeningBeaconRequested(taskId, blockNumber);
    }

    /// @inheritdoc IScoring
    function latchOpeningBeacon(TaskId taskId) external {
        bytes32 beacon = _openingBeacon[taskId].latch();
        emit OpeningBeaconLatched(taskId, beacon);
    }

    /// @inheritdoc IScoring
    function openingBeacon(TaskId taskId) external view returns (Beacon memory) {
        return _openingBeacon[taskId];
    }

    /// @dev How many operators of a role staked.
    function _count(TaskId taskId, Role role) internal view returns (uint256 count) {
        (, count) = vault.totals(taskId, role);
    }
}
