// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {CaseRules} from "./CaseRules.sol";
import {Bench} from "./court/Bench.sol";
import {Docket} from "./court/Docket.sol";
import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {IRewardEscrow} from "./interfaces/IRewardEscrow.sol";
import {IScoring} from "./interfaces/IScoring.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";

/// @title Challenge manager
/// @notice See IChallengeManager; the work is done in court/: Docket, then Jury, then Answers, then Bench.
contract ChallengeManager is Bench {
    constructor(IArenaToken token_, IArena arena_, IStakeVault vault_, IRewardEscrow escrow_, IScoring scoring_)
        Docket(token_, arena_, vault_, new CaseRules(arena_, scoring_))
        Bench(escrow_)
    {}
}
