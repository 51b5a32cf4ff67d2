// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {BaseTest} from "./BaseTest.sol";

contract ArenaTokenTest is BaseTest {
    function test_theWholeSupplyWasMintedOnce() public view {
        assertEq(token.totalSupply(), SUPPLY);
        assertEq(token.decimals(), 18);
        assertEq(token.symbol(), "ARENA");
        assertEq(token.name(), "AIArena Test Token");
    }

    function test_burningTakesFromTheHolderAndTheSupply() public {
        vm.prank(alice);
        token.burn(1e18);
        assertEq(token.balanceOf(alice), 10_000e18 - 1e18);
        assertEq(token.totalSupply(), SUPPLY - 1e18);
    }

    function test_everyContractKnowsTheOthers() public view {
        assertEq(address(arena.token()), address(token));
        assertEq(address(arena.vault()), address(vault));
        assertEq(address(arena.escrow()), address(escrow));
        assertEq(address(arena.manager()), address(manager));
        assertEq(address(vault.token()), address(token));
        assertEq(address(vault.arena()), address(arena));
        assertEq(address(vault.manager()), address(manager));
        assertEq(address(escrow.token()), address(token));
        assertEq(address(escrow.arena()), address(arena));
        assertEq(address(escrow.vault()), address(vault));
        assertEq(address(escrow.manager()), address(manager));
        assertEq(address(manager.token()), address(token));
        assertEq(address(manager.arena()), address(arena));
        assertEq(address(manager.vault()), address(vault));
        assertEq(address(manager.escrow()), address(escrow));
    }

    function test_everyContractFitsTheCodeSizeLimit() public view {
        address[6] memory all =
            [address(token), address(vault), address(escrow), address(arena), address(manager), address(arena.rules())];
        for (uint256 i; i < all.length; ++i) {
            assertLe(all[i].code.length, 24_576);
        }
    }
}
