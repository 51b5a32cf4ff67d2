// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";

import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {IChallengeManager} from "./interfaces/IChallengeManager.sol";
import {Budget, IRewardEscrow} from "./interfaces/IRewardEscrow.sol";
import {IScoring} from "./interfaces/IScoring.sol";
import {IStakeVault, Stake, Stretch} from "./interfaces/IStakeVault.sol";
import {ArenaMath} from "./libraries/ArenaMath.sol";
import {CasePending, NotAllowed, NothingToPay, TooLate, WrongPhase} from "./types/Errors.sol";
import {Phase, TaskId} from "./types/Types.sol";

/// @title Reward escrow
/// @notice See IRewardEscrow.
/// @dev No number here overflows: all that a task hands out has 128 bits, so no pool has more, and an index, a sum of
/// pools times 2^128 each divided by at least one, stays within 256.
contract RewardEscrow is IRewardEscrow, ReentrancyGuardTransient {
    using SafeERC20 for IArenaToken;
    using Checkpoints for Checkpoints.Trace256;

    /// @param pools The delegators' part of what was allocated.
    /// @param index What one delegated wei has earned by a round since the first, in units of 2^-128 wei.
    struct Account {
        uint128 allocated;
        uint128 pools;
        bool forfeited;
        bool claimed;
        Checkpoints.Trace256 index;
    }

    IArenaToken public immutable token;
    IArena public immutable arena;
    IScoring public immutable scoring;
    IChallengeManager public immutable manager;
    IStakeVault public immutable vault;

    /// @inheritdoc IRewardEscrow
    mapping(TaskId => mapping(uint16 round => uint256)) public sponsored;

    mapping(TaskId => Budget) private _budgets;
    mapping(TaskId => mapping(address operator => Account)) private _accounts;
    mapping(TaskId => mapping(address operator => mapping(address delegator => bool))) private _delegatedClaimed;

    constructor(IArenaToken token_, IArena arena_, IScoring scoring_, IChallengeManager manager_, IStakeVault vault_) {
        token = token_;
        arena = arena_;
        scoring = scoring_;
        manager = manager_;
        vault = vault_;
    }

    /* BOOKS */

    /// @inheritdoc IRewardEscrow
    function fund(TaskId taskId, uint128 budget, uint128 deposit) external {
        if (msg.sender != address(arena)) revert NotAllowed(msg.sender);
        Budget storage books = _budgets[taskId];
        books.budget += budget;
        books.deposit += deposit;
        emit Funded(taskId, budget, deposit);
    }

    /// @inheritdoc IRewardEscrow
    function sponsor(TaskId taskId, uint16 round, uint128 amount) external nonReentrant {
        uint256 closedAt = arena.roundTimes(taskId, round).settleFrom;
        if (block.timestamp >= closedAt) revert TooLate(closedAt);
        if (amount == 0) revert ZeroAmount();
        Budget storage books = _budgets[taskId];
        uint256 room = type(uint128).max - _given(books);
        if (amount > room) revert OverBudget(room, amount);

        books.sponsored += amount;
        sponsored[taskId][round] += amount;
        emit Sponsored(taskId, round, msg.sender, amount);

        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc IRewardEscrow
    function allocate(TaskId taskId, uint16 round, Stake[] calldata stakes, uint256[] calldata amounts)
        external
        returns (uint256 total)
    {
        if (msg.sender != address(scoring)) revert NotAllowed(msg.sender);
        for (uint256 k; k < stakes.length; ++k) {
            total += _credit(taskId, round, stakes[k], amounts[k]);
        }
        Budget storage books = _budgets[taskId];
        (uint256 have, uint256 need) = (_given(books), books.allocated + total);
        if (need > have) revert OverBudget(have, need);
        books.allocated = uint128(need);
    }

    /// @inheritdoc IRewardEscrow
    function redirect(TaskId taskId, address trainer) external nonReentrant returns (uint256 redirected) {
        if (msg.sender != address(manager)) revert NotAllowed(msg.sender);
        Account storage account = _accounts[taskId][trainer];
        if (account.forfeited) revert AlreadyForfeited(trainer);
        uint256 amount = account.allocated;
        uint256 burned = ArenaMath.bpsOf(amount, arena.court(taskId).burnBps);
        redirected = amount - burned;

        account.forfeited = true;
        emit Redirected(taskId, trainer, amount, burned);

        token.burn(burned);
        token.safeTransfer(msg.sender, redirected);
    }

    /// @dev Amounts within the budget have 128 bits; whatever has more makes allocate revert.
    function _credit(TaskId taskId, uint16 round, Stake calldata stake, uint256 amount) private returns (uint256) {
        Account storage account = _accounts[taskId][stake.operator];
        if (account.forfeited || amount == 0) return 0;
        uint256 pool = ArenaMath.delegatorsPool(amount, stake.commissionBps, stake.own, stake.delegated);

        account.allocated += SafeCast.toUint128(amount);
        if (pool != 0) {
            account.pools += uint128(pool);
            account.index.push(round, account.index.latest() + ArenaMath.perUnit(pool, stake.delegated));
        }
        emit Allocated(taskId, round, stake.operator, amount);
        return amount;
    }

    /* PAYMENTS */

    /// @inheritdoc IRewardEscrow
    function claim(TaskId taskId) external nonReentrant {
        _requirePayable(taskId, msg.sender);
        uint256 amount = claimable(taskId, msg.sender);
        if (amount == 0) revert NothingToPay(msg.sender);

        _accounts[taskId][msg.sender].claimed = true;
        emit Claimed(taskId, msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IRewardEscrow
    function claimDelegated(TaskId taskId, address operator) external nonReentrant {
        _requirePayable(taskId, operator);
        uint256 amount = claimableDelegated(taskId, operator, msg.sender);
        if (amount == 0) revert NothingToPay(msg.sender);

        _delegatedClaimed[taskId][operator][msg.sender] = true;
        emit DelegatedClaimed(taskId, operator, msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IRewardEscrow
    function reclaim(TaskId taskId) external nonReentrant {
        _requireClosed(taskId);
        if (msg.sender != arena.creatorOf(taskId)) revert NotAllowed(msg.sender);
        Budget storage books = _budgets[taskId];
        (uint256 refund, uint256 burned) = books.reclaimed ? (0, 0) : _leftOver(books);
        uint256 deposit = scoring.attested(taskId) ? books.deposit : 0;
        if (refund + burned + deposit == 0) revert NothingToPay(msg.sender);

        books.reclaimed = true;
        if (deposit != 0) books.deposit = 0;
        emit Reclaimed(taskId, msg.sender, refund + deposit, burned);

        token.burn(burned);
        token.safeTransfer(msg.sender, refund + deposit);
    }

    /// @inheritdoc IRewardEscrow
    function burnDeposit(TaskId taskId) external nonReentrant {
        _requireClosed(taskId);
        if (scoring.attested(taskId)) revert DepositEarned();
        uint256 amount = _budgets[taskId].deposit;
        if (amount == 0) revert NothingToPay(msg.sender);

        _budgets[taskId].deposit = 0;
        emit DepositBurned(taskId, amount);

        token.burn(amount);
    }

    /* VIEWS */

    /// @inheritdoc IRewardEscrow
    function claimable(TaskId taskId, address operator) public view returns (uint256) {
        Account storage account = _accounts[taskId][operator];
        if (account.claimed || !_payable(taskId, operator)) return 0;
        return account.allocated - account.pools;
    }

    /// @inheritdoc IRewardEscrow
    function claimableDelegated(TaskId taskId, address operator, address delegator)
        public
        view
        returns (uint256 amount)
    {
        if (_delegatedClaimed[taskId][operator][delegator] || !_payable(taskId, operator)) {
            return 0;
        }
        Checkpoints.Trace256 storage index = _accounts[taskId][operator].index;
        Stretch[] memory stretches = vault.delegationHistory(taskId, operator, delegator);
        uint256 last = index.latest();
        for (uint256 k = stretches.length; k > 0; --k) {
            Stretch memory stretch = stretches[k - 1];
            uint256 first = index.upperLookup(stretch.from - 1);
            amount += ArenaMath.earned(stretch.amount, last - first);
            last = first;
        }
    }

    /// @inheritdoc IRewardEscrow
    function allocated(TaskId taskId, address operator) external view returns (uint256) {
        return _accounts[taskId][operator].allocated;
    }

    /// @inheritdoc IRewardEscrow
    function forfeited(TaskId taskId, address trainer) external view returns (bool) {
        return _accounts[taskId][trainer].forfeited;
    }

    /// @inheritdoc IRewardEscrow
    function budgetOf(TaskId taskId) external view returns (Budget memory) {
        return _budgets[taskId];
    }

    function _given(Budget storage books) private view returns (uint256) {
        return uint256(books.budget) + books.sponsored;
    }

    /// @dev The creator's money is spent first: no sponsor adds to what the creator is paid back.
    function _leftOver(Budget storage books) private view returns (uint256 refund, uint256 burned) {
        refund = FixedPointMathLib.zeroFloorSub(books.budget, books.allocated);
        burned = _given(books) - books.allocated - refund;
    }

    /// @dev The same conditions as _requirePayable, as an answer.
    function _payable(TaskId taskId, address operator) private view returns (bool) {
        return arena.phase(taskId) == Phase.Closed && manager.pendingCases(taskId, operator) == 0
            && !_accounts[taskId][operator].forfeited;
    }

    function _requirePayable(TaskId taskId, address operator) private view {
        _requireClosed(taskId);
        if (manager.pendingCases(taskId, operator) != 0) revert CasePending(operator);
        if (_accounts[taskId][operator].forfeited) revert AlreadyForfeited(operator);
    }

    function _requireClosed(TaskId taskId) private view {
        Phase have = arena.phase(taskId);
        if (have != Phase.Closed) revert WrongPhase(have, Phase.Closed);
    }
}
