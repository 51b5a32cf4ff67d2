// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {ArenaToken} from "../../src/ArenaToken.sol";
import {ChallengeManager} from "../../src/ChallengeManager.sol";
import {IArena} from "../../src/interfaces/IArena.sol";
import {IArenaToken} from "../../src/interfaces/IArenaToken.sol";
import {Charge, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {IRewardEscrow} from "../../src/interfaces/IRewardEscrow.sol";
import {Run, Submission} from "../../src/interfaces/IRuns.sol";
import {IScoring} from "../../src/interfaces/IScoring.sol";
import {IStakeVault} from "../../src/interfaces/IStakeVault.sol";
import {Court, Work} from "../../src/interfaces/ITasks.sol";
import {Anchor, Opening, Segment} from "../../src/libraries/Transcript.sol";
import {CaseId, Ground, Role, RunId, TaskId, Verdict} from "../../src/types/Types.sol";
import {Tree} from "../helpers/Tree.sol";
import {ArenaDouble, EscrowDouble, ScoringDouble, VaultDouble} from "./Neighbours.sol";

/// @dev The court alone, with doubles of its neighbours: three trainers with whole runs of eight segments, submitted in
/// round 1, and four validators of 500 each. The challenging phase has just begun and lasts ten days.
abstract contract CourtTest is Test {
    uint64 internal constant SEGMENTS = 8;
    uint64 internal constant FIRST_ANCHOR = 5; // segments 0 to 4 in the first anchor, the rest in the second
    uint256 internal constant BOND = 20e18;
    uint256 internal constant COST = 2e18;
    uint256 internal constant REWARD = 100e18;
    bytes32 internal constant SALT = keccak256("salt");

    TaskId internal constant taskId = TaskId.wrap(1);
    address internal alice = makeAddr("alice");
    address internal bob = makeAddr("bob");
    address internal mallory = makeAddr("mallory");
    address internal vera = makeAddr("vera");
    address internal victor = makeAddr("victor");
    address internal viola = makeAddr("viola");
    address internal vance = makeAddr("vance");
    address internal stranger = makeAddr("stranger");
    address[] internal trainers = [alice, bob, mallory];
    address[] internal validators = [vera, victor, viola, vance];

    ArenaToken internal token = new ArenaToken(1_000_000e18);
    ArenaDouble internal arena = new ArenaDouble();
    VaultDouble internal vault = new VaultDouble(token, arena);
    EscrowDouble internal escrow = new EscrowDouble(token);
    ScoringDouble internal scoring = new ScoringDouble();
    ChallengeManager internal manager;

    mapping(address trainer => Segment[]) internal segmentsOf;

    function setUp() public virtual {
        manager = new ChallengeManager(
            IArenaToken(address(token)),
            IArena(address(arena)),
            IStakeVault(address(vault)),
            IRewardEscrow(address(escrow)),
            IScoring(address(scoring))
        );
        arena.setTerms(_courtTerms(), _workTerms(), uint64(block.timestamp + 10 days));
        token.transfer(address(vault), 10_000e18);
        token.transfer(address(escrow), 10_000e18);
        for (uint256 i; i < trainers.length; ++i) {
            vault.stake(trainers[i], Role.Trainer, 1_000e18);
            escrow.allot(trainers[i], REWARD);
            _writeTranscript(trainers[i]);
            _fund(trainers[i]);
        }
        for (uint256 j; j < validators.length; ++j) {
            vault.stake(validators[j], Role.Validator, 500e18);
            _fund(validators[j]);
        }
        _fund(stranger);
    }

    /// @dev Longest case: 2 + 3 * 4 + 3 * 6 = 32 hours, and 14 more for each appeal.
    function _courtTerms() internal view virtual returns (Court memory court) {
        court.bond = uint128(BOND);
        court.openingCost = uint128(COST);
        court.sampled = 3;
        court.named = 2;
        court.burnBps = 1_000;
        court.slashBps = 10_000;
        court.showWindow = 2 hours;
        court.answerWindow = 4 hours;
        court.voteWindow = 6 hours;
        court.appealWindow = 2 hours;
        court.jurors = 5;
        court.appeals = 0;
    }

    function _workTerms() internal view virtual returns (Work memory work) {
        work.programDigest = keccak256("program");
        (work.steps, work.segmentLength) = (75, 10);
    }

    function _fund(address account) private {
        token.transfer(account, 10_000e18);
        vm.prank(account);
        token.approve(address(manager), type(uint256).max);
    }

    /* RUNS */

    function _runOf(address trainer) internal view returns (RunId) {
        for (uint256 i; i < trainers.length; ++i) {
            if (trainers[i] == trainer) return RunId.wrap(i + 1);
        }
        revert("no run");
    }

    function _writeTranscript(address trainer) private {
        for (uint64 i; i < SEGMENTS; ++i) {
            segmentsOf[trainer].push(
                Segment({
                    index: i,
                    startStep: 10 * i,
                    endStep: i + 1 == SEGMENTS ? 75 : 10 * (i + 1),
                    startDigest: sha256(abi.encode("state", trainer, i)),
                    endDigest: sha256(abi.encode("state", trainer, i + 1)),
                    batchRoot: sha256(abi.encode("batches", trainer, i))
                })
            );
        }
    }

    /// @dev Anchors a trainer's segments, whatever a test made of them, and submits its model as number `order`.
    function _submit(address trainer, uint64 order) internal {
        _submit(trainer, order, SEGMENTS);
    }

    function _submit(address trainer, uint64 order, uint64 segments) internal {
        Run memory run;
        (run.taskId, run.trainer, run.firstOrder) = (taskId, trainer, order);
        run.specDigest = sha256(abi.encode("spec", trainer));
        _adjust(trainer, run);
        RunId runId = _runOf(trainer);
        arena.setRun(runId, run);
        uint64 first = segments < FIRST_ANCHOR ? segments : FIRST_ANCHOR;
        _anchor(trainer, 0, first);
        if (segments > first) _anchor(trainer, first, segments);
        Submission memory submission;
        (submission.runId, submission.order, submission.revealed) = (runId, order, true);
        arena.setSubmission(trainer, 1, submission);
    }

    /// @dev What a test wants to say of a run besides.
    function _adjust(address trainer, Run memory run) internal virtual {}

    function _anchor(address trainer, uint64 first, uint64 end) private {
        bytes32 root = Tree.root(_leaves(trainer, first, end));
        arena.addAnchor(_runOf(trainer), Anchor(first, end - first, uint64(block.number), root));
    }

    function _leaves(address trainer, uint64 first, uint64 end) internal view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](end - first);
        for (uint64 i = first; i < end; ++i) {
            Segment memory s = segmentsOf[trainer][i];
            bytes memory steps = abi.encodePacked(s.index, s.startStep, s.endStep);
            leaves[i - first] =
                sha256(abi.encodePacked("aiarena/segment/v1", steps, s.startDigest, s.endDigest, s.batchRoot));
        }
    }

    function _opening(address trainer, uint64 index) internal view returns (Opening memory opening) {
        uint64 anchored = arena.run(_runOf(trainer)).anchored;
        bool early = index < FIRST_ANCHOR;
        uint64 first = early ? 0 : FIRST_ANCHOR;
        uint64 end = early && anchored > FIRST_ANCHOR ? FIRST_ANCHOR : anchored;
        opening.segment = segmentsOf[trainer][index];
        opening.anchorIndex = early ? 0 : 1;
        opening.siblings = Tree.siblings(_leaves(trainer, first, end), index - first);
    }

    /* A CASE, STEP BY STEP */

    function _charge(address trainer) internal pure returns (Charge memory charge) {
        (charge.trainer, charge.round, charge.ground) = (trainer, 1, Ground.Replay);
        charge.evidenceDigest = keccak256("evidence");
    }

    function _sealed(address challenger, Charge memory charge) internal view returns (bytes32) {
        bytes32 domain = "aiarena/case/v1";
        return sha256(abi.encode(domain, block.chainid, address(manager), taskId, challenger, charge, SALT));
    }

    function _seal(address challenger, Charge memory charge) internal returns (CaseId) {
        bytes32 commitment = _sealed(challenger, charge);
        vm.prank(challenger);
        return manager.sealCase(taskId, commitment);
    }

    function _show(address challenger, Charge memory charge) internal returns (CaseId caseId) {
        caseId = _seal(challenger, charge);
        vm.prank(challenger);
        manager.showCase(caseId, charge, SALT);
    }

    function _draw(address challenger, Charge memory charge) internal returns (CaseId caseId) {
        caseId = _show(challenger, charge);
        _mine(3);
        manager.latchSeed(caseId);
    }

    function _draw(address challenger, address trainer) internal returns (CaseId) {
        return _draw(challenger, _charge(trainer));
    }

    function _answers(CaseId caseId, address trainer) internal view returns (Opening[] memory openings) {
        uint64[] memory segments = manager.segmentsToOpen(caseId);
        openings = new Opening[](segments.length);
        for (uint256 k; k < segments.length; ++k) {
            openings[k] = _opening(trainer, segments[k]);
        }
    }

    function _respond(CaseId caseId, address trainer) internal {
        Opening[] memory openings = _answers(caseId, trainer);
        vm.prank(trainer);
        manager.respond(caseId, openings, "bafy-bundle");
    }

    function _drawAndRespond(address challenger, address trainer) internal returns (CaseId caseId) {
        caseId = _draw(challenger, trainer);
        _respond(caseId, trainer);
    }

    /* VOTES */

    function _voteOf(CaseId caseId, address juror, bool uphold, bytes32 reproduction) internal view returns (bytes32) {
        bytes32 domain = "aiarena/vote/v1";
        return sha256(abi.encode(domain, block.chainid, address(manager), caseId, juror, uphold, reproduction, SALT));
    }

    function _commitVote(CaseId caseId, address juror, bool uphold, bytes32 reproduction) internal {
        bytes32 commitment = _voteOf(caseId, juror, uphold, reproduction);
        vm.prank(juror);
        manager.commitVote(caseId, commitment);
    }

    function _revealVote(CaseId caseId, address juror, bool uphold, bytes32 reproduction) internal {
        vm.prank(juror);
        manager.revealVote(caseId, uphold, reproduction, SALT);
    }

    function _voteUnavailable(CaseId caseId, address juror) internal {
        vm.prank(juror);
        manager.voteUnavailable(caseId);
    }

    /* WHERE IT STANDS */

    function _stageIs(CaseId caseId, Stage stage) internal view {
        assertEq(uint256(manager.caseOf(caseId).stage), uint256(stage), "stage");
    }

    function _verdictIs(CaseId caseId, Verdict verdict) internal view {
        assertEq(uint256(manager.caseOf(caseId).verdict), uint256(verdict), "verdict");
    }

    function _deadline(CaseId caseId) internal view returns (uint256) {
        return manager.caseOf(caseId).deadline;
    }

    function _settleAt(CaseId caseId, uint256 time, Verdict verdict) internal {
        vm.warp(time);
        vm.prank(stranger);
        manager.settle(caseId);
        _verdictIs(caseId, verdict);
    }

    /// @dev Nothing is left of the bonds but what somebody can withdraw.
    function _holdsCreditsOnly() internal view {
        uint256 owed = manager.credit(stranger);
        for (uint256 i; i < trainers.length; ++i) {
            owed += manager.credit(trainers[i]);
        }
        for (uint256 j; j < validators.length; ++j) {
            owed += manager.credit(validators[j]);
        }
        assertEq(token.balanceOf(address(manager)), owed, "credits");
    }

    function _mine(uint256 blocks) internal {
        vm.roll(vm.getBlockNumber() + blocks);
    }
}
