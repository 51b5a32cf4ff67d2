// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Commitments} from "../../src/libraries/Commitments.sol";
import {CaseId, TaskId} from "../../src/types/Types.sol";

contract Committer {
    function submission(
        TaskId taskId,
        address who,
        bytes32 model,
        bytes32 transcript,
        string calldata cid,
        bytes32 salt
    ) external view returns (bytes32) {
        return Commitments.submission(taskId, who, model, transcript, cid, salt);
    }

    function scores(TaskId taskId, uint256 round, address who, uint16[] calldata values, bytes32 salt)
        external
        view
        returns (bytes32)
    {
        return Commitments.scores(taskId, round, who, values, salt);
    }

    function vote(CaseId caseId, address juror, bool uphold, bytes32 reproduction, bytes32 salt)
        external
        view
        returns (bytes32)
    {
        return Commitments.vote(caseId, juror, uphold, reproduction, salt);
    }
}

/// @dev Expected digests computed outside the EVM with hashlib and an independent ABI encoder.
contract CommitmentsTest is Test {
    Committer private constant AT = Committer(address(0xA4E4A));
    address private constant WHO = address(0xA11C);

    function setUp() public {
        vm.chainId(31_337);
        vm.etch(address(AT), address(new Committer()).code);
    }

    /// @dev The byte `n`, 32 times.
    function _filled(uint256 n) private pure returns (bytes32) {
        return bytes32(n * (type(uint256).max / 255));
    }

    function test_submission() public view {
        bytes32 digest = AT.submission(TaskId.wrap(7), WHO, _filled(1), _filled(2), "bafy-model", _filled(3));
        assertEq(digest, 0xe3cf99d444a6620e45091266ad111171f958840958b85c7e0382b46b240738dc);
    }

    function test_scores() public view {
        uint16[] memory values = new uint16[](3);
        (values[0], values[1], values[2]) = (10_000, 0, 258);
        bytes32 digest = AT.scores(TaskId.wrap(7), 2, WHO, values, _filled(3));
        assertEq(digest, 0x48495687c05de2a63018147004ea47f6f90e216be3279db06500ee0527506ab6);
    }

    function test_vote() public view {
        bytes32 digest = AT.vote(CaseId.wrap(9), WHO, true, _filled(4), _filled(3));
        assertEq(digest, 0xc3ee453f274d5284745045c93185b4d2fc3a021bfec30737d4cc469e3832562c);
    }

    function test_finalSet() public pure {
        bytes32 digest = Commitments.finalSet(_filled(5), _filled(3));
        assertEq(digest, 0x804fe39f3acc1d2927e4156a2636ae51c636889b19df744e2430c394ebdd3e20);
    }

    function test_draws() public pure {
        uint64[] memory drawn = Commitments.draws(CaseId.wrap(9), _filled(6), 8, 10);
        uint64[8] memory expected = [uint64(0), 4, 5, 6, 9, 3, 8, 1];
        for (uint256 k; k < 8; ++k) {
            assertEq(drawn[k], expected[k]);
        }
    }

    function testFuzz_drawsAreDistinctAndInRange(bytes32 beacon, uint256 caseId, uint256 sampled, uint256 segments)
        public
        pure
    {
        sampled = bound(sampled, 1, 16);
        segments = bound(segments, sampled, 65_536);
        uint64[] memory drawn = Commitments.draws(CaseId.wrap(caseId), beacon, sampled, segments);
        assertEq(drawn.length, sampled);
        for (uint256 k; k < sampled; ++k) {
            assertLt(drawn[k], segments);
            for (uint256 l; l < k; ++l) {
                assertNotEq(drawn[k], drawn[l]);
            }
        }
    }

    function test_anotherCaseDrawsOtherSegments() public pure {
        bytes32 one = keccak256(abi.encode(Commitments.draws(CaseId.wrap(1), _filled(6), 8, 1_000)));
        bytes32 two = keccak256(abi.encode(Commitments.draws(CaseId.wrap(2), _filled(6), 8, 1_000)));
        assertNotEq(one, two);
    }
}
