// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskRules} from "./TaskRules.sol";
import {Runs} from "./arena/Runs.sol";
import {Submissions} from "./arena/Submissions.sol";
import {Tasks} from "./arena/Tasks.sol";
import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {IChallengeManager} from "./interfaces/IChallengeManager.sol";
import {IRewardEscrow} from "./interfaces/IRewardEscrow.sol";
import {IScoring} from "./interfaces/IScoring.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";

/// @title Arena
/// @notice See IArena; the work is done in arena/: Tasks, then Runs, then Submissions.
contract Arena is Submissions, IArena {
    /// @notice Where this arena's rounds are scored; named here so that one address leads to all the others.
    IScoring public immutable scoring;

    /// @param leastWindow The least length of any window of a task, seconds.
    constructor(
        IArenaToken token_,
        IStakeVault vault_,
        IRewardEscrow escrow_,
        IScoring scoring_,
        IChallengeManager manager_,
        uint32 leastWindow
    ) Tasks(token_, escrow_, new TaskRules(leastWindow)) Runs(vault_, manager_) {
        scoring = scoring_;
    }
}
