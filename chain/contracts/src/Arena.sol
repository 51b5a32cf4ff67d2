// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskRules} from "./TaskRules.sol";
import {Runs} from "./arena/Runs.sol";
import {Scoring} from "./arena/Scoring.sol";
import {Tasks} from "./arena/Tasks.sol";
import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {IChallengeManager} from "./interfaces/IChallengeManager.sol";
import {IRewardEscrow} from "./interfaces/IRewardEscrow.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";

/// @title Arena
/// @notice See IArena; the work is done in arena/: Tasks, then Runs, then Scoring.
contract Arena is Scoring, IArena {
    /// @notice Where this arena's cases are tried; named here so that one address leads to all the others.
    IChallengeManager public immutable manager;

    constructor(IArenaToken token_, IStakeVault vault_, IRewardEscrow escrow_, IChallengeManager manager_)
        Tasks(token_, escrow_, new TaskRules())
        Runs(vault_)
    {
        manager = manager_;
    }
}
