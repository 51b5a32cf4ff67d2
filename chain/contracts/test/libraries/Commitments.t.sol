// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Charge} from "../../src/interfaces/IChallengeManager.sol";
import {Commitments} from "../../src/libraries/Commitments.sol";
import {CaseId, Ground, RunId, TaskId} from "../../src/types/Types.sol";

contract Committer {
    function submission(bytes32 model, bytes32 transcript, bytes32 cid, bytes32 salt) external view returns (bytes32) {
        return Commitments.submission(
            TaskId.wrap(7), address(0xA11C), RunId.wrap(11), 4, 5, model, transcript, cid, salt
        );
    }

    function scores(TaskId taskId, uint16 round, address who, bytes calldata row, bytes32 salt)
        external
        view
        returns (bytes32)
    {
        return Commitments.scores(taskId, round, who, row, salt);
    }

    function charge(TaskId taskId, address challenger, Charge calldata charge_, bytes32 salt)
        external
        view
        returns (bytes32)
    {
        return Commitments.charge(taskId, challenger, charge_, salt);
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
        bytes32 digest = AT.submission(_filled(1), _filled(2), sha256("bafy-model"), _filled(3));
        assertEq(digest, 0x8554e15ec41c80237f6c633d733ab5c480f364cb1e3c8a8b2d59aba9d049f786);
    }

    function test_runBeacon() public pure {
        bytes32 beacon = Commitments.runBeacon(RunId.wrap(11), _filled(1));
        assertEq(beacon, 0x74175a902da1790062f24008945555ee1c3a7b1130595347e2fb4cc32d9ba644);
        assertNotEq(beacon, Commitments.runBeacon(RunId.wrap(12), _filled(1)), "another run of the same block");
    }

    function test_scores() public view {
        bytes32 digest = AT.scores(TaskId.wrap(7), 2, WHO, hex"271000000102", _filled(3));
        assertEq(digest, 0x48495687c05de2a63018147004ea47f6f90e216be3279db06500ee0527506ab6);
    }

    function test_charge() public view {
        uint64[] memory named = new uint64[](2);
        named[0] = 6;
        Charge memory charge = Charge(address(0xB0B), 2, Ground.Watermark, RunId.wrap(11), _filled(5), named);
        bytes32 digest = AT.charge(TaskId.wrap(7), WHO, charge, _filled(3));
        assertEq(digest, 0xb182b1547cf0a322a65ede8659aa0fb5aea14bf12eab36c11d6c0b652493aa4a);
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
