// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {BlockOpening, ICaseRules} from "../../src/interfaces/ICaseRules.sol";
import {IChallengeManager, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {Run} from "../../src/interfaces/IRuns.sol";
import {IStepVerifier} from "../../src/interfaces/IStepVerifier.sol";
import {Work} from "../../src/interfaces/ITasks.sol";
import {Opening, Segment} from "../../src/libraries/Transcript.sol";
import {CaseId, Verdict} from "../../src/types/Types.sol";
import {Golden} from "../helpers/Golden.sol";
import {CourtTest} from "./CourtTest.sol";

/// @dev Refutes a segment if the proof is the digest of its end.
contract EndVerifier is IStepVerifier {
    function refutes(bytes32 programDigest, bytes32 specDigest, Segment calldata segment, bytes calldata proof)
        external
        pure
        returns (bool)
    {
        require(programDigest == keccak256("program") && specDigest != 0, "bound to program and spec");
        return keccak256(proof) == keccak256(abi.encode(segment.endDigest));
    }
}

/// @dev What code decides, each with its honest twin: Mallory did it, Alice did not.
contract GroundsTest is CourtTest {
    string private json = Golden.read("blocks.json");
    CaseId private against;
    CaseId private honest;

    function _workTerms() internal view override returns (Work memory work) {
        work = super._workTerms();
        work.stepVerifier = verifier;
    }

    address private verifier = address(new EndVerifier());

    function _adjust(address, Run memory run) internal view override {
        run.baseDigest = vm.parseJsonBytes32(json, ".start.base_digest");
    }

    /// @dev Anchors what a test made of the segments, and opens a case against each.
    function _open() private {
        _submit(mallory, 1);
        _submit(alice, 2);
        against = _draw(vera, mallory);
        honest = _draw(vera, alice);
    }

    function _convicted() private view {
        _verdictIs(against, Verdict.Upheld);
        assertEq(vault.burnedOf(mallory), 1_000e18);
        _verdictIs(honest, Verdict.Pending);
        assertEq(vault.burnedOf(alice), 0);
    }

    function _badOpening(uint256 k) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICaseRules.BadOpening.selector, k);
    }

    /* WRONG COUNTS */

    function _refusesHonestBounds() private {
        for (uint64 i; i < SEGMENTS; ++i) {
            Opening memory opening = _opening(alice, i);
            uint64 position = i < FIRST_ANCHOR ? i : i - FIRST_ANCHOR;
            vm.expectRevert(ICaseRules.NoBadBounds.selector);
            manager.proveBadBounds(honest, opening, position);
            vm.expectRevert(_badOpening(0));
            manager.proveBadBounds(honest, opening, position + 1);
            vm.expectRevert(_badOpening(0));
            manager.proveBadBounds(against, opening, position);
        }
    }

    function test_stepsThatTheTermsDoNotGiveConvict() public {
        segmentsOf[mallory][3].endStep = 50; // twenty steps in a segment of ten
        _open();
        _refusesHonestBounds();
        Opening memory opening = _opening(mallory, 3);
        vm.expectEmit(address(manager));
        emit IChallengeManager.WrongProven(against, "proveBadBounds");
        manager.proveBadBounds(against, opening, 3);
        _convicted();
    }

    /// @dev Segment 2 again, where segment 3 should be: fewer distinct segments than the terms ask for.
    function test_aSegmentAnchoredTwiceConvicts() public {
        segmentsOf[mallory][3] = segmentsOf[mallory][2];
        _open();
        _refusesHonestBounds();
        Opening memory opening = _opening(mallory, 2); // the two lie side by side in the tree: one path for both
        vm.expectRevert(ICaseRules.NoBadBounds.selector);
        manager.proveBadBounds(against, opening, 2);
        manager.proveBadBounds(against, opening, 3);
        _convicted();
    }

    function test_aSegmentAnchoredTwiceFarApartConvicts() public {
        segmentsOf[mallory][3] = segmentsOf[mallory][0];
        _open();
        manager.proveBadBounds(against, _opening(mallory, 3), 3);
        _convicted();
    }

    function test_aSegmentAfterTheLastStepConvicts() public {
        (segmentsOf[mallory][7].index, segmentsOf[mallory][7].startStep) = (8, 80);
        segmentsOf[mallory][7].endStep = 90;
        _open();
        manager.proveBadBounds(against, _opening(mallory, 7), 2);
        _convicted();
    }

    /* WRONG INITIAL STATE */

    function _start(address trainer, string memory field) private {
        segmentsOf[trainer][0].startDigest = vm.parseJsonBytes32(json, string.concat(".start.", field, "_digest"));
    }

    function _opened(string memory field) private view returns (BlockOpening memory) {
        return Golden.blockOpening(json, string.concat(".start.", field));
    }

    function test_anotherStartThanThePromisedBaseConvicts() public {
        _start(mallory, "wrong");
        _start(alice, "right");
        _open();
        bytes memory block_ = vm.parseJsonBytes(json, ".start.block");
        (BlockOpening memory wrong, BlockOpening memory right) = (_opened("wrong"), _opened("right"));
        BlockOpening memory base = _opened("base");
        (Opening memory hers, Opening memory his) = (_opening(alice, 0), _opening(mallory, 0));
        Opening memory second = _opening(mallory, 1);

        bytes memory none = abi.encodeWithSelector(ICaseRules.NoWrongStart.selector);
        vm.expectRevert(none);
        manager.proveWrongStart(honest, hers, right, base, block_);
        vm.expectRevert(none); // a block of another state
        manager.proveWrongStart(honest, hers, wrong, base, block_);
        vm.expectRevert(_badOpening(0)); // another run's segment
        manager.proveWrongStart(honest, his, wrong, base, block_);
        vm.expectRevert(_badOpening(0)); // not the first segment
        manager.proveWrongStart(against, second, wrong, base, block_);
        vm.expectRevert(none); // not the base model's bytes
        manager.proveWrongStart(against, his, wrong, base, "invented");
        vm.expectRevert(none); // not of the base model
        manager.proveWrongStart(against, his, wrong, wrong, block_);

        manager.proveWrongStart(against, his, wrong, base, block_);
        _convicted();
    }

    /// @dev The attack on an honest run: compare two blocks that need not be equal.
    function test_differentBlocksAreNoWrongStart() public {
        _start(alice, "right");
        _open();
        BlockOpening memory base = _opened("base");
        bytes memory block_ = vm.parseJsonBytes(json, ".start.block");
        for (uint256 k = 5; k < 11; ++k) {
            // every block of the right first state, the matching one included
            BlockOpening memory mine = Golden.blockOpening(json, Golden.row(k));
            Opening memory first = _opening(alice, 0);
            vm.expectRevert(ICaseRules.NoWrongStart.selector);
            manager.proveWrongStart(honest, first, mine, base, block_);
        }
    }

    /* STEPS */

    function test_theTasksVerifierConvicts() public {
        _open();
        Opening memory opening = _opening(mallory, 4);
        bytes memory proof = abi.encode(opening.segment.endDigest);
        vm.expectRevert(ICaseRules.NotRefuted.selector);
        manager.proveStep(against, opening, "nonsense");
        vm.expectRevert(_badOpening(0));
        manager.proveStep(honest, opening, proof);
        manager.proveStep(against, opening, proof);
        _convicted();
    }

    function test_withoutAVerifierNoStepIsRefuted() public {
        verifier = address(0);
        arena.setTerms(_courtTerms(), _workTerms(), arena.closedFrom());
        _open();
        Opening memory opening = _opening(mallory, 4);
        vm.expectRevert(ICaseRules.NotRefuted.selector);
        manager.proveStep(against, opening, abi.encode(opening.segment.endDigest));
    }

    function test_codeDecidesBeforeAndAfterVotesButNotTwice() public {
        _open();
        Opening memory opening = _opening(mallory, 4);
        bytes memory proof = abi.encode(opening.segment.endDigest);
        CaseId shown = _show(vera, _charge(mallory));
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.WrongStage.selector, Stage.Shown));
        manager.proveStep(shown, opening, proof);
        _respond(against, mallory);
        vm.warp(manager.caseOf(against).revealBy + 1 days);
        manager.proveStep(against, opening, proof);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.WrongStage.selector, Stage.Settled));
        manager.proveStep(against, opening, proof);
    }
}
