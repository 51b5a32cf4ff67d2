// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Arena} from "../../src/Arena.sol";
import {ArenaToken} from "../../src/ArenaToken.sol";
import {ChallengeManager} from "../../src/ChallengeManager.sol";
import {RewardEscrow} from "../../src/RewardEscrow.sol";
import {StakeVault} from "../../src/StakeVault.sol";
import {Case} from "../../src/interfaces/IChallengeManager.sol";
import {Run} from "../../src/interfaces/IRuns.sol";
import {TaskConfig} from "../../src/interfaces/ITasks.sol";
import {CaseId, Phase, Role, TaskId, Verdict} from "../../src/types/Types.sol";
import {Handler} from "./Handler.sol";

/// @dev What holds after any sequence of actions, and that everybody gets out at the end.
abstract contract Invariants is Test {
    uint256 private constant SUPPLY = 1_000_000e18;
    TaskId private constant TASK = TaskId.wrap(1);

    Handler internal handler;
    ArenaToken private token;
    StakeVault private vault;
    RewardEscrow private escrow;
    Arena private arena;
    ChallengeManager internal manager;
    TaskConfig private config;

    address[] private people;
    address[] internal trainers;
    address[] private operators;

    function setUp() public virtual {
        handler = new Handler();
        handler.setUp();
        manager = ChallengeManager(vm.computeCreateAddress(makeAddr("deployer"), 4));
        token = ArenaToken(address(manager.token()));
        vault = StakeVault(address(manager.vault()));
        escrow = RewardEscrow(address(manager.escrow()));
        arena = Arena(address(manager.arena()));
        people = handler.everybody();
        config = arena.taskConfig(TASK);
        trainers = vault.operators(TASK, Role.Trainer);
        operators = vault.operators(TASK, Role.Validator);
        for (uint256 i; i < trainers.length; ++i) {
            operators.push(trainers[i]);
        }
        bytes4[] memory selectors = new bytes4[](3);
        (selectors[0], selectors[1]) = (Handler.act.selector, Handler.elapse.selector);
        selectors[2] = Handler.meddle.selector;
        targetContract(address(handler));
        targetSelector(FuzzSelector({addr: address(handler), selectors: selectors}));
    }

    /* LAWS */

    function invariant_everyLawHolds() public view {
        _whatIsSubmittedIsWholeOrDeclaredShorter();
        _vaultHoldsThePrincipal();
        _escrowHoldsTheRewards();
        _managerHoldsBondsAndCredits();
        _theSupplyShrinksByWhatIsBurned();
        _nobodyIsPaidForATrainerTooEarlyOrAfterAConviction();
        _rewardsStayWithinBudgetAndStake();
        assertEq(handler.violation(), "");
    }

    function _whatIsSubmittedIsWholeOrDeclaredShorter() private view {
        for (uint256 i; i < trainers.length; ++i) {
            Run memory run = arena.run(TASK, trainers[i]);
            assertLt(run.stopped, arena.segmentCount(TASK));
            if (run.stopped != 0) assertEq(run.anchored, run.stopped);
            if (run.commitOrder == 0) continue;
            assertEq(run.anchored, handler.endOf(trainers[i]));
            assertEq(run.anchored, arena.runSegments(TASK, trainers[i]));
        }
    }

    /// @dev I1: what came in, less what left, less what was slashed.
    function _vaultHoldsThePrincipal() private view {
        uint256 slashed;
        for (uint256 i; i < operators.length; ++i) {
            slashed += vault.slashed(TASK, operators[i]);
            for (uint256 p; p < people.length; ++p) {
                address delegator = people[p];
                uint256 lent = handler.lent(operators[i], delegator);
                assertEq(vault.delegationOf(TASK, operators[i], delegator), lent, "only the delegator changes it");
            }
        }
        assertEq(token.balanceOf(address(vault)), handler.vaultIn() - handler.vaultOut() - slashed);
    }

    /// @dev I2: the budget, less what was claimed, forfeited and reclaimed; enough for all that is still due.
    function _escrowHoldsTheRewards() private view {
        uint256 gone = handler.reclaimed();
        uint256 owed = escrow.budgetOf(TASK).budget - escrow.budgetOf(TASK).allocated - handler.reclaimed();
        for (uint256 i; i < operators.length; ++i) {
            uint256 reward = escrow.allocated(TASK, operators[i]);
            uint256 paid = handler.paidFor(operators[i]);
            bool forfeited = escrow.forfeited(TASK, operators[i]);
            gone += forfeited ? reward : paid;
            if (!forfeited) owed += reward - paid;
        }
        assertEq(token.balanceOf(address(escrow)), escrow.budgetOf(TASK).budget - gone);
        assertEq(token.balanceOf(address(escrow)), owed);
    }

    /// @dev I3 and I9.
    function _managerHoldsBondsAndCredits() private view {
        uint256 held;
        uint256[] memory pending = new uint256[](trainers.length);
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            if (case_.verdict != Verdict.Pending) continue;
            held += config.challengeBond;
            for (uint256 i; i < trainers.length; ++i) {
                if (case_.trainer == trainers[i]) ++pending[i];
            }
        }
        for (uint256 i; i < trainers.length; ++i) {
            assertEq(manager.pendingCases(TASK, trainers[i]), pending[i]);
        }
        for (uint256 p; p < people.length; ++p) {
            held += manager.credit(people[p]);
        }
        assertEq(token.balanceOf(address(manager)), held);
    }

    /// @dev I4: nothing is minted, and every burn has a reason.
    function _theSupplyShrinksByWhatIsBurned() private view {
        uint256 burned;
        for (uint256 i; i < operators.length; ++i) {
            burned += vault.slashed(TASK, operators[i]);
            if (!escrow.forfeited(TASK, operators[i])) continue;
            burned += escrow.allocated(TASK, operators[i]) * config.burnBps / 10_000;
        }
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Verdict verdict = manager.caseOf(CaseId.wrap(k)).verdict;
            if (verdict == Verdict.Lapsed) burned += config.challengeBond;
            if (verdict != Verdict.Rejected) continue;
            uint256 segments = handler.endOf(manager.caseOf(CaseId.wrap(k)).trainer);
            uint256 opened = segments < config.sampledSegments ? segments : config.sampledSegments;
            burned += config.challengeBond - config.openingCost * opened;
        }
        assertEq(token.totalSupply(), SUPPLY - burned);
        uint256 sum =
            token.balanceOf(address(vault)) + token.balanceOf(address(escrow)) + token.balanceOf(address(manager));
        for (uint256 p; p < people.length; ++p) {
            sum += token.balanceOf(people[p]);
        }
        assertEq(sum, token.totalSupply());
        assertEq(token.balanceOf(address(arena)), 0);
    }

    /// @dev I7.
    function _nobodyIsPaidForATrainerTooEarlyOrAfterAConviction() private view {
        bool closed = arena.phase(TASK) == Phase.Closed;
        for (uint256 i; i < operators.length; ++i) {
            if (!closed) assertEq(handler.paidFor(operators[i]) + escrow.claimable(TASK, operators[i]), 0);
        }
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            if (case_.verdict == Verdict.Pending) assertEq(escrow.claimable(TASK, case_.trainer), 0);
            if (case_.verdict != Verdict.Upheld) continue;
            assertTrue(escrow.forfeited(TASK, case_.trainer));
            assertEq(handler.paidFor(case_.trainer) + escrow.claimable(TASK, case_.trainer), 0);
            assertEq(vault.slashed(TASK, case_.trainer), vault.ownStake(TASK, case_.trainer), "slashBps is all");
        }
    }

    function _rewardsStayWithinBudgetAndStake() private view {
        assertLe(escrow.budgetOf(TASK).allocated, escrow.budgetOf(TASK).budget);
        for (uint256 i; i < trainers.length; ++i) {
            assertLe(escrow.allocated(TASK, trainers[i]), vault.ownStake(TASK, trainers[i]) * config.slashBps / 10_000);
        }
    }

    /* THE WAY OUT */

    /// @dev I11 and I19: after the end every case can be settled and everybody gets everything out, in any order.
    function afterInvariant() public {
        _everybodyLeaves(uint256(keccak256(abi.encode(block.timestamp, token.totalSupply()))));
    }

    function _everybodyLeaves(uint256 order) private {
        if (arena.phase(TASK) != Phase.Closed) vm.warp(arena.phaseTimes(TASK).closedFrom);
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            if (manager.caseOf(CaseId.wrap(k)).verdict == Verdict.Pending) manager.settle(CaseId.wrap(k));
        }
        uint256 count = people.length;
        for (uint256 p; p < count; ++p) {
            handler.takeAll(people[(p * 5 + order) % count]); // 5 and 12 share no factor: everybody, once
        }
        invariant_everyLawHolds();
        assertEq(token.balanceOf(address(vault)), 0);
        assertEq(token.balanceOf(address(manager)), 0);
        assertLt(token.balanceOf(address(escrow)), 14, "under a wei a delegator and operator");
    }

    /* THE HANDLER */

    /// @dev The laws would hold for a handler that does nothing. These bits say what random lives came to: 1 a trainer
    /// was paid, 2 a run that ended early was shown, 4 to 32 a case was upheld, rejected, inconclusive, lapsed.
    function _reached(uint256 lives, uint256 wanted) internal returns (uint256 seen) {
        uint256 start = vm.snapshotState();
        for (uint256 life; life < lives && seen & wanted != wanted; ++life) {
            for (uint256 step; step < 64; ++step) {
                _randomStep(uint256(keccak256(abi.encode(life, step))));
            }
            for (uint256 k = 1; k <= manager.caseCount(); ++k) {
                Verdict verdict = manager.caseOf(CaseId.wrap(k)).verdict;
                if (verdict != Verdict.Pending) seen |= 2 ** uint256(verdict);
            }
            _everybodyLeaves(life);
            for (uint256 i; i < trainers.length; ++i) {
                if (handler.paidFor(trainers[i]) != 0) seen |= 1;
                Run memory run = arena.run(TASK, trainers[i]);
                if (run.stopped != 0 && run.revealed) seen |= 2;
            }
            vm.revertToState(start);
        }
    }

    function _randomStep(uint256 seed) private {
        if (seed % 3 == 0) try handler.act(seed) {} catch {} else if (seed % 3 == 1) handler.elapse(seed);
        else handler.meddle(seed);
    }
}

/// @dev From registration.
contract LifeInvariantsTest is Invariants {
    function test_theHandlerReachesPaymentAndEarlyStops() public {
        assertEq(_reached(40, 3) & 3, 3);
    }
}

/// @dev From the challenging phase.
contract DisputeInvariantsTest is Invariants {
    function setUp() public override {
        super.setUp();
        handler.skipToChallenging();
    }

    function test_theHandlerReachesEveryVerdict() public {
        assertEq(_reached(40, 61) & 61, 61);
    }
}
