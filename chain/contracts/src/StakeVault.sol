// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {IChallengeManager} from "./interfaces/IChallengeManager.sol";
import {IStakeVault, Stake} from "./interfaces/IStakeVault.sol";
import {TaskConfig} from "./interfaces/ITasks.sol";
import {ArenaMath} from "./libraries/ArenaMath.sol";
import {CasePending, NotAllowed, NothingToPay, WrongPhase} from "./types/Errors.sol";
import {Phase, Role, TaskId} from "./types/Types.sol";

/// @title Stake vault
/// @notice See IStakeVault.
contract StakeVault is IStakeVault, ReentrancyGuardTransient {
    using SafeERC20 for IArenaToken;

    struct Operator {
        Role role;
        bool withdrawn;
        bool slashed;
        uint16 commissionBps;
        uint128 own;
        uint128 delegated;
        uint128 burned;
    }

    struct Delegation {
        uint128 amount;
        bool withdrawn;
    }

    /// @notice Operators a role and task; every loop over operators is bounded by it.
    uint256 public constant MAX_OPERATORS = 32;

    IArenaToken public immutable token;
    IArena public immutable arena;
    IChallengeManager public immutable manager;

    mapping(TaskId => mapping(address operator => Operator)) private _operators;
    mapping(TaskId => mapping(address operator => mapping(address delegator => Delegation))) private _delegations;
    mapping(TaskId => mapping(Role => address[])) private _lists;

    constructor(IArenaToken token_, IArena arena_, IChallengeManager manager_) {
        token = token_;
        arena = arena_;
        manager = manager_;
    }

    /* BEFORE THE START */

    /// @inheritdoc IStakeVault
    function stake(TaskId taskId, Role role_, uint128 amount, uint16 commissionBps_) external nonReentrant {
        _requirePhase(taskId, Phase.Registration);
        if (role_ == Role.None) revert BadRole();
        if (commissionBps_ > ArenaMath.BPS) revert BadCommission(commissionBps_);
        uint256 least = _leastStake(taskId, role_);
        if (amount < least) revert StakeTooLow(amount, least);
        Operator storage operator = _operators[taskId][msg.sender];
        if (operator.role != Role.None) revert AlreadyStaked(msg.sender);
        address[] storage list = _lists[taskId][role_];
        if (list.length == MAX_OPERATORS) revert TooManyOperators(MAX_OPERATORS);

        operator.role = role_;
        operator.commissionBps = commissionBps_;
        operator.own = amount;
        list.push(msg.sender);
        emit Staked(taskId, msg.sender, role_, amount, commissionBps_);

        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc IStakeVault
    function delegate(TaskId taskId, address operator, uint128 amount) external nonReentrant {
        _requirePhase(taskId, Phase.Registration);
        Operator storage to = _operators[taskId][operator];
        if (to.role == Role.None) revert NotStaked(operator);
        if (amount == 0) revert ZeroAmount();

        to.delegated += amount;
        _delegations[taskId][operator][msg.sender].amount += amount;
        emit Delegated(taskId, operator, msg.sender, amount);

        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /* AFTER THE END */

    /// @inheritdoc IStakeVault
    function withdraw(TaskId taskId) external nonReentrant {
        _requirePhase(taskId, Phase.Closed);
        if (manager.pendingCases(taskId, msg.sender) != 0) revert CasePending(msg.sender);
        Operator storage operator = _operators[taskId][msg.sender];
        if (operator.role == Role.None || operator.withdrawn) revert NothingToPay(msg.sender);

        if (arena.abandoned(taskId, msg.sender)) _slash(taskId, msg.sender);
        uint256 amount = operator.own - operator.burned;
        operator.withdrawn = true;
        emit Withdrawn(taskId, msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IStakeVault
    function undelegate(TaskId taskId, address operator) external nonReentrant {
        _requirePhase(taskId, Phase.Closed);
        Delegation storage delegation = _delegations[taskId][operator][msg.sender];
        uint256 amount = delegation.amount;
        if (amount == 0 || delegation.withdrawn) revert NothingToPay(msg.sender);

        delegation.withdrawn = true;
        emit Undelegated(taskId, operator, msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }

    /* CONVICTION */

    /// @inheritdoc IStakeVault
    function slash(TaskId taskId, address operator) external nonReentrant returns (uint256) {
        if (msg.sender != address(manager)) revert NotAllowed(msg.sender);
        return _slash(taskId, operator);
    }

    function _slash(TaskId taskId, address account) private returns (uint256 burned) {
        burned = slashable(taskId, account);
        Operator storage operator = _operators[taskId][account];
        operator.slashed = true;
        operator.burned += uint128(burned);
        emit Slashed(taskId, account, burned);

        token.burn(burned);
    }

    /* VIEWS */

    /// @inheritdoc IStakeVault
    function slashable(TaskId taskId, address operator) public view returns (uint256) {
        Operator storage staked = _operators[taskId][operator];
        return staked.slashed ? 0 : ArenaMath.bpsOf(staked.own, arena.taskConfig(taskId).slashBps);
    }

    /// @inheritdoc IStakeVault
    function slashed(TaskId taskId, address operator) external view returns (uint256) {
        return _operators[taskId][operator].burned;
    }

    /// @inheritdoc IStakeVault
    function role(TaskId taskId, address account) external view returns (Role) {
        return _operators[taskId][account].role;
    }

    /// @inheritdoc IStakeVault
    function ownStake(TaskId taskId, address operator) external view returns (uint256) {
        return _operators[taskId][operator].own;
    }

    /// @inheritdoc IStakeVault
    function delegatedStake(TaskId taskId, address operator) external view returns (uint256) {
        return _operators[taskId][operator].delegated;
    }

    /// @inheritdoc IStakeVault
    function delegationOf(TaskId taskId, address operator, address delegator) external view returns (uint256) {
        return _delegations[taskId][operator][delegator].amount;
    }

    /// @inheritdoc IStakeVault
    function commissionBps(TaskId taskId, address operator) external view returns (uint16) {
        return _operators[taskId][operator].commissionBps;
    }

    /// @inheritdoc IStakeVault
    function operators(TaskId taskId, Role role_) external view returns (address[] memory) {
        return _lists[taskId][role_];
    }

    /// @inheritdoc IStakeVault
    function stakes(TaskId taskId, Role role_) external view returns (Stake[] memory list) {
        address[] storage accounts = _lists[taskId][role_];
        list = new Stake[](accounts.length);
        for (uint256 i; i < list.length; ++i) {
            Operator storage staked = _operators[taskId][accounts[i]];
            list[i] = Stake({operator: accounts[i], own: staked.own, delegated: staked.delegated});
        }
    }

    function _requirePhase(TaskId taskId, Phase need) private view {
        Phase have = arena.phase(taskId);
        if (have != need) revert WrongPhase(have, need);
    }

    function _leastStake(TaskId taskId, Role role_) private view returns (uint256) {
        TaskConfig memory config = arena.taskConfig(taskId);
        return role_ == Role.Trainer ? config.minTrainerStake : config.minValidatorStake;
    }
}
