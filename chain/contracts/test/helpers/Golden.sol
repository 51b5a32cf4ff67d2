// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Vm} from "forge-std/Vm.sol";

import {BlockOpening, LeafRange, MarkChannel} from "../../src/interfaces/ICaseRules.sol";

/// @dev Reads the openings that the Python side wrote: tests/golden/blocks.json and tests/golden/mark.json.
library Golden {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function read(string memory name) internal view returns (string memory) {
        return vm.readFile(string.concat(vm.projectRoot(), "/../../tests/golden/", name));
    }

    function row(uint256 k) internal pure returns (string memory) {
        return string.concat(".cases[", vm.toString(k), "]");
    }

    function blockOpening(string memory json, string memory where) internal pure returns (BlockOpening memory opening) {
        opening.header = vm.parseJsonBytes(json, string.concat(where, ".header"));
        opening.leaf = vm.parseJsonBytes32(json, string.concat(where, ".leaf"));
        opening.index = uint64(vm.parseJsonUint(json, string.concat(where, ".index")));
        opening.blocks = uint64(vm.parseJsonUint(json, string.concat(where, ".blocks")));
        opening.blockSiblings = vm.parseJsonBytes32Array(json, string.concat(where, ".block_siblings"));
        opening.position = uint64(vm.parseJsonUint(json, string.concat(where, ".position")));
        opening.tensors = uint64(vm.parseJsonUint(json, string.concat(where, ".tensors")));
        opening.tensorSiblings = vm.parseJsonBytes32Array(json, string.concat(where, ".tensor_siblings"));
    }

    function shape(string memory json, string memory where) internal pure returns (MarkChannel[] memory channels) {
        uint256[] memory groups = vm.parseJsonUintArray(json, string.concat(where, ".groups"));
        uint256[] memory each = vm.parseJsonUintArray(json, string.concat(where, ".leaves"));
        channels = new MarkChannel[](groups.length);
        for (uint256 c; c < groups.length; ++c) {
            channels[c] = MarkChannel(uint32(groups[c]), uint32(each[c]));
        }
    }

    /// @dev The opened leaves, in the order drawn, as ranges of a few.
    function ranges(string memory json, string memory where) internal view returns (LeafRange[] memory opened) {
        uint256 count;
        while (vm.keyExistsJson(json, _range(where, count))) ++count;
        opened = new LeafRange[](count);
        for (uint256 k; k < count; ++k) {
            opened[k] = range(json, _range(where, k));
        }
    }

    function range(string memory json, string memory where) internal pure returns (LeafRange memory opened) {
        opened.secrets = vm.parseJsonBytes32Array(json, string.concat(where, ".secrets"));
        opened.siblings = vm.parseJsonBytes32Array(json, string.concat(where, ".siblings"));
    }

    function _range(string memory where, uint256 k) private pure returns (string memory) {
        return string.concat(where, ".ranges[", vm.toString(k), "]");
    }
}
