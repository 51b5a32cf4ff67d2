// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns} from "./IRuns.sol";
import {IScoring} from "./IScoring.sol";
import {ITasks} from "./ITasks.sol";

/// @title Arena
/// @notice Tasks, runs, submissions, scores and rewards. Holds no tokens, has no owner, cannot be changed.
interface IArena is ITasks, IRuns, IScoring {}
