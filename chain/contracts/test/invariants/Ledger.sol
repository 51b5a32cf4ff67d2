// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Case} from "../../src/interfaces/IChallengeManager.sol";
import {Budget} from "../../src/interfaces/IRewardEscrow.sol";
import {Bond, Run, Submission} from "../../src/interfaces/IRuns.sol";
import {Court, Pay} from "../../src/interfaces/ITasks.sol";
import {CaseId, Role, RunId, Verdict} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev What the contracts should hold and owe, kept beside them by whoever acts, from the terms and from what was seen
/// to move. What must not happen and did is noted in `violation`.
abstract contract Ledger is StoryTest {
    string public violation;
    uint256 public vaultIn;
    uint256 public vaultOut; // by those it belongs to
    uint256 public escrowIn;
    uint256 public escrowOut; // claims, what the creator got back, and what burned with it; not what was redirected
    uint256 public burned;
    uint256 public loans;
    mapping(address operator => uint256) public paidFor;
    mapping(address operator => mapping(address delegator => uint256)) public lent;
    mapping(address account => uint256) public creditDue; // what it was ever owed, less what it took
    mapping(address trainer => uint256) public pot; // what a conviction brought and nobody was awarded yet
    mapping(address trainer => CaseId) internal firstUpheld;

    address[] internal people;
    address[] internal delegators;
    address internal sybil = makeAddr("sybil"); // validates, as Mallory likes it

    /// @dev Rewards that the cap cuts, a slash that leaves something, and one appeal.
    function _pay() internal pure override returns (Pay memory pay) {
        pay = super._pay();
        (pay.roundReward, pay.finalReward) = (600e18, 3_000e18);
    }

    function _court() internal pure override returns (Court memory court) {
        court = super._court();
        (court.slashBps, court.appeals) = (9_000, 1);
    }

    function setUp() public virtual override {
        super.setUp();
        _enlargeTheCast();
        vaultIn = token.balanceOf(address(vault));
        escrowIn = token.balanceOf(address(escrow));
        (lent[alice][dora], lent[alice][dan], lent[vera][dan], loans) = (300e18, 100e18, 200e18, 3);
    }

    /// @dev Five trainers, the thief among them; five validators, her sybil among them; six delegators.
    function _enlargeTheCast() private {
        people = [creator, alice, bob, mallory, vera, victor, viola, vance, dora, dan, stranger, deployer];
        delegators = [dora, dan];
        string[2] memory newTrainers = ["carol", "chris"];
        for (uint256 i; i < newTrainers.length; ++i) {
            trainers.push(_newcomer(newTrainers[i]));
            _stake(trainers[3 + i], Role.Trainer, 1_000e18, 2_000);
            _writeTranscript(trainers[3 + i]);
        }
        validators.push(_newcomer("sybil"));
        _stake(sybil, Role.Validator, 500e18, 1_000);
        string[4] memory newDelegators = ["della", "dina", "doug", "duke"];
        for (uint256 d; d < newDelegators.length; ++d) {
            delegators.push(_newcomer(newDelegators[d]));
        }
    }

    function _newcomer(string memory name) private returns (address account) {
        account = makeAddr(name);
        _fund(account, 10_000e18);
        people.push(account);
    }

    function everybody() external view returns (address[] memory) {
        return people;
    }

    function _draw(uint256 seed, string memory what, uint256 limit) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what))) % limit;
    }

    function _pick(address[] storage list, uint256 seed) internal view returns (address) {
        return list[_draw(seed, "who", list.length)];
    }

    function _check(bool holds, string memory what) internal {
        if (!holds) violation = what;
    }

    function _gained(address who, uint256 before) internal view returns (uint256) {
        return token.balanceOf(who) - before;
    }

    /* WHAT IS DUE */

    /// @dev Independent of the contracts' own idea: closed by the clock, and no case shown against it is open.
    function _isDue(address operator) internal view returns (bool) {
        for (uint256 k = 1; k <= manager.caseCount(); ++k) {
            Case memory case_ = manager.caseOf(CaseId.wrap(k));
            if (case_.charge.trainer == operator && case_.verdict == Verdict.Pending) return false;
        }
        return block.timestamp >= _phases().closedFrom;
    }

    /// @dev Whether something was shown from the run and stands.
    function bears(RunId runId) public view returns (bool) {
        address trainer = arena.run(runId).trainer;
        for (uint16 round = 1; round < FINAL; ++round) {
            Submission memory made = arena.submission(taskId, trainer, round);
            if (RunId.unwrap(made.runId) == RunId.unwrap(runId) && made.revealed && !made.struck) return true;
        }
        return false;
    }

    /* LEAVING */

    /// @dev Everything one account can take out; what is not (yet) due reverts inside and is skipped.
    function takeAll(address who) public {
        _takeStake(who);
        _takeReward(who);
        _takeCredit(who);
        _takeBack(who);
        for (uint256 i; i < trainers.length; ++i) {
            _takeDelegation(who, trainers[i]);
        }
        for (uint256 j; j < validators.length; ++j) {
            _takeDelegation(who, validators[j]);
        }
    }

    function _takeStake(address who) private {
        uint256 before = token.balanceOf(who);
        uint256 slashed = vault.slashed(taskId, who);
        (, uint256 own) = vault.range(taskId, who);
        vm.prank(who);
        try vault.withdraw(taskId) {
            vaultOut += _gained(who, before);
            _check(_isDue(who), "I12: a stake left before its time");
            _check(_gained(who, before) == own - slashed, "I10: another stake than what the slash left");
        } catch {}
    }

    function _takeReward(address who) private {
        uint256 due = escrow.claimable(taskId, who);
        uint256 before = token.balanceOf(who);
        vm.prank(who);
        try escrow.claim(taskId) {
            paidFor[who] += _gained(who, before);
            escrowOut += _gained(who, before);
            _check(_gained(who, before) == due, "I23: view and action disagree");
            _check(_isDue(who), "I7: a reward left before its time");
        } catch {
            _check(due == 0, "I23: a due reward was refused");
        }
    }

    function _takeDelegation(address who, address operator) private {
        uint256 before = token.balanceOf(who);
        vm.prank(who);
        try vault.undelegate(taskId, operator) {
            vaultOut += _gained(who, before);
            _check(_gained(who, before) == lent[operator][who], "I13: not the delegator's own");
        } catch {}
        uint256 due = escrow.claimableDelegated(taskId, operator, who);
        before = token.balanceOf(who);
        vm.prank(who);
        try escrow.claimDelegated(taskId, operator) {
            paidFor[operator] += _gained(who, before);
            escrowOut += _gained(who, before);
            _check(_gained(who, before) == due, "I23: view and action disagree");
            _check(_isDue(operator), "I7: a reward left before its time");
        } catch {
            _check(due == 0, "I23: a due reward was refused");
        }
    }

    function _takeCredit(address who) private {
        uint256 due = manager.credit(who);
        uint256 before = token.balanceOf(who);
        vm.prank(who);
        try manager.withdrawCredit() {
            creditDue[who] -= _gained(who, before);
            _check(_gained(who, before) == due, "I23: view and action disagree");
        } catch {
            _check(due == 0, "I23: a due credit was refused");
        }
    }

    function _takeBack(address who) private {
        Budget memory books = escrow.budgetOf(taskId);
        uint256 refund = books.budget > books.allocated ? books.budget - books.allocated : 0;
        uint256 spare = uint256(books.budget) + books.sponsored - books.allocated - refund;
        if (books.reclaimed) (refund, spare) = (0, 0);
        if (scoring.attested(taskId)) refund += books.deposit;
        uint256 before = token.balanceOf(who);
        vm.prank(who);
        try escrow.reclaim(taskId) {
            escrowOut += refund + spare;
            burned += spare;
            _check(who == creator && block.timestamp >= _phases().closedFrom, "I13: reclaimed too early or by another");
            _check(_gained(who, before) == refund, "I2: another refund than what is left");
        } catch {}
    }

    /// @dev What anyone may do for everybody once all is over.
    function tidy(address trainer) public {
        try escrow.burnDeposit(taskId) {
            escrowOut += _pay().deposit;
            burned += _pay().deposit;
            _check(!scoring.attested(taskId), "an attested creator lost its deposit");
        } catch {}
        try manager.award(taskId, trainer) {
            creditDue[manager.caseOf(firstUpheld[trainer]).challenger] += pot[trainer];
            pot[trainer] = 0;
            _check(_isDue(trainer), "I8: awarded before its time");
        } catch {}
        RunId[] memory runs = arena.runsOf(taskId, trainer);
        for (uint256 k; k < runs.length; ++k) {
            _endBond(runs[k], trainer);
        }
    }

    /// @dev A run that bears something keeps its bond unless its trainer is convicted, and no other run does.
    function _endBond(RunId runId, address trainer) private {
        bool kept = bears(runId) && !escrow.forfeited(taskId, trainer);
        try arena.voidRun(runId) {
            burned += _pay().runBond;
            Run memory run = arena.run(runId);
            bool seeded = run.beacon.value != 0 && (run.mark.value != 0 || run.mark.blockNumber == 0);
            _check(!kept && (!seeded || block.timestamp >= _times(FINAL - 1).scoresFrom), "a live run was voided");
        } catch {}
        uint256 before = token.balanceOf(trainer);
        vm.prank(trainer);
        try arena.releaseRunBond(runId) {
            _check(kept && _isDue(trainer), "a bond left that should burn or wait");
            _check(_gained(trainer, before) == _pay().runBond, "another bond than was paid");
        } catch {}
    }

    /// @dev Bonds that the Arena should hold.
    function bondsHeld() external view returns (uint256 held) {
        for (uint256 i; i < trainers.length; ++i) {
            RunId[] memory runs = arena.runsOf(taskId, trainers[i]);
            for (uint256 k; k < runs.length; ++k) {
                if (arena.run(runs[k]).bond == Bond.Held) held += _pay().runBond;
            }
        }
    }
}
