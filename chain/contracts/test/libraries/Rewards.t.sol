// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {TaskRules} from "../../src/TaskRules.sol";
import {Stake} from "../../src/interfaces/IStakeVault.sol";
import {Outcome, Round} from "../../src/interfaces/ITaskRules.sol";
import {TaskConfig} from "../../src/interfaces/ITasks.sol";

/// @dev Laws of a settled round, over random rounds of up to 32 trainers and 32 validators.
contract RewardsTest is Test {
    TaskRules private rules = new TaskRules();

    function _draw(uint256 seed, string memory what, uint256 i, uint256 limit) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what, i))) % limit;
    }

    function _config(uint256 seed) private pure returns (TaskConfig memory config) {
        config.q = uint64(1 + _draw(seed, "q", 0, 1e18));
        config.alphaTrainer = uint64(_draw(seed, "alpha", 0, 3) * 1e18);
        config.alphaValidator = uint64(_draw(seed, "alpha", 1, 2e18 + 1));
        config.lambda = uint64(_draw(seed, "lambda", 0, 18e18));
        config.gammaBps = uint16(_draw(seed, "gamma", 0, 5_001));
    }

    function _stakes(uint256 seed, string memory what, uint256 count) private pure returns (Stake[] memory list) {
        list = new Stake[](count);
        for (uint256 i; i < count; ++i) {
            list[i].own = uint128(1 + _draw(seed, what, 2 * i, 10 ** (1 + _draw(seed, what, i, 27))));
            list[i].delegated = uint128(_draw(seed, what, 2 * i + 1, 1e24));
        }
    }

    function _round(uint256 seed) private pure returns (Round memory round) {
        (uint256 n, uint256 m) = (_draw(seed, "n", 0, 33), _draw(seed, "m", 0, 33));
        round.reward = _draw(seed, "reward", 0, 1e30);
        round.trainers = _stakes(seed, "trainer", n);
        round.validators = _stakes(seed, "validator", m);
        (round.orders, round.room, round.scores) = (new uint64[](n), new uint256[](n), new uint16[][](m));
        for (uint256 i; i < n; ++i) {
            bool stands = _draw(seed, "stands", i, 4) != 0;
            round.orders[i] = stands ? uint64(1 + (i * 7) % 37) : 0; // all different
            round.room[i] = _draw(seed, "room", i, 1e30);
        }
        for (uint256 j; j < m; ++j) {
            if (_draw(seed, "reveals", j, 4) != 0) round.scores[j] = _scores(seed, j, round.orders);
        }
    }

    function _scores(uint256 seed, uint256 j, uint64[] memory orders) private pure returns (uint16[] memory row) {
        row = new uint16[](orders.length);
        for (uint256 i; i < row.length; ++i) {
            // coarse, so that ties happen
            if (orders[i] != 0) row[i] = uint16(500 * _draw(seed, "score", 64 * j + i, 21));
        }
    }

    function _sum(uint256[] memory values) private pure returns (uint256 sum) {
        for (uint256 i; i < values.length; ++i) {
            sum += values[i];
        }
    }

    function testFuzz_sharesNeverExceedTheirPools(uint256 seed) public view {
        Round memory round = _round(seed);
        Outcome memory outcome = rules.settle(_config(seed), round);
        uint256 pools = outcome.trainersPool + outcome.validatorsPool;
        assertTrue(pools == round.reward || pools == 0);
        assertLe(_sum(outcome.toTrainers), outcome.trainersPool);
        assertLe(_sum(outcome.toValidators), outcome.validatorsPool);
        for (uint256 i; i < round.room.length; ++i) {
            assertLe(outcome.toTrainers[i], round.room[i]);
        }
    }

    function testFuzz_dustIsLessThanAWeiAPayee(uint256 seed) public view {
        Round memory round = _round(seed);
        for (uint256 i; i < round.room.length; ++i) {
            round.room[i] = type(uint256).max;
        }
        Outcome memory outcome = rules.settle(_config(seed), round);
        if (_sum(outcome.toTrainers) != 0) assertLt(outcome.trainersPool - _sum(outcome.toTrainers), 32);
        if (_sum(outcome.toValidators) != 0) assertLt(outcome.validatorsPool - _sum(outcome.toValidators), 32);
    }

    function testFuzz_ranksAreTheOneSortedOrder(uint256 seed) public view {
        Round memory round = _round(seed);
        Outcome memory outcome = rules.settle(_config(seed), round);
        if (outcome.trainersPool + outcome.validatorsPool == 0) return;
        for (uint256 a; a < round.orders.length; ++a) {
            assertEq(outcome.ranks[a] != 0, round.orders[a] != 0);
            for (uint256 b; b < a; ++b) {
                if (round.orders[a] == 0 || round.orders[b] == 0) continue;
                bool better = outcome.aggregates[a] > outcome.aggregates[b];
                bool earlier = outcome.aggregates[a] == outcome.aggregates[b] && round.orders[a] < round.orders[b];
                assertEq(outcome.ranks[a] < outcome.ranks[b], better || earlier);
            }
        }
    }

    function testFuzz_theUnrevealedAndTheAbsentEarnNothing(uint256 seed) public view {
        Round memory round = _round(seed);
        Outcome memory outcome = rules.settle(_config(seed), round);
        for (uint256 i; i < round.orders.length; ++i) {
            if (round.orders[i] == 0) assertEq(outcome.toTrainers[i], 0);
        }
        for (uint256 j; j < round.scores.length; ++j) {
            if (round.scores[j].length == 0) assertEq(outcome.toValidators[j], 0);
            assertLe(outcome.distances[j], 1e18);
        }
    }

    function testFuzz_aBetterScoreNeverLowersTheReward(uint256 seed, uint256 who, uint256 by) public view {
        Round memory round = _round(seed);
        (uint256 n, uint256 m) = (round.trainers.length, round.validators.length);
        vm.assume(n != 0 && m != 0);
        (who, by) = (who % n, by % m);
        vm.assume(round.orders[who] != 0 && round.scores[by].length != 0 && round.scores[by][who] < 10_000);
        Outcome memory before = rules.settle(_config(seed), round);
        round.scores[by][who] = 10_000;
        Outcome memory improved = rules.settle(_config(seed), round);
        assertGe(improved.toTrainers[who], before.toTrainers[who]);
        assertLe(improved.ranks[who], before.ranks[who]);
    }

    /// @dev Equal scores: same distance, so only stake tells two validators apart.
    function testFuzz_moreStakeNeverEarnsLess(uint256 seed) public view {
        Round memory round = _round(seed);
        for (uint256 j = 1; j < round.scores.length; ++j) {
            round.scores[j] = round.scores[0];
        }
        Outcome memory outcome = rules.settle(_config(seed), round);
        for (uint256 j = 1; j < round.scores.length; ++j) {
            uint256 mine = uint256(round.validators[j].own) + round.validators[j].delegated;
            uint256 theirs = uint256(round.validators[0].own) + round.validators[0].delegated;
            if (mine >= theirs) assertGe(outcome.toValidators[j], outcome.toValidators[0]);
            else assertLe(outcome.toValidators[j], outcome.toValidators[0]);
        }
    }

    function testFuzz_twinsGetTheSame(uint256 seed) public view {
        Round memory round = _round(seed);
        vm.assume(round.validators.length > 1);
        round.validators[1] = round.validators[0];
        round.scores[1] = round.scores[0];
        Outcome memory outcome = rules.settle(_config(seed), round);
        assertEq(outcome.toValidators[1], outcome.toValidators[0]);
    }
}
