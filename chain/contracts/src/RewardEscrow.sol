// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {IChallengeManager} from "./interfaces/IChallengeManager.sol";
import {Budget, IRewardEscrow} from "./interfaces/IRewardEscrow.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {ArenaMath} from "./libraries/ArenaMath.sol";
import {CasePending, NotAllowed, NothingToPay, WrongPhase} from "./types/Errors.sol";
import {Phase, TaskId} from "./types/Types.sol";

/// @title Reward escrow
/// @notice See IRewardEscrow.
contract RewardEscrow is IRewardEscrow, ReentrancyGuardTransient {
    using SafeERC20 for IArenaToken;

    IArenaToken public immutable token;
    IArena public immutable arena;
    IChallengeManager public immutable manager;
    IStakeVault public immutable vault;

    /// @inheritdoc IRewardEscrow
    mapping(TaskId => mapping(address operator => uint256)) public allocated;
    /// @inheritdoc IRewardEscrow
    mapping(TaskId => mapping(address trainer => bool)) public forfeited;

    mapping(TaskId => Budget) private _budgets;
    mapping(TaskId => mapping(address operator => bool)) private _claimed;
    mapping(TaskId => mapping(address operator => mapping(address delegator => bool))) private _delegatedClaimed;

    constructor(IArenaToken token_, IArena arena_, IChallengeManager manager_, IStakeVault vault_) {
        token = token_;
        arena = arena_;
        manager = manager_;
        vault = vault_;
    }

    /* BOOKS */

    /// @inheritdoc IRewardEscrow
    function fund(TaskId taskId, uint128 amount) external {
        if (msg.sender != address(arena)) revert NotAllowed(msg.sender);
        _budgets[taskId].budget += amount;
        emit Funded(taskId, amount);
    }

    /// @inheritdoc IRewardEscrow
    function allocate(TaskId taskId, address operator, uint128 amount) external returns (uint256) {
        if (msg.sender != address(arena)) revert NotAllowed(msg.sender);
        if (forfeited[taskId][operator] || amount == 0) return 0;
        Budget storage books = _budgets[taskId];
        uint256 total = uint256(books.allocated) + amount;
        if (total > books.budget) revert OverBudget(books.budget, total);

        books.allocated = uint128(total);
        allocated[taskId][operator] += amount;
        emit Allocated(taskId, operator, amount);
        return amount;
    }

    /// @inheritdoc IRewardEscrow
    function redirect(TaskId taskId, address trainer) external nonReentrant returns (uint256 redirected) {
        if (msg.sender != address(manager)) revert NotAllowed(msg.sender);
        if (forfeited[taskId][trainer]) revert AlreadyForfeited(trainer);
        uint256 amount = allocated[taskId][trainer];
        uint256 burned = ArenaMath.bpsOf(amount, arena.taskConfig(taskId).burnBps);
        redirected = amount - burned;

        forfeited[taskId][trainer] = true;
        emit Redirected(taskId, trainer, amount, burned);

        token.burn(burned);
        token.safeTransfer(msg.sender, redirected);
    }

    /* PAYMENTS */

    /// @inheritdoc IRewardEscrow
    function claim(TaskId taskId) external nonReentrant {
        _requirePayable(taskId, msg.sender);
        uint256 amount = claimable(taskId, msg.sender);
        if (amount == 0) revert NothingToPay(msg.sender);

        _claimed[taskId][msg.sender] = true;
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
        uint256 amount = books.budget - books.allocated;
        if (books.reclaimed || amount == 0) revert NothingToPay(msg.sender);

        books.reclaimed = true;
        emit Reclaimed(taskId, msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }

    /* VIEWS */

    /// @inheritdoc IRewardEscrow
    function claimable(TaskId taskId, address operator) public view returns (uint256) {
        if (_claimed[taskId][operator] || !_payable(taskId, operator)) return 0;
        return allocated[taskId][operator] - _delegatorsPool(taskId, operator);
    }

    /// @inheritdoc IRewardEscrow
    function claimableDelegated(TaskId taskId, address operator, address delegator) public view returns (uint256) {
        if (_delegatedClaimed[taskId][operator][delegator] || !_payable(taskId, operator)) return 0;
        uint256 lent = vault.delegationOf(taskId, operator, delegator);
        return ArenaMath.portion(_delegatorsPool(taskId, operator), lent, vault.delegatedStake(taskId, operator));
    }

    /// @inheritdoc IRewardEscrow
    function budgetOf(TaskId taskId) external view returns (Budget memory) {
        return _budgets[taskId];
    }

    function _delegatorsPool(TaskId taskId, address operator) private view returns (uint256) {
        uint256 own = vault.ownStake(taskId, operator);
        uint256 delegated = vault.delegatedStake(taskId, operator);
        uint256 commission = vault.commissionBps(taskId, operator);
        return ArenaMath.delegatorsPool(allocated[taskId][operator], commission, own, delegated);
    }

    /// @dev The same conditions as _requirePayable, as an answer.
    function _payable(TaskId taskId, address operator) private view returns (bool) {
        return arena.phase(taskId) == Phase.Closed && manager.pendingCases(taskId, operator) == 0
            && !forfeited[taskId][operator];
    }

    function _requirePayable(TaskId taskId, address operator) private view {
        _requireClosed(taskId);
        if (manager.pendingCases(taskId, operator) != 0) revert CasePending(operator);
        if (forfeited[taskId][operator]) revert AlreadyForfeited(operator);
    }

    function _requireClosed(TaskId taskId) private view {
        Phase have = arena.phase(taskId);
        if (have != Phase.Closed) revert WrongPhase(have, Phase.Closed);
    }
}
