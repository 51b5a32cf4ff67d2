// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IChallengeManager} from "../../src/interfaces/IChallengeManager.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {CaseId, Verdict} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev Cases against runs that were declared to end early: Alice after five segments, Bob after two, which are fewer
/// than a case samples. Mallory's run is complete.
contract StoppedRunsTest is StoryTest {
    uint64 private constant SAMPLED = 3;

    function setUp() public override {
        super.setUp();
        (stopAfter[alice], stopAfter[bob]) = (5, 2);
        _playToChallenging();
    }

    function _drawsFrom(address trainer, uint64 segments, uint256 sampled) private {
        bool[] memory seen = new bool[](segments);
        uint256 count;
        for (uint256 n; n < 24; ++n) {
            uint64[] memory drawn = manager.sampledSegments(_openAndLatch(validators[n % 4], trainer));
            assertEq(drawn.length, sampled);
            for (uint256 k; k < drawn.length; ++k) {
                assertLt(drawn[k], segments);
                for (uint256 j; j < k; ++j) {
                    assertNotEq(drawn[j], drawn[k]);
                }
                if (!seen[drawn[k]]) ++count;
                seen[drawn[k]] = true;
            }
        }
        assertEq(count, segments, "every segment is drawn some time");
    }

    function test_casesDrawFromTheDeclaredSegments() public {
        _drawsFrom(alice, 5, SAMPLED);
        _drawsFrom(mallory, SEGMENTS, SAMPLED);
    }

    function test_aRunShorterThanTheSampleIsOpenedWhole() public {
        _drawsFrom(bob, 2, 2);
        CaseId caseId = _openAndLatch(vera, bob);
        Opening[] memory openings = _drawnOpenings(caseId, bob);
        Opening[] memory one = new Opening[](1);
        one[0] = openings[0];
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.WrongOpeningCount.selector, 1, 2));
        manager.respond(caseId, one, "");
        _respond(caseId, bob);
    }

    function test_aRejectedCasePaysForWhatWasOpened() public {
        CaseId[3] memory cases = [_openAndLatch(vera, alice), _openAndLatch(vera, bob), _openAndLatch(vera, mallory)];
        for (uint256 i; i < 3; ++i) {
            _respond(cases[i], trainers[i]);
            for (uint256 j = 1; j < validators.length; ++j) {
                _commitVote(cases[i], validators[j], false, 0);
            }
        }
        vm.warp(block.timestamp + 6 hours);
        for (uint256 i; i < 3; ++i) {
            for (uint256 j = 1; j < validators.length; ++j) {
                _revealVote(cases[i], validators[j], false, 0);
            }
        }
        uint256 supply = token.totalSupply();
        vm.warp(block.timestamp + 6 hours);
        for (uint256 i; i < 3; ++i) {
            manager.settle(cases[i]);
            assertEq(uint256(manager.caseOf(cases[i]).verdict), uint256(Verdict.Rejected));
        }
        assertEq(manager.credit(alice), 3 * 2e18);
        assertEq(manager.credit(bob), 2 * 2e18);
        assertEq(manager.credit(mallory), 3 * 2e18);
        assertEq(token.totalSupply(), supply - (3 * 20e18 - 8 * 2e18));
    }

    function test_silenceIsADefaultJudgementOfAStoppedRunToo() public {
        CaseId caseId = _openAndLatch(vera, bob);
        vm.warp(block.timestamp + 4 hours);
        manager.settle(caseId);
        assertEq(uint256(manager.caseOf(caseId).verdict), uint256(Verdict.Upheld));
    }
}
