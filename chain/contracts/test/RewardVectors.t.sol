// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Result} from "../src/interfaces/IScoring.sol";
import {TaskConfig} from "../src/interfaces/ITasks.sol";
import {Aggregator, Role} from "../src/types/Types.sol";
import {CrowdTest} from "./helpers/CrowdTest.sol";

/// @dev tests/golden/rounds.json is what chain/rewards.py says of random rounds, in exact and 50-digit arithmetic; here
/// they are scored and settled. Pools, consensus scores and ranks are equal; amounts differ by the 18 digits of powers
/// and exponentials.
contract RewardVectorsTest is CrowdTest {
    string private _json;

    function test_roundsPayWhatTheModelSays() public {
        _json = vm.readFile(string.concat(vm.projectRoot(), "/../../tests/golden/rounds.json"));
        uint256 cases;
        for (; vm.keyExistsJson(_json, _path(cases, "reward")); ++cases) {
            uint256 start = vm.snapshotState();
            _play(cases);
            _compare(cases);
            vm.revertToState(start);
        }
        assertGt(cases, 10, "the golden file was read");
    }

    function _path(uint256 number, string memory field) private pure returns (string memory) {
        return string.concat(".cases[", vm.toString(number), "].", field);
    }

    function _uint(uint256 number, string memory field) private view returns (uint256) {
        return vm.parseJsonUint(_json, _path(number, field));
    }

    function _uints(uint256 number, string memory field) private view returns (uint256[] memory) {
        return vm.parseJsonUintArray(_json, _path(number, field));
    }

    function _play(uint256 number) private {
        TaskConfig memory config = _config();
        bool median = vm.parseJsonBool(_json, _path(number, "median"));
        config.pay.aggregator = median ? Aggregator.Median : Aggregator.Mean;
        config.pay.q = uint64(_uint(number, "q"));
        config.pay.alphaTrainer = uint64(_uint(number, "alpha_trainer"));
        config.pay.alphaValidator = uint64(_uint(number, "alpha_validator"));
        config.pay.lambda = uint64(_uint(number, "sensitivity"));
        config.pay.gammaBps = uint16(_uint(number, "gamma_bps"));
        config.pay.roundReward = uint128(_uint(number, "reward"));
        config.pay.finalReward = 0;
        _fund(creator, 2 * config.pay.roundReward);
        taskId = _createTask(config);
        _enterAll(number, "own", "lent", Role.Trainer);
        _enterAll(number, "judges_own", "judges_lent", Role.Validator);
        uint256[] memory given = _uints(number, "orders");
        uint64[] memory orders = new uint64[](given.length);
        for (uint256 i; i < orders.length; ++i) {
            orders[i] = uint64(given[i]);
        }
        _stand(1, orders);
        vm.mockCall(address(vault), abi.encodePacked(vault.slashable.selector), abi.encode(type(uint256).max)); // no cap
        _score(1, vm.parseJsonBytesArray(_json, _path(number, "rows")), false);
        _settle(1);
    }

    function _enterAll(uint256 number, string memory own, string memory lent, Role role) private {
        (uint256[] memory owned, uint256[] memory lents) = (_uints(number, own), _uints(number, lent));
        for (uint256 k; k < owned.length; ++k) {
            address operator = address(uint160(0xc0de0000 + uint256(role) * 1_000 + k));
            _enter(operator, role, uint128(owned[k]), 1_000, uint128(lents[k]));
        }
    }

    function _compare(uint256 number) private view {
        (uint256[] memory pools, uint256[] memory ranks) = (_uints(number, "pools"), _uints(number, "ranks"));
        uint256[] memory aggregates = _uints(number, "aggregates");
        Result[] memory results = scoring.results(taskId, 1);
        for (uint256 i; i < ranks.length; ++i) {
            assertEq(results[i].rank, ranks[i]);
            assertEq(results[i].aggregate, aggregates[i]);
        }
        _compareAmounts(trainers, _uints(number, "trainers"), pools[0]);
        _compareAmounts(validators, _uints(number, "validators"), pools[1]);
        if (escrow.budgetOf(taskId).allocated == 0) return;
        assertEq(scoring.progress(taskId, 1).trainersPool, pools[0]);
        assertEq(scoring.progress(taskId, 1).validatorsPool, pools[1]);
    }

    /// @dev A wei, and of the pool: 18 digits of a weight, fewer of exp(-18 * distance) where everybody is far off.
    function _compareAmounts(address[] memory who, uint256[] memory expected, uint256 pool) private view {
        assertEq(who.length, expected.length);
        for (uint256 k; k < who.length; ++k) {
            assertApproxEqAbs(escrow.allocated(taskId, who[k]), expected[k], 2 + pool / 1e10);
        }
    }
}
