// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns} from "./IRuns.sol";
import {ITasks} from "./ITasks.sol";

/// @title Arena
/// @notice Tasks, runs and submissions. Holds the bonds of runs and nothing else, has no owner, cannot be changed.
/// @dev The contracts are deployed by one account in this order, each constructor being given addresses that follow
/// from the account's nonce:
///  0 ArenaToken(supply)
///  1 StakeVault(token, arena, manager)
///  2 RewardEscrow(token, arena, scoring, manager, vault)
///  3 Arena(token, vault, escrow, scoring, manager, leastWindow), which deploys TaskRules(leastWindow)
///  4 Scoring(arena, vault, escrow), which asks the Arena for its rules
///  5 ChallengeManager(token, arena, vault, escrow, scoring), which deploys CaseRules(arena, scoring)
///  6 Emission(token, arena, vault, escrow, fund's terms), optional
/// Who calls whom: Arena -> vault.role, vault.operators, escrow.fund, escrow.forfeited, manager.pendingCases. Vault ->
/// arena (terms, phase, currentRound), manager.pendingCases. Scoring -> arena.standingOrders, vault.stakesAt, vault.totals,
/// vault.slashable, escrow.sponsored, escrow.allocated, escrow.allocate, rules. Escrow -> arena, manager.pendingCases,
/// scoring.attested, vault.delegationHistory. Manager -> arena.submission, arena.run, vault.slash, vault.range,
/// vault.totals, escrow.redirect, case rules. CaseRules -> arena.verifyOpening, arena.anchoredAt, scoring.openingBeacon.
/// Emission -> escrow.sponsor, vault.totals.
interface IArena is ITasks, IRuns {}
