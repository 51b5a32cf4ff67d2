// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Anchor, Opening} from "../libraries/Transcript.sol";
import {Beacon, TaskId} from "../types/Types.sol";

/// @notice One trainer's run in one task: what it promised, what was drawn, what it submitted.
/// @param specDigest The promised training spec; 0 = no run.
/// @param keyRoot Merkle root of the watermark key.
/// @param transcriptDigest The spec digest folded with every anchor.
/// @param anchored Segments anchored so far.
/// @param stopped Segments the run was declared to end with, fewer than the task promises; 0 = no stop was declared.
/// @param stopBlock The block of that declaration; 0 = none.
/// @param referenceSegment The trunk segment whose end the watermark branches from.
/// @param referenceDigest The state digest at that end; 0 = not named yet.
/// @param beacon Decides initialisation and data order; promised at registration.
/// @param mark Decides the watermark's bits; promised when the reference is named.
/// @param commitment The promised submission.
/// @param commitOrder Its place among all commitments of the task, from 1; 0 = none.
/// @param round The round it was committed in.
/// @param revealed Whether it was revealed.
/// @param struck Whether an earlier commitment to the same model came to light.
/// @param modelDigest The revealed model.
struct Run {
    bytes32 specDigest;
    bytes32 keyRoot;
    bytes32 transcriptDigest;
    uint64 anchored;
    uint64 stopped;
    uint64 stopBlock;
    uint64 referenceSegment;
    bytes32 referenceDigest;
    Beacon beacon;
    Beacon mark;
    bytes32 commitment;
    uint64 commitOrder;
    uint8 round;
    bool revealed;
    bool struck;
    bytes32 modelDigest;
}

/// @title Runs and submissions
/// @notice Promise first, randomness after: a run is promised before its seed is drawn, its trunk is anchored as it
/// grows, the watermark's bits are drawn after the state they go into is anchored, and a model is committed before any
/// other is shown.
/// @dev One run a trainer and task, one submission a run. A run has all the segments that its task promises, unless its
/// trainer declares that it ends early: then it has those anchored so far, for good. Nothing shorter is submitted.
/// A beacon that nobody latched in time voids the run for good, and whoever registers a run and never reveals a
/// submission forfeits the slashable share of its stake: otherwise runs would be registered under many names and the
/// one with the luckiest seed kept. (A copier whose reveal is refused as a duplicate has revealed nothing.)
interface IRuns {
    /// @notice A run was promised; block `beaconBlock` will seed it.
    event RunRegistered(
        TaskId indexed taskId, address indexed trainer, bytes32 specDigest, bytes32 keyRoot, uint64 beaconBlock
    );
    /// @notice The run's seed is known.
    event BeaconLatched(TaskId indexed taskId, address indexed trainer, bytes32 beacon);
    /// @notice Segments [first, first + count) were promised; `transcriptDigest` now binds them.
    event Anchored(
        TaskId indexed taskId,
        address indexed trainer,
        uint64 anchorIndex,
        uint64 first,
        uint64 count,
        bytes32 root,
        bytes32 transcriptDigest
    );
    /// @notice The run was declared to end early, with `segments` segments instead of all that the task promises.
    event RunStopped(TaskId indexed taskId, address indexed trainer, uint64 segments);
    /// @notice The state the watermark goes into was named; block `markBlock` will draw the bits.
    event ReferenceAnchored(
        TaskId indexed taskId, address indexed trainer, uint64 segment, bytes32 digest, uint64 markBlock
    );
    /// @notice The watermark's bits are known.
    event MarkLatched(TaskId indexed taskId, address indexed trainer, bytes32 mark);
    /// @notice A model was promised as number `order` of the task.
    event SubmissionCommitted(
        TaskId indexed taskId, address indexed trainer, uint256 round, uint64 order, bytes32 commitment
    );
    /// @notice A promised model was shown and stands, unless it is struck later.
    event SubmissionRevealed(
        TaskId indexed taskId, address indexed trainer, uint256 round, bytes32 modelDigest, string modelCid
    );
    /// @notice `trainer`'s revealed submission lost to `earlier`, who had committed to the same model before it.
    event SubmissionStruck(
        TaskId indexed taskId, address indexed trainer, address indexed earlier, bytes32 modelDigest
    );

    /// @notice `trainer` registered a run before; one a task.
    error RunExists(address trainer);
    /// @notice `trainer` registered no run.
    error UnknownRun(address trainer);
    /// @notice A digest or root that must be given is zero.
    error EmptyDigest();
    /// @notice The run has no seed yet: latch its beacon first.
    error BeaconNotLatched();
    /// @notice Anchors must continue at segment `have`, and end by segment `limit`.
    error BadAnchor(uint64 have, uint64 limit);
    /// @notice A run may end early with its `have` anchored segments only, if they are some but fewer than `limit`.
    error BadStop(uint64 have, uint64 limit);
    /// @notice The opened segment is not what was anchored there, or not at the steps of the terms.
    error BadOpeningProof();
    /// @notice The reference was named before, at the end of `segment`.
    error ReferenceExists(uint64 segment);
    /// @notice The watermark's bits are not drawn yet: name the reference and latch its mark first.
    error MarkNotLatched();
    /// @notice Only `have` of `need` segments are anchored.
    error TranscriptIncomplete(uint64 have, uint64 need);
    /// @notice A submission was committed before; one a run.
    error AlreadyCommitted();
    /// @notice No submission was committed.
    error NothingCommitted();
    /// @notice The submission was revealed before.
    error AlreadyRevealed();
    /// @notice The revealed values do not hash to the caller's own commitment.
    error BadReveal();
    /// @notice `earlier` committed to the same model before.
    error DuplicateModel(bytes32 modelDigest, address earlier);

    /// @notice Promises a run (staked trainers, before submissions end) and thereby the block that seeds it.
    function registerRun(TaskId taskId, bytes32 specDigest, bytes32 keyRoot) external;

    /// @notice Stores the hash of the block promised at registration. Anyone may call.
    function latchBeacon(TaskId taskId, address trainer) external;

    /// @notice Promises segments [first, first + count) of the caller's trunk by their Merkle root record.
    function anchor(TaskId taskId, uint64 first, uint64 count, bytes32 root) external;

    /// @notice Declares that the caller's run ends early, with the segments anchored so far. Once, while it may anchor;
    /// no more are anchored afterwards, and whatever counts the run's segments counts these.
    /// @param segments How many they are, so that an anchor still on its way cannot change what is declared.
    function declareStop(TaskId taskId, uint64 segments) external;

    /// @notice Names the anchored end state that the watermark goes into, and thereby the block that draws its bits.
    function anchorReference(TaskId taskId, Opening calldata opening) external;

    /// @notice Stores the hash of the block promised with the reference. Anyone may call.
    function latchMark(TaskId taskId, address trainer) external;

    /// @notice Promises the caller's model in the current round; whole run anchored, mark latched, once a run.
    /// @param commitment SHA256(abi.encode("aiarena/submission/v1", chainid, arena, taskId, trainer, modelDigest,
    /// transcriptDigest, SHA256(modelCid), salt)).
    function commitSubmission(TaskId taskId, bytes32 commitment) external;

    /// @notice Shows the promised model, in the window after the round it was committed in.
    /// @dev Of equal models the one committed first stands: a later one reverts with DuplicateModel, or is struck if it
    /// happened to be revealed first. Rejected, never convicted.
    function revealSubmission(TaskId taskId, bytes32 modelDigest, string calldata modelCid, bytes32 salt) external;

    /// @notice Everything known of a run; all zero if there is none.
    function run(TaskId taskId, address trainer) external view returns (Run memory);

    /// @notice The run's anchors, in order.
    function anchors(TaskId taskId, address trainer) external view returns (Anchor[] memory);

    /// @notice Segments of the trainer's whole run: all that the task promises, or those it was declared to end with.
    function runSegments(TaskId taskId, address trainer) external view returns (uint64);

    /// @notice Whether the trainer has a revealed, unstruck submission of `round` or an earlier one.
    function standing(TaskId taskId, address trainer, uint256 round) external view returns (bool);

    /// @notice Whether the trainer registered a run and revealed nothing (so far).
    function abandoned(TaskId taskId, address trainer) external view returns (bool);

    /// @notice Whether the opened segment is the one anchored there, at the steps the task's terms give it.
    function verifyOpening(TaskId taskId, address trainer, Opening calldata opening) external view returns (bool);
}
