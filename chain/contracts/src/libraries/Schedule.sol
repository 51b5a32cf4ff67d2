// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Clock, Court, ITasks, PhaseTimes, RoundTimes} from "../interfaces/ITasks.sol";
import {TooEarly, TooLate} from "../types/Errors.sol";
import {Phase} from "../types/Types.sol";

/// @title The clock of a task
/// @notice Phases and windows as pure functions of the terms and the block's time, all half open: [from, to).
/// @dev No transaction advances anything, so nobody can stall a task.
library Schedule {
    /// @notice The final validation is the round after the last submission round.
    function finalRound(Clock memory clock) internal pure returns (uint16) {
        return clock.rounds + 1;
    }

    /// @notice When each phase begins.
    function phaseTimes(Clock memory clock) internal pure returns (PhaseTimes memory times) {
        times.submissionFrom = clock.start;
        times.finalFrom = times.submissionFrom + uint64(clock.rounds) * clock.roundLength;
        times.challengeFrom = times.finalFrom + 7 * uint64(clock.window);
        times.closedFrom = times.challengeFrom + clock.challengeLength;
    }

    /// @notice The phase at this block's time.
    function phase(Clock memory clock) internal view returns (Phase) {
        PhaseTimes memory times = phaseTimes(clock);
        if (block.timestamp < times.submissionFrom) return Phase.Registration;
        if (block.timestamp < times.finalFrom) return Phase.Submission;
        if (block.timestamp < times.challengeFrom) return Phase.FinalValidation;
        if (block.timestamp < times.closedFrom) return Phase.Challenging;
        return Phase.Closed;
    }

    /// @notice The windows of `round`: they follow the end of a submission round, and the last one's in the final round.
    function roundTimes(Clock memory clock, uint256 round) internal pure returns (RoundTimes memory times) {
        if (round == 0 || round > finalRound(clock)) revert ITasks.UnknownRound(round);
        uint64 window = clock.window;
        PhaseTimes memory phases = phaseTimes(clock);
        times.opensAt = round == finalRound(clock)
            ? phases.finalFrom + 3 * window
            : phases.submissionFrom + uint64(round) * clock.roundLength;
        times.scoresFrom = times.opensAt + window;
        times.revealFrom = times.scoresFrom + window;
        times.settleFrom = times.revealFrom + window;
        times.settleUntil = phases.closedFrom;
    }

    /// @notice The round at this block's time: 0 in registration, 1 to `rounds` in submission, `rounds + 1` afterwards.
    function currentRound(Clock memory clock) internal view returns (uint16) {
        if (block.timestamp < clock.start) return 0;
        uint256 round = (block.timestamp - clock.start) / clock.roundLength + 1;
        return round > clock.rounds ? finalRound(clock) : uint16(round);
    }

    /// @notice Segments of a complete run.
    function segmentCount(uint64 steps, uint32 segmentLength) internal pure returns (uint64) {
        return (steps + segmentLength - 1) / segmentLength;
    }

    /// @notice The longest a case can take, in seconds, if everybody uses every window to its end: show; latch and
    /// answer; votes on every level, with appeals between; and once a commit window that ends with an unavailable
    /// answer, and the window to serve again.
    function longestCase(Court memory court) internal pure returns (uint256) {
        uint256 votes = 2 * (uint256(court.appeals) + 1) + 1;
        return uint256(court.showWindow) + 3 * uint256(court.answerWindow) + votes * court.voteWindow
            + uint256(court.appeals) * court.appealWindow;
    }

    /// @notice Reverts unless this block's time is in [from, to).
    function requireWithin(uint256 from, uint256 to) internal view {
        if (block.timestamp < from) revert TooEarly(from);
        if (block.timestamp >= to) revert TooLate(to);
    }
}
