// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskConfig} from "../src/interfaces/ITasks.sol";
import {CaseId, Phase, Role, Verdict} from "../src/types/Types.sol";
import {StoryTest} from "./StoryTest.sol";

/// @dev The attack: a thief challenges itself under a second name to get its forfeited reward back. What is burned is
/// never less than what is redirected, whatever the terms, so the two names together never gain.
contract SelfChallengeTest is StoryTest {
    TaskConfig private config;

    function _play(uint256 slashBps, uint256 burnBps, uint256 rewards) private {
        config = _config();
        config.court.slashBps = uint16(bound(slashBps, 0, 10_000));
        config.court.burnBps = uint16(bound(burnBps, 0, 10_000));
        config.pay.roundReward = uint128(bound(rewards, 0, 3_000e18));
        config.pay.finalReward = uint128(bound(rewards >> 128, 0, 3_000e18));
        taskId = _createTask(config);
        for (uint256 i; i < trainers.length; ++i) {
            _stake(trainers[i], Role.Trainer, 1_000e18, 0);
        }
        for (uint256 j; j < validators.length; ++j) {
            _stake(validators[j], Role.Validator, 500e18, 0);
        }
        _playToChallenging();
    }

    function testFuzz_selfChallengeIsNotProfitable(uint256 slashBps, uint256 burnBps, uint256 rewards) public {
        _play(slashBps, burnBps, rewards);
        uint256 reward = escrow.allocated(taskId, mallory);
        assertLe(reward, vault.slashable(taskId, mallory));
        uint256 supply = token.totalSupply();

        CaseId caseId = _openAndLatch(vera, mallory); // Vera is Mallory
        vm.warp(block.timestamp + 4 hours);
        manager.settle(caseId);
        assertEq(uint256(manager.caseOf(caseId).verdict), uint256(Verdict.Upheld));

        _warpTo(Phase.Closed);
        _award();
        uint256 gained = manager.credit(vera) - config.court.bond;
        uint256 lost = vault.slashed(taskId, mallory);
        assertEq(gained, reward - reward * config.court.burnBps / 10_000);
        assertLe(gained, lost);
        assertEq(supply - token.totalSupply(), lost + reward * config.court.burnBps / 10_000, "the slash is burned whole");
    }

    function testFuzz_theCoalitionEndsNoRicherThanItBegan(uint256 slashBps, uint256 burnBps, uint256 rewards) public {
        _play(slashBps, burnBps, rewards);
        uint256 wages = escrow.allocated(taskId, vera); // what Vera earned by scoring is hers either way
        CaseId caseId = _openAndLatch(vera, mallory);
        vm.warp(block.timestamp + 4 hours);
        manager.settle(caseId);
        _warpTo(Phase.Closed);
        _award();
        uint256 before = 2 * 10_000e18 - 1_000e18 - 500e18; // both staked in the first task, which is still open
        _leave(mallory);
        _leave(vera);
        assertLe(token.balanceOf(mallory) + token.balanceOf(vera), before + wages);
    }

    /// @dev What a friend's case that ends inconclusive pays the thief, the friend has lost.
    function testFuzz_aWeakCaseOfOnesOwnGainsNothing(uint256 slashBps, uint256 burnBps, uint256 rewards) public {
        _play(slashBps, burnBps, rewards);
        CaseId caseId = _openAndLatch(vera, mallory);
        _respond(caseId, mallory);
        vm.warp(manager.caseOf(caseId).revealBy + config.court.appealWindow);
        manager.settle(caseId);
        assertEq(uint256(manager.caseOf(caseId).verdict), uint256(Verdict.Inconclusive));
        assertEq(manager.credit(mallory), config.court.openingCost * config.court.sampled);
        assertEq(manager.credit(vera) + manager.credit(mallory), config.court.bond);
    }

    /// @dev Nothing is awarded of nothing.
    function _award() private {
        uint256 reward = escrow.allocated(taskId, mallory);
        if (reward > reward * config.court.burnBps / 10_000) manager.award(taskId, mallory);
    }

    function _leave(address who) private {
        vm.startPrank(who);
        vault.withdraw(taskId);
        if (escrow.claimable(taskId, who) != 0) escrow.claim(taskId);
        if (manager.credit(who) != 0) manager.withdrawCredit();
        vm.stopPrank();
    }
}
