// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Arena} from "../src/Arena.sol";
import {ArenaToken} from "../src/ArenaToken.sol";
import {ChallengeManager} from "../src/ChallengeManager.sol";
import {RewardEscrow} from "../src/RewardEscrow.sol";
import {Scoring} from "../src/Scoring.sol";
import {StakeVault} from "../src/StakeVault.sol";
import {IArena} from "../src/interfaces/IArena.sol";
import {IArenaToken} from "../src/interfaces/IArenaToken.sol";
import {IChallengeManager} from "../src/interfaces/IChallengeManager.sol";
import {IRewardEscrow} from "../src/interfaces/IRewardEscrow.sol";
import {IScoring} from "../src/interfaces/IScoring.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {Clock, Court, Pay, PhaseTimes, RoundTimes, TaskConfig, Work} from "../src/interfaces/ITasks.sol";
import {Aggregator, Numerics, Phase, Role, TaskId} from "../src/types/Types.sol";

/// @dev The six contracts, one task, and the people of the story. Nobody has staked yet.
abstract contract BaseTest is Test {
    uint256 internal constant SUPPLY = 1_000_000e18;
    uint32 internal constant LEAST_WINDOW = 1 hours;
    bytes32 internal constant FINAL_ROOT = keccak256("final root");
    bytes32 internal constant FINAL_SALT = keccak256("final salt");

    address internal deployer = makeAddr("deployer");
    address internal creator = makeAddr("creator");
    address internal alice = makeAddr("alice");
    address internal bob = makeAddr("bob");
    address internal mallory = makeAddr("mallory");
    address internal vera = makeAddr("vera");
    address internal victor = makeAddr("victor");
    address internal viola = makeAddr("viola");
    address internal vance = makeAddr("vance");
    address internal dora = makeAddr("dora");
    address internal dan = makeAddr("dan");
    address internal stranger = makeAddr("stranger");

    ArenaToken internal token;
    StakeVault internal vault;
    RewardEscrow internal escrow;
    Arena internal arena;
    Scoring internal scoring;
    ChallengeManager internal manager;

    TaskId internal taskId;

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        vm.roll(10_000);
        _deploy();
        address[11] memory people = [creator, alice, bob, mallory, vera, victor, viola, vance, dora, dan, stranger];
        for (uint256 i; i < people.length; ++i) {
            _fund(people[i], 10_000e18);
        }
        taskId = _createTask(_config());
    }

    /// @dev Every address is known before the first contract exists: CREATE addresses follow from the nonce.
    function _deploy() internal {
        uint256 nonce = vm.getNonce(deployer);
        IArenaToken token_ = IArenaToken(vm.computeCreateAddress(deployer, nonce));
        IStakeVault vault_ = IStakeVault(vm.computeCreateAddress(deployer, nonce + 1));
        IRewardEscrow escrow_ = IRewardEscrow(vm.computeCreateAddress(deployer, nonce + 2));
        IArena arena_ = IArena(vm.computeCreateAddress(deployer, nonce + 3));
        IScoring scoring_ = IScoring(vm.computeCreateAddress(deployer, nonce + 4));
        IChallengeManager manager_ = IChallengeManager(vm.computeCreateAddress(deployer, nonce + 5));
        vm.startPrank(deployer);
        token = new ArenaToken(SUPPLY);
        vault = new StakeVault(token_, arena_, manager_);
        escrow = new RewardEscrow(token_, arena_, scoring_, manager_, vault_);
        arena = new Arena(token_, vault_, escrow_, scoring_, manager_, LEAST_WINDOW);
        scoring = new Scoring(arena_, vault_, escrow_);
        manager = new ChallengeManager(token_, arena_, vault_, escrow_, scoring_);
        vm.stopPrank();
    }

    function _fund(address account, uint256 amount) internal {
        vm.prank(deployer);
        token.transfer(account, amount);
        vm.startPrank(account);
        token.approve(address(arena), type(uint256).max);
        token.approve(address(vault), type(uint256).max);
        token.approve(address(escrow), type(uint256).max);
        token.approve(address(manager), type(uint256).max);
        vm.stopPrank();
    }

    function _config() internal view virtual returns (TaskConfig memory) {
        return TaskConfig({clock: _clock(), work: _work(), pay: _pay(), court: _court()});
    }

    /// @dev Two submission rounds, so the final round is the third.
    function _clock() internal view virtual returns (Clock memory) {
        return Clock({
            start: uint64(block.timestamp + 1 hours),
            roundLength: 1 days,
            window: 2 hours,
            challengeLength: 3 days,
            rounds: 2
        });
    }

    /// @dev 75 steps in segments of 10: eight segments, the last one short.
    function _work() internal pure virtual returns (Work memory) {
        return Work({
            programDigest: sha256("program"),
            trainRoot: sha256("train"),
            evalRoot: sha256("eval"),
            finalSetCommitment: sha256(abi.encode(bytes32("aiarena/final-set/v1"), FINAL_ROOT, FINAL_SALT)),
            basesRoot: 0,
            classesRoot: sha256("classes"),
            configBounds: 0,
            stepVerifier: address(0),
            numerics: Numerics.Machine,
            steps: 75,
            segmentLength: 10
        });
    }

    function _pay() internal pure virtual returns (Pay memory) {
        return Pay({
            aggregator: Aggregator.Mean,
            q: 0.8e18,
            alphaTrainer: 1e18,
            alphaValidator: 1e18,
            lambda: 5e18,
            gammaBps: 1_000,
            roundReward: 90e18,
            finalReward: 200e18,
            deposit: 30e18,
            minTrainerStake: 100e18,
            minValidatorStake: 50e18,
            maxTrainers: 8,
            maxValidators: 8,
            runBond: 10e18,
            minDelegation: 1e18
        });
    }

    /// @dev No appeals: the first jury is all validators.
    function _court() internal pure virtual returns (Court memory) {
        return Court({
            bond: 20e18,
            openingCost: 2e18,
            sampled: 3,
            named: 2,
            burnBps: 1_000,
            slashBps: 10_000,
            showWindow: 2 hours,
            answerWindow: 4 hours,
            voteWindow: 6 hours,
            appealWindow: 3 hours,
            jurors: 5,
            appeals: 0
        });
    }

    function _createTask(TaskConfig memory config) internal returns (TaskId) {
        vm.prank(creator);
        return arena.createTask(config, "bafy-task");
    }

    function _stake(address operator, Role role, uint128 amount, uint16 commission) internal {
        vm.prank(operator);
        vault.stake(taskId, role, amount, commission);
    }

    function _delegate(address delegator, address operator, uint128 amount) internal {
        vm.prank(delegator);
        vault.delegate(taskId, operator, amount);
    }

    function _phases() internal view returns (PhaseTimes memory) {
        return arena.phaseTimes(taskId);
    }

    function _times(uint16 round) internal view returns (RoundTimes memory) {
        return arena.roundTimes(taskId, round);
    }

    function _warpTo(Phase phase) internal {
        PhaseTimes memory times = _phases();
        if (phase == Phase.Submission) vm.warp(times.submissionFrom);
        if (phase == Phase.FinalValidation) vm.warp(times.finalFrom);
        if (phase == Phase.Challenging) vm.warp(times.challengeFrom);
        if (phase == Phase.Closed) vm.warp(times.closedFrom);
    }

    function _mine(uint256 blocks) internal {
        vm.roll(vm.getBlockNumber() + blocks);
    }
}
