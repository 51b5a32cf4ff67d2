// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns} from "../../src/interfaces/IRuns.sol";
import {IScoring} from "../../src/interfaces/IScoring.sol";
import {PhaseTimes} from "../../src/interfaces/ITasks.sol";
import {TooEarly, TooLate} from "../../src/types/Errors.sol";
import {Phase} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";
import {CrowdTest} from "../helpers/CrowdTest.sol";

/// @dev The invariants that are about one call, or about none.
contract CallLawsTest is StoryTest {
    /// @dev The phase is a function of time that never falls, whatever happened before.
    function testFuzz_I14_thePhaseFollowsFromTheTime(uint256 a, uint256 b) public {
        PhaseTimes memory times = _phases();
        a = bound(a, block.timestamp, times.closedFrom + 10 days);
        b = bound(b, a, times.closedFrom + 20 days);
        vm.warp(b);
        Phase late = arena.phase(taskId);
        vm.warp(a);
        Phase early = arena.phase(taskId);
        assertLe(uint256(early), uint256(late));
        bool closed = a >= times.closedFrom;
        assertEq(early == Phase.Closed, closed);
        assertEq(early == Phase.Registration, a < times.submissionFrom);
        assertEq(uint256(arena.currentRound(taskId)) == 0, early == Phase.Registration);
    }

    /// @dev A reveal of scores succeeds exactly in its window, to the second.
    function testFuzz_I14_aRevealSucceedsExactlyInItsWindow(uint256 when) public {
        (uint64 from, uint64 to) = (_times(1).revealFrom, _times(1).settleFrom);
        vm.warp(_times(1).scoresFrom);
        _commitScores(vera, 1, _row(1, 2, 3));
        bool edge = when % 2 == 0;
        when = edge ? (when % 4 == 0 ? from : to) - (when / 4) % 2 : bound(when, from - 1 hours, to + 1 hours);
        vm.warp(when);
        if (when < from) vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, from));
        if (when >= to) vm.expectRevert(abi.encodeWithSelector(TooLate.selector, to));
        _revealScores(vera, 1, _row(1, 2, 3));
    }

    /// @dev What is revealed is what the caller promised, of that run, in that round: any other field is refused, and the
    /// promise itself is then shown.
    function testFuzz_I15_aSubmissionIsItsPromise(uint256 field, uint256 noise) public {
        _warpTo(Phase.Submission);
        _train(alice);
        _train(bob);
        _commitNewModel(alice);
        bytes32 copied = _commitmentTo(alice, _model(alice));
        vm.prank(bob);
        arena.commitSubmission(runOf[bob], copied);
        (Shown memory right, Shown memory wrong) = (_promised(), _promised());
        vm.warp(_times(1).opensAt);
        vm.expectRevert(IRuns.BadReveal.selector);
        _reveal(bob, right); // every value right, but for whose it is

        field = bound(field, 0, 3);
        if (field == 0) wrong.branch = wrong.branch == 4 ? 3 : 4;
        if (field == 1) wrong.model = keccak256(abi.encode(noise));
        if (field == 2) wrong.cid = vm.toString(noise);
        if (field == 3) wrong.salt = keccak256(abi.encode(noise));
        vm.expectRevert(IRuns.BadReveal.selector);
        _reveal(alice, wrong);
        _reveal(alice, right);
        assertTrue(arena.submission(taskId, alice, 1).revealed);
    }

    struct Shown {
        uint64 branch;
        bytes32 model;
        string cid;
        bytes32 salt;
    }

    /// @dev What Alice committed to.
    function _promised() private view returns (Shown memory) {
        return Shown({branch: _branch(alice), model: _model(alice), cid: _cid(alice), salt: SALT});
    }

    function _reveal(address who, Shown memory shown) private {
        vm.prank(who);
        arena.revealSubmission(taskId, 1, shown.branch, shown.model, shown.cid, shown.salt);
    }

    /// @dev A row promised by one validator for one round is refused from another, in another, and with another score.
    function testFuzz_I15_scoresAreTheirPromise(uint16 a, uint16 b, uint256 column) public {
        uint16[] memory row = _row(uint16(bound(a, 0, 9_999)), uint16(bound(b, 0, 9_999)), 7);
        bytes32 promise_ = _scoresCommitment(vera, 1, row);
        vm.warp(_times(1).scoresFrom);
        vm.prank(vera);
        scoring.commitScores(taskId, 1, promise_);
        vm.prank(victor);
        scoring.commitScores(taskId, 1, promise_);
        vm.warp(_times(1).revealFrom);
        vm.prank(victor);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        scoring.revealScores(taskId, 1, _packed(row), SALT);
        ++row[column % 3];
        vm.prank(vera);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        scoring.revealScores(taskId, 1, _packed(row), SALT);
        --row[column % 3];
        _revealScores(vera, 1, row);
    }

    /// @dev Restated: there is nobody who could pause, own, upgrade or mint.
    function test_I22_nobodyRulesTheContracts() public {
        address[6] memory all =
            [address(token), address(vault), address(escrow), address(arena), address(scoring), address(manager)];
        string[14] memory powers = [
            "owner()",
            "admin()",
            "pause()",
            "unpause()",
            "paused()",
            "renounceOwnership()",
            "transferOwnership(address)",
            "grantRole(bytes32,address)",
            "setAuthority(address)",
            "upgradeTo(address)",
            "upgradeToAndCall(address,bytes)",
            "initialize()",
            "mint(address,uint256)",
            "setTerms(uint256)"
        ];
        for (uint256 c; c < all.length; ++c) {
            for (uint256 k; k < powers.length; ++k) {
                bytes memory data = abi.encodePacked(bytes4(keccak256(bytes(powers[k]))), new bytes(160));
                vm.prank(deployer);
                (bool succeeded,) = all[c].call(data);
                assertFalse(succeeded, powers[k]);
            }
        }
        (bool answers,) = address(token).call(abi.encodePacked(token.totalSupply.selector, new bytes(160)));
        assertTrue(answers, "what exists answers such a call");
    }
}

/// @dev Laws of a whole settlement.
contract RewardLawsTest is CrowdTest {
    /// @dev Whoever raises a model's scores never lowers its reward, by mean or by median.
    /// forge-config: default.fuzz.runs = 32
    function testFuzz_I17_betterScoresNeverPayLess(uint256 seed) public {
        _gather(seed, 2 + _draw(seed, "n", 0, 5), 1 + _draw(seed, "m", 0, 5));
        _stand(1, _orders(seed));
        uint256 i = _draw(seed, "raised", 0, trainers.length);
        bytes[] memory rows = _rows(seed);
        uint256 snapshot = vm.snapshotState();
        _score(1, rows, false);
        _settle(1);
        uint256 before = escrow.allocated(taskId, trainers[i]);
        vm.revertToState(snapshot);
        for (uint256 j; j < rows.length; ++j) {
            if (rows[j].length != 0) _raise(rows[j], i, 1 + _draw(seed, "by", j, 3_000));
        }
        _score(1, rows, false);
        _settle(1);
        assertGe(escrow.allocated(taskId, trainers[i]), before);
    }

    function _raise(bytes memory row, uint256 i, uint256 by) private pure {
        uint256 score = uint256(uint8(row[2 * i])) << 8 | uint8(row[2 * i + 1]);
        score = score + by > 10_000 ? 10_000 : score + by;
        (row[2 * i], row[2 * i + 1]) = (bytes1(uint8(score >> 8)), bytes1(uint8(score)));
    }
}
