// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {CaseId, Verdict} from "../../src/types/Types.sol";
import {CourtTest} from "./CourtTest.sol";

/// @dev Cases against runs that ended early: Alice's after five segments, Bob's after two, which are fewer than a case
/// samples. Mallory's run is complete.
contract StoppedRunsTest is CourtTest {
    function setUp() public override {
        super.setUp();
        _submit(alice, 1, 5);
        _submit(bob, 2, 2);
        _submit(mallory, 3);
    }

    function _drawsFrom(address trainer, uint64 segments, uint256 sampled) private {
        bool[] memory seen = new bool[](segments);
        uint256 count;
        for (uint256 n; n < 24; ++n) {
            uint64[] memory drawn = manager.segmentsToOpen(_draw(validators[n % 4], trainer));
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
        assertEq(count, segments, "every segment is drawn sometimes");
    }

    function test_segmentsAreDrawnFromThoseThatExist() public {
        _drawsFrom(alice, 5, 3);
        _drawsFrom(bob, 2, 2);
        _drawsFrom(mallory, SEGMENTS, 3);
    }

    function test_aShortRunAnswersAndIsPaidForWhatItOpened() public {
        CaseId caseId = _drawAndRespond(vera, bob);
        _commitVote(caseId, victor, false, 0);
        _commitVote(caseId, viola, false, 0);
        vm.warp(_deadline(caseId));
        _revealVote(caseId, victor, false, 0);
        _revealVote(caseId, viola, false, 0);
        _settleAt(caseId, manager.caseOf(caseId).revealBy, Verdict.Rejected);
        assertEq(manager.credit(bob), 2 * COST);
        _holdsCreditsOnly();
    }
}
