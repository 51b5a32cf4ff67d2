// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LeafRange, MarkChannel} from "../interfaces/ICaseRules.sol";
import {Case, IChallengeManager, Stage} from "../interfaces/IChallengeManager.sol";
import {Court} from "../interfaces/ITasks.sol";
import {Opening} from "../libraries/Transcript.sol";
import {NotAllowed, NotTrainer} from "../types/Errors.sol";
import {CaseId, Ground} from "../types/Types.sol";
import {Jury} from "./Jury.sol";

/// @title What both sides bring
/// @notice The trainer's segments and files, the challenger's leaves. See IChallengeManager.
abstract contract Answers is Jury {
    /// @inheritdoc IChallengeManager
    function respond(CaseId caseId, Opening[] calldata openings, string calldata bundleCid) external {
        Case storage case_ = _at(caseId, Stage.Drawn);
        if (msg.sender != case_.charge.trainer) revert NotTrainer(msg.sender);
        if (case_.answered) revert AlreadyDone();
        caseRules.requireOpened(case_.runId, segmentsToOpen(caseId), openings);

        case_.answered = true;
        emit CaseAnswered(caseId, bundleCid);
        _voteIfComplete(caseId, case_);
    }

    /// @inheritdoc IChallengeManager
    function openLeaves(CaseId caseId, MarkChannel[] calldata shape, LeafRange[] calldata ranges) external {
        Case storage case_ = _at(caseId, Stage.Drawn);
        if (msg.sender != case_.challenger) revert NotAllowed(msg.sender);
        if (case_.charge.ground != Ground.Watermark) revert BadClaim(case_.charge.claim);
        if (case_.leavesOpened) revert AlreadyDone();
        uint256 from = case_.leaves;
        (uint256 to, uint256 all) = _requireLeaves(case_, shape, ranges);

        case_.leaves = uint32(to);
        case_.leavesOpened = to == all;
        emit LeavesOpened(caseId, shape, from, ranges);
        _voteIfComplete(caseId, case_);
    }

    function _requireLeaves(Case storage case_, MarkChannel[] calldata shape, LeafRange[] calldata ranges)
        private
        view
        returns (uint256 to, uint256 all)
    {
        uint64 order = arena.submission(case_.taskId, case_.charge.trainer, case_.charge.round).order;
        return caseRules.requireLeaves(case_.taskId, case_.charge.claim, order, shape, case_.leaves, ranges);
    }

    function _voteIfComplete(CaseId caseId, Case storage case_) private {
        bool complete = case_.charge.ground != Ground.Watermark || case_.leavesOpened;
        if (case_.answered && complete) _openLevel(caseId, case_, _court(case_));
    }

    /// @inheritdoc IChallengeManager
    function serveAgain(CaseId caseId, string calldata bundleCid) external {
        Case storage case_ = _at(caseId, Stage.Serving);
        if (msg.sender != case_.charge.trainer) revert NotTrainer(msg.sender);
        Court memory court = _court(case_);

        case_.servedAgain = true;
        emit ServedAgain(caseId, bundleCid);
        _openSitting(caseId, case_, court);
    }
}
