// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Opening} from "../libraries/Transcript.sol";
import {Beacon, CaseId, TaskId, Verdict} from "../types/Types.sol";

/// @notice A dispute over one trainer's submission.
/// @param evidenceDigest What the challenger claims to hold.
/// @param latchBy The seed must be latched before this time.
/// @param answerBy The trainer must answer before this time; 0 until the seed is latched.
/// @param commitBy Votes are committed before this time; 0 until the trainer has answered.
/// @param revealBy Votes are revealed from commitBy until before this time.
/// @param reproduced Whether two jurors who voted to uphold named the same reproduction.
/// @param upholdWeight Own stake of the jurors who voted to uphold.
/// @param rejectWeight Own stake of the jurors who voted to reject.
struct Case {
    TaskId taskId;
    address trainer;
    address challenger;
    bytes32 evidenceDigest;
    Beacon seed;
    uint64 latchBy;
    uint64 answerBy;
    uint64 commitBy;
    uint64 revealBy;
    Verdict verdict;
    bool reproduced;
    uint128 upholdWeight;
    uint128 rejectWeight;
}

/// @title Challenge manager
/// @notice Opens cases, draws the segments to open, takes answers and votes, and settles. Holds bonds and credits.
/// @dev Cases run in parallel and none bars another: a thief cannot shelter behind a weak case of a friend. Every case
/// ends by the end of the challenging phase and can then be settled by anyone. How a case ends:
///  - the seed was not latched in time: Lapsed;
///  - not answered in time, or a discontinuity was proven: Upheld;
///  - otherwise by the votes, weighed by own stake, the challenger's excluded. Fewer than half of the weight revealed:
///    Inconclusive. At least two thirds of it to uphold, two of them naming the same non-zero reproduction: Upheld.
///    More than half to reject: Rejected. Anything else: Inconclusive.
/// What it does: Upheld slashes the trainer (burned whole), redirects its whole reward to the challenger and returns the
/// bond; if the trainer was forfeited before, only the bond. Rejected pays openingCost for each sampled segment to the
/// trainer from the bond and burns the rest. Inconclusive returns the bond. Lapsed burns it.
/// Warning: two thirds of the voting stake can convict an innocent trainer, if two of them name the same reproduction.
interface IChallengeManager {
    /// @notice A case was opened; block `seedBlock` will draw the segments.
    event CaseOpened(
        CaseId indexed caseId,
        TaskId indexed taskId,
        address indexed trainer,
        address challenger,
        bytes32 evidenceDigest,
        uint64 seedBlock
    );
    /// @notice The seed's block went out of reach before anyone latched it; another is promised.
    event SeedRequested(CaseId indexed caseId, uint64 seedBlock);
    /// @notice The segments are drawn; the trainer answers before `answerBy`.
    event SeedLatched(CaseId indexed caseId, bytes32 beacon, uint64 answerBy);
    /// @notice The trainer opened what was drawn; states and batches are served at `bundleCid`.
    event CaseAnswered(CaseId indexed caseId, string bundleCid, uint64 commitBy, uint64 revealBy);
    /// @notice Segment `segment` does not start where the one before it ends.
    event DiscontinuityProven(CaseId indexed caseId, uint64 segment);
    /// @notice A juror promised a vote.
    event VoteCommitted(CaseId indexed caseId, address indexed juror, bytes32 commitment);
    /// @notice A juror showed its promised vote.
    event VoteRevealed(CaseId indexed caseId, address indexed juror, bool uphold, bytes32 reproduction, uint256 weight);
    /// @notice The case ended; wei credited to each side, and burned of the bond.
    event CaseSettled(CaseId indexed caseId, Verdict verdict, uint256 toChallenger, uint256 toTrainer, uint256 burned);
    /// @notice An account was paid its credit.
    event CreditWithdrawn(address indexed account, uint256 amount);

    /// @notice There is no such case.
    error UnknownCase(CaseId caseId);
    /// @notice `trainer` has no standing submission in the task.
    error NotStanding(address trainer);
    /// @notice The trainer has lost its reward and its slashable stake already.
    error NothingAtStake(address trainer);
    /// @notice The case ended before, with this verdict.
    error CaseSettledAlready(Verdict verdict);
    /// @notice The segments are not drawn yet: latch the case's seed first.
    error SeedNotLatched();
    /// @notice Votes are taken once the trainer has answered.
    error NotAnswered();
    /// @notice The trainer answered before.
    error AlreadyAnswered();
    /// @notice The answer opens `have` segments; `need` were drawn.
    error WrongOpeningCount(uint256 have, uint256 need);
    /// @notice Opening `k` is of another segment than drawn, or does not verify.
    error BadOpening(uint256 k);
    /// @notice The two segments do verify and join.
    error NoDiscontinuity();
    /// @notice The juror committed a vote in this case before.
    error VoteAlreadyCommitted();
    /// @notice The caller committed no vote in this case.
    error VoteNotCommitted();
    /// @notice The juror revealed its vote before.
    error VoteAlreadyRevealed();
    /// @notice The revealed values do not hash to the caller's own commitment.
    error BadVoteReveal();

    /// @notice Opens a case against a standing submission. Validators of the task, in the challenging phase, while there
    /// is time for all its windows. Needs an allowance for the bond.
    /// @param evidenceDigest Commits to the evidence, which stays off chain.
    function openCase(TaskId taskId, address trainer, bytes32 evidenceDigest) external returns (CaseId caseId);

    /// @notice Stores the seed's block hash, which draws the segments, and starts the trainer's clock. If the hash is out
    /// of reach it promises another block instead. Anyone may call.
    function latchSeed(CaseId caseId) external;

    /// @notice The trainer opens exactly the drawn segments, in order, and names where states and batches are served.
    function respond(CaseId caseId, Opening[] calldata openings, string calldata bundleCid) external;

    /// @notice Ends a case at once: segment b follows segment a but does not start where a ends. Anyone may call.
    function proveDiscontinuity(CaseId caseId, Opening calldata a, Opening calldata b) external;

    /// @notice Promises a vote. Validators of the task, except the challenger.
    /// @param commitment SHA256(abi.encode("aiarena/vote/v1", chainid, manager, caseId, juror, uphold, reproduction,
    /// salt)).
    function commitVote(CaseId caseId, bytes32 commitment) external;

    /// @notice Shows the promised vote.
    /// @param reproduction Digest of what the juror's own replay gave; 0 = none.
    function revealVote(CaseId caseId, bool uphold, bytes32 reproduction, bytes32 salt) external;

    /// @notice Ends a case whose windows are over. Anyone may call.
    function settle(CaseId caseId) external;

    /// @notice Pays the caller's credit: bonds returned, rewards redirected to it, costs paid to it.
    function withdrawCredit() external;

    /// @notice The case; reverts with UnknownCase.
    function caseOf(CaseId caseId) external view returns (Case memory);

    /// @notice How many cases exist; ids run from 1 to this.
    function caseCount() external view returns (uint256);

    /// @notice The segments the trainer has to open, in order; reverts with SeedNotLatched.
    function sampledSegments(CaseId caseId) external view returns (uint64[] memory);

    /// @notice The juror's promise; 0 if none.
    function voteCommitment(CaseId caseId, address juror) external view returns (bytes32);

    /// @notice Cases against the trainer that are not settled.
    function pendingCases(TaskId taskId, address trainer) external view returns (uint256);

    /// @notice What withdrawCredit would pay.
    function credit(address account) external view returns (uint256);
}
