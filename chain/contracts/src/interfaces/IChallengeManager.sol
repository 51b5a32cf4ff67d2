// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Opening} from "../libraries/Transcript.sol";
import {Beacon, CaseId, Ground, RunId, TaskId, Verdict} from "../types/Types.sol";
import {BlockOpening, ICaseRules, LeafRange, MarkChannel} from "./ICaseRules.sol";

/// @notice Where a case stands.
enum Stage {
    None,
    Sealed, // until `deadline` the challenger may show it
    Shown, // until `deadline` anyone may latch its seed
    Drawn, // until `deadline` the trainer answers, and with Ground.Watermark the challenger opens leaves
    Voting, // until `deadline` jurors commit votes, then until `revealBy` they reveal them; then appeals, or settlement
    Serving, // until `deadline` the trainer may serve again what jurors could not have
    Settled
}

/// @notice What a sealed case holds.
/// @param round Whose submission: the trainer's of this round.
/// @param claim Ground.Watermark: the challenger's own run whose key is opened; else 0.
/// @param evidenceDigest Commits to the evidence, which stays off chain.
/// @param named Segments the trainer must open besides those drawn, at most Court.named, distinct.
struct Charge {
    address trainer;
    uint16 round;
    Ground ground;
    RunId claim;
    bytes32 evidenceDigest;
    uint64[] named;
}

/// @notice The votes of the level a case is on.
/// @param uphold Weight to uphold.
/// @param reject Weight to reject.
/// @param unavailable Weight of those who could not have what was served.
/// @param reproduced Whether two jurors who voted to uphold named the same reproduction.
struct Tally {
    uint128 uphold;
    uint128 reject;
    uint128 unavailable;
    bool reproduced;
}

/// @notice A dispute over one submission.
/// @param deadline The end of the stage's (first) window.
/// @param revealBy Stage Voting: the end of the second. 0 before.
/// @param level How often the verdict was appealed.
/// @param answered Whether the trainer opened what was drawn.
/// @param leavesOpened Whether the challenger opened all its leaves.
/// @param servedAgain Whether the one further serving window was used.
/// @param leaves How many leaves the challenger opened so far.
/// @param commitment The sealed charge.
/// @param runId The run of the challenged submission; 0 until shown, like what follows.
/// @param seed Draws the segments.
/// @param jury Draws the jury of the level; not used on the last.
struct Case {
    TaskId taskId;
    address challenger;
    uint64 deadline;
    Stage stage;
    Verdict verdict;
    uint8 level;
    bool answered;
    bool leavesOpened;
    bool servedAgain;
    uint32 leaves;
    uint64 revealBy;
    bytes32 commitment;
    RunId runId;
    Charge charge;
    Beacon seed;
    Beacon jury;
    Tally tally;
}

/// @title Challenge manager
/// @notice Takes sealed cases, draws the segments to open, takes answers and votes, and settles. Holds bonds and credits.
/// @dev Cases run in parallel and none bars another: a thief cannot shelter behind a weak case of a friend. Every case
/// ends by the end of the challenging phase (sealCase insists on the time of the longest) and can then be settled by
/// anyone. How a case ends:
///  - not shown, or its seed not latched, in time: Lapsed;
///  - Ground.Watermark and the leaves not opened in time: Rejected;
///  - otherwise not answered in time, or what is wrong proven by code (the prove functions, in any stage from Drawn
///    on until it is settled): Upheld;
///  - two thirds of the level's whole weight could not have what was served: the trainer gets one more serving window,
///    once a case; not used, or unavailable again (which may be appealed): Upheld;
///  - otherwise by the votes of the last level reached, the challenger's own left out. Fewer than half of the weight
///    revealed: Inconclusive. At least two thirds of what was revealed to uphold, two jurors naming the same non-zero
///    reproduction: Upheld. More than half to reject: Rejected. Anything else: Inconclusive.
/// The jury: level 0 has Court.jurors draws by own stake from a beacon promised when voting begins, each level above
/// 2n + 1 from a beacon promised with the appeal; a validator weighs as many as its draws. Level Court.appeals, the
/// last, is all validators, who weigh their own slashable stake. If a drawn jury's beacon expires unlatched, another
/// block is promised. A sitting is a level, or what follows a second serving: each begins without votes.
/// What it does: Upheld slashes the trainer (burned whole), brings its whole reward here and returns the bond. Of
/// several upheld cases against a trainer in a task the lowest id takes the reward, once the task is closed and none is
/// pending (award): nobody gains by settling first. Rejected pays openingCost for each opened segment to the trainer
/// from the bond (nothing if it did not answer) and burns the rest. Inconclusive pays the trainer the same, because it
/// did answer, and returns the rest: who opens case after case pays for the answers. Lapsed burns the bond. An appeal's
/// bond returns to the appellant if the final verdict is another than the one appealed, else it burns. Jurors are paid
/// nothing: all that could pay them is what burns, and then they would earn by the verdict that burns most.
/// Warning: two thirds of the voting stake can convict an innocent trainer, if two of them name the same reproduction.
interface IChallengeManager {
    /// @notice A case was sealed; it must be shown before `showBy`.
    event CaseSealed(
        CaseId indexed caseId, TaskId indexed taskId, address indexed challenger, bytes32 commitment, uint64 showBy
    );
    /// @notice A case was shown; block `seedBlock` will draw the segments.
    event CaseShown(
        CaseId indexed caseId, address indexed trainer, RunId indexed runId, Charge charge, uint64 seedBlock
    );
    /// @notice The seed's block went out of reach before anyone latched it; another is promised.
    event SeedRequested(CaseId indexed caseId, uint64 seedBlock);
    /// @notice The segments are drawn; the trainer answers before `answerBy`.
    event SeedLatched(CaseId indexed caseId, bytes32 beacon, uint64 answerBy);
    /// @notice The trainer opened what was drawn; states and batches are served at `bundleCid`.
    event CaseAnswered(CaseId indexed caseId, string bundleCid);
    /// @notice The challenger opened these of the leaves that the task's opening beacon drew from a key of this shape, from
    /// number `from` of them on.
    event LeavesOpened(CaseId indexed caseId, MarkChannel[] shape, uint256 from, LeafRange[] ranges);
    /// @notice Voting on `level` began; block `juryBlock` will draw the jury (0 = all validators).
    event VotingOpened(CaseId indexed caseId, uint8 level, uint64 commitBy, uint64 revealBy, uint64 juryBlock);
    /// @notice The jury's block went out of reach before anyone latched it; another is promised.
    event JuryRequested(CaseId indexed caseId, uint8 level, uint64 juryBlock);
    /// @notice The jury of `level` is drawn.
    event JuryLatched(CaseId indexed caseId, uint8 level, bytes32 beacon);
    /// @notice Code found what is wrong; `what` names the proof function.
    event WrongProven(CaseId indexed caseId, bytes32 what);
    /// @notice A juror could not have what was served.
    event UnavailableVoted(CaseId indexed caseId, address indexed juror, uint256 weight);
    /// @notice Too many jurors could not have what was served; the trainer serves again before `serveBy`.
    event ServingAsked(CaseId indexed caseId, uint64 serveBy);
    /// @notice The trainer serves at `bundleCid` now.
    event ServedAgain(CaseId indexed caseId, string bundleCid);
    /// @notice A juror promised a vote.
    event VoteCommitted(CaseId indexed caseId, address indexed juror, bytes32 commitment);
    /// @notice A juror showed its promised vote.
    event VoteRevealed(CaseId indexed caseId, address indexed juror, bool uphold, bytes32 reproduction, uint256 weight);
    /// @notice The verdict of the level below `level` was appealed, with `bond` wei.
    event CaseAppealed(CaseId indexed caseId, address indexed appellant, uint8 level, Verdict against, uint256 bond);
    /// @notice The case ended; wei credited to each side, and burned, of the bond.
    event CaseSettled(CaseId indexed caseId, Verdict verdict, uint256 toChallenger, uint256 toTrainer, uint256 burned);
    /// @notice An appeal's bond was credited to the appellant or burned.
    event AppealSettled(CaseId indexed caseId, address indexed appellant, uint256 returned, uint256 burned);
    /// @notice A conviction's reward, brought here before, was credited to the challenger of the first sealed upheld case.
    event Awarded(TaskId indexed taskId, address indexed trainer, CaseId indexed caseId, uint256 amount);
    /// @notice An account was paid its credit.
    event CreditWithdrawn(address indexed account, uint256 amount);

    /// @notice There is no such case.
    error UnknownCase(CaseId caseId);
    /// @notice The case is in stage `have`.
    error WrongStage(Stage have);
    /// @notice What is shown does not hash to the sealed commitment.
    error BadCharge();
    /// @notice `trainer` has no standing submission of `round`.
    error NotStanding(address trainer, uint16 round);
    /// @notice At most `limit` segments are named, all distinct and anchored.
    error BadNames(uint256 limit);
    /// @notice Ground.Watermark needs a run of the challenger's own in the task, and only it.
    error BadClaim(RunId claim);
    /// @notice Done before in this case (or this sitting).
    error AlreadyDone();
    /// @notice The jury of this level is not drawn yet: latch it first.
    error JuryNotLatched();
    /// @notice `account` was not drawn into the jury, or is the challenger.
    error NotJuror(address account);
    /// @notice The caller committed no vote in this sitting.
    error VoteNotCommitted();
    /// @notice The revealed values do not hash to the caller's own commitment.
    error BadVoteReveal();
    /// @notice The verdict of the last level is final.
    error NoAppeal();

    /// @notice Seals a case. Operators of the task (either role), in the challenging phase, while there is time for the
    /// longest case. Takes Court.bond; needs an allowance.
    /// @param commitment SHA256(abi.encode("aiarena/case/v1", chainid, manager, taskId, challenger, charge, salt)), the
    /// charge encoded as the tuple it is.
    function sealCase(TaskId taskId, bytes32 commitment) external returns (CaseId caseId);

    /// @notice Shows what was sealed, which must be about a revealed, unstruck submission. Challenger only. A trainer
    /// convicted meanwhile is no obstacle: the case may still be the first.
    function showCase(CaseId caseId, Charge calldata charge, bytes32 salt) external;

    /// @notice Stores the seed's block hash, which draws the segments, and starts the clock of the answers. If the hash
    /// is out of reach it promises another block instead. Anyone may call.
    function latchSeed(CaseId caseId) external;

    /// @notice The trainer opens exactly the segments of segmentsToOpen, in order, and names where states and batches
    /// are served.
    function respond(CaseId caseId, Opening[] calldata openings, string calldata bundleCid) external;

    /// @notice Ground.Watermark: the challenger opens exactly the leaves that the task's opening beacon drew, in order, in
    /// as many calls as it takes: each goes on where the last one ended.
    function openLeaves(CaseId caseId, MarkChannel[] calldata shape, LeafRange[] calldata ranges) external;

    /// @notice Upholds at once: segment b follows segment a but does not start where a ends. Anyone may call.
    function proveDiscontinuity(CaseId caseId, Opening calldata a, Opening calldata b) external;

    /// @notice Upholds at once: the leaf at `position` of its anchor is no segment that the terms allow there.
    function proveBadBounds(CaseId caseId, Opening calldata opening, uint64 position) external;

    /// @notice Upholds at once: the run does not start from the base model that it promised. See ICaseRules.
    function proveWrongStart(
        CaseId caseId,
        Opening calldata first,
        BlockOpening calldata mine,
        BlockOpening calldata base,
        bytes calldata block_
    ) external;

    /// @notice Upholds at once: the task's step verifier refutes the segment.
    function proveStep(CaseId caseId, Opening calldata opening, bytes calldata proof) external;

    /// @notice Stores the hash that draws the jury of the level, while votes are committed; if it is out of reach,
    /// promises another block instead. Anyone may call.
    function latchJury(CaseId caseId) external;

    /// @notice Says, openly, that what was served could not be had. Jurors, while votes are committed, instead of a vote.
    function voteUnavailable(CaseId caseId) external;

    /// @notice Serves again, and votes begin again from nothing. Trainer only, in the window for it.
    function serveAgain(CaseId caseId, string calldata bundleCid) external;

    /// @notice Promises a vote. Jurors of the level.
    /// @param commitment SHA256(abi.encode("aiarena/vote/v1", chainid, manager, caseId, juror, uphold, reproduction,
    /// salt)).
    function commitVote(CaseId caseId, bytes32 commitment) external;

    /// @notice Shows the promised vote.
    /// @param reproduction Digest of what the juror's own replay gave; 0 = none.
    function revealVote(CaseId caseId, bool uphold, bytes32 reproduction, bytes32 salt) external;

    /// @notice Takes the verdict that settle would give to the next level. Anyone, within Court.appealWindow after
    /// revealBy. Takes bond * 2^(level + 1); needs an allowance.
    function appeal(CaseId caseId) external;

    /// @notice Ends a case whose windows are over. Anyone may call.
    function settle(CaseId caseId) external;

    /// @notice Credits a conviction's reward to the challenger of the upheld case with the lowest id; once closed, with no
    /// case pending against the trainer. Anyone may call.
    function award(TaskId taskId, address trainer) external;

    /// @notice Pays the caller's credit: bonds returned, rewards redirected to it, costs paid to it.
    function withdrawCredit() external;

    /// @notice What code decides of a case.
    function caseRules() external view returns (ICaseRules);

    /// @notice The case; reverts with UnknownCase.
    function caseOf(CaseId caseId) external view returns (Case memory);

    /// @notice How many cases exist; ids run from 1 to this.
    function caseCount() external view returns (uint256);

    /// @notice The segments the trainer has to open, in order; WrongStage until the seed is latched.
    function segmentsToOpen(CaseId caseId) external view returns (uint64[] memory);

    /// @notice What the account's vote weighs on the case's level; 0 = not of the jury, or its beacon not latched.
    function jurorWeight(CaseId caseId, address account) external view returns (uint256);

    /// @notice The juror's promise in the present sitting; 0 if none.
    function voteCommitment(CaseId caseId, address juror) external view returns (bytes32);

    /// @notice Cases shown against the trainer and not settled.
    function pendingCases(TaskId taskId, address trainer) external view returns (uint256);

    /// @notice What withdrawCredit would pay.
    function credit(address account) external view returns (uint256);
}
