// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Ranking} from "../../src/libraries/Ranking.sol";

contract RankingTest is Test {
    function _field(uint256 seed) private pure returns (uint256[] memory aggregates, uint64[] memory orders) {
        uint256 n = seed % 40;
        (aggregates, orders) = (new uint256[](n), new uint64[](n));
        for (uint256 i; i < n; ++i) {
            uint256 draw = uint256(keccak256(abi.encode(seed, i)));
            aggregates[i] = (draw % 5) * 0.25e18; // many ties, both ends of the scale
            if (draw >> 8 & 7 != 0) orders[i] = uint64(1 + (7 * i) % 41); // all different
        }
    }

    /// @dev Higher score, then earlier commitment; ranks 1 to the number of standing models, each once.
    function testFuzz_ranksAreTheOneSortedOrder(uint256 seed) public pure {
        (uint256[] memory aggregates, uint64[] memory orders) = _field(seed);
        uint256[] memory ranks = Ranking.rank(aggregates, orders);
        for (uint256 a; a < orders.length; ++a) {
            assertEq(ranks[a] != 0, orders[a] != 0);
            assertLe(ranks[a], Ranking.standing(orders));
            for (uint256 b; b < a; ++b) {
                if (orders[a] == 0 || orders[b] == 0) continue;
                bool better = aggregates[a] > aggregates[b];
                bool earlier = aggregates[a] == aggregates[b] && orders[a] < orders[b];
                assertEq(ranks[a] < ranks[b], better || earlier);
                assertNotEq(ranks[a], ranks[b]);
            }
        }
    }

    function test_nobodyStands() public pure {
        assertEq(Ranking.rank(new uint256[](3), new uint64[](3)), new uint256[](3));
        assertEq(Ranking.rank(new uint256[](0), new uint64[](0)).length, 0);
    }
}
