// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";

/// @title The test token of AIArena
/// @notice The whole supply goes to the deployer; nobody can mint more, anyone can burn what is theirs. 18 decimals.
contract ArenaToken is ERC20, ERC20Burnable {
    /// @param supply The whole supply, wei.
    constructor(uint256 supply) ERC20("AIArena Test Token", "ARENA") {
        _mint(msg.sender, supply);
    }
}
