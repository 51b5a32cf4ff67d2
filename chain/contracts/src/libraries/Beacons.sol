// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Blockhash} from "@openzeppelin/contracts/utils/Blockhash.sol";

import {BeaconAlreadyRequested, BeaconExpired, BeaconNotReady, BeaconNotRequested} from "../types/Errors.sol";
import {Beacon} from "../types/Types.sol";

/// @title Promise first, randomness after
/// @notice A block in the future is written down before its hash can be known, and the hash is latched afterwards.
/// @dev The caller never picks the block: `request` fixes it `DELAY` blocks ahead, once. A beacon nobody latched while
/// its hash was in reach (256 blocks, or 8191 where EIP-2935 is live) has expired. Whether it may then be requested
/// again is the user's decision: for runs it may not (a trainer would re-roll by waiting), for cases it may.
library Beacons {
    /// @notice Blocks between a promise and the block whose hash decides.
    uint256 internal constant DELAY = 2;

    /// @notice Promises a block; reverts with BeaconAlreadyRequested if one is promised and can still be, or was, used.
    function request(Beacon storage beacon) internal returns (uint64 blockNumber) {
        if (beacon.blockNumber != 0 && !expired(beacon)) revert BeaconAlreadyRequested(beacon.blockNumber);
        blockNumber = uint64(block.number + DELAY);
        beacon.blockNumber = blockNumber;
    }

    /// @notice Stores the promised block's hash; reverts if it is not mined yet, expired, or latched before.
    function latch(Beacon storage beacon) internal returns (bytes32 value) {
        uint256 blockNumber = beacon.blockNumber;
        if (blockNumber == 0) revert BeaconNotRequested();
        if (beacon.value != 0) revert BeaconAlreadyRequested(blockNumber);
        if (block.number <= blockNumber) revert BeaconNotReady(blockNumber);
        value = Blockhash.blockHash(blockNumber);
        if (value == 0) revert BeaconExpired(blockNumber);
        beacon.value = value;
    }

    /// @notice Whether the promised block is past, its hash was never latched and can no longer be read.
    function expired(Beacon storage beacon) internal view returns (bool) {
        uint256 blockNumber = beacon.blockNumber;
        return
            blockNumber != 0 && beacon.value == 0 && block.number > blockNumber && Blockhash.blockHash(blockNumber) == 0;
    }
}
