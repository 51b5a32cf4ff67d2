// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskConfig} from "../src/interfaces/ITasks.sol";
import {Opening} from "../src/libraries/Transcript.sol";
import {CaseId, Phase, Role} from "../src/types/Types.sol";
import {StoryTest} from "./StoryTest.sol";

/// @dev The largest round: 32 trainers, 32 validators. No transaction may come near the cap on one transaction's gas.
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
            _commitModel(trainers[i], _model(trainers[i]));
        }
        vm.warp(_times(1).opensAt);
        for (uint256 i; i < trainers.length; ++i) {
            _revealModel(trainers[i], _model(trainers[i]));
        }
    }

    function _config() internal view override returns (TaskConfig memory config) {
        config = super._config();
        (config.alphaTrainer, config.alphaValidator) = (0.5e18, 0.5e18); // the costly exponents
    }

    function _newcomer(string memory name, uint256 k, Role role) private returns (address account) {
        account = makeAddr(string.concat(name, vm.toString(k)));
        _fund(account, 1_000e18);
        _stake(account, role, 1_000e18, 0);
    }

    /// @dev As at the start of a transaction: nothing is warm.
    function _cool() private {
        vm.cool(address(token));
        vm.cool(address(vault));
        vm.cool(address(escrow));
        vm.cool(address(arena));
        vm.cool(address(manager));
    }

    function test_theLargestRoundSettlesInOneTransaction() public {
        uint16[] memory scores = new uint16[](32);
        for (uint256 i; i < 32; ++i) {
            scores[i] = uint16(100 + 31 * i); // ascending: the sort's worst case
        }
        _scoreAll(1, scores);
        vm.warp(_times(1).settleFrom);
        _cool();
        uint256 before = gasleft();
        arena.settleRound(taskId, 1);
        uint256 used = before - gasleft();
        emit log_named_uint("settleRound, 32 x 32", used);
        assertLt(used, TRANSACTION_CAP / 2);
        assertEq(arena.result(taskId, 1, trainers[31]).rank, 1);
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
