// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Bond, IRuns} from "../../src/interfaces/IRuns.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {CasePending, WrongPhase} from "../../src/types/Errors.sol";
import {CaseId, Phase, RunId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev Of every bond one of two things happens, and never both: it is paid back, or it is burned.
contract RunBondsTest is StoryTest {
    uint256 private bond;

    function setUp() public override {
        super.setUp();
        bond = _pay().runBond;
        _warpTo(Phase.Submission);
    }

    function _alive(RunId runId) private {
        vm.expectRevert(abi.encodeWithSelector(IRuns.RunAlive.selector, runId));
        arena.voidRun(runId);
    }

    function _settled(RunId runId, Bond how) private {
        bytes memory refused = abi.encodeWithSelector(IRuns.BondSettled.selector, how);
        address trainer = arena.run(runId).trainer;
        vm.expectRevert(refused);
        arena.voidRun(runId);
        _warpTo(Phase.Closed);
        vm.prank(trainer);
        vm.expectRevert(refused);
        arena.releaseRunBond(runId);
    }

    function _burnedBy(RunId runId) private returns (uint256) {
        uint256 before = token.totalSupply();
        vm.prank(stranger);
        arena.voidRun(runId);
        return before - token.totalSupply();
    }

    function _releasedTo(address trainer, RunId runId) private returns (uint256) {
        uint256 before = token.balanceOf(trainer);
        vm.prank(trainer);
        arena.releaseRunBond(runId);
        return token.balanceOf(trainer) - before;
    }

    /// @dev In round 1, from a whole run.
    function _submit(address trainer) private {
        _train(trainer);
        _commitNewModel(trainer);
    }

    /* BURNED */

    function test_theBondOfARunThatNobodySeededIsBurned() public {
        vm.prank(alice);
        RunId runId = arena.registerRun(taskId, SALT, SALT, _noBase());
        uint256 promised = arena.run(runId).beacon.blockNumber;
        for (uint256 late; late <= 256; late += 64) {
            vm.roll(promised + late);
            _alive(runId);
        }
        vm.roll(promised + 257);
        vm.expectEmit(address(arena));
        emit IRuns.RunVoided(runId, bond);
        assertEq(_burnedBy(runId), bond);
        assertEq(uint256(arena.run(runId).bond), uint256(Bond.Burned));
        _settled(runId, Bond.Burned);
    }

    function test_theBondOfARunWhoseMarkWasLostIsBurned() public {
        _register(alice);
        _register(bob);
        _anchor(alice, 0, 1);
        RunId runId = runOf[alice];
        Opening memory opening; // the anchor has one segment
        opening.segment = segmentsOf[alice][0];
        vm.prank(alice);
        arena.anchorReference(runId, opening);
        uint256 promised = arena.run(runId).mark.blockNumber;
        vm.roll(promised + 256);
        _alive(runId);
        vm.roll(promised + 257);
        assertEq(_burnedBy(runId), bond);
        _alive(runOf[bob]);
    }

    /// @dev Bob abandons his run, Mallory does not reveal; Alice is the honest twin.
    function test_theBondOfARunFromWhichNothingCameIsBurned() public {
        _train(bob);
        _submit(mallory);
        _submit(alice);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        vm.warp(_times(2).scoresFrom - 1);
        _alive(runOf[bob]);
        _alive(runOf[mallory]);
        vm.warp(_times(2).scoresFrom);
        assertEq(_burnedBy(runOf[bob]), bond);
        assertEq(_burnedBy(runOf[mallory]), bond);
        _alive(runOf[alice]);
        _warpTo(Phase.Closed);
        assertEq(_releasedTo(alice, runOf[alice]), bond);
    }

    function test_aStruckSubmissionSavesNoBond() public {
        _submit(alice);
        _train(bob);
        _commitModel(bob, _model(alice));
        vm.warp(_times(1).opensAt);
        _revealModel(bob, _model(alice));
        _revealModel(alice, _model(alice));
        vm.warp(_times(2).scoresFrom);
        _alive(runOf[alice]);
        assertEq(_burnedBy(runOf[bob]), bond);
    }

    function test_aSubmissionSavesTheBondOfItsOwnRunOnly() public {
        _train(alice);
        RunId dropped = runOf[alice];
        _submit(alice);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        _warpTo(Phase.Closed);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRuns.BondForfeited.selector, dropped));
        arena.releaseRunBond(dropped);
        assertEq(_burnedBy(dropped), bond);
        assertEq(_releasedTo(alice, runOf[alice]), bond);
        assertEq(token.balanceOf(address(arena)), 0);
    }

    /// @dev All of Mallory's, whichever run the case was about. Nobody votes in Bob's case, so he is not convicted.
    function test_theBondsOfTheConvictedAreBurned() public {
        _submit(mallory);
        RunId first = runOf[mallory];
        _submit(bob);
        vm.warp(_times(1).opensAt);
        _revealModel(mallory, _model(mallory));
        _revealModel(bob, _model(bob));
        _submit(mallory);
        vm.warp(_times(2).opensAt);
        _revealModel(mallory, _model(mallory));
        _warpTo(Phase.Challenging);
        CaseId caseId = _openAndLatch(vera, mallory);
        CaseId twin = _openAndLatch(vera, bob);
        _respond(twin, bob);
        _alive(first);
        vm.warp(block.timestamp + _court().answerWindow);
        manager.settle(caseId); // unanswered
        assertEq(_burnedBy(first), bond);
        assertEq(_burnedBy(runOf[mallory]), bond);
        _alive(runOf[bob]);
        vm.warp(block.timestamp + 2 * _court().voteWindow + _court().appealWindow);
        manager.settle(twin);
        _warpTo(Phase.Closed);
        assertEq(_releasedTo(bob, runOf[bob]), bond);
        _settled(first, Bond.Burned);
    }

    /* RETURNED */

    function test_theBondComesBackOnceWhenAllIsOver() public {
        _submit(alice);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        RunId runId = runOf[alice];
        vm.warp(_phases().closedFrom - 1);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.Challenging, Phase.Closed));
        arena.releaseRunBond(runId);
        vm.warp(_phases().closedFrom);
        vm.expectEmit(address(arena));
        emit IRuns.RunBondReleased(runId, alice, bond);
        assertEq(_releasedTo(alice, runId), bond);
        assertEq(uint256(arena.run(runId).bond), uint256(Bond.Returned));
        _settled(runId, Bond.Returned);
    }

    function test_theBondWaitsForTheEndOfACase() public {
        _submit(alice);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        _warpTo(Phase.Challenging);
        CaseId caseId = _openAndLatch(vera, alice);
        _respond(caseId, alice);
        _warpTo(Phase.Closed);
        RunId runId = runOf[alice];
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(CasePending.selector, alice));
        arena.releaseRunBond(runId);
        manager.settle(caseId);
        assertEq(_releasedTo(alice, runId), bond);
    }

    /* ANY RUNS */

    /// @dev Any runs, brought any far: in the end each bond can go one way and only one, and the Arena is empty.
    function testFuzz_everyBondGoesOneWay(uint256 seed) public {
        uint256 supply = token.totalSupply();
        uint256 kept;
        RunId[] memory runs = new RunId[](1 + seed % 6);
        for (uint256 k; k < runs.length; ++k) {
            address trainer = trainers[(seed >> (8 * k)) % 3];
            if (_brought(trainer, (seed >> (64 + 8 * k)) % 4)) ++kept;
            runs[k] = runOf[trainer];
        }
        assertEq(token.balanceOf(address(arena)), runs.length * bond);
        _warpTo(Phase.Closed);
        vm.roll(vm.getBlockNumber() + 300);
        for (uint256 k; k < runs.length; ++k) {
            bool released = _tried(arena.run(runs[k]).trainer, abi.encodeCall(arena.releaseRunBond, (runs[k])));
            assertEq(_tried(stranger, abi.encodeCall(arena.voidRun, (runs[k]))), !released);
        }
        assertEq(token.balanceOf(address(arena)), 0);
        assertEq(supply - token.totalSupply(), (runs.length - kept) * bond);
    }

    /// @dev Registered, seeded, marked, or submitted and shown in a round of its own (if there is one left).
    function _brought(address trainer, uint256 stage) private returns (bool shown) {
        if (stage == 0) {
            vm.prank(trainer);
            runOf[trainer] = arena.registerRun(taskId, SALT, SALT, _noBase());
            return false;
        }
        _register(trainer);
        if (stage == 1) return false;
        _anchorSome(trainer);
        uint16 round = arena.currentRound(taskId);
        if (stage == 2 || round == 2) return false;
        _commitNewModel(trainer);
        vm.warp(_times(round).opensAt);
        _revealModel(trainer, _model(trainer));
        return true;
    }

    function _tried(address account, bytes memory data) private returns (bool succeeded) {
        vm.prank(account);
        (succeeded,) = address(arena).call(data);
    }
}
