// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ArenaToken} from "../../src/ArenaToken.sol";
import {Run, Submission} from "../../src/interfaces/IRuns.sol";
import {Court, PhaseTimes, Work} from "../../src/interfaces/ITasks.sol";
import {MerkleProof} from "../../src/libraries/MerkleProof.sol";
import {Anchor, Opening, Segment, Transcript} from "../../src/libraries/Transcript.sol";
import {Beacon, Phase, Role, RunId, TaskId} from "../../src/types/Types.sol";

/// @dev What the court asks of an Arena, for one task of 75 steps in segments of 10: terms, time, runs, submissions.
contract ArenaDouble {
    uint64 public closedFrom = type(uint64).max;
    Court private _court;
    Work private _work;
    mapping(RunId => Run) private _runs;
    mapping(RunId => Anchor[]) private _anchors;
    mapping(address trainer => mapping(uint16 round => Submission)) private _submissions;

    function setTerms(Court memory court_, Work memory work_, uint64 closedFrom_) external {
        (_court, _work, closedFrom) = (court_, work_, closedFrom_);
    }

    function setRun(RunId runId, Run memory run_) external {
        _runs[runId] = run_;
    }

    function addAnchor(RunId runId, Anchor memory anchor) external {
        _anchors[runId].push(anchor);
        _runs[runId].anchored += anchor.count;
    }

    function setSubmission(address trainer, uint16 round, Submission memory submission_) external {
        _submissions[trainer][round] = submission_;
    }

    function court(TaskId) external view returns (Court memory) {
        return _court;
    }

    function work(TaskId) external view returns (Work memory) {
        return _work;
    }

    function phase(TaskId) external view returns (Phase) {
        return block.timestamp < closedFrom ? Phase.Challenging : Phase.Closed;
    }

    function phaseTimes(TaskId) external view returns (PhaseTimes memory times) {
        times.closedFrom = closedFrom;
    }

    function run(RunId runId) external view returns (Run memory) {
        return _runs[runId];
    }

    function anchors(RunId runId, uint256 from, uint256 count) external view returns (Anchor[] memory page) {
        page = new Anchor[](count);
        for (uint256 k; k < count; ++k) {
            page[k] = _anchors[runId][from + k];
        }
    }

    function submission(TaskId, address trainer, uint16 round) external view returns (Submission memory) {
        return _submissions[trainer][round];
    }

    function verifyOpening(RunId runId, Opening calldata opening) external view returns (bool) {
        Segment calldata segment = opening.segment;
        uint64 end = segment.index * 10 + 10 > 75 ? 75 : segment.index * 10 + 10;
        if (segment.startStep != segment.index * 10 || segment.endStep != end) return false;
        uint64 first = _anchors[runId][opening.anchorIndex].first;
        return segment.index >= first && anchoredAt(runId, opening, segment.index - first);
    }

    function anchoredAt(RunId runId, Opening calldata opening, uint64 position) public view returns (bool) {
        Anchor memory anchor = _anchors[runId][opening.anchorIndex];
        bytes32 leaf = Transcript.leaf(opening.segment);
        return MerkleProof.verify(anchor.root, leaf, position, anchor.count, opening.siblings);
    }
}

/// @dev Own stakes, in staking order; no delegations.
contract VaultDouble {
    ArenaToken private immutable token;
    ArenaDouble private immutable arena;
    address[] private _trainers;
    address[] private _validators;
    mapping(address => Role) private _roles;
    mapping(address => uint256) private _own;
    mapping(address => uint256) public burnedOf;
    mapping(address => bool) public withdrawn;

    constructor(ArenaToken token_, ArenaDouble arena_) {
        (token, arena) = (token_, arena_);
    }

    function stake(address operator, Role role_, uint256 own) external {
        (_roles[operator], _own[operator]) = (role_, own);
        (role_ == Role.Trainer ? _trainers : _validators).push(operator);
    }

    function slash(TaskId taskId, address operator) external returns (uint256 burned) {
        burned = slashable(taskId, operator);
        burnedOf[operator] += burned;
        token.burn(burned);
    }

    function withdraw(address operator) external {
        withdrawn[operator] = true;
    }

    function slashable(TaskId taskId, address operator) public view returns (uint256) {
        if (withdrawn[operator]) return 0;
        return burnedOf[operator] == 0 ? _own[operator] * arena.court(taskId).slashBps / 10_000 : 0;
    }

    function role(TaskId, address account) external view returns (Role) {
        return _roles[account];
    }

    function totals(TaskId, Role role_) external view returns (uint256 own, uint256 count) {
        address[] memory all = role_ == Role.Trainer ? _trainers : _validators;
        for (count; count < all.length; ++count) {
            own += _own[all[count]];
        }
    }

    function range(TaskId, address operator) external view returns (uint256 from, uint256 own) {
        if (_roles[operator] == Role.None) return (0, 0);
        address[] memory all = _roles[operator] == Role.Trainer ? _trainers : _validators;
        for (uint256 i; all[i] != operator; ++i) {
            from += _own[all[i]];
        }
        return (from, _own[operator]);
    }
}

/// @dev What each trainer was allotted; a conviction burns a tenth and sends the rest.
contract EscrowDouble {
    ArenaToken private immutable token;
    mapping(address => uint256) public allotted;

    constructor(ArenaToken token_) {
        token = token_;
    }

    function allot(address trainer, uint256 amount) external {
        allotted[trainer] = amount;
    }

    function redirect(TaskId, address trainer) external returns (uint256 redirected) {
        uint256 amount = allotted[trainer];
        allotted[trainer] = 0;
        redirected = amount - amount / 10;
        token.burn(amount / 10);
        token.transfer(msg.sender, redirected);
    }
}

/// @dev The beacon that picks the leaves of watermark keys.
contract ScoringDouble {
    Beacon private _beacon;

    function setBeacon(bytes32 value) external {
        _beacon = Beacon(1, value);
    }

    function openingBeacon(TaskId) external view returns (Beacon memory) {
        return _beacon;
    }
}
