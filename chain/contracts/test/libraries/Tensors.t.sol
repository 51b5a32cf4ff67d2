// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {BlockOpening} from "../../src/interfaces/ICaseRules.sol";
import {Tensors} from "../../src/libraries/Tensors.sol";
import {Golden} from "../helpers/Golden.sol";

/// @dev Libraries take calldata; this hands it to them.
contract Opener {
    function contains(bytes32 state, BlockOpening calldata opening) external view returns (bool) {
        return Tensors.contains(state, opening);
    }

    function blockLeaf(uint64 index, bytes calldata header, bytes calldata block_) external pure returns (bytes32) {
        return Tensors.blockLeaf(index, header, block_);
    }

    function isModels(bytes calldata mine, bytes calldata own) external pure returns (bool) {
        return Tensors.isModels(mine, own);
    }
}

/// @dev tests/golden/blocks.json is written by the Python side and read by both.
contract TensorsTest is Test {
    Opener private opener = new Opener();
    string private json = Golden.read("blocks.json");
    uint256 private constant CASES = 11;

    function _digest(uint256 k) private view returns (bytes32) {
        return vm.parseJsonBytes32(json, string.concat(Golden.row(k), ".digest"));
    }

    function test_blocksOfStatesAgreeWithPython() public view {
        for (uint256 k; k < CASES; ++k) {
            assertTrue(opener.contains(_digest(k), Golden.blockOpening(json, Golden.row(k))));
        }
        assertFalse(vm.keyExistsJson(json, Golden.row(CASES)), "every case was read");
    }

    function test_nothingElseIsInTheState() public view {
        for (uint256 k; k < CASES; ++k) {
            bytes32 digest = _digest(k);
            BlockOpening memory opening = Golden.blockOpening(json, Golden.row(k));
            opening.leaf ^= bytes32(uint256(1));
            assertFalse(opener.contains(digest, opening));
            opening = Golden.blockOpening(json, Golden.row(k));
            ++opening.position;
            assertFalse(opener.contains(digest, opening));
            opening = Golden.blockOpening(json, Golden.row(k));
            ++opening.tensors;
            assertFalse(opener.contains(digest, opening));
            opening = Golden.blockOpening(json, Golden.row(k));
            ++opening.blocks;
            assertFalse(opener.contains(digest, opening));
            opening = Golden.blockOpening(json, Golden.row(k));
            opening.header[2] ^= 0x01;
            assertFalse(opener.contains(digest, opening));
            assertFalse(opener.contains(digest ^ bytes32(uint256(1)), Golden.blockOpening(json, Golden.row(k))));
        }
    }

    function test_aBlocksLeafAgreesWithPython() public view {
        BlockOpening memory base = Golden.blockOpening(json, ".start.base");
        bytes memory block_ = vm.parseJsonBytes(json, ".start.block");
        assertEq(opener.blockLeaf(base.index, base.header, block_), base.leaf);
    }

    function test_aTrainingStatePutsModelBeforeTheName() public view {
        bytes memory own = Golden.blockOpening(json, ".start.base").header;
        bytes memory mine = Golden.blockOpening(json, ".start.right").header;
        assertTrue(opener.isModels(mine, own));
        assertFalse(opener.isModels(own, own));
        assertFalse(opener.isModels(own, mine));
        assertFalse(opener.isModels("", ""));
        mine[mine.length - 1] ^= 0x01; // another size
        assertFalse(opener.isModels(mine, own));
    }
}
