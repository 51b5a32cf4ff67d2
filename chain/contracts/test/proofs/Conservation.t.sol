// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ArenaMath} from "../../src/libraries/ArenaMath.sol";

/// @dev Nothing is paid that is not there. Proven by halmos (make halmos) for all inputs of these widths, where fuzzing
/// tries some; forge does not run it. Amounts have 96 bits, 79 billion tokens; weights 128, as products of stake and bps
/// within them.
contract ConservationProof {
    /// @dev Both sides of a round's split are its reward, whatever was staked.
    function check_bothSidesAddUpToTheReward(uint96 reward, uint16 gammaBps, uint96 trainers, uint96 validators)
        public
        pure
    {
        if (gammaBps > 5_000 || (trainers == 0 && validators == 0)) return;
        (uint256 toTrainers, uint256 toValidators) = ArenaMath.split(reward, gammaBps, trainers, validators);
        assert(toTrainers + toValidators == reward);
    }

    /// @dev Whoever weighs a part of the whole takes no more than the pool: the trainers' side of a split, an operator's
    /// share of a side, the delegators' of an operator's reward.
    function check_aPortionIsWithinThePool(uint96 pool, uint128 weight, uint128 rest) public pure {
        _fits(pool, weight);
        assert(ArenaMath.portion(pool, weight, uint256(weight) + rest) <= pool);
    }

    /* DELEGATION: nobody is paid more than an operator's pools hold, and only dust stays.
     *
     * A delegator of a_r wei in round r is owed a_r * rise_r for it, in units of 2^-128 wei; for a stretch of rounds that
     * is a * (index_b - index_a), the same sum. The amounts of all delegators add up to the units that perUnit divides
     * by (StakeVault keeps both sums, I24 holds them together), so by distributivity a round owes all of them together
     * rise * units: within pool * 2^128, and less than `units` below it (first proof, for one against all others). By
     * induction over rounds all that is owed is within the sum of the pools. A payment is what is owed for a stretch,
     * less a part of a wei (second proof). No product overflows: nobody is owed more than the pools hold, and all that a
     * task hands out has 128 bits. With aPortionIsWithinThePool, an operator and its delegators stay within its reward.
     */

    /// @dev The last assertion is modulo 2^256; by the first, the right-hand side is far below.
    function check_aRoundOwesWhatItsPoolHolds(uint128 pool, uint128 mine, uint128 others) public pure {
        uint256 units = uint256(mine) + others;
        if (units == 0) return;
        _fits(pool, ArenaMath.INDEX_ONE);
        uint256 rise = ArenaMath.perUnit(pool, units);
        unchecked {
            uint256 whole = pool * ArenaMath.INDEX_ONE;
            assert(rise * units <= whole);
            assert(rise * units + whole % units == whole);
            assert(rise * mine + rise * others == rise * units);
        }
    }

    /// @dev For all that anybody can be owed: what has 256 bits.
    function check_aPaymentIsWhatIsOwed(uint128 units, uint256 rise) public pure {
        unchecked {
            uint256 owed = units * rise;
            if (units != 0 && owed / units != rise) return;
            uint256 paid = ArenaMath.earned(units, rise);
            assert(paid * ArenaMath.INDEX_ONE <= owed);
            assert(owed - paid * ArenaMath.INDEX_ONE < ArenaMath.INDEX_ONE);
        }
    }

    /// @dev The product has 256 bits, so that Solady's division goes the short way.
    function _fits(uint256 x, uint256 y) private pure {
        unchecked {
            assert(x == 0 || x * y / x == y);
        }
    }
}
