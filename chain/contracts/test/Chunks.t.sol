// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Progress} from "../src/interfaces/IScoring.sol";
import {Pay, TaskConfig} from "../src/interfaces/ITasks.sol";
import {Aggregator} from "../src/types/Types.sol";
import {CrowdTest} from "./helpers/CrowdTest.sol";

/// @dev However a round is cut into transactions, whoever sends them and whoever revealed first: the same to the wei.
contract ChunksTest is CrowdTest {
    function _play(uint256 seed) private {
        TaskConfig memory config = _config();
        config.pay = _drawnPay(seed);
        taskId = _createTask(config);
        _gather(seed, _draw(seed, "n", 0, 9), _draw(seed, "m", 0, 9));
        _stand(1, _orders(seed));
    }

    function _drawnPay(uint256 seed) private pure returns (Pay memory pay) {
        pay = _pay();
        pay.aggregator = _draw(seed, "aggregator", 0, 2) == 0 ? Aggregator.Mean : Aggregator.Median;
        pay.q = uint64(1 + _draw(seed, "q", 0, 1e18));
        pay.alphaTrainer = uint64(_draw(seed, "alpha", 0, 5) * 0.5e18);
        pay.alphaValidator = uint64(_draw(seed, "alpha", 1, 5) * 0.5e18);
        pay.lambda = uint64(_draw(seed, "lambda", 0, 18e18));
    }

    /// forge-config: default.fuzz.runs = 48
    function testFuzz_anyChunkingPaysTheSame(uint256 seed, uint256 cuts) public {
        _play(seed);
        _score(1, _rows(seed), false);
        uint256 snapshot = vm.snapshotState();
        _settle(1);
        bytes memory whole = _outcome(1);
        assertTrue(scoring.progress(taskId, 1).settled);
        vm.revertToState(snapshot);
        _settleInPieces(cuts);
        assertEq(_outcome(1), whole);
    }

    /// @dev Up to three at a time, now of this and now of that, by anyone.
    function _settleInPieces(uint256 cuts) private {
        for (uint256 step; !scoring.progress(taskId, 1).settled; ++step) {
            vm.prank(address(uint160(1 + _draw(cuts, "caller", step, 1e9))));
            _advance(_draw(cuts, "which", step, 2), _draw(cuts, "size", step, 4));
        }
    }

    function _advance(uint256 which, uint256 size) private {
        Progress memory now_ = scoring.progress(taskId, 1);
        if (!now_.ranked) return scoring.rankRound(taskId, 1, size);
        bool trainersLeft = now_.trainersPaid < trainers.length;
        if (trainersLeft && (which == 0 || now_.validatorsPaid == validators.length)) {
            return scoring.payTrainers(taskId, 1, size);
        }
        if (now_.validatorsWeighed < validators.length) return scoring.weighValidators(taskId, 1, size);
        scoring.payValidators(taskId, 1, size);
    }

    /// forge-config: default.fuzz.runs = 48
    function testFuzz_theOrderOfRevealsDoesNotMatter(uint256 seed) public {
        _play(seed);
        bytes[] memory rows = _rows(seed);
        uint256 snapshot = vm.snapshotState();
        _score(1, rows, false);
        _settle(1);
        bytes memory forwards = _outcome(1);
        vm.revertToState(snapshot);
        _score(1, rows, true);
        _settle(1);
        assertEq(_outcome(1), forwards);
    }

    /// @dev Each side's allocations stay within its pool, and miss it by less than a wei a payee unless the cap cut one.
    /// forge-config: default.fuzz.runs = 48
    function testFuzz_allocationsStayWithinThePools(uint256 seed) public {
        _play(seed);
        _score(1, _rows(seed), false);
        _settle(1);
        Progress memory done = scoring.progress(taskId, 1);
        (uint256 toTrainers, uint256 toValidators) = (0, 0);
        for (uint256 i; i < trainers.length; ++i) {
            uint256 amount = escrow.allocated(taskId, trainers[i]);
            assertLe(amount, vault.slashable(taskId, trainers[i]));
            toTrainers += amount;
        }
        for (uint256 j; j < validators.length; ++j) {
            toValidators += escrow.allocated(taskId, validators[j]);
        }
        assertLe(toTrainers, done.trainersPool);
        assertLe(toValidators, done.validatorsPool);
        assertEq(escrow.budgetOf(taskId).allocated, toTrainers + toValidators);
        if (done.validatorsWeight != 0) assertLe(done.validatorsPool - toValidators, validators.length);
    }
}
