// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";
import {LibSort} from "solady/utils/LibSort.sol";

import {Consensus} from "../../src/libraries/Consensus.sol";
import {Rows} from "../../src/libraries/Rows.sol";

/// @dev The assembly against the equations written plainly.
contract ConsensusTest is Test {
    uint256 private constant UNIT = 1e14;

    struct Panel {
        uint256[][] scores; // by validator, by trainer
        bytes[] rows;
        uint256[] weights;
        uint256 columns;
        uint256 total;
    }

    /// @dev Some weights are 0 (and their rows empty); scores are coarse for odd seeds, so that many are equal.
    function _panel(uint256 seed) private pure returns (Panel memory panel) {
        uint256 m = 1 + seed % 13;
        panel.columns = (seed >> 8) % 20;
        (panel.scores, panel.rows, panel.weights) = (new uint256[][](m), new bytes[](m), new uint256[](m));
        for (uint256 j; j < m; ++j) {
            uint256 draw = uint256(keccak256(abi.encode(seed, j)));
            if (j != 0 && draw % 4 == 0) continue;
            panel.weights[j] = 1 + (draw >> 8) % 2 ** ((draw % 8) * 16 + 1);
            panel.total += panel.weights[j];
            panel.scores[j] = _scores(seed, j, panel.columns);
            panel.rows[j] = Rows.pack(panel.scores[j], 2);
        }
    }

    function _scores(uint256 seed, uint256 j, uint256 columns) private pure returns (uint256[] memory scores) {
        scores = new uint256[](columns);
        for (uint256 i; i < columns; ++i) {
            uint256 score = uint256(keccak256(abi.encode(seed, j, i))) % 10_001;
            scores[i] = seed & 1 << 200 == 0 ? score : 2_500 * (score / 2_500);
        }
    }

    function testFuzz_theMeanFollowsItsEquation(uint256 seed) public pure {
        Panel memory panel = _panel(seed);
        uint256[] memory means = Consensus.means(panel.rows, panel.weights, panel.columns);
        assertEq(means.length, panel.columns);
        for (uint256 i; i < panel.columns; ++i) {
            uint256 sum;
            for (uint256 j; j < panel.rows.length; ++j) {
                if (panel.weights[j] != 0) sum += panel.weights[j] * panel.scores[j][i];
            }
            assertEq(means[i], sum * UNIT / panel.total);
        }
    }

    /// @dev The definition: somebody's score, with half of the weight up to it, and with less than half below it.
    function testFuzz_theMedianFollowsItsDefinition(uint256 seed) public pure {
        Panel memory panel = _panel(seed);
        uint256[] memory medians = Consensus.medians(panel.rows, panel.weights, panel.columns);
        assertEq(medians.length, panel.columns);
        for (uint256 i; i < panel.columns; ++i) {
            (uint256 below, uint256 equal) = (0, 0);
            for (uint256 j; j < panel.rows.length; ++j) {
                if (panel.weights[j] == 0) continue;
                if (panel.scores[j][i] * UNIT < medians[i]) below += panel.weights[j];
                else if (panel.scores[j][i] * UNIT == medians[i]) equal += panel.weights[j];
            }
            assertLt(2 * below, panel.total);
            assertGe(2 * (below + equal), panel.total);
        }
    }

    function testFuzz_equalWeightsGiveTheMedianOfASort(uint256 seed) public pure {
        uint256 m = 1 + seed % 30;
        (bytes[] memory rows, uint256[] memory weights, uint256[] memory column) =
            (new bytes[](m), new uint256[](m), new uint256[](m));
        for (uint256 j; j < m; ++j) {
            uint256[] memory scores = _scores(seed, j, 1);
            (rows[j], weights[j], column[j]) = (Rows.pack(scores, 2), 7, scores[0]);
        }
        LibSort.sort(column);
        assertEq(Consensus.medians(rows, weights, 1)[0], column[(m - 1) / 2] * UNIT);
    }

    function test_theEndsOfTheScale() public pure {
        (bytes[] memory rows, uint256[] memory weights) = (new bytes[](3), new uint256[](3));
        (rows[0], rows[1], rows[2]) = (hex"00002710007f", hex"000027100080", hex"000027100081");
        (weights[0], weights[1], weights[2]) = (1, 1, 1);
        uint256[] memory medians = Consensus.medians(rows, weights, 3);
        assertEq(medians[0], 0);
        assertEq(medians[1], 1e18);
        assertEq(medians[2], 128 * UNIT, "on the border of two buckets");
        assertEq(Consensus.means(rows, weights, 3)[1], 1e18);
    }

    function testFuzz_theDistanceFollowsItsEquation(uint256 seed, uint256 standing) public pure {
        uint256 n = 1 + seed % 30;
        uint256[] memory scores = _scores(seed, 0, n);
        uint256[] memory consensus = _scores(seed, 1, n);
        uint256[] memory models = new uint256[](1 + standing % n); // the last so many, backwards
        uint256 sum;
        for (uint256 k; k < models.length; ++k) {
            uint256 place = n - 1 - k;
            models[k] = place << 64 | consensus[place] * UNIT;
            sum += _gap(scores[place], consensus[place]) * UNIT;
        }
        assertEq(Consensus.distance(Rows.pack(scores, 2), models), sum / models.length);
    }

    function _gap(uint256 a, uint256 b) private pure returns (uint256) {
        return a > b ? a - b : b - a;
    }
}
