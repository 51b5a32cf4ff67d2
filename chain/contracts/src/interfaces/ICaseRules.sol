// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Opening} from "../libraries/Transcript.sol";
import {CaseId, RunId, TaskId} from "../types/Types.sol";

/// @notice Neighbouring leaves of a watermark key, opened: the seed and the salt of each, in order, and the nodes that
/// lead them to the key's root. A leaf is SHA256("aiarena/watermark-leaf/v1" || u64(index) || seed || salt).
struct LeafRange {
    bytes32[] secrets;
    bytes32[] siblings;
}

/// @notice The groups and the leaves a group of one channel of a watermark; channels number both through.
struct MarkChannel {
    uint32 groups;
    uint32 leaves;
}

/// @notice One 16 KiB block of one tensor of a state, by its digests (docs/spec/proof-format.md): `leaf` is
/// SHA256("aiarena/tensor-block/v1" || u64(index) || header || block) at `index` of `blocks`, and the tensor's root is
/// in SHA256("aiarena/named-tensor/v1" || u64(position) || root || header) at `position` of `tensors`.
/// @param header Length-prefixed name, dtype and shape.
struct BlockOpening {
    bytes header;
    bytes32 leaf;
    uint64 index;
    uint64 blocks;
    bytes32[] blockSiblings;
    uint64 position;
    uint64 tensors;
    bytes32[] tensorSiblings;
}

/// @title Case rules
/// @notice What code can decide of a case. Stateless; deployed by the ChallengeManager, which would pass the limit on
/// code size with it. A function returns if what it says holds, and reverts otherwise.
interface ICaseRules {
    /// @notice The answer opens `have` segments; `need` were drawn and named.
    error WrongOpeningCount(uint256 have, uint256 need);
    /// @notice Opening `k` is of another segment than asked for, or does not verify.
    error BadOpening(uint256 k);
    /// @notice The two segments do verify and join.
    error NoDiscontinuity();
    /// @notice The segment is what the terms say it must be.
    error NoBadBounds();
    /// @notice The block is the base model's, or the two openings are not of the same block of the same tensor.
    error NoWrongStart();
    /// @notice The task names no step verifier, or it does not refute the segment.
    error NotRefuted();
    /// @notice Range `k` of those given is not of leaves drawn next, or not in the key, or there are not so many to open,
    /// or none in it. (No range at all: k = 2^256 - 1.)
    error BadLeaf(uint256 k);
    /// @notice The challenger's own model was not committed before the challenged one.
    error NotEarlier(uint64 mine, uint64 theirs);

    /// @notice The segments of the run to open: those named, then those drawn by the beacon (Commitments.draws over
    /// the run's anchored segments, the named ones left out of nothing: a segment may be both, and is then opened
    /// twice). All of the run if it has no more than are sampled.
    function segmentsToOpen(CaseId caseId, RunId runId, bytes32 beacon, uint64[] calldata named)
        external
        view
        returns (uint64[] memory);

    /// @notice Whether the openings are those of `segments`, in order, and verify. WrongOpeningCount, BadOpening.
    function requireOpened(RunId runId, uint64[] calldata segments, Opening[] calldata openings) external view;

    /// @notice Whether b follows a but does not start where a ends. BadOpening, NoDiscontinuity.
    function requireDiscontinuity(RunId runId, Opening calldata a, Opening calldata b) external view;

    /// @notice Whether the leaf at `position` of its anchor has another index or other steps than the terms give it.
    /// BadOpening(0), NoBadBounds.
    function requireBadBounds(RunId runId, Opening calldata opening, uint64 position) external view;

    /// @notice Whether the run's first state has another block than the base model it promised. BadOpening(0),
    /// NoWrongStart.
    /// @param first Segment 0; its startDigest is the first state.
    /// @param mine The block in that state. Its header is base's with "model/" before the name.
    /// @param base The same block in the run's base model.
    /// @param block_ The base model's bytes (at most 16 KiB), which hash to base.leaf, and with mine.header not to
    /// mine.leaf.
    function requireWrongStart(
        RunId runId,
        Opening calldata first,
        BlockOpening calldata mine,
        BlockOpening calldata base,
        bytes calldata block_
    ) external view;

    /// @notice Whether the task's step verifier refutes the opened segment. BadOpening(0), NotRefuted.
    function requireRefuted(RunId runId, Opening calldata opening, bytes calldata proof) external view;

    /// @notice Whether the ranges are of those leaves, in order and from number `from` on, that the task's opening beacon
    /// draws from the key of run `claim`, whose first standing submission was committed before `order`. BadLeaf with the
    /// number of a range, NotEarlier, BeaconNotRequested.
    /// @dev min(32, groups) distinct groups: draw c = SHA256("aiarena/watermark-opening/v1" || beacon || keyRoot ||
    /// u64(c)) mod groups, repeats skipped (watermark/claim.py). The shape is what the challenger says, up to the number
    /// of leaves, which the key's root binds; that it is the spec's, jurors check by what LeavesOpened says.
    /// @return to Up to which of them they are opened now.
    /// @return all How many leaves are drawn.
    function requireLeaves(
        TaskId taskId,
        RunId claim,
        uint64 order,
        MarkChannel[] calldata shape,
        uint256 from,
        LeafRange[] calldata ranges
    ) external view returns (uint256 to, uint256 all);

    /// @notice How many of `count` draws hit points [from, from + own) of `total`: draw k is
    /// uint256(SHA256(abi.encode("aiarena/jury-draw/v1", beacon, caseId, level, k))) mod total.
    function jurorDraws(
        CaseId caseId,
        uint8 level,
        bytes32 beacon,
        uint256 count,
        uint256 from,
        uint256 own,
        uint256 total
    ) external pure returns (uint256);
}
