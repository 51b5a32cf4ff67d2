// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title What the AIArena contracts ask of their token
/// @notice An ERC-20 whose holders can burn their own tokens.
/// @dev Warning: no fee on transfer, no rebasing, no callbacks: what is sent is what arrives.
interface IArenaToken is IERC20 {
    /// @notice Destroys `amount` of the caller's tokens.
    function burn(uint256 amount) external;
}
