// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {TaskRules} from "../src/TaskRules.sol";
import {Pay} from "../src/interfaces/ITasks.sol";
import {ArenaMath} from "../src/libraries/ArenaMath.sol";

/// @dev Laws of the weights, over random terms, stakes, ranks and distances.
contract TaskRulesTest is Test {
    TaskRules private rules = new TaskRules(1);

    function _draw(uint256 seed, string memory what, uint256 i, uint256 limit) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what, i))) % limit;
    }

    function _pay(uint256 seed) private pure returns (Pay memory pay) {
        pay.q = uint64(1 + _draw(seed, "q", 0, 1e18));
        pay.alphaTrainer = uint64(_draw(seed, "alpha", 0, 2e18 + 1));
        pay.alphaValidator = uint64(_draw(seed, "alpha", 1, 3) * 1e18);
        pay.lambda = uint64(_draw(seed, "lambda", 0, 18e18));
    }

    function _stakes(uint256 seed, uint256 count) private pure returns (uint256[] memory stakes) {
        stakes = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            stakes[i] = 1 + _draw(seed, "stake", i, 10 ** _draw(seed, "magnitude", i, 39)); // up to all 128 bits
        }
    }

    function _ranks(uint256 count) private pure returns (uint256[] memory ranks) {
        ranks = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            ranks[i] = 1 + (7 * i) % 41;
        }
    }

    function testFuzz_theWeightIsThePowerOfQTimesThatOfTheStake(uint256 seed, uint256 rank) public view {
        Pay memory pay = _pay(seed);
        (uint256[] memory stakes, uint256[] memory ranks) = (_stakes(seed, 1), new uint256[](1));
        ranks[0] = bound(rank, 0, 512);
        uint256 power = ranks[0] == 0 ? 0 : 1e18;
        for (uint256 k = 1; k < ranks[0]; ++k) {
            power = power * pay.q / 1e18;
        }
        uint256 staked = ArenaMath.stakePower(stakes[0], pay.alphaTrainer);
        assertEq(rules.trainerWeights(pay, stakes, ranks)[0], ArenaMath.mulWad(staked, power));
    }

    /// @dev What lets a round be paid in pieces: a weight depends on its own stake and rank alone.
    function testFuzz_thePartsOfAFieldWeighWhatTheWholeWeighs(uint256 seed, uint256 cut) public view {
        Pay memory pay = _pay(seed);
        uint256[] memory stakes = _stakes(seed, 20);
        uint256[] memory ranks = _ranks(20);
        uint256[] memory whole = rules.trainerWeights(pay, stakes, ranks);
        cut = bound(cut, 0, 20);
        (uint256[] memory partStakes, uint256[] memory partRanks) = (new uint256[](20 - cut), new uint256[](20 - cut));
        for (uint256 i = cut; i < 20; ++i) {
            (partStakes[i - cut], partRanks[i - cut]) = (stakes[i], ranks[i]);
        }
        uint256[] memory part = rules.trainerWeights(pay, partStakes, partRanks);
        for (uint256 i = cut; i < 20; ++i) {
            assertEq(part[i - cut], whole[i]);
        }
    }

    function testFuzz_aBetterRankAndMoreStakeNeverWeighLess(uint256 seed) public view {
        Pay memory pay = _pay(seed);
        pay.alphaTrainer = pay.alphaValidator; // whole exponents: powWad itself is monotone only up to its rounding
        uint256[] memory stakes = _stakes(seed, 2);
        (uint256[] memory ranks, uint256[] memory better) = (new uint256[](2), new uint256[](2));
        (ranks[0], ranks[1]) = (3, 3);
        (better[0], better[1]) = (2, 2);
        uint256[] memory weights = rules.trainerWeights(pay, stakes, ranks);
        uint256[] memory improved = rules.trainerWeights(pay, stakes, better);
        assertGe(improved[0], weights[0]);
        if (stakes[0] == stakes[1]) assertEq(weights[0], weights[1]);
        if (pay.alphaTrainer == 1e18 && stakes[0] > stakes[1]) assertGe(weights[0], weights[1]);
    }

    function testFuzz_theNearerTheMore(uint256 seed, uint256 near, uint256 far) public view {
        Pay memory pay = _pay(seed);
        (near, far) = (bound(near, 0, 1e18), bound(far, 0, 1e18));
        if (near > far) (near, far) = (far, near);
        (uint256[] memory stakes, uint256[] memory distances) = (new uint256[](2), new uint256[](2));
        stakes[0] = stakes[1] = _stakes(seed, 1)[0];
        (distances[0], distances[1]) = (near, far);
        uint256[] memory weights = rules.validatorWeights(pay, stakes, distances);
        assertGe(weights[0], weights[1]);
    }

    function testFuzz_noStakeWeighsNothing(uint256 seed) public view {
        Pay memory pay = _pay(seed);
        uint256[] memory none = new uint256[](2);
        assertEq(rules.validatorWeights(pay, none, none), none);
        assertEq(rules.trainerWeights(pay, none, _ranks(2)), none);
        assertEq(rules.trainerWeights(pay, _stakes(seed, 2), none), none, "nor does no rank");
    }

    /// @dev 50-digit references: 1,400 tokens, exponent 1.5, exp(-5 * 0.1), rank 3 of q = 0.8.
    function test_weightsByHand() public view {
        Pay memory pay;
        (pay.q, pay.alphaTrainer, pay.alphaValidator, pay.lambda) = (0.8e18, 1.5e18, 1e18, 5e18);
        (uint256[] memory stakes, uint256[] memory given) = (new uint256[](1), new uint256[](1));
        (stakes[0], given[0]) = (1_400e18, 3);
        assertApproxEqRel(rules.trainerWeights(pay, stakes, given)[0], 33_525.25018549451481483e18, 100);
        given[0] = 0.1e18;
        assertApproxEqRel(rules.validatorWeights(pay, stakes, given)[0], 849.142923597686793e18, 100);
    }
}
