// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";

/// @title The reward equations, one number at a time
/// @notice Every division rounds down; products that may pass 256 bits go through 512.
library ArenaMath {
    uint256 internal constant WAD = 1e18;
    uint256 internal constant BPS = 10_000;
    /// @notice One score basis point in WAD.
    uint256 internal constant SCORE_UNIT = 1e14;
    /// @notice One wei in an index's units.
    uint256 internal constant INDEX_ONE = 2 ** 128;

    /// @notice Divides a round's reward between trainers and validators by their own stakes; the two add up to it.
    /// @param trainers Sum of the trainers' own stakes; not both sums zero.
    function split(uint256 reward, uint256 gammaBps, uint256 trainers, uint256 validators)
        internal
        pure
        returns (uint256 toTrainers, uint256 toValidators)
    {
        uint256 total = trainers + validators;
        uint256 share = gammaBps * total + (BPS - 2 * gammaBps) * trainers;
        toTrainers = FixedPointMathLib.fullMulDiv(reward, share, BPS * total);
        toValidators = reward - toTrainers;
    }

    /// @notice stake^alpha: the stake itself for alpha = 1, otherwise powWad of the stake in whole tokens.
    /// @param stake Wei; 0 weighs nothing.
    /// @param alpha WAD, at most 2e18.
    function stakePower(uint256 stake, uint256 alpha) internal pure returns (uint256) {
        if (stake == 0 || alpha == WAD) return stake;
        return uint256(FixedPointMathLib.powWad(int256(stake), int256(alpha)));
    }

    /// @notice What a distance from consensus leaves of a validator's weight: exp(-lambda * distance), WAD.
    function closeness(uint256 lambda, uint256 distance) internal pure returns (uint256) {
        return uint256(FixedPointMathLib.expWad(-int256(lambda * distance / WAD)));
    }

    /// @notice floor(x * y / 1e18).
    function mulWad(uint256 x, uint256 y) internal pure returns (uint256) {
        return FixedPointMathLib.fullMulDiv(x, y, WAD);
    }

    /// @notice floor(pool * weight / total), or 0 if nobody has any weight.
    function portion(uint256 pool, uint256 weight, uint256 total) internal pure returns (uint256) {
        return total == 0 ? 0 : FixedPointMathLib.fullMulDiv(pool, weight, total);
    }

    /// @notice What an operator's delegators share of its reward.
    function delegatorsPool(uint256 reward, uint256 commissionBps, uint256 own, uint256 delegated)
        internal
        pure
        returns (uint256)
    {
        return portion(reward, (BPS - commissionBps) * delegated, BPS * (own + delegated));
    }

    /// @notice What each unit has of a pool that so many share: floor(pool * 2^128 / units), in units of 2^-128 wei.
    /// @param units Not zero.
    function perUnit(uint256 pool, uint256 units) internal pure returns (uint256) {
        return FixedPointMathLib.fullMulDiv(pool, INDEX_ONE, units);
    }

    /// @notice What units earn while an index, a sum of perUnit, rises by so much: floor(units * rise / 2^128), wei.
    function earned(uint256 units, uint256 rise) internal pure returns (uint256) {
        return FixedPointMathLib.fullMulDiv(units, rise, INDEX_ONE);
    }

    /// @notice floor(amount * bps / 10,000).
    function bpsOf(uint256 amount, uint256 bps) internal pure returns (uint256) {
        return amount * bps / BPS;
    }
}
