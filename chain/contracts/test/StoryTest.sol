// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Charge} from "../src/interfaces/IChallengeManager.sol";
import {BaseModel, Run} from "../src/interfaces/IRuns.sol";
import {Anchor, Opening, Segment} from "../src/libraries/Transcript.sol";
import {CaseId, Ground, Phase, Role, RunId} from "../src/types/Types.sol";
import {BaseTest} from "./BaseTest.sol";
import {Tree} from "./helpers/Tree.sol";

/// @dev Plays parts of a task: three trainers, four validators, two delegators, and what each of them does. A larger cast
/// is appended to `trainers` and `validators`.
/// A trainer's state after segment i is a digest of its name and i, so transcripts join unless a test breaks them.
abstract contract StoryTest is BaseTest {
    uint64 internal constant SEGMENTS = 8;
    uint64 internal constant FIRST_ANCHOR = 5; // segments 0 to 4 in the first anchor, the rest in the second
    uint64 internal constant REFERENCE = 3; // the segment that marks branch from, unless the first anchor is shorter
    uint16 internal constant FINAL = 3;
    bytes32 internal constant SALT = keccak256("salt");

    address[] internal trainers;
    address[] internal validators;

    mapping(address trainer => Segment[]) internal segmentsOf;
    mapping(address trainer => RunId) internal runOf; // the latest
    mapping(address trainer => uint16) internal submittedIn; // the round of the latest commitment
    mapping(address trainer => uint64) internal stopAfter; // segments after which a run is stopped; 0 = it is completed

    function setUp() public virtual override {
        super.setUp();
        trainers = [alice, bob, mallory];
        validators = [vera, victor, viola, vance];
        for (uint256 i; i < trainers.length; ++i) {
            _stake(trainers[i], Role.Trainer, 1_000e18, 2_000);
            _writeTranscript(trainers[i]);
        }
        for (uint256 j; j < validators.length; ++j) {
            _stake(validators[j], Role.Validator, 500e18, 1_000);
        }
        _delegate(dora, alice, 300e18);
        _delegate(dan, alice, 100e18);
        _delegate(dan, vera, 200e18);
    }

    /* TRAINERS */

    function _state(address trainer, uint256 boundary) internal pure returns (bytes32) {
        return sha256(abi.encode("state", trainer, boundary));
    }

    function _writeTranscript(address trainer) internal {
        for (uint64 i; i < SEGMENTS; ++i) {
            segmentsOf[trainer].push(
                Segment({
                    index: i,
                    startStep: 10 * i,
                    endStep: i + 1 == SEGMENTS ? 75 : 10 * (i + 1),
                    startDigest: _state(trainer, i),
                    endDigest: _state(trainer, i + 1),
                    batchRoot: sha256(abi.encode("batches", trainer, i))
                })
            );
        }
    }

    function _leaf(Segment memory s) internal pure returns (bytes32) {
        bytes memory steps = abi.encodePacked(s.index, s.startStep, s.endStep);
        return sha256(abi.encodePacked("aiarena/segment/v1", steps, s.startDigest, s.endDigest, s.batchRoot));
    }

    function _leaves(address trainer, uint64 first, uint64 count) internal view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](count);
        for (uint64 i; i < count; ++i) {
            leaves[i] = _leaf(segmentsOf[trainer][first + i]);
        }
    }

    function _opening(address trainer, uint64 index) internal view returns (Opening memory opening) {
        bool early = index < FIRST_ANCHOR;
        (uint64 first, uint64 end) = early ? (0, _firstAnchorOf(trainer)) : (FIRST_ANCHOR, _endOf(trainer));
        opening.segment = segmentsOf[trainer][index];
        opening.anchorIndex = early ? 0 : 1;
        opening.siblings = Tree.siblings(_leaves(trainer, first, end - first), index - first);
    }

    function _endOf(address trainer) internal view returns (uint64) {
        return stopAfter[trainer] == 0 ? SEGMENTS : stopAfter[trainer];
    }

    function _firstAnchorOf(address trainer) internal view returns (uint64) {
        uint64 end = _endOf(trainer);
        return end < FIRST_ANCHOR ? end : FIRST_ANCHOR;
    }

    function _register(address trainer) internal {
        (bytes32 spec, bytes32 keys) = (sha256(abi.encode("spec", trainer)), sha256(abi.encode("keys", trainer)));
        vm.prank(trainer); // sha256 is a call: made after this it would take the prank
        runOf[trainer] = arena.registerRun(taskId, spec, keys, _noBase());
        _mine(3);
        arena.latchBeacon(runOf[trainer]);
    }

    function _noBase() internal pure returns (BaseModel memory base) {}

    function _run(address trainer) internal view returns (Run memory) {
        return arena.run(runOf[trainer]);
    }

    function _anchor(address trainer, uint64 first, uint64 count) internal {
        bytes32 root = Tree.root(_leaves(trainer, first, count));
        vm.prank(trainer);
        arena.anchor(runOf[trainer], first, count, root);
    }

    function _declareStop(address trainer, uint64 segments) internal {
        vm.prank(trainer);
        arena.declareStop(runOf[trainer], segments);
    }

    /// @dev The first anchor and the mark: as much as a submission needs.
    function _anchorSome(address trainer) internal {
        uint64 some = _firstAnchorOf(trainer);
        _anchor(trainer, 0, some);
        Opening memory opening = _opening(trainer, some <= REFERENCE ? some - 1 : REFERENCE);
        vm.prank(trainer);
        arena.anchorReference(runOf[trainer], opening);
        _mine(3);
        arena.latchMark(runOf[trainer]);
    }

    /// @dev The second anchor, and the stop if there is one: the run is whole.
    function _anchorRest(address trainer) internal {
        (uint64 some, uint64 all) = (_firstAnchorOf(trainer), _endOf(trainer));
        if (all > some) _anchor(trainer, some, all - some);
        if (all < SEGMENTS) _declareStop(trainer, all);
    }

    function _anchorAll(address trainer) internal {
        _anchorSome(trainer);
        _anchorRest(trainer);
    }

    /// @dev The whole run up to the point where a submission can be committed; in the submission phase.
    function _train(address trainer) internal {
        _register(trainer);
        _anchorAll(trainer);
    }

    /// @dev A trainer's model is another every round; `_model(trainer)` is that of the latest commitment.
    function _model(address trainer) internal view returns (bytes32) {
        return sha256(abi.encode("model", trainer, submittedIn[trainer]));
    }

    /// @dev What the trainer would commit in the current round.
    function _newModel(address trainer) internal view returns (bytes32) {
        return sha256(abi.encode("model", trainer, arena.currentRound(taskId)));
    }

    function _cid(address trainer) internal pure returns (string memory) {
        return string.concat("bafy-", vm.toString(trainer));
    }

    /// @dev Submissions branch from the reference.
    function _branch(address trainer) internal view returns (uint64) {
        return _run(trainer).referenceSegment;
    }

    function _commitmentTo(address trainer, bytes32 model) internal view returns (bytes32) {
        Run memory run = _run(trainer);
        bytes32 cid = sha256(bytes(_cid(trainer)));
        bytes32 domain = "aiarena/submission/v2";
        uint16 round = arena.currentRound(taskId);
        bytes memory whose =
            abi.encode(domain, block.chainid, address(arena), taskId, trainer, runOf[trainer], round);
        bytes memory what = abi.encode(run.referenceSegment, model, run.transcriptDigest, cid, SALT);
        return sha256(bytes.concat(whose, what));
    }

    function _commitModel(address trainer, bytes32 model) internal {
        bytes32 commitment = _commitmentTo(trainer, model);
        submittedIn[trainer] = arena.currentRound(taskId);
        vm.prank(trainer);
        arena.commitSubmission(runOf[trainer], commitment);
    }

    function _commitNewModel(address trainer) internal {
        _commitModel(trainer, _newModel(trainer));
    }

    function _revealModel(address trainer, bytes32 model) internal {
        (string memory cid, uint64 branch) = (_cid(trainer), _branch(trainer));
        vm.prank(trainer);
        arena.revealSubmission(taskId, submittedIn[trainer], branch, model, cid, SALT);
    }

    /* VALIDATORS */

    function _packed(uint16[] memory scores) internal pure returns (bytes memory packed) {
        for (uint256 i; i < scores.length; ++i) {
            packed = abi.encodePacked(packed, scores[i]);
        }
    }

    function _scoresCommitment(address validator, uint16 round, uint16[] memory scores)
        internal
        view
        returns (bytes32)
    {
        bytes32 domain = "aiarena/scores/v1";
        bytes32 row = sha256(_packed(scores));
        return sha256(abi.encode(domain, block.chainid, address(scoring), taskId, round, validator, row, SALT));
    }

    function _commitScores(address validator, uint16 round, uint16[] memory scores) internal {
        bytes32 commitment = _scoresCommitment(validator, round, scores);
        vm.prank(validator);
        scoring.commitScores(taskId, round, commitment);
    }

    function _revealScores(address validator, uint16 round, uint16[] memory scores) internal {
        vm.prank(validator);
        scoring.revealScores(taskId, round, _packed(scores), SALT);
    }

    /// @dev Scores of Alice, Bob and Mallory; whoever else trains has Bob's, which is a tie.
    function _row(uint16 a, uint16 b, uint16 m) internal view returns (uint16[] memory row) {
        row = new uint16[](trainers.length);
        (row[0], row[1], row[2]) = (a, b, m);
        for (uint256 i = 3; i < row.length; ++i) {
            row[i] = b;
        }
    }

    function _scoreAll(uint16 round, uint16[] memory scores) internal {
        vm.warp(_times(round).scoresFrom);
        for (uint256 j; j < validators.length; ++j) {
            _commitScores(validators[j], round, scores);
        }
        vm.warp(_times(round).revealFrom);
        for (uint256 j; j < validators.length; ++j) {
            _revealScores(validators[j], round, scores);
        }
    }

    function _openFinalSet() internal {
        vm.warp(_times(FINAL).opensAt);
        vm.prank(creator);
        scoring.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "bafy-final");
    }

    /// @dev In one chunk each; a round without anything to allocate is settled when it is ranked.
    function _settleRound(uint16 round) internal {
        vm.warp(_times(round).settleFrom);
        scoring.rankRound(taskId, round, trainers.length);
        if (scoring.progress(taskId, round).settled) return;
        scoring.payTrainers(taskId, round, trainers.length);
        scoring.weighValidators(taskId, round, validators.length);
        scoring.payValidators(taskId, round, validators.length);
    }

    /* THE STORY */

    /// @dev All but Mallory submit in round 1, she in round 2; everybody scores alike; all rounds are settled.
    function _playToChallenging() internal {
        _playToFinalScores();
        _settleRound(FINAL);
        _warpTo(Phase.Challenging);
    }

    function _playToFinalScores() internal {
        _warpTo(Phase.Submission);
        for (uint256 i; i < trainers.length; ++i) {
            if (trainers[i] == mallory) continue;
            _train(trainers[i]);
            _commitNewModel(trainers[i]);
        }
        vm.warp(_times(1).opensAt);
        for (uint256 i; i < trainers.length; ++i) {
            if (trainers[i] != mallory) _revealModel(trainers[i], _model(trainers[i]));
        }
        _train(mallory);
        _commitNewModel(mallory);
        _scoreAll(1, _row(9_000, 8_000, 0));
        _settleRound(1);

        vm.warp(_times(2).opensAt);
        _revealModel(mallory, _model(mallory));
        _scoreAll(2, _row(9_000, 8_000, 9_100));
        _settleRound(2);
        _openFinalSet();
        _scoreAll(FINAL, _row(9_000, 8_500, 8_900));
    }

    /* CASES */

    /// @dev That the trainer's latest submission does not replay; no segments named.
    function _charge(address trainer) internal view returns (Charge memory) {
        return Charge({
            trainer: trainer,
            round: submittedIn[trainer],
            ground: Ground.Replay,
            claim: RunId.wrap(0),
            evidenceDigest: keccak256("evidence"),
            named: new uint64[](0)
        });
    }

    function _seal(address challenger, Charge memory charge) internal returns (CaseId) {
        bytes32 domain = "aiarena/case/v1";
        bytes32 commitment =
            sha256(abi.encode(domain, block.chainid, address(manager), taskId, challenger, charge, SALT));
        vm.prank(challenger);
        return manager.sealCase(taskId, commitment);
    }

    function _show(CaseId caseId, address challenger, Charge memory charge) internal {
        vm.prank(challenger);
        manager.showCase(caseId, charge, SALT);
    }

    /// @dev Sealed and shown at once.
    function _openCase(address challenger, address trainer) internal returns (CaseId caseId) {
        Charge memory charge = _charge(trainer);
        caseId = _seal(challenger, charge);
        _show(caseId, challenger, charge);
    }

    function _openAndLatch(address challenger, address trainer) internal returns (CaseId caseId) {
        caseId = _openCase(challenger, trainer);
        _mine(3);
        manager.latchSeed(caseId);
    }

    function _drawnOpenings(CaseId caseId, address trainer) internal view returns (Opening[] memory openings) {
        uint64[] memory drawn = manager.segmentsToOpen(caseId);
        openings = new Opening[](drawn.length);
        for (uint256 k; k < drawn.length; ++k) {
            openings[k] = _opening(trainer, drawn[k]);
        }
    }

    function _respond(CaseId caseId, address trainer) internal {
        Opening[] memory openings = _drawnOpenings(caseId, trainer);
        vm.prank(trainer);
        manager.respond(caseId, openings, "bafy-bundle");
    }

    function _voteCommitment(CaseId caseId, address juror, bool uphold, bytes32 reproduction)
        internal
        view
        returns (bytes32)
    {
        bytes32 domain = "aiarena/vote/v1";
        return sha256(abi.encode(domain, block.chainid, address(manager), caseId, juror, uphold, reproduction, SALT));
    }

    function _commitVote(CaseId caseId, address juror, bool uphold, bytes32 reproduction) internal {
        bytes32 commitment = _voteCommitment(caseId, juror, uphold, reproduction);
        vm.prank(juror);
        manager.commitVote(caseId, commitment);
    }

    function _revealVote(CaseId caseId, address juror, bool uphold, bytes32 reproduction) internal {
        vm.prank(juror);
        manager.revealVote(caseId, uphold, reproduction, SALT);
    }

    function _anchorsOf(address trainer) internal view returns (Anchor[] memory) {
        return arena.anchors(runOf[trainer], 0, type(uint256).max);
    }
}
