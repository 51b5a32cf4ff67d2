// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Arena} from "../../src/Arena.sol";
import {ArenaToken} from "../../src/ArenaToken.sol";
import {ChallengeManager} from "../../src/ChallengeManager.sol";
import {RewardEscrow} from "../../src/RewardEscrow.sol";
import {Scoring} from "../../src/Scoring.sol";
import {StakeVault} from "../../src/StakeVault.sol";
import {Case, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {Budget} from "../../src/interfaces/IRewardEscrow.sol";
import {Run, Submission} from "../../src/interfaces/IRuns.sol";
import {Progress} from "../../src/interfaces/IScoring.sol";
import {Stretch} from "../../src/interfaces/IStakeVault.sol";
import {Court, Pay} from "../../src/interfaces/ITasks.sol";
import {CaseId, Phase, Role, TaskId, Verdict} from "../../src/types/Types.sol";
import {Handler} from "./Handler.sol";

/// @dev What holds after any sequence of actions, and that everybody gets out at the end. The laws are numbered as in
/// the README of the contracts; one about a single call, like "view equals action" (I23), is checked by the handler.
abstract contract Invariants is Test {
    uint256 private constant SUPPLY = 1_000_000e18;
    uint16 private constant ROUNDS = 3;
    TaskId private constant TASK = TaskId.wrap(1);

    Handler internal handler;
    ArenaToken private token;
    StakeVault private vault;
    RewardEscrow private escrow;
    Arena internal arena;
    Scoring private scoring;
    ChallengeManager internal manager;
    Pay private pay;
    Court private court;
    bytes32 private terms;

    address[] private people;
    address[] internal trainers;
    address[] private validators;
    address[] private operators;

    function setUp() public virtual {
        handler = new Handler();
        handler.setUp();
        manager = ChallengeManager(vm.computeCreateAddress(makeAddr("deployer"), 5));
        token = ArenaToken(address(manager.token()));
        vault = StakeVault(address(manager.vault()));
        escrow = RewardEscrow(address(manager.escrow()));
        arena = Arena(address(manager.arena()));
        scoring = Scoring(address(escrow.scoring()));
        people = handler.everybody();
        (pay, court, terms) = (arena.pay(TASK), arena.court(TASK), _terms());
        trainers = vault.operators(TASK, Role.Trainer);
        validators = vault.operators(TASK, Role.Validator);
        operators = validators;
        for (uint256 i; i < trainers.length; ++i) {
            operators.push(trainers[i]);
        }
        bytes4[] memory selectors = new bytes4[](3);
        (selectors[0], selectors[1]) = (Handler.act.selector, Handler.elapse.selector);
        selectors[2] = Handler.meddle.selector;
        targetContract(address(handler));
        targetSelector(FuzzSelector({addr: address(handler), selectors: selectors}));
    }

    function _terms() private view returns (bytes32) {
        return keccak256(abi.encode(arena.clock(TASK), arena.work(TASK), arena.pay(TASK), arena.court(TASK)));
    }

    /// @dev One campaign for all laws: most of the time goes into the lives. Each law's message begins with its name.
    function invariant_everyLawHolds() public view {
        assertEq(handler.violation(), "");
        _I1_theVaultHoldsThePrincipal();
        _I2_theEscrowHoldsTheRewards();
        _I3_theManagerHoldsBondsPotsAndCredits();
        _I4_theSupplyShrinksByWhatIsBurned();
        _I5_roundsAreSplitWholeAndPaidWithin();
        _I6_operatorAndDelegatorsShareTheReward();
        _I7_nothingIsPaidTooEarlyOrAfterAConviction();
        _I9_everyCreditHasItsReason();
        _I10_slashesAreOnceAndOfOwnStake();
        _I12_stakesWaitForCases();
        _I13_onlyTheDelegatorMovesADelegation();
        _I19_casesEndOnce();
        _I20_noRewardPassesTheSlash();
        _I21_seedsAreDrawnOnce();
        _I22_termsAreFrozen();
        _runsAreWholeOrDeclaredShorter();
    }

    /* MONEY */

    /// @dev What came in, less what left, less what was slashed.
    function _I1_theVaultHoldsThePrincipal() private view {
        uint256 slashed;
        for (uint256 i; i < operators.length; ++i) {
            slashed += vault.slashed(TASK, operators[i]);
        }
        assertEq(token.balanceOf(address(vault)), handler.vaultIn() - handler.vaultOut() - slashed, "I1");
    }

    /// @dev What came in, less what was paid, burned and forfeited; and that is all that is still due.
    function _I2_theEscrowHoldsTheRewards() private view {
        Budget memory books = escrow.budgetOf(TASK);
        uint256 held = token.balanceOf(address(escrow));
        uint256 forfeited;
        uint256 owed = books.deposit;
        if (!books.reclaimed) owed += uint256(books.budget) + books.sponsored - books.allocated;
        for (uint256 i; i < operators.length; ++i) {
            uint256 reward = escrow.allocated(TASK, operators[i]);
            if (escrow.forfeited(TASK, operators[i])) forfeited += reward;
            else owed += reward - handler.paidFor(operators[i]);
        }
        assertEq(held, handler.escrowIn() - handler.escrowOut() - forfeited, "I2: flows");
        assertEq(held, owed, "I2: debts");
    }

    function _I3_theManagerHoldsBondsPotsAndCredits() private view {
        uint256 held = handler.bondsPending();
        for (uint256 i; i < trainers.length; ++i) {
            held += handler.pot(trainers[i]);
        }
        for (uint256 p; p < people.length; ++p) {
            held += manager.credit(people[p]);
        }
        assertEq(token.balanceOf(address(manager)), held, "I3");
    }

    /// @dev Nothing is minted, every burn has a reason, and nothing is anywhere else.
    function _I4_theSupplyShrinksByWhatIsBurned() private view {
        assertEq(token.totalSupply(), SUPPLY - handler.burned(), "I4: burns");
        assertEq(token.balanceOf(address(arena)), handler.bondsHeld(), "I4: the bonds of runs");
        uint256 sum = token.balanceOf(address(vault)) + token.balanceOf(address(escrow))
            + token.balanceOf(address(manager)) + token.balanceOf(address(arena));
        for (uint256 p; p < people.length; ++p) {
            sum += token.balanceOf(people[p]);
        }
        assertEq(sum, token.totalSupply(), "I4: whereabouts");
    }

    /// @dev Trainers may get less than their pool (the cap, the convicted); validators miss theirs by under a wei each.
    function _I5_roundsAreSplitWholeAndPaidWithin() private view {
        (uint256 toTrainers, uint256 toValidators, uint256 settled) = (0, 0, 0);
        for (uint16 round = 1; round <= ROUNDS; ++round) {
            Progress memory state = scoring.progress(TASK, round);
            uint256 reward = (round == ROUNDS ? pay.finalReward : pay.roundReward) + escrow.sponsored(TASK, round);
            uint256 split = uint256(state.trainersPool) + state.validatorsPool;
            if (split != 0) assertEq(split, reward, "I5: split");
            toTrainers += state.trainersPool;
            toValidators += state.validatorsPool;
            if (state.settled && state.validatorsWeight != 0) settled += state.validatorsPool;
        }
        (uint256 trainersGot, uint256 validatorsGot) = (_allocated(trainers), _allocated(validators));
        assertLe(trainersGot, toTrainers, "I5: trainers");
        assertLe(validatorsGot, toValidators, "I5: validators");
        assertLe(settled, validatorsGot + ROUNDS * validators.length, "I5: dust");
        assertEq(escrow.budgetOf(TASK).allocated, trainersGot + validatorsGot, "I5: sum");
    }

    function _allocated(address[] storage list) private view returns (uint256 sum) {
        for (uint256 i; i < list.length; ++i) {
            sum += escrow.allocated(TASK, list[i]);
        }
    }

    /// @dev And I24: what is still due to all delegators and the operator is what is left, but for two wei a stretch.
    function _I6_operatorAndDelegatorsShareTheReward() private view {
        if (arena.phase(TASK) != Phase.Closed) return;
        for (uint256 i; i < operators.length; ++i) {
            address operator = operators[i];
            if (escrow.forfeited(TASK, operator) || manager.pendingCases(TASK, operator) != 0) continue;
            uint256 due = handler.paidFor(operator) + escrow.claimable(TASK, operator);
            uint256 stretches;
            for (uint256 p; p < people.length; ++p) {
                due += escrow.claimableDelegated(TASK, operator, people[p]);
                stretches += vault.delegationHistory(TASK, operator, people[p]).length;
            }
            assertLe(due, escrow.allocated(TASK, operator), "I6");
            assertLe(escrow.allocated(TASK, operator), due + 2 * stretches, "I24");
        }
    }

    /* CASES AND CONVICTIONS */

    function _I7_nothingIsPaidTooEarlyOrAfterAConviction() private view {
        bool closed = arena.phase(TASK) == Phase.Closed;
        for (uint256 i; i < operators.length; ++i) {
            address operator = operators[i];
            bool held = !closed || manager.pendingCases(TASK, operator) != 0 || escrow.forfeited(TASK, operator);
            if (!held) continue;
            assertEq(escrow.claimable(TASK, operator), 0, "I7: claimable");
            if (!closed || escrow.forfeited(TASK, operator)) assertEq(handler.paidFor(operator), 0, "I7: paid");
            for (uint256 p; p < people.length; ++p) {
                assertEq(escrow.claimableDelegated(TASK, operator, people[p]), 0, "I7: delegators");
            }
        }
    }

    /// @dev And I8: a conviction's reward is somebody's credit once, and never more than was allocated.
    function _I9_everyCreditHasItsReason() private view {
        for (uint256 p; p < people.length; ++p) {
            assertEq(manager.credit(people[p]), handler.creditDue(people[p]), "I9: bonds and awards");
        }
    }

    function _I10_slashesAreOnceAndOfOwnStake() private view {
        for (uint256 i; i < operators.length; ++i) {
            (, uint256 own) = vault.range(TASK, operators[i]);
            bool convicted = escrow.forfeited(TASK, operators[i]);
            assertEq(vault.slashed(TASK, operators[i]), convicted ? own * court.slashBps / 10_000 : 0, "I10");
        }
    }

    function _I12_stakesWaitForCases() private view {
        uint256[] memory pending = new uint256[](trainers.length);
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            if (case_.stage == Stage.Sealed || case_.stage == Stage.Settled) continue;
            (, uint256 own) = vault.range(TASK, case_.charge.trainer);
            uint256 reach = vault.slashable(TASK, case_.charge.trainer) + vault.slashed(TASK, case_.charge.trainer);
            assertEq(reach, own * court.slashBps / 10_000, "I12: out of reach");
            for (uint256 i; i < trainers.length; ++i) {
                if (case_.charge.trainer == trainers[i]) ++pending[i];
            }
        }
        for (uint256 i; i < trainers.length; ++i) {
            assertEq(manager.pendingCases(TASK, trainers[i]), pending[i], "I12: pending");
        }
    }

    function _I13_onlyTheDelegatorMovesADelegation() private view {
        for (uint256 i; i < operators.length; ++i) {
            for (uint256 p; p < people.length; ++p) {
                Stretch[] memory history = vault.delegationHistory(TASK, operators[i], people[p]);
                uint256 lent = history.length == 0 ? 0 : history[history.length - 1].amount;
                assertEq(lent, handler.lent(operators[i], people[p]), "I13: lent");
            }
        }
    }

    function _I19_casesEndOnce() private view {
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            Verdict booked = handler.booked(CaseId.wrap(k));
            assertEq(case_.stage == Stage.Settled, booked != Verdict.None, "I19: settled");
            if (booked != Verdict.None) assertEq(uint256(case_.verdict), uint256(booked), "I19: verdict");
            if (booked == Verdict.Upheld) assertTrue(escrow.forfeited(TASK, case_.charge.trainer), "I19: forfeited");
        }
    }

    /// @dev Over all rounds together: then a thief that challenges itself burns no less than it gets back.
    function _I20_noRewardPassesTheSlash() private view {
        for (uint256 i; i < trainers.length; ++i) {
            (, uint256 own) = vault.range(TASK, trainers[i]);
            assertLe(escrow.allocated(TASK, trainers[i]), own * court.slashBps / 10_000, "I20");
        }
    }

    function _I21_seedsAreDrawnOnce() private view {
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            CaseId caseId = CaseId.wrap(k);
            Case memory case_ = manager.caseOf(caseId);
            assertEq(case_.seed.value, handler.seedOf(caseId), "I21: seed");
            if (case_.seed.value == 0) continue;
            uint64[] memory segments = manager.segmentsToOpen(caseId);
            uint64 anchored = arena.run(case_.runId).anchored;
            uint256 named = case_.charge.named.length;
            for (uint256 a = named; a < segments.length; ++a) {
                assertLt(segments[a], anchored, "I21: range");
                for (uint256 b = named; b < a; ++b) {
                    assertNotEq(segments[a], segments[b], "I21: drawn twice");
                }
            }
        }
    }

    function _I22_termsAreFrozen() private view {
        assertEq(_terms(), terms, "I22");
    }

    /// @dev What stands in the final round comes from a run that is whole, or was declared to end where it does.
    function _runsAreWholeOrDeclaredShorter() private view {
        for (uint256 i; i < trainers.length; ++i) {
            uint64 order = arena.standingOrder(TASK, trainers[i], ROUNDS);
            if (order == 0) continue;
            for (uint16 round = 1; round < ROUNDS; ++round) {
                Submission memory made = arena.submission(TASK, trainers[i], round);
                if (made.order != order) continue;
                assertTrue(made.revealed && !made.struck, "runs: shown");
                Run memory run = arena.run(made.runId);
                assertEq(run.anchored, handler.endOf(trainers[i]), "runs: whole");
                assertEq(run.anchored, run.stopped == 0 ? arena.segmentCount(TASK) : run.stopped, "runs: declared");
            }
        }
    }

    /* THE WAY OUT */

    /// @dev I11 and I19: after the end every case can be settled and everybody gets everything out, in any order.
    function afterInvariant() public {
        _everybodyLeaves(uint256(keccak256(abi.encode(block.timestamp, token.totalSupply()))));
    }

    function _everybodyLeaves(uint256 order) private {
        if (arena.phase(TASK) != Phase.Closed) vm.warp(arena.phaseTimes(TASK).closedFrom);
        handler.settleAll();
        for (uint256 i; i < trainers.length; ++i) {
            handler.tidy(trainers[(i + order) % trainers.length]);
        }
        uint256 count = people.length;
        for (uint256 p; p < count; ++p) {
            handler.takeAll(people[(p * 5 + order) % count]); // 5 and 19 share no factor: everybody, once
        }
        invariant_everyLawHolds();
        assertEq(token.balanceOf(address(vault)), 0, "I11: vault");
        assertEq(token.balanceOf(address(manager)), 0, "I11: manager");
        assertEq(token.balanceOf(address(arena)), 0, "I11: arena");
        assertLe(token.balanceOf(address(escrow)), 2 * handler.loans(), "I11: escrow");
    }

    /* THE HANDLER */

    /// @dev The laws would hold for a handler that does nothing. What random lives came to: bit 0 a trainer was paid, 1 a
    /// run that ended early was shown, 2 to 5 a case was upheld, rejected, inconclusive, lapsed, 6 one was appealed, 7 one
    /// was served again, 8 a submission was struck, 9 a reward was cut by the cap.
    function _reached(uint256 lives, uint256 wanted) internal returns (uint256 seen) {
        vm.pauseGasMetering(); // the lives together pass the limit of one test
        uint256 start = vm.snapshotState();
        for (uint256 life; life < lives && seen & wanted != wanted; ++life) {
            for (uint256 step; step < 64; ++step) {
                _randomStep(uint256(keccak256(abi.encode(life, step))));
            }
            seen |= _seenOfCases() | _seenOfRuns();
            _everybodyLeaves(life);
            for (uint256 i; i < trainers.length; ++i) {
                if (handler.paidFor(trainers[i]) != 0) seen |= 1;
            }
            vm.revertToState(start);
        }
    }

    function _seenOfCases() private view returns (uint256 seen) {
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            if (case_.stage == Stage.Settled) seen |= 2 ** uint256(case_.verdict);
            if (case_.level != 0) seen |= 64;
            if (case_.servedAgain) seen |= 128;
        }
    }

    function _seenOfRuns() private view returns (uint256 seen) {
        for (uint256 i; i < trainers.length; ++i) {
            uint256 room = vault.slashable(TASK, trainers[i]);
            if (room != 0 && escrow.allocated(TASK, trainers[i]) == room) seen |= 512;
            for (uint16 round = 1; round < ROUNDS; ++round) {
                Submission memory made = arena.submission(TASK, trainers[i], round);
                if (made.struck) seen |= 256;
                if (made.revealed && arena.run(made.runId).stopped != 0) seen |= 2;
            }
        }
    }

    function _randomStep(uint256 seed) private {
        if (seed % 3 == 0) try handler.act(seed) {} catch {} else if (seed % 3 == 1) handler.elapse(seed);
        else handler.meddle(seed);
    }
}

/// @dev From registration.
/// forge-config: default.invariant.runs = 16
contract LifeInvariantsTest is Invariants {
    function test_theHandlerReachesPaymentEarlyStopsAndStrikes() public {
        assertEq(_reached(40, 259) & 259, 259);
    }
}

/// @dev From the challenging phase.
/// forge-config: default.invariant.runs = 16
contract DisputeInvariantsTest is Invariants {
    function setUp() public override {
        super.setUp();
        handler.skipToChallenging();
    }

    function test_theHandlerReachesEveryVerdictAppealsAndTheCap() public {
        assertEq(_reached(40, 764) & 764, 764);
    }
}
