// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Clock, Court, ITasks, Pay, TaskConfig, Work} from "../interfaces/ITasks.sol";
import {Numerics} from "../types/Types.sol";
import {Schedule} from "./Schedule.sol";

/// @title What terms a task may have
/// @notice Bounds under which no later computation can overflow, divide by zero or pass the gas of a transaction.
library Terms {
    uint256 internal constant WAD = 1e18;
    uint256 internal constant BPS = 10_000;
    uint256 internal constant MAX_SEGMENTS = 2 ** 16;
    uint256 internal constant MAX_ROUNDS = 64;
    // Fixing whose scores count, and ranking, each take one transaction, and what is read of an operator grows with the
    // rounds in which it was lent something: at most 39k gas a validator, 50k a trainer, of the 2^24 that EIP-7825 allows.
    uint256 internal constant MAX_TRAINERS = 256;
    uint256 internal constant MAX_VALIDATORS = 460;
    uint256 internal constant MAX_VALIDATORS_LONG = 400; // in more than SHORT rounds
    uint256 internal constant SHORT = 16;
    uint256 internal constant MAX_SCORES = 70_000; // of a round
    uint256 internal constant MAX_OPENED = 16; // segments drawn, and again named
    uint256 internal constant MAX_JURORS = 31;
    uint256 internal constant MAX_APPEALS = 3;

    /// @notice Reverts with BadTerms, naming the first field that is out of bounds.
    /// @param leastWindow The least length of any window, seconds; positive.
    function check(TaskConfig memory config, uint256 leastWindow) internal view {
        _checkClock(config.clock, leastWindow);
        _checkCourtsTime(config.court, config.clock.challengeLength, leastWindow);
        _checkWork(config.work);
        _checkRewards(config.pay, config.clock.rounds);
        _checkOperators(config.pay, config.clock.rounds);
        _checkCourt(config.court, Schedule.segmentCount(config.work.steps, config.work.segmentLength));
    }

    function _checkClock(Clock memory clock, uint256 leastWindow) private view {
        _require(clock.start > block.timestamp && clock.start <= type(uint40).max, "start");
        _require(clock.window >= leastWindow, "window");
        _require(clock.roundLength >= 3 * uint256(clock.window), "roundLength");
        _require(clock.rounds > 0 && clock.rounds <= MAX_ROUNDS, "rounds");
    }

    function _checkCourtsTime(Court memory court, uint256 challengeLength, uint256 leastWindow) private pure {
        _require(court.showWindow >= leastWindow, "showWindow");
        _require(court.answerWindow >= leastWindow, "answerWindow");
        _require(court.voteWindow >= leastWindow, "voteWindow");
        _require(court.appealWindow >= leastWindow, "appealWindow");
        _require(court.appeals <= MAX_APPEALS, "appeals");
        uint256 least = Schedule.longestCase(court) + leastWindow; // so that there is a window to seal cases in
        _require(challengeLength >= least, "challengeLength");
    }

    function _checkWork(Work memory work) private pure {
        _require(work.segmentLength > 0, "segmentLength");
        _require(work.steps > 0 && work.steps <= MAX_SEGMENTS * work.segmentLength, "steps");
        _require(work.classesRoot != 0 || work.numerics == Numerics.Exact, "classesRoot");
    }

    function _checkRewards(Pay memory pay, uint256 rounds) private pure {
        _require(pay.q > 0 && pay.q <= WAD, "q");
        _require(pay.alphaTrainer <= 2 * WAD, "alphaTrainer");
        _require(pay.alphaValidator <= 2 * WAD, "alphaValidator");
        _require(pay.gammaBps <= BPS / 2, "gammaBps");
        uint256 budget = rounds * pay.roundReward + pay.finalReward + pay.deposit;
        _require(budget <= type(uint128).max, "roundReward");
    }

    function _checkOperators(Pay memory pay, uint256 rounds) private pure {
        _require(pay.minTrainerStake > 0, "minTrainerStake");
        _require(pay.minValidatorStake > 0, "minValidatorStake");
        _require(pay.minDelegation > 0, "minDelegation");
        _require(pay.maxTrainers > 0 && pay.maxTrainers <= MAX_TRAINERS, "maxTrainers");
        uint256 most = rounds > SHORT ? MAX_VALIDATORS_LONG : MAX_VALIDATORS;
        _require(pay.maxValidators > 0 && pay.maxValidators <= most, "maxValidators");
        _require(uint256(pay.maxTrainers) * pay.maxValidators <= MAX_SCORES, "maxValidators");
    }

    function _checkCourt(Court memory court, uint256 segments) private pure {
        uint256 sampled = court.sampled;
        _require(sampled > 0 && sampled <= MAX_OPENED && sampled <= segments, "sampled");
        _require(court.named <= MAX_OPENED, "named");
        _require(court.bond > 0 && court.bond >= uint256(court.openingCost) * (sampled + court.named), "bond");
        _require(court.bond <= type(uint120).max, "bond"); // an appeal's is at most eight times as high
        _require(court.burnBps <= BPS, "burnBps");
        _require(court.slashBps <= BPS, "slashBps");
        _require(court.jurors > 0 && court.jurors <= MAX_JURORS, "jurors");
    }

    function _require(bool holds, string memory field) private pure {
        if (!holds) revert ITasks.BadTerms(field);
    }
}
