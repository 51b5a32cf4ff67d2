// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Anchor, Opening, Segment} from "../src/libraries/Transcript.sol";
import {CaseId, Phase, Role} from "../src/types/Types.sol";
import {BaseTest} from "./BaseTest.sol";
import {Tree} from "./helpers/Tree.sol";

/// @dev Plays parts of a task: three trainers, four validators, two delegators, and what each of them does.
/// A trainer's state after segment i is a digest of its name and i, so transcripts join unless a test breaks them.
abstract contract StoryTest is BaseTest {
    uint64 internal constant SEGMENTS = 8;
    uint64 internal constant FIRST_ANCHOR = 5; // segments 0 to 4 in the first anchor, the rest in the second
    bytes32 internal constant SALT = keccak256("salt");

    address[] internal trainers;
    address[] internal validators;

    mapping(address trainer => Segment[]) internal segmentsOf;
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
        arena.registerRun(taskId, spec, keys);
        _mine(3);
        arena.latchBeacon(taskId, trainer);
    }

    function _anchor(address trainer, uint64 first, uint64 count) internal {
        bytes32 root = Tree.root(_leaves(trainer, first, count));
        vm.prank(trainer);
        arena.anchor(taskId, first, count, root);
    }

    function _declareStop(address trainer, uint64 segments) internal {
        vm.prank(trainer);
        arena.declareStop(taskId, segments);
    }

    function _anchorAll(address trainer) internal {
        (uint64 some, uint64 all) = (_firstAnchorOf(trainer), _endOf(trainer));
        _anchor(trainer, 0, some);
        Opening memory opening = _opening(trainer, some < 4 ? some - 1 : 3);
        vm.prank(trainer);
        arena.anchorReference(taskId, opening);
        if (all > some) _anchor(trainer, some, all - some);
        if (all < SEGMENTS) _declareStop(trainer, all);
        _mine(3);
        arena.latchMark(taskId, trainer);
    }

    /// @dev The whole run up to the point where a submission can be committed; in the submission phase.
    function _train(address trainer) internal {
        _register(trainer);
        _anchorAll(trainer);
    }

    function _model(address trainer) internal pure returns (bytes32) {
        return sha256(abi.encode("model", trainer));
    }

    function _cid(address trainer) internal pure returns (string memory) {
        return string.concat("bafy-", vm.toString(trainer));
    }

    function _commitmentTo(address trainer, bytes32 model) internal view returns (bytes32) {
        bytes32 transcript = arena.run(taskId, trainer).transcriptDigest;
        bytes32 cid = sha256(bytes(_cid(trainer)));
        bytes32 domain = "aiarena/submission/v1";
        return sha256(abi.encode(domain, block.chainid, address(arena), taskId, trainer, model, transcript, cid, SALT));
    }

    function _commitModel(address trainer, bytes32 model) internal {
        bytes32 commitment = _commitmentTo(trainer, model);
        vm.prank(trainer);
        arena.commitSubmission(taskId, commitment);
    }

    function _revealModel(address trainer, bytes32 model) internal {
        string memory cid = _cid(trainer);
        vm.prank(trainer);
        arena.revealSubmission(taskId, model, cid, SALT);
    }

    /* VALIDATORS */

    function _scoresCommitment(address validator, uint256 round, uint16[] memory scores)
        internal
        view
        returns (bytes32)
    {
        bytes memory packed;
        for (uint256 i; i < scores.length; ++i) {
            packed = abi.encodePacked(packed, scores[i]);
        }
        bytes32 domain = "aiarena/scores/v1";
        return sha256(abi.encode(domain, block.chainid, address(arena), taskId, round, validator, sha256(packed), SALT));
    }

    function _commitScores(address validator, uint256 round, uint16[] memory scores) internal {
        bytes32 commitment = _scoresCommitment(validator, round, scores);
        vm.prank(validator);
        arena.commitScores(taskId, round, commitment);
    }

    function _revealScores(address validator, uint256 round, uint16[] memory scores) internal {
        vm.prank(validator);
        arena.revealScores(taskId, round, scores, SALT);
    }

    function _row(uint16 a, uint16 b, uint16 m) internal pure returns (uint16[] memory row) {
        row = new uint16[](3);
        (row[0], row[1], row[2]) = (a, b, m);
    }

    function _scoreAll(uint256 round, uint16[] memory scores) internal {
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
        vm.warp(_times(3).opensAt);
        vm.prank(creator);
        arena.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "bafy-final");
    }

    function _settleRound(uint256 round) internal {
        vm.warp(_times(round).settleFrom);
        arena.settleRound(taskId, round);
    }

    /* THE STORY */

    /// @dev Alice and Bob submit in round 1, Mallory in round 2; everybody scores alike; all rounds are settled.
    function _playToChallenging() internal {
        _playToFinalScores();
        _settleRound(3);
        _warpTo(Phase.Challenging);
    }

    function _playToFinalScores() internal {
        _warpTo(Phase.Submission);
        _train(alice);
        _train(bob);
        _commitModel(alice, _model(alice));
        _commitModel(bob, _model(bob));
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        _revealModel(bob, _model(bob));
        _train(mallory);
        _commitModel(mallory, _model(mallory));
        _scoreAll(1, _row(9_000, 8_000, 0));
        _settleRound(1);

        vm.warp(_times(2).opensAt);
        _revealModel(mallory, _model(mallory));
        _scoreAll(2, _row(9_000, 8_000, 9_100));
        _settleRound(2);
        _openFinalSet();
        _scoreAll(3, _row(9_000, 8_500, 8_900));
    }

    /* CASES */

    function _openCase(address challenger, address trainer) internal returns (CaseId caseId) {
        vm.prank(challenger);
        return manager.openCase(taskId, trainer, keccak256("evidence"));
    }

    function _openAndLatch(address challenger, address trainer) internal returns (CaseId caseId) {
        caseId = _openCase(challenger, trainer);
        _mine(3);
        manager.latchSeed(caseId);
    }

    function _drawnOpenings(CaseId caseId, address trainer) internal view returns (Opening[] memory openings) {
        uint64[] memory drawn = manager.sampledSegments(caseId);
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
        return arena.anchors(taskId, trainer);
    }
}
