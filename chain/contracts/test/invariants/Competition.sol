// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Ledger} from "./Ledger.sol";

/// @dev What trainers, validators, delegators, sponsors and the creator do at random. What is out of its window reverts
/// and does nothing. The functions are external so that a revert takes back all of one.
abstract contract Competition is Ledger {
    bytes32 private constant POPULAR = keccak256("a model that several submit");

    mapping(address trainer => bytes32) private _shown; // what the trainer committed to last
    mapping(uint16 round => mapping(address validator => uint16[])) private _rows;

    /* MONEY IN */

    function lend(uint256 seed) external {
        address operator = _pick(_draw(seed, "role", 2) == 0 ? trainers : validators, seed);
        address delegator = _pick(delegators, seed >> 1);
        uint128 amount = uint128(1e18 + _draw(seed, "amount", 400e18));
        _delegate(delegator, operator, amount);
        lent[operator][delegator] += amount;
        vaultIn += amount;
        ++loans;
    }

    function sponsor(uint256 seed) external {
        uint128 amount = uint128(1 + _draw(seed, "gift", 50e18));
        vm.prank(stranger);
        escrow.sponsor(taskId, uint16(1 + _draw(seed, "round", FINAL)), amount);
        escrowIn += amount;
    }

    /* TRAINERS */

    /// @dev Half of the trainers stop after any number of segments; some register a second run, some lose a seed.
    function train(address trainer, uint256 seed) external {
        uint256 runs = arena.runsOf(taskId, trainer).length;
        if (runs == 0 && _draw(seed, "stops", 2) == 0) {
            stopAfter[trainer] = uint64(1 + _draw(seed, "segments", SEGMENTS - 1));
        }
        if (runs != 0 && (runs == 3 || _draw(seed, "another", 6) != 0)) return _anchorRest(trainer);
        _register(trainer);
        if (_draw(seed, "idle", 8) == 0) return;
        _anchorSome(trainer);
        if (_draw(seed, "slow", 3) != 0) _anchorRest(trainer);
    }

    function registerOnly(address trainer) external {
        vm.prank(trainer);
        runOf[trainer] = arena.registerRun(taskId, keccak256("spec"), keccak256("keys"), _noBase());
    }

    function submit(address trainer, uint256 seed) external {
        bytes32 model = _draw(seed, "copies", 3) == 0 ? POPULAR : _newModel(trainer);
        _commitModel(trainer, model);
        _shown[trainer] = model;
    }

    function show(address trainer) external {
        _revealModel(trainer, _shown[trainer]);
    }

    /// @dev All trainers, whoever comes first, and then all reveals.
    function _race(uint256 seed) internal {
        for (uint256 i; i < trainers.length; ++i) {
            address trainer = trainers[(i + _draw(seed, "first", trainers.length)) % trainers.length];
            uint256 mood = seed + i;
            if (_draw(mood, "forgets", 12) == 0) try this.registerOnly(trainer) {} catch {}
            try this.train(trainer, mood) {} catch {}
            if (_draw(mood, "submits", 3) != 0) try this.submit(trainer, mood) {} catch {}
        }
        for (uint256 i; i < trainers.length; ++i) {
            if (_draw(seed + i, "shows", 5) != 0) try this.show(trainers[i]) {} catch {}
        }
    }

    /* VALIDATORS */

    /// @dev Three validators in four commit, to rows at random, all alike, or all zero; then they reveal. The sybil sees
    /// nobody's merit but the thief's.
    function score(uint16 round, uint256 seed) external {
        bool commits = block.timestamp < _times(round).revealFrom;
        for (uint256 j; j < validators.length; ++j) {
            address validator = validators[j];
            if (!commits) {
                if (scoring.scoresCommitment(taskId, round, validator) != 0) {
                    _revealScores(validator, round, _rows[round][validator]);
                }
            } else if (_draw(seed + j, "absent", 4) != 0) {
                _rows[round][validator] = validator == sybil ? _row(0, 0, 10_000) : _opinion(seed, j);
                _commitScores(validator, round, _rows[round][validator]);
            }
        }
    }

    function _opinion(uint256 seed, uint256 j) private view returns (uint16[] memory row) {
        uint256 mood = _draw(seed, "mood", 6);
        if (mood == 0) return _row(0, 0, 0);
        if (mood == 1) return _row(5_000, 5_000, 5_000);
        row = new uint16[](trainers.length);
        for (uint256 i; i < row.length; ++i) {
            row[i] = uint16(_draw(seed + 8 * j + i, "score", 10_001));
        }
    }

    function _judge(uint256 seed) internal {
        for (uint16 round = 1; round <= FINAL; ++round) {
            try this.score(round, seed) {} catch {}
            for (uint256 step; step < _draw(seed, "steps", 7); ++step) {
                _settleSome(round, seed + step);
            }
        }
    }

    /// @dev One call, of any of the four, for any number of operators.
    function _settleSome(uint16 round, uint256 seed) private {
        uint256 size = _draw(seed, "size", 5);
        uint256 which = _draw(seed, "which", 3);
        bytes memory step = abi.encodeCall(scoring.payTrainers, (taskId, round, size));
        if (which == 1) step = abi.encodeCall(scoring.weighValidators, (taskId, round, size));
        if (which == 2) step = abi.encodeCall(scoring.payValidators, (taskId, round, size));
        bool ranked = scoring.progress(taskId, round).ranked;
        if (!ranked) step = abi.encodeCall(scoring.rankRound, (taskId, round, size));
        (bool done,) = address(scoring).call(step);
        done; // or not: then it was not due
    }

    /* THE CREATOR, AND ANYONE */

    function _serve(uint256 seed) internal {
        if (_draw(seed, "final", 4) != 0) {
            vm.prank(creator);
            try scoring.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "") {} catch {}
        }
        uint64 promised = scoring.openingBeacon(taskId).blockNumber;
        bytes32 drawn = scoring.openingBeacon(taskId).value;
        bool lost = promised != 0 && drawn == 0 && block.number > promised + 256;
        try scoring.requestOpeningBeacon(taskId) {
            _check(promised == 0 || lost, "I21: a beacon in reach was promised anew");
        } catch {}
        if (_draw(seed, "latches", 2) == 0) try scoring.latchOpeningBeacon(taskId) {} catch {}
        if (drawn != 0) _check(scoring.openingBeacon(taskId).value == drawn, "I21: a beacon was drawn twice");
    }

    function _compete(uint256 seed) internal {
        _race(seed);
        _judge(seed);
        _serve(seed);
        if (_draw(seed, "sponsors", 6) == 0) try this.sponsor(seed) {} catch {}
        if (_draw(seed, "lends", 4) == 0) try this.lend(seed) {} catch {}
    }
}
