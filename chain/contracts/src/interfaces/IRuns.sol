// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Anchor, Opening} from "../libraries/Transcript.sol";
import {Beacon, RunId, TaskId} from "../types/Types.sol";

/// @notice Where the bond of a run is.
enum Bond {
    None,
    Held,
    Returned,
    Burned
}

/// @notice One run: what it promised, what was drawn, what of it was anchored.
/// @param taskId The task; 0 = no such run.
/// @param trainer Who registered it.
/// @param bond Where its bond is.
/// @param firstOrder The commit order of the first revealed, unstruck submission of the run; 0 = none.
/// @param specDigest The promised training spec.
/// @param keyRoot Merkle root of the watermark key.
/// @param baseDigest The base model that training starts from; 0 = from the seed.
/// @param transcriptDigest The spec digest folded with every anchor.
/// @param anchored Segments anchored so far.
/// @param stopped Segments the run was declared to end with, fewer than the task promises; 0 = no stop was declared.
/// @param stopBlock The block of that declaration; 0 = none.
/// @param referenceSegment The trunk segment whose end the watermark branches from.
/// @param referenceDigest The state digest at that end; 0 = not named yet.
/// @param beacon Decides initialisation and data order; promised at registration. Its value is SHA256(abi.encode(
/// "aiarena/run-beacon/v1", the block's hash, run id)): no two runs share a seed.
/// @param mark Decides the watermark's bits; promised when the reference is named.
struct Run {
    TaskId taskId;
    address trainer;
    Bond bond;
    uint64 firstOrder;
    bytes32 specDigest;
    bytes32 keyRoot;
    bytes32 baseDigest;
    bytes32 transcriptDigest;
    uint64 anchored;
    uint64 stopped;
    uint64 stopBlock;
    uint64 referenceSegment;
    bytes32 referenceDigest;
    Beacon beacon;
    Beacon mark;
}

/// @notice What a trainer submitted in one round.
/// @param runId The run it comes from; 0 = nothing was committed.
/// @param order Its place among all commitments of the task, from 1.
/// @param anchored Segments of the run that were anchored when it was committed.
/// @param branch The trunk segment at whose end its branch leaves the trunk; 0 until revealed.
/// @param revealed Whether it was revealed.
/// @param struck Whether an earlier commitment to the same model came to light.
/// @param commitment The promise.
/// @param transcriptDigest The run's transcript digest when it was committed.
/// @param modelDigest The revealed model; 0 until then.
struct Submission {
    RunId runId;
    uint64 order;
    uint64 anchored;
    uint64 branch;
    bool revealed;
    bool struck;
    bytes32 commitment;
    bytes32 transcriptDigest;
    bytes32 modelDigest;
}

/// @notice A base model and its path in the task's list of accepted ones (Work.basesRoot).
/// @param digest The model's digest; 0 = none, the run starts from the seed.
struct BaseModel {
    bytes32 digest;
    uint64 position;
    uint64 count;
    bytes32[] siblings;
}

/// @title Runs and submissions
/// @notice Promise first, randomness after: a run is promised before its seed is drawn, its trunk is anchored as it
/// grows, the watermark's bits are drawn after the state they go into is anchored, and a model is committed before any
/// other is shown.
/// @dev A trainer may register several runs, each with a bond and a beacon of its own, and submits at most once a round,
/// naming a run and the segment of its trunk that the submission branches from. In a round the last revealed, unstruck
/// submission of it or an earlier round stands. In the final round it stands only if its run is whole: all the segments
/// that the task promises, or those that its trainer declared it ends with.
/// A beacon that nobody latched in time voids the run for good. The bond of a run that is void, or from which nothing
/// was revealed by the end of the last reveal window, or whose trainer was convicted, is burned: otherwise runs would
/// be registered by the dozen and the one with the luckiest seed kept. (A copier whose reveal is refused as a duplicate,
/// or struck, has revealed nothing.)
interface IRuns {
    /// @notice A run was promised; block `beaconBlock` will seed it.
    event RunRegistered(
        RunId indexed runId,
        TaskId indexed taskId,
        address indexed trainer,
        bytes32 specDigest,
        bytes32 keyRoot,
        bytes32 baseDigest,
        uint64 beaconBlock
    );
    /// @notice The run's seed is known.
    event BeaconLatched(RunId indexed runId, bytes32 beacon);
    /// @notice Segments [first, first + count) were promised; `transcriptDigest` now binds them.
    event Anchored(
        RunId indexed runId, uint64 anchorIndex, uint64 first, uint64 count, bytes32 root, bytes32 transcriptDigest
    );
    /// @notice The run was declared to end early, with `segments` segments instead of all that the task promises.
    event RunStopped(RunId indexed runId, uint64 segments);
    /// @notice The state the watermark goes into was named; block `markBlock` will draw the bits.
    event ReferenceAnchored(RunId indexed runId, uint64 segment, bytes32 digest, uint64 markBlock);
    /// @notice The watermark's bits are known.
    event MarkLatched(RunId indexed runId, bytes32 mark);
    /// @notice The run came to nothing; its bond of `burned` wei was destroyed.
    event RunVoided(RunId indexed runId, uint256 burned);
    /// @notice The trainer got the run's bond back.
    event RunBondReleased(RunId indexed runId, address indexed trainer, uint256 amount);
    /// @notice A model was promised as number `order` of the task.
    event SubmissionCommitted(
        TaskId indexed taskId,
        address indexed trainer,
        uint16 indexed round,
        RunId runId,
        uint64 order,
        bytes32 commitment
    );
    /// @notice A promised model was shown and stands, unless it is struck later.
    event SubmissionRevealed(
        TaskId indexed taskId,
        address indexed trainer,
        uint16 indexed round,
        uint64 branch,
        bytes32 modelDigest,
        string modelCid
    );
    /// @notice `trainer`'s revealed submission lost to `earlier`, who had committed to the same model before it.
    event SubmissionStruck(
        TaskId indexed taskId, address indexed trainer, uint16 indexed round, address earlier, bytes32 modelDigest
    );

    /// @notice There is no such run.
    error UnknownRun(RunId runId);
    /// @notice A digest or root that must be given is zero.
    error EmptyDigest();
    /// @notice The base model is not one that the task accepts.
    error BadBase(bytes32 baseDigest);
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
    /// @notice The run's bond was returned or burned before.
    error BondSettled(Bond bond);
    /// @notice The run is not void: its seed is known or can still be latched, and something may yet come of it.
    error RunAlive(RunId runId);
    /// @notice Nothing stands that was submitted from the run, or its trainer was convicted.
    error BondForfeited(RunId runId);
    /// @notice A submission was committed in this round before; one a trainer and round.
    error AlreadyCommitted();
    /// @notice No submission was committed in this round.
    error NothingCommitted();
    /// @notice The submission was revealed before.
    error AlreadyRevealed();
    /// @notice A submission branches at `low` (its reference) or later, and below `high` (anchored at its commitment).
    error BadBranch(uint64 low, uint64 high);
    /// @notice The revealed values do not hash to the caller's own commitment.
    error BadReveal();
    /// @notice `earlier` committed to the same model before.
    error DuplicateModel(bytes32 modelDigest, address earlier);

    /// @notice Promises a run (staked trainers, before submissions end) and thereby the block that seeds it. Takes
    /// Pay.runBond, for which the caller must have approved the Arena. In a task with free data before the first model
    /// is shown (roundTimes(1).opensAt), so that nobody picks data after having seen what others made.
    /// @param base A member of the task's list; all empty if the task has none.
    function registerRun(TaskId taskId, bytes32 specDigest, bytes32 keyRoot, BaseModel calldata base)
        external
        returns (RunId runId);

    /// @notice Draws the run's beacon from the hash of the block promised at registration. Anyone may call.
    function latchBeacon(RunId runId) external;

    /// @notice Promises segments [first, first + count) of the caller's trunk by their Merkle root record.
    function anchor(RunId runId, uint64 first, uint64 count, bytes32 root) external;

    /// @notice Declares that the caller's run ends early, with the segments anchored so far. Once, while it may anchor;
    /// no more are anchored afterwards, and whatever counts the run's segments counts these.
    /// @param segments How many they are, so that an anchor still on its way cannot change what is declared.
    function declareStop(RunId runId, uint64 segments) external;

    /// @notice Names the anchored end state that the watermark goes into, and thereby the block that draws its bits.
    function anchorReference(RunId runId, Opening calldata opening) external;

    /// @notice Stores the hash of the block promised with the reference. Anyone may call.
    function latchMark(RunId runId) external;

    /// @notice Burns the bond of a run that came to nothing: its beacon expired unlatched; or nothing from it stands
    /// after the reveal window of the last submission round; or its trainer was convicted. Anyone may call.
    function voidRun(RunId runId) external;

    /// @notice Pays the bond back to the run's trainer: closed, no case pending against it, not convicted, and a
    /// submission from the run was revealed and not struck. Trainer only.
    function releaseRunBond(RunId runId) external;

    /// @notice Promises the caller's model of the current round, from its run, whose mark is latched; once a round.
    /// @param commitment SHA256(abi.encode("aiarena/submission/v2", chainid, arena, taskId, trainer, runId, round,
    /// branch, modelDigest, transcriptDigest, SHA256(modelCid), salt)), the transcript digest being the run's now.
    function commitSubmission(RunId runId, bytes32 commitment) external;

    /// @notice Shows the model promised in `round`, in the window after it.
    /// @dev Of equal models the one committed first stands: a later one reverts with DuplicateModel, or is struck if it
    /// happened to be revealed first. Rejected, never convicted. Equal to one's own earlier model is refused likewise.
    function revealSubmission(
        TaskId taskId,
        uint16 round,
        uint64 branch,
        bytes32 modelDigest,
        string calldata modelCid,
        bytes32 salt
    ) external;

    /// @notice Everything known of a run; reverts with UnknownRun.
    function run(RunId runId) external view returns (Run memory);

    /// @notice The trainer's runs of a task, in the order registered.
    function runsOf(TaskId taskId, address trainer) external view returns (RunId[] memory);

    /// @notice The run's anchors from number `from` on, in order, `count` at most: there may be one a segment, more
    /// than a node reads in one call.
    function anchors(RunId runId, uint256 from, uint256 count) external view returns (Anchor[] memory);

    /// @notice Segments of the whole run: all that the task promises, or those it was declared to end with.
    function runSegments(RunId runId) external view returns (uint64);

    /// @notice What the trainer committed in `round`; all zero if nothing.
    function submission(TaskId taskId, address trainer, uint16 round) external view returns (Submission memory);

    /// @notice Commit order of the trainer's model that stands in `round` (1 to `rounds + 1`); 0 = none. Final once the
    /// round's reveal window is over (for the final round: the last submission round's).
    function standingOrder(TaskId taskId, address trainer, uint16 round) external view returns (uint64);

    /// @notice The same of all trainers, in staking order.
    function standingOrders(TaskId taskId, uint16 round) external view returns (uint64[] memory);

    /// @notice Whether the opened segment is the one anchored there, at the steps the task's terms give it.
    function verifyOpening(RunId runId, Opening calldata opening) external view returns (bool);

    /// @notice Whether the opened segment, whatever it says of itself, was anchored at leaf `position` of its anchor.
    /// (If it was and verifyOpening is false, the trainer anchored a segment that cannot be: a wrong count.)
    function anchoredAt(RunId runId, Opening calldata opening, uint64 position) external view returns (bool);
}
