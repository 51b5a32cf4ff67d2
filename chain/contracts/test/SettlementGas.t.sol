// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IScoring} from "../src/interfaces/IScoring.sol";
import {TaskConfig} from "../src/interfaces/ITasks.sol";
import {Aggregator} from "../src/types/Types.sol";
import {CrowdTest} from "./helpers/CrowdTest.sol";

/// @dev The sizes of the mechanism's largest tasks, trainers x validators: no transaction passes the cap on one
/// transaction's gas. Each call is a transaction of its own (isolate), so that nothing is warm.
contract SettlementGasTest is CrowdTest {
    uint256 private constant TRANSACTION_CAP = 2 ** 24; // EIP-7825
    uint256 private constant CHUNK = 64; // the Python client's

    function _play(Aggregator aggregator, uint256 n, uint256 m) private {
        TaskConfig memory config = _config();
        config.pay.aggregator = aggregator;
        (config.pay.alphaTrainer, config.pay.alphaValidator) = (0.5e18, 0.5e18); // the costly exponents
        taskId = _createTask(config);
        _gather(1, n, m);
        uint64[] memory orders = new uint64[](n);
        for (uint256 i; i < n; ++i) {
            orders[i] = uint64(n - i);
        }
        _stand(1, orders);
        bytes[] memory rows = new bytes[](m);
        for (uint256 j; j < m; ++j) {
            for (uint256 i; i < n; ++i) {
                rows[j] = bytes.concat(rows[j], bytes2(uint16(50 * i + (j * 7 + i * 11) % 1_000)));
            }
        }
        _score(1, rows, false);
        _settleMeasured();
    }

    function _settleMeasured() private {
        _measured("rank, no columns", abi.encodeCall(IScoring.rankRound, (taskId, 1, 0)));
        while (!scoring.progress(taskId, 1).ranked) {
            _measured("rank", abi.encodeCall(IScoring.rankRound, (taskId, 1, CHUNK)));
        }
        while (scoring.progress(taskId, 1).trainersPaid != trainers.length) {
            _measured("pay trainers", abi.encodeCall(IScoring.payTrainers, (taskId, 1, CHUNK)));
        }
        while (scoring.progress(taskId, 1).validatorsWeighed != validators.length) {
            _measured("weigh validators", abi.encodeCall(IScoring.weighValidators, (taskId, 1, CHUNK)));
        }
        while (!scoring.progress(taskId, 1).settled) {
            _measured("pay validators", abi.encodeCall(IScoring.payValidators, (taskId, 1, CHUNK)));
        }
    }

    function _measured(string memory what, bytes memory call) private {
        (bool done,) = address(scoring).call(call);
        assertTrue(done, what);
        uint256 used = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint(what, used);
        assertLt(used, TRANSACTION_CAP, what);
    }

    /// forge-config: default.isolate = true
    function test_manyTrainersByTheMean() public {
        _play(Aggregator.Mean, 153, 172);
    }

    /// forge-config: default.isolate = true
    function test_manyValidatorsByTheMean() public {
        _play(Aggregator.Mean, 110, 456);
    }

    /// forge-config: default.isolate = true
    function test_manyTrainersByTheMedian() public {
        _play(Aggregator.Median, 153, 172);
    }

    /// forge-config: default.isolate = true
    function test_manyValidatorsByTheMedian() public {
        _play(Aggregator.Median, 110, 456);
    }
}
