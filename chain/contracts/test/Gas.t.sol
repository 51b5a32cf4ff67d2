// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IScoring} from "../src/interfaces/IScoring.sol";
import {Pay} from "../src/interfaces/ITasks.sol";
import {Opening} from "../src/libraries/Transcript.sol";
import {CaseId, Phase, Role} from "../src/types/Types.sol";
import {StoryTest} from "./StoryTest.sol";

/// @dev 32 trainers, 32 validators (the largest sizes are played on another EVM). No transaction may come near the cap on one transaction's gas.
contract GasTest is StoryTest {
    uint256 private constant TRANSACTION_CAP = 2 ** 24; // EIP-7825

    function setUp() public override {
        super.setUp();
        for (uint256 i = trainers.length; i < 32; ++i) {
            trainers.push(_newcomer("trainer", i, Role.Trainer));
            _writeTranscript(trainers[i]);
        }
        for (uint256 j = validators.length; j < 32; ++j) {
            validators.push(_newcomer("validator", j, Role.Validator));
        }
        _warpTo(Phase.Submission);
        for (uint256 i; i < trainers.length; ++i) {
            _train(trainers[i]);
            _commitNewModel(trainers[i]);
        }
        vm.warp(_times(1).opensAt);
        for (uint256 i; i < trainers.length; ++i) {
            _revealModel(trainers[i], _model(trainers[i]));
        }
    }

    function _pay() internal pure override returns (Pay memory pay) {
        pay = super._pay();
        (pay.alphaTrainer, pay.alphaValidator) = (0.5e18, 0.5e18); // the costly exponents
        (pay.maxTrainers, pay.maxValidators) = (32, 32);
    }

    function _newcomer(string memory name, uint256 k, Role role) private returns (address account) {
        account = makeAddr(string.concat(name, vm.toString(k)));
        _fund(account, 1_010e18); // stake and run bond
        _stake(account, role, 1_000e18, 0);
    }

    /// @dev As at the start of a transaction: nothing is warm.
    function _cool() private {
        vm.cool(address(token));
        vm.cool(address(vault));
        vm.cool(address(escrow));
        vm.cool(address(arena));
        vm.cool(address(scoring));
        vm.cool(address(manager));
    }

    function test_aRoundSettlesInFewTransactions() public {
        uint16[] memory scores = new uint16[](32);
        for (uint256 i; i < 32; ++i) {
            scores[i] = uint16(100 + 31 * i); // ascending: the sort's worst case
        }
        _scoreAll(1, scores);
        vm.warp(_times(1).settleFrom);
        _measured("rankRound, 32 x 32", abi.encodeCall(IScoring.rankRound, (taskId, 1, 32)));
        _measured("payTrainers, 32", abi.encodeCall(IScoring.payTrainers, (taskId, 1, 32)));
        _measured("weighValidators, 32", abi.encodeCall(IScoring.weighValidators, (taskId, 1, 32)));
        _measured("payValidators, 32", abi.encodeCall(IScoring.payValidators, (taskId, 1, 32)));
        assertEq(scoring.results(taskId, 1)[31].rank, 1);
        assertEq(scoring.settledRounds(taskId), 1);
    }

    function _measured(string memory what, bytes memory call) private {
        _cool();
        uint256 before = gasleft();
        (bool done,) = address(scoring).call(call);
        uint256 used = before - gasleft();
        assertTrue(done, what);
        emit log_named_uint(what, used);
        assertLt(used, TRANSACTION_CAP / 2);
    }

    function test_revealingTheLongestRowIsCheap() public {
        uint16[] memory scores = new uint16[](32);
        vm.warp(_times(1).scoresFrom);
        _commitScores(vera, 1, scores);
        vm.warp(_times(1).revealFrom);
        _cool();
        uint256 before = gasleft();
        _revealScores(vera, 1, scores);
        assertLt(before - gasleft(), 1_000_000);
    }

    function test_anAnswerIsCheap() public {
        _warpTo(Phase.Challenging);
        CaseId caseId = _openAndLatch(vera, alice);
        Opening[] memory openings = _drawnOpenings(caseId, alice);
        _cool();
        vm.prank(alice);
        uint256 before = gasleft();
        manager.respond(caseId, openings, "bafy-bundle");
        uint256 used = before - gasleft();
        emit log_named_uint("respond, 3 openings", used);
        assertLt(used, 1_000_000);
    }
}
