// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Bond, IRuns} from "../../src/interfaces/IRuns.sol";
import {Commitments} from "../../src/libraries/Commitments.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {BeaconAlreadyRequested, BeaconExpired} from "../../src/types/Errors.sol";
import {Phase, RunId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev The attacks: many seeds are drawn and the luckiest is trained from; or a mark is drawn again because the first did
/// not please. A beacon is drawn once a run, so what is left is another run, and each that is dropped costs its bond.
/// Mallory attacks, Alice is the honest twin.
contract SeedGrindingTest is StoryTest {
    uint256 private bond;

    function setUp() public override {
        super.setUp();
        bond = _pay().runBond;
        _warpTo(Phase.Submission);
    }

    /* THE LUCKIEST OF MANY */

    /// @dev Twelve seeds for one model: eleven bonds. Alice's one seed costs nothing in the end.
    function test_everySeedThatIsDroppedCostsItsBond() public {
        (uint256 mallorys, uint256 alices) = (token.balanceOf(mallory), token.balanceOf(alice));
        for (uint256 k; k < 12; ++k) {
            _register(mallory);
        }
        RunId[] memory runs = arena.runsOf(taskId, mallory);
        RunId lucky = runs[_lowest(runs)];
        runOf[mallory] = lucky;
        _anchorAll(mallory);
        _train(alice);
        _commitNewModel(mallory);
        _commitNewModel(alice);
        vm.warp(_times(1).opensAt);
        _revealModel(mallory, _model(mallory));
        _revealModel(alice, _model(alice));

        _warpTo(Phase.Closed);
        for (uint256 k; k < runs.length; ++k) {
            if (RunId.unwrap(runs[k]) != RunId.unwrap(lucky)) arena.voidRun(runs[k]);
        }
        vm.prank(mallory);
        arena.releaseRunBond(lucky);
        RunId honest = runOf[alice];
        vm.prank(alice);
        arena.releaseRunBond(honest);
        assertEq(mallorys - token.balanceOf(mallory), 11 * bond);
        assertEq(token.balanceOf(alice), alices);
    }

    function _lowest(RunId[] memory runs) private view returns (uint256 best) {
        for (uint256 k = 1; k < runs.length; ++k) {
            if (arena.run(runs[k]).beacon.value < arena.run(runs[best]).beacon.value) best = k;
        }
    }

    /// @dev Shown a seed she does not like, she lets it pass unlatched: the run is dead, and its bond is anyone's to burn.
    function test_aSeedIsNotDrawnAgainByWaiting() public {
        vm.prank(mallory);
        RunId runId = arena.registerRun(taskId, SALT, SALT, _noBase());
        uint256 promised = arena.run(runId).beacon.blockNumber;
        vm.roll(promised + 257);
        vm.expectRevert(abi.encodeWithSelector(BeaconExpired.selector, promised));
        arena.latchBeacon(runId);
        vm.prank(stranger);
        arena.voidRun(runId);
        assertEq(uint256(arena.run(runId).bond), uint256(Bond.Burned));
        vm.expectRevert(abi.encodeWithSelector(BeaconExpired.selector, promised));
        arena.latchBeacon(runId); // nor afterwards
    }

    /// @dev Nor can she keep her run from being seeded: anybody may latch it.
    function test_aSeedThatDoesNotPleaseIsLatchedByOthers() public {
        vm.prank(mallory);
        RunId runId = arena.registerRun(taskId, SALT, SALT, _noBase());
        uint256 promised = arena.run(runId).beacon.blockNumber;
        _mine(3);
        vm.prank(stranger);
        arena.latchBeacon(runId);
        assertEq(arena.run(runId).beacon.value, Commitments.runBeacon(runId, blockhash(promised)));
    }

    /// @dev Equal promises made in one block are two runs with two seeds, and cost two bonds.
    function test_twoPromisesOfOneBlockAreTwoSeedsAndTwoBonds() public {
        vm.startPrank(mallory);
        RunId first = arena.registerRun(taskId, SALT, SALT, _noBase());
        RunId second = arena.registerRun(taskId, SALT, SALT, _noBase());
        vm.stopPrank();
        assertEq(arena.run(first).beacon.blockNumber, arena.run(second).beacon.blockNumber);
        _mine(3);
        arena.latchBeacon(first);
        arena.latchBeacon(second);
        assertNotEq(arena.run(first).beacon.value, arena.run(second).beacon.value);
        assertEq(token.balanceOf(address(arena)), 2 * bond);
    }

    /* ANOTHER MARK */

    function test_aMarkIsDrawnOnceARun() public {
        _register(mallory);
        _anchorSome(mallory);
        RunId runId = runOf[mallory];
        uint256 promised = arena.run(runId).mark.blockNumber;
        Opening memory another = _opening(mallory, REFERENCE - 1);
        vm.prank(mallory);
        vm.expectRevert(abi.encodeWithSelector(IRuns.ReferenceExists.selector, REFERENCE));
        arena.anchorReference(runId, another);
        _mine(300);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised));
        arena.latchMark(runId);
    }

    /// @dev An unlatched mark is lost, and the whole trunk with it; the honest twin latched it, and submits.
    function test_aMarkIsNotDrawnAgainByWaiting() public {
        _train(alice);
        _register(mallory);
        _anchor(mallory, 0, FIRST_ANCHOR);
        RunId runId = runOf[mallory];
        Opening memory opening = _opening(mallory, REFERENCE);
        vm.prank(mallory);
        arena.anchorReference(runId, opening);
        vm.roll(arena.run(runId).mark.blockNumber + 257);
        vm.startPrank(mallory);
        vm.expectRevert(abi.encodeWithSelector(IRuns.ReferenceExists.selector, REFERENCE));
        arena.anchorReference(runId, opening);
        vm.expectRevert(IRuns.MarkNotLatched.selector);
        arena.commitSubmission(runId, SALT);
        vm.stopPrank();
        arena.voidRun(runId);
        _commitNewModel(alice);
    }

    /* SELECTIVE ABORT */

    /// @dev Everything is trained, only the best is shown: the others' bonds burn, and an unrevealed promise saves none.
    function test_whatIsTrainedAndNotShownCostsItsBond() public {
        _train(mallory);
        RunId dropped = runOf[mallory];
        _commitNewModel(mallory); // in round 1, never revealed
        vm.warp(_times(1).opensAt);
        _train(mallory);
        RunId shown = runOf[mallory];
        _commitNewModel(mallory);
        vm.warp(_times(2).opensAt);
        _revealModel(mallory, _model(mallory));
        assertEq(arena.standingOrder(taskId, mallory, FINAL), 2);
        vm.warp(_times(2).scoresFrom);
        arena.voidRun(dropped);
        vm.expectRevert(abi.encodeWithSelector(IRuns.RunAlive.selector, shown));
        arena.voidRun(shown);
        assertEq(token.balanceOf(address(arena)), bond);
    }
}
