// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";
import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";

import {ArenaMath} from "../../src/libraries/ArenaMath.sol";

contract ArenaMathTest is Test {
    uint256 private constant WAD = 1e18;

    /* SPLIT */

    function testFuzz_bothSidesAddUpToTheReward(uint128 reward, uint256 gamma, uint128 t, uint128 s) public pure {
        gamma = bound(gamma, 0, 5_000);
        vm.assume(t != 0 || s != 0);
        (uint256 toTrainers, uint256 toValidators) = ArenaMath.split(reward, gamma, t, s);
        assertEq(toTrainers + toValidators, reward);
        assertGe(toTrainers + 1, uint256(reward) * gamma / 10_000, "each side is sure of gamma");
        assertGe(toValidators, uint256(reward) * gamma / 10_000);
    }

    function testFuzz_moreTrainersStakeNeverLowersTheirSide(
        uint128 reward,
        uint256 gamma,
        uint96 t,
        uint96 s,
        uint96 more
    ) public pure {
        gamma = bound(gamma, 0, 5_000);
        vm.assume(t != 0 || s != 0);
        (uint256 less,) = ArenaMath.split(reward, gamma, t, s);
        (uint256 greater,) = ArenaMath.split(reward, gamma, uint256(t) + more, s);
        assertGe(greater, less);
    }

    function test_splitByHand() public pure {
        (uint256 toTrainers, uint256 toValidators) = ArenaMath.split(90e18, 1_000, 3_000e18, 2_000e18);
        assertEq(toTrainers, 52.2e18);
        assertEq(toValidators, 37.8e18);
        (toTrainers, toValidators) = ArenaMath.split(3, 5_000, 1, 10 ** 30);
        assertEq(toTrainers, 1, "gamma 1/2: halves, the odd wei to the validators");
        assertEq(toValidators, 2);
    }

    /// @dev The published example of the production system: 309,157.68 a day, 7,500 and 12,000 staked, gamma 0.
    function test_splitOfThePublishedExample() public pure {
        (uint256 toTrainers,) = ArenaMath.split(309_157.68e18, 0, 7_500e18, 12_000e18);
        assertApproxEqAbs(toTrainers, 118_906.8e18, 0.01e18);
    }

    /* POWERS */

    /// @dev Vectors of the library's authors, and 50-digit references.
    function test_exponentialsAndPowers() public pure {
        assertEq(FixedPointMathLib.expWad(-1e18), 367879441171442321);
        assertEq(FixedPointMathLib.expWad(0.5e18), 1648721270700128146);
        assertEq(FixedPointMathLib.expWad(-41446531673892822312), 1);
        assertEq(FixedPointMathLib.expWad(-41446531673892822313), 0);
        assertEq(FixedPointMathLib.lnWad(2718281828459045235), 999999999999999999);
        assertEq(FixedPointMathLib.lnWad(11723640096265400935), 2461607324344817918);
        assertEq(FixedPointMathLib.lnWad(2 ** 128), 47276307437780177293);
        assertApproxEqRel(FixedPointMathLib.powWad(2e18, 0.5e18), 1.414213562373095048e18, 100);
        assertApproxEqRel(ArenaMath.stakePower(1_400e18, 0.5e18), 37.416573867739413855e18, 100);
        assertApproxEqRel(ArenaMath.stakePower(1_400e18, 1.5e18), 52_383.203414835179398e18, 100);
        assertApproxEqRel(ArenaMath.closeness(5e18, 0.1e18), 0.606530659712633423e18, 100);
    }

    function test_edgesOfThePower() public pure {
        assertEq(ArenaMath.stakePower(123_456, 1e18), 123_456, "exactly linear");
        assertEq(ArenaMath.stakePower(123_456, 0), 1e18, "everybody alike");
        assertEq(ArenaMath.stakePower(0, 0), 0, "no stake, no weight");
        assertEq(ArenaMath.closeness(0, 1e18), 1e18);
        assertEq(ArenaMath.closeness(18e18, 0), 1e18);
    }

    function testFuzz_thePowerNeverOverflowsAndNeverFalls(uint128 stake, uint128 more, uint256 alpha) public pure {
        alpha = bound(alpha, 0, 2e18);
        uint256 greater = uint256(stake) + more;
        assertGe(ArenaMath.stakePower(greater, alpha), ArenaMath.stakePower(stake, alpha));
        assertLt(ArenaMath.stakePower(greater, alpha), 2 ** 200, "32 of them, times 2^60, fit");
    }

    function testFuzz_distanceNeverHelps(uint64 lambda, uint256 distance, uint256 further) public pure {
        distance = bound(distance, 0, WAD);
        further = bound(further, distance, WAD);
        assertLe(ArenaMath.closeness(lambda, further), ArenaMath.closeness(lambda, distance));
        assertGt(ArenaMath.closeness(lambda, WAD), 0, "nobody is rounded away by distance alone");
        assertLe(ArenaMath.closeness(lambda, distance), WAD);
    }

    /* PORTIONS */

    function testFuzz_portionsNeverExceedThePool(uint128 pool, uint128[8] memory weights) public pure {
        uint256 total;
        for (uint256 i; i < 8; ++i) {
            total += weights[i];
        }
        uint256 paid;
        for (uint256 i; i < 8; ++i) {
            paid += ArenaMath.portion(pool, weights[i], total);
        }
        assertLe(paid, pool);
        if (total != 0) assertLt(pool - paid, 8, "dust");
        else assertEq(paid, 0);
    }

    function testFuzz_theOperatorAndItsDelegatorsShareTheReward(
        uint128 reward,
        uint256 commission,
        uint128 own,
        uint120[4] memory lent
    ) public pure {
        commission = bound(commission, 0, 10_000);
        vm.assume(own != 0);
        uint256 delegated;
        for (uint256 d; d < 4; ++d) {
            delegated += lent[d];
        }
        uint256 pool = ArenaMath.delegatorsPool(reward, commission, own, delegated);
        assertLe(pool, reward);
        uint256 paid;
        for (uint256 d; d < 4; ++d) {
            paid += ArenaMath.portion(pool, lent[d], delegated);
        }
        assertLe(reward - pool + paid, reward);
        if (commission == 10_000) assertEq(pool, 0);
    }

    /// @dev The published example: 58,084 to a node with 3,000 of its own and 1,000 lent, commission 40 %.
    function test_theDelegatorsPoolOfThePublishedExample() public pure {
        assertEq(ArenaMath.delegatorsPool(58_084e18, 4_000, 3_000e18, 1_000e18), 8_712.6e18);
    }
}
