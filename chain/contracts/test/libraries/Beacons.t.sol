// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";

import {Beacons} from "../../src/libraries/Beacons.sol";
import {BeaconAlreadyRequested, BeaconExpired, BeaconNotRequested} from "../../src/types/Errors.sol";
import {Beacon} from "../../src/types/Types.sol";

contract Drawer {
    using Beacons for Beacon;

    Beacon public beacon;

    function request() external {
        beacon.request();
    }

    function latch() external {
        beacon.latch();
    }
}

contract BeaconsTest is Test {
    address private constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    Drawer private drawer = new Drawer();

    function setUp() public {
        vm.roll(20_000);
    }

    function test_nothingIsLatchedBeforeItIsPromised() public {
        vm.expectRevert(BeaconNotRequested.selector);
        drawer.latch();
    }

    function testFuzz_theLatchedHashIsThePromisedBlocksAndStays(uint256 late, uint256 later) public {
        drawer.request();
        vm.roll(20_003 + bound(late, 0, 255));
        bytes32 promised = blockhash(20_002);
        drawer.latch();
        vm.roll(20_400 + bound(later, 0, 10_000));
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, 20_002));
        drawer.latch();
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, 20_002));
        drawer.request();
        (, bytes32 value) = drawer.beacon();
        assertEq(value, promised);
    }

    function test_aPromiseIsNotRenewedWhileItCanBeKept() public {
        drawer.request();
        vm.roll(20_002 + 256);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, 20_002));
        drawer.request();
        vm.roll(20_002 + 257);
        vm.expectRevert(abi.encodeWithSelector(BeaconExpired.selector, 20_002));
        drawer.latch();
        drawer.request();
        (uint64 blockNumber,) = drawer.beacon();
        assertEq(blockNumber, 20_002 + 259);
    }

    /// @dev Where the history contract of EIP-2935 is live the same hash stays in reach for 8,191 blocks.
    function test_theHistoryContractKeepsThePromiseInReach() public {
        drawer.request();
        vm.roll(20_003);
        bytes32 promised = blockhash(20_002);
        vm.roll(25_000);
        vm.etch(HISTORY, hex"00");
        vm.mockCall(HISTORY, abi.encode(uint256(20_002)), abi.encode(promised));
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, 20_002));
        drawer.request();
        drawer.latch();
        (, bytes32 value) = drawer.beacon();
        assertEq(value, promised);
    }
}
