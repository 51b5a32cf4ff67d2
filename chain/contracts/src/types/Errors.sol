// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Phase, TaskId} from "./Types.sol";

// Errors that several contracts share.

/// @notice There is no such task.
error UnknownTask(TaskId taskId);
/// @notice The task is in phase `have`, the call belongs to phase `need`.
error WrongPhase(Phase have, Phase need);
/// @notice The window opens at `opensAt` (seconds since the epoch).
error TooEarly(uint256 opensAt);
/// @notice The window closed at `closedAt`, which is itself too late (seconds since the epoch).
error TooLate(uint256 closedAt);
/// @notice `account` may not make this call.
error NotAllowed(address account);
/// @notice `account` is not a trainer of the task.
error NotTrainer(address account);
/// @notice `account` is not a validator of the task.
error NotValidator(address account);
/// @notice A case against `trainer` is still pending; anyone may settle it once its windows are over.
error CasePending(address trainer);
/// @notice There is nothing (left) to pay to `account`.
error NothingToPay(address account);
/// @notice The promised block `blockNumber` has not been mined yet.
error BeaconNotReady(uint256 blockNumber);
/// @notice No block was promised yet.
error BeaconNotRequested();
/// @notice The hash of the promised block `blockNumber` is out of the chain's reach.
error BeaconExpired(uint256 blockNumber);
/// @notice The beacon was latched before, or is still on its way.
error BeaconAlreadyRequested(uint256 blockNumber);
