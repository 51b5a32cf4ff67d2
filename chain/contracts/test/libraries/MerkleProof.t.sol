// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {MerkleProof} from "../../src/libraries/MerkleProof.sol";
import {Segment, Transcript} from "../../src/libraries/Transcript.sol";
import {Tree} from "../helpers/Tree.sol";

/// @dev Libraries take calldata; this hands it to them.
contract Prover {
    function verify(bytes32 root, bytes32 leaf, uint256 position, uint256 count, bytes32[] calldata siblings)
        external
        view
        returns (bool)
    {
        return MerkleProof.verify(root, leaf, position, count, siblings);
    }

    function rootOf(bytes32[] memory leaves, uint256 first, uint256 count, bytes32[] calldata siblings)
        external
        view
        returns (bool, bytes32)
    {
        return MerkleProof.root(leaves, first, count, siblings);
    }

    function segmentLeaf(Segment calldata segment) external pure returns (bytes32) {
        return Transcript.leaf(segment);
    }
}

/// @dev tests/golden/merkle.json is written by the Python side and read by both.
contract GoldenTest is Test {
    Prover private prover = new Prover();
    string private json;

    struct Vector {
        uint256 first;
        uint256 count;
        uint256 position;
        bytes32 root;
        bytes32 leaf;
        bytes32[] siblings;
    }

    function setUp() public {
        json = vm.readFile(string.concat(vm.projectRoot(), "/../../tests/golden/merkle.json"));
    }

    function _key(uint256 k, string memory field) private pure returns (string memory) {
        return string.concat(".cases[", vm.toString(k), "].", field);
    }

    function _vector(uint256 k) private view returns (Vector memory v) {
        v.first = vm.parseJsonUint(json, _key(k, "first"));
        v.count = vm.parseJsonUint(json, _key(k, "count"));
        v.position = vm.parseJsonUint(json, _key(k, "position"));
        v.root = vm.parseJsonBytes32(json, _key(k, "root"));
        v.leaf = vm.parseJsonBytes32(json, _key(k, "leaf"));
        v.siblings = vm.parseJsonBytes32Array(json, _key(k, "siblings"));
    }

    function _segment(uint256 k) private view returns (Segment memory s) {
        s.index = uint64(vm.parseJsonUint(json, _key(k, "segment.index")));
        s.startStep = uint64(vm.parseJsonUint(json, _key(k, "segment.start_step")));
        s.endStep = uint64(vm.parseJsonUint(json, _key(k, "segment.end_step")));
        s.startDigest = vm.parseJsonBytes32(json, _key(k, "segment.start_digest"));
        s.endDigest = vm.parseJsonBytes32(json, _key(k, "segment.end_digest"));
        s.batchRoot = vm.parseJsonBytes32(json, _key(k, "segment.batch_root"));
    }

    function _cases() private view returns (uint256 count) {
        while (vm.keyExistsJson(json, string.concat(".cases[", vm.toString(count), "]"))) ++count;
        assertGt(count, 10, "the golden file was read");
    }

    function test_leavesProofsAndTranscriptsAgreeWithPython() public view {
        uint256 cases = _cases();
        for (uint256 k; k < cases; ++k) {
            Vector memory v = _vector(k);
            assertEq(prover.segmentLeaf(_segment(k)), v.leaf);
            assertTrue(prover.verify(v.root, v.leaf, v.position, v.count, v.siblings));
            bytes32 before = vm.parseJsonBytes32(json, _key(k, "transcript_before"));
            bytes32 folded = vm.parseJsonBytes32(json, _key(k, "transcript_after"));
            assertEq(Transcript.extend(before, uint64(v.first), uint64(v.count), v.root), folded);
        }
    }

    function test_noOtherPositionOrCountPasses() public view {
        uint256 cases = _cases();
        for (uint256 k; k < cases; ++k) {
            Vector memory v = _vector(k);
            for (uint256 position; position < 20; ++position) {
                bool right = position == v.position;
                assertEq(prover.verify(v.root, v.leaf, position, v.count, v.siblings), right);
            }
            for (uint256 count; count < 20; ++count) {
                bool right = count == v.count;
                assertEq(prover.verify(v.root, v.leaf, v.position, count, v.siblings), right);
            }
        }
    }

    function test_noOtherSiblingsPass() public view {
        uint256 cases = _cases();
        for (uint256 k; k < cases; ++k) {
            Vector memory v = _vector(k);
            assertFalse(_passesWith(v, _resized(v.siblings, v.siblings.length + 1)));
            if (v.siblings.length == 0) continue;
            assertFalse(_passesWith(v, _resized(v.siblings, v.siblings.length - 1)));
            bytes32[] memory changed = _resized(v.siblings, v.siblings.length);
            changed[0] ^= bytes32(uint256(1));
            assertFalse(_passesWith(v, changed));
        }
    }

    function _passesWith(Vector memory v, bytes32[] memory siblings) private view returns (bool) {
        return prover.verify(v.root, v.leaf, v.position, v.count, siblings);
    }

    function _resized(bytes32[] memory path, uint256 length) private pure returns (bytes32[] memory other) {
        other = new bytes32[](length);
        for (uint256 i; i < length && i < path.length; ++i) {
            other[i] = path[i];
        }
    }
}

contract MerkleProofTest is Test {
    Prover private prover = new Prover();

    function _tree(uint256 count, uint256 seed) private pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            leaves[i] = keccak256(abi.encode(seed, i));
        }
    }

    function testFuzz_everyLeafOfEveryTreeProves(uint256 count, uint256 position, uint256 seed) public view {
        count = bound(count, 1, 130);
        position = bound(position, 0, count - 1);
        bytes32[] memory leaves = _tree(count, seed);
        bytes32[] memory path = Tree.siblings(leaves, position);
        assertTrue(prover.verify(Tree.root(leaves), leaves[position], position, count, path));
        assertFalse(prover.verify(Tree.root(leaves), leaves[position] ^ bytes32(uint256(1)), position, count, path));
        assertFalse(prover.verify(Tree.root(leaves), leaves[position], position, count + 1, path));
    }

    function _some(bytes32[] memory leaves, uint256 first, uint256 length)
        private
        pure
        returns (bytes32[] memory some)
    {
        some = new bytes32[](length);
        for (uint256 i; i < length; ++i) {
            some[i] = leaves[first + i];
        }
    }

    function _leads(bytes32[] memory leaves, bytes32[] memory some, uint256 first, uint256 count, bytes32[] memory path)
        private
        view
        returns (bool)
    {
        (bool fits, bytes32 found) = prover.rootOf(some, first, count, path);
        return fits && found == Tree.root(leaves);
    }

    function testFuzz_everyRangeOfEveryTreeProves(uint256 count, uint256 first, uint256 length, uint256 seed)
        public
        view
    {
        count = bound(count, 1, 130);
        first = bound(first, 0, count - 1);
        length = bound(length, 1, count - first);
        bytes32[] memory leaves = _tree(count, seed);
        bytes32[] memory path = Tree.rangeSiblings(leaves, first, length);
        bytes32[] memory some = _some(leaves, first, length);
        assertTrue(_leads(leaves, some, first, count, path));
        assertFalse(_leads(leaves, some, first, count + 1, path));
        assertFalse(_leads(leaves, some, first + 1, count, path));
        assertFalse(first > 0 && _leads(leaves, some, first - 1, count, path));
        some[seed % length] ^= bytes32(uint256(1));
        assertFalse(_leads(leaves, some, first, count, path));
    }

    function testFuzz_noOtherSiblingsLeadARange(uint256 count, uint256 first, uint256 length, uint256 seed)
        public
        view
    {
        count = bound(count, 2, 130);
        first = bound(first, 0, count - 1);
        length = bound(length, 1, count - first);
        bytes32[] memory leaves = _tree(count, seed);
        bytes32[] memory path = Tree.rangeSiblings(leaves, first, length);
        bytes32[] memory some = _some(leaves, first, length);
        bytes32[] memory longer = new bytes32[](path.length + 1);
        for (uint256 i; i < path.length; ++i) {
            longer[i] = path[i];
        }
        assertFalse(_leads(leaves, some, first, count, longer));
        if (path.length == 0) return;
        path[seed % path.length] ^= bytes32(uint256(1));
        assertFalse(_leads(leaves, some, first, count, path));
        assembly ("memory-safe") {
            mstore(path, sub(mload(path), 1))
        }
        assertFalse(_leads(leaves, some, first, count, path));
    }

    function test_rangesOutsideTheTreeFail() public view {
        bytes32[] memory leaves = _tree(3, 1);
        assertTrue(_leads(leaves, leaves, 0, 3, new bytes32[](0)));
        assertFalse(_leads(leaves, leaves, 1, 3, new bytes32[](0)));
        assertFalse(_leads(leaves, leaves, type(uint256).max, 3, new bytes32[](0)));
        assertFalse(_leads(leaves, new bytes32[](0), 0, 3, new bytes32[](0)));
        assertFalse(_leads(leaves, leaves, 0, type(uint256).max, new bytes32[](0)));
    }

    /// @dev The attack: present an inner node as a leaf one level up. The root record binds the count.
    function test_anInnerNodeIsNoLeaf() public view {
        bytes32[] memory leaves = _tree(4, 1);
        bytes32 inner = sha256(bytes.concat(leaves[0], leaves[1]));
        bytes32[] memory path = new bytes32[](1);
        path[0] = sha256(bytes.concat(leaves[2], leaves[3]));
        assertFalse(prover.verify(Tree.root(leaves), inner, 0, 2, path));
        assertFalse(prover.verify(Tree.root(leaves), inner, 0, 4, path));
    }

    function test_positionsOutsideTheTreeFail() public view {
        bytes32[] memory leaves = _tree(1, 1);
        assertTrue(prover.verify(Tree.root(leaves), leaves[0], 0, 1, new bytes32[](0)));
        assertFalse(prover.verify(Tree.root(leaves), leaves[0], 1, 1, new bytes32[](0)));
        assertFalse(prover.verify(Tree.root(leaves), leaves[0], 0, 0, new bytes32[](0)));
        assertFalse(prover.verify(Tree.root(leaves), leaves[0], 0, type(uint256).max, new bytes32[](0)));
    }
}
