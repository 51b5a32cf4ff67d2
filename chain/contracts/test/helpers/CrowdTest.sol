// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns} from "../../src/interfaces/IRuns.sol";
import {Result} from "../../src/interfaces/IScoring.sol";
import {Pay} from "../../src/interfaces/ITasks.sol";
import {Role} from "../../src/types/Types.sol";
import {BaseTest} from "../BaseTest.sol";

/// @dev Any number of operators, any rows of scores. Only which models stand is made up, instead of submitted for.
abstract contract CrowdTest is BaseTest {
    bytes32 internal constant SALT = keccak256("salt");

    address[] internal trainers;
    address[] internal validators;

    function _pay() internal pure virtual override returns (Pay memory pay) {
        pay = super._pay();
        (pay.maxTrainers, pay.maxValidators) = (153, 456);
        (pay.minTrainerStake, pay.minValidatorStake, pay.minDelegation) = (1, 1, 1);
    }

    function _draw(uint256 seed, string memory what, uint256 i, uint256 limit) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what, i))) % limit;
    }

    /// @dev Stakes of `operator`, and what dora lends it (0 = nothing).
    function _enter(address operator, Role role, uint128 own, uint16 commission, uint128 lent) internal {
        _fund(operator, own);
        _stake(operator, role, own, commission);
        if (role == Role.Trainer) trainers.push(operator);
        else validators.push(operator);
        if (lent == 0) return;
        _fund(dora, lent);
        _delegate(dora, operator, lent);
    }

    /// @dev n trainers and m validators with stakes of many magnitudes, every other one with a delegation.
    function _gather(uint256 seed, uint256 n, uint256 m) internal {
        for (uint256 k; k < n + m; ++k) {
            uint128 own = uint128(1 + _draw(seed, "own", k, 10 ** _draw(seed, "magnitude", k, 21)));
            uint128 lent = k % 2 == 0 ? 0 : uint128(1 + _draw(seed, "lent", k, 1e20));
            uint16 commission = uint16(_draw(seed, "commission", k, 10_001));
            _enter(address(uint160(0xc0de0000 + k)), k < n ? Role.Trainer : Role.Validator, own, commission, lent);
        }
    }

    /// @dev Which models stand in the round, by commit order.
    function _stand(uint16 round, uint64[] memory orders) internal {
        vm.mockCall(address(arena), abi.encodeCall(IRuns.standingOrders, (taskId, round)), abi.encode(orders));
    }

    /// @dev Orders from a seed: all different, some 0.
    function _orders(uint256 seed) internal view returns (uint64[] memory orders) {
        orders = new uint64[](trainers.length);
        for (uint256 i; i < orders.length; ++i) {
            if (_draw(seed, "stands", i, 8) != 0) orders[i] = uint64(1 + (7 * i) % 613); // a prime: no two alike
        }
    }

    /// @dev A validator's row from a seed, coarse, so that ties happen; one in eight reveals nothing.
    function _rowOf(uint256 seed, uint256 j) internal view returns (bytes memory row) {
        if (_draw(seed, "reveals", j, 8) == 0) return row;
        for (uint256 i; i < trainers.length; ++i) {
            row = abi.encodePacked(row, uint16(500 * _draw(seed, "score", 1_000 * j + i, 21)));
        }
    }

    function _rows(uint256 seed) internal view returns (bytes[] memory rows) {
        rows = new bytes[](validators.length);
        for (uint256 j; j < rows.length; ++j) {
            rows[j] = _rowOf(seed, j);
        }
    }

    function _commitment(address validator, uint16 round, bytes memory row) internal view returns (bytes32) {
        bytes32 domain = "aiarena/scores/v1";
        bytes32 digest = sha256(row);
        return sha256(abi.encode(domain, block.chainid, address(scoring), taskId, round, validator, digest, SALT));
    }

    /// @dev Everybody with a row (not empty) commits and reveals it, the last first if `backwards`.
    function _score(uint16 round, bytes[] memory rows, bool backwards) internal {
        vm.warp(_times(round).scoresFrom);
        for (uint256 j; j < rows.length; ++j) {
            bytes32 commitment = _commitment(validators[j], round, rows[j]);
            vm.prank(validators[j]);
            scoring.commitScores(taskId, round, commitment);
        }
        vm.warp(_times(round).revealFrom);
        for (uint256 k; k < rows.length; ++k) {
            uint256 j = backwards ? rows.length - 1 - k : k;
            if (rows[j].length == 0) continue;
            vm.prank(validators[j]);
            scoring.revealScores(taskId, round, rows[j], SALT);
        }
        vm.warp(_times(round).settleFrom);
    }

    /// @dev The whole round, everybody in one chunk.
    function _settle(uint16 round) internal {
        scoring.rankRound(taskId, round, trainers.length);
        if (scoring.progress(taskId, round).settled) return;
        scoring.payTrainers(taskId, round, trainers.length);
        scoring.weighValidators(taskId, round, validators.length);
        scoring.payValidators(taskId, round, validators.length);
    }

    /// @dev What everybody was allocated, and how the round ended.
    function _outcome(uint16 round) internal view returns (bytes memory) {
        uint256[] memory amounts = new uint256[](trainers.length + validators.length);
        for (uint256 k; k < amounts.length; ++k) {
            amounts[k] = escrow.allocated(taskId, _operator(k));
        }
        Result[] memory results = scoring.results(taskId, round);
        return abi.encode(amounts, results, scoring.progress(taskId, round), escrow.budgetOf(taskId));
    }

    function _operator(uint256 k) internal view returns (address) {
        return k < trainers.length ? trainers[k] : validators[k - trainers.length];
    }
}
