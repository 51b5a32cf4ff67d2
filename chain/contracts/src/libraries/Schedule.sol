// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ITasks, PhaseTimes, RoundTimes, TaskConfig} from "../interfaces/ITasks.sol";
import {TooEarly, TooLate} from "../types/Errors.sol";
import {Phase} from "../types/Types.sol";

/// @title The clock of a task
/// @notice Phases and windows as pure functions of the terms and the block's time, all half open: [from, to).
/// @dev No transaction advances anything, so nobody can stall a task.
library Schedule {
    /// @notice Two submission rounds and the final validation, which is round 3.
    uint256 internal constant FINAL_ROUND = 3;

    /// @notice When each phase begins.
    function phaseTimes(TaskConfig storage config) internal view returns (PhaseTimes memory times) {
        times.submissionFrom = config.start;
        times.finalFrom = times.submissionFrom + 2 * uint64(config.roundLength);
        times.challengeFrom = times.finalFrom + 7 * uint64(config.window);
        times.closedFrom = times.challengeFrom + config.challengeLength;
    }

    /// @notice The phase at this block's time.
    function phase(TaskConfig storage config) internal view returns (Phase) {
        PhaseTimes memory times = phaseTimes(config);
        if (block.timestamp < times.submissionFrom) return Phase.Registration;
        if (block.timestamp < times.finalFrom) return Phase.Submission;
        if (block.timestamp < times.challengeFrom) return Phase.FinalValidation;
        if (block.timestamp < times.closedFrom) return Phase.Challenging;
        return Phase.Closed;
    }

    /// @notice The windows of `round`: they follow its end in rounds 1 and 2, and round 2's in round 3.
    function roundTimes(TaskConfig storage config, uint256 round) internal view returns (RoundTimes memory times) {
        if (round == 0 || round > FINAL_ROUND) revert ITasks.UnknownRound(round);
        PhaseTimes memory phases = phaseTimes(config);
        uint64 window = config.window;
        if (round == 1) times.opensAt = phases.submissionFrom + config.roundLength;
        else times.opensAt = round == 2 ? phases.finalFrom : phases.finalFrom + 3 * window;
        times.scoresFrom = times.opensAt + window;
        times.revealFrom = times.scoresFrom + window;
        times.settleFrom = times.revealFrom + window;
        times.settleUntil = phases.closedFrom;
    }

    /// @notice The submission round (1 or 2) at this block's time; the phase must be Submission.
    function currentRound(TaskConfig storage config) internal view returns (uint8) {
        return block.timestamp < config.start + config.roundLength ? 1 : 2;
    }

    /// @notice Segments of a complete run.
    function segmentCount(TaskConfig storage config) internal view returns (uint64) {
        return (config.steps + config.segmentLength - 1) / config.segmentLength;
    }

    /// @notice Reverts unless this block's time is in [from, to).
    function requireWithin(uint256 from, uint256 to) internal view {
        if (block.timestamp < from) revert TooEarly(from);
        if (block.timestamp >= to) revert TooLate(to);
    }
}
