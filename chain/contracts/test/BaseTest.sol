// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Arena} from "../src/Arena.sol";
import {ArenaToken} from "../src/ArenaToken.sol";
import {ChallengeManager} from "../src/ChallengeManager.sol";
import {RewardEscrow} from "../src/RewardEscrow.sol";
import {StakeVault} from "../src/StakeVault.sol";
import {IArena} from "../src/interfaces/IArena.sol";
import {IArenaToken} from "../src/interfaces/IArenaToken.sol";
import {IChallengeManager} from "../src/interfaces/IChallengeManager.sol";
import {IRewardEscrow} from "../src/interfaces/IRewardEscrow.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {PhaseTimes, RoundTimes, TaskConfig} from "../src/interfaces/ITasks.sol";
import {Phase, Role, TaskId} from "../src/types/Types.sol";

/// @dev The five contracts, one task, and the people of the story. Nobody has staked yet.
abstract contract BaseTest is Test {
    uint256 internal constant SUPPLY = 1_000_000e18;

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
        IChallengeManager manager_ = IChallengeManager(vm.computeCreateAddress(deployer, nonce + 4));
        vm.startPrank(deployer);
        token = new ArenaToken(SUPPLY);
        vault = new StakeVault(token_, arena_, manager_);
        escrow = new RewardEscrow(token_, arena_, manager_, vault_);
        arena = new Arena(token_, vault_, escrow_, manager_);
        manager = new ChallengeManager(token_, arena_, vault_, escrow_);
        vm.stopPrank();
    }

    function _fund(address account, uint256 amount) internal {
        vm.prank(deployer);
        token.transfer(account, amount);
        vm.startPrank(account);
        token.approve(address(arena), type(uint256).max);
        token.approve(address(vault), type(uint256).max);
        token.approve(address(manager), type(uint256).max);
        vm.stopPrank();
    }

    /// @dev 75 steps in segments of 10: eight segments, the last one short.
    function _config() internal view virtual returns (TaskConfig memory config) {
        config.programDigest = sha256("program");
        config.trainRoot = sha256("train");
        config.evalRoot = sha256("eval");
        config.finalSetCommitment = sha256(abi.encode(bytes32("aiarena/final-set/v1"), FINAL_ROOT, FINAL_SALT));
        config.start = uint64(block.timestamp + 1 hours);
        config.roundLength = 1 days;
        config.window = 2 hours;
        config.challengeLength = 3 days;
        config.steps = 75;
        config.segmentLength = 10;
        config.q = 0.8e18;
        config.alphaTrainer = 1e18;
        config.alphaValidator = 1e18;
        config.lambda = 5e18;
        config.gammaBps = 1_000;
        config.minTrainerStake = 100e18;
        config.minValidatorStake = 50e18;
        config.roundReward = 90e18;
        config.finalReward = 200e18;
        config.challengeBond = 20e18;
        config.openingCost = 2e18;
        config.sampledSegments = 3;
        config.burnBps = 1_000;
        config.slashBps = 10_000;
        config.answerWindow = 4 hours;
        config.voteWindow = 6 hours;
    }

    bytes32 internal constant FINAL_ROOT = keccak256("final root");
    bytes32 internal constant FINAL_SALT = keccak256("final salt");

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

    function _times(uint256 round) internal view returns (RoundTimes memory) {
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
