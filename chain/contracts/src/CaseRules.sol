// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IArena} from "./interfaces/IArena.sol";
import {BlockOpening, ICaseRules, LeafRange, MarkChannel} from "./interfaces/ICaseRules.sol";
import {Run} from "./interfaces/IRuns.sol";
import {IScoring} from "./interfaces/IScoring.sol";
import {IStepVerifier} from "./interfaces/IStepVerifier.sol";
import {Work} from "./interfaces/ITasks.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {MarkKey} from "./libraries/MarkKey.sol";
import {Tensors} from "./libraries/Tensors.sol";
import {Opening} from "./libraries/Transcript.sol";
import {BeaconNotRequested} from "./types/Errors.sol";
import {CaseId, RunId, TaskId} from "./types/Types.sol";

/// @title Case rules
/// @notice See ICaseRules.
contract CaseRules is ICaseRules {
    IArena public immutable arena;
    IScoring public immutable scoring;

    constructor(IArena arena_, IScoring scoring_) {
        arena = arena_;
        scoring = scoring_;
    }

    /* SEGMENTS */

    /// @inheritdoc ICaseRules
    function segmentsToOpen(CaseId caseId, RunId runId, bytes32 beacon, uint64[] calldata named)
        external
        view
        returns (uint64[] memory segments)
    {
        Run memory run = arena.run(runId);
        uint256 sampled = Math.min(arena.court(run.taskId).sampled, run.anchored);
        uint64[] memory drawn = Commitments.draws(caseId, beacon, sampled, run.anchored);
        segments = new uint64[](named.length + sampled);
        for (uint256 k; k < segments.length; ++k) {
            segments[k] = k < named.length ? named[k] : drawn[k - named.length];
        }
    }

    /// @inheritdoc ICaseRules
    function requireOpened(RunId runId, uint64[] calldata segments, Opening[] calldata openings) external view {
        if (openings.length != segments.length) revert WrongOpeningCount(openings.length, segments.length);
        for (uint256 k; k < segments.length; ++k) {
            _requireOpening(runId, openings[k], segments[k], k);
        }
    }

    /// @inheritdoc ICaseRules
    function requireDiscontinuity(RunId runId, Opening calldata a, Opening calldata b) external view {
        _requireOpening(runId, a, a.segment.index, 0);
        _requireOpening(runId, b, a.segment.index + 1, 1);
        if (a.segment.endDigest == b.segment.startDigest) revert NoDiscontinuity();
    }

    /// @inheritdoc ICaseRules
    function requireBadBounds(RunId runId, Opening calldata opening, uint64 position) external view {
        if (!arena.anchoredAt(runId, opening, position)) revert BadOpening(0);
        if (!arena.verifyOpening(runId, opening)) return;
        // It belongs where its index says; but the same leaf, beside itself in the tree, has the same path there as here.
        uint64 first = arena.anchors(runId, opening.anchorIndex, 1)[0].first;
        if (opening.segment.index - first == position) revert NoBadBounds();
    }

    /// @inheritdoc ICaseRules
    function requireRefuted(RunId runId, Opening calldata opening, bytes calldata proof) external view {
        _requireOpening(runId, opening, opening.segment.index, 0);
        Run memory run = arena.run(runId);
        Work memory work = arena.work(run.taskId);
        if (work.stepVerifier == address(0)) revert NotRefuted();
        IStepVerifier verifier = IStepVerifier(work.stepVerifier);
        if (!verifier.refutes(work.programDigest, run.specDigest, opening.segment, proof)) revert NotRefuted();
    }

    /// @dev Opening `k` must be of this segment, and verify.
    function _requireOpening(RunId runId, Opening calldata opening, uint64 segment, uint256 k) private view {
        if (opening.segment.index != segment || !arena.verifyOpening(runId, opening)) revert BadOpening(k);
    }

    /* FIRST STATE */

    /// @inheritdoc ICaseRules
    function requireWrongStart(
        RunId runId,
        Opening calldata first,
        BlockOpening calldata mine,
        BlockOpening calldata base,
        bytes calldata block_
    ) external view {
        _requireOpening(runId, first, 0, 0);
        if (!Tensors.contains(first.segment.startDigest, mine)) revert NoWrongStart();
        if (!Tensors.contains(arena.run(runId).baseDigest, base)) revert NoWrongStart();
        bool same = mine.index == base.index && mine.blocks == base.blocks;
        if (!same || !Tensors.isModels(mine.header, base.header)) revert NoWrongStart();
        if (Tensors.blockLeaf(base.index, base.header, block_) != base.leaf) revert NoWrongStart();
        if (Tensors.blockLeaf(mine.index, mine.header, block_) == mine.leaf) revert NoWrongStart();
    }

    /* LEAVES OF A WATERMARK */

    /// @inheritdoc ICaseRules
    function requireLeaves(
        TaskId taskId,
        RunId claim,
        uint64 order,
        MarkChannel[] calldata shape,
        uint256 from,
        LeafRange[] calldata ranges
    ) external view returns (uint256 to, uint256 all) {
        Run memory run = arena.run(claim);
        if (run.firstOrder == 0 || run.firstOrder >= order) revert NotEarlier(run.firstOrder, order);
        bytes32 beacon = scoring.openingBeacon(taskId).value;
        if (beacon == 0) revert BeaconNotRequested();
        (uint64[] memory drawn, uint256 count) = MarkKey.leavesToOpen(beacon, run.keyRoot, shape);
        (to, all) = (from, drawn.length);
        if (ranges.length == 0) revert BadLeaf(type(uint256).max);
        for (uint256 k; k < ranges.length; ++k) {
            uint256 end = to + ranges[k].secrets.length / 2;
            if (end == to || end > all || !_neighbours(drawn, to, end)) revert BadLeaf(k);
            if (!MarkKey.contains(run.keyRoot, count, drawn[to], ranges[k])) revert BadLeaf(k);
            to = end;
        }
    }

    /// @dev Whether the leaves drawn at [from, to) follow each other in the key.
    function _neighbours(uint64[] memory drawn, uint256 from, uint256 to) private pure returns (bool) {
        for (uint256 k = from + 1; k < to; ++k) {
            if (drawn[k] != drawn[k - 1] + 1) return false;
        }
        return true;
    }

    /* JURIES */

    /// @inheritdoc ICaseRules
    function jurorDraws(
        CaseId caseId,
        uint8 level,
        bytes32 beacon,
        uint256 count,
        uint256 from,
        uint256 own,
        uint256 total
    ) external pure returns (uint256 hits) {
        bytes32 domain = "aiarena/jury-draw/v1";
        for (uint256 k; k < count; ++k) {
            uint256 point = uint256(sha256(abi.encode(domain, beacon, caseId, level, k))) % total;
            if (point >= from && point < from + own) ++hits;
        }
    }
}
