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

    /// @dev The product has 256 bits, so that Solady's division goes the short way.
    function _fits(uint256 x, uint256 y) private pure {
        unchecked {
            assert(x == 0 || x * y / x == y);
        }
    }
}
