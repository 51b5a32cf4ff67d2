// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

import {IArena} from "./interfaces/IArena.sol";
import {IArenaToken} from "./interfaces/IArenaToken.sol";
import {IChallengeManager} from "./interfaces/IChallengeManager.sol";
import {IStakeVault, Stake, Stretch} from "./interfaces/IStakeVault.sol";
import {Pay} from "./interfaces/ITasks.sol";
import {ArenaMath} from "./libraries/ArenaMath.sol";
import {CasePending, NotAllowed, NothingToPay, WrongPhase} from "./types/Errors.sol";
import {Phase, Role, TaskId} from "./types/Types.sol";

/// @title Stake vault
/// @notice See IStakeVault.
/// @dev What was delegated is kept as sums by the round they count from, so that every round finds its own.
contract StakeVault is IStakeVault, ReentrancyGuardTransient {
    using SafeERC20 for IArenaToken;
    using Checkpoints for Checkpoints.Trace208;

    struct Operator {
        Role role;
        bool withdrawn;
        uint16 commissionBps;
        uint128 own;
        uint128 burned;
        uint256 from; // own stakes of its role before it
        Checkpoints.Trace208 delegated; // at most 128 bits
    }

    struct Delegation {
        bool withdrawn;
        Checkpoints.Trace208 lent;
    }

    struct Side {
        uint256 own;
        address[] operators;
    }

    IArenaToken public immutable token;
    IArena public immutable arena;
    IChallengeManager public immutable manager;

    mapping(TaskId => mapping(address operator => Operator)) private _operators;
    mapping(TaskId => mapping(address operator => mapping(address delegator => Delegation))) private _delegations;
    mapping(TaskId => mapping(Role => Side)) private _sides;

    constructor(IArenaToken token_, IArena arena_, IChallengeManager manager_) {
        token = token_;
        arena = arena_;
        manager = manager_;
    }

    /* IN */

    /// @inheritdoc IStakeVault
    function stake(TaskId taskId, Role role_, uint128 amount, uint16 commissionBps) external nonReentrant {
        _requirePhase(taskId, Phase.Registration);
        if (role_ == Role.None) revert BadRole();
        if (commissionBps > ArenaMath.BPS) revert BadCommission(commissionBps);
        (uint256 least, uint256 limit) = _bounds(taskId, role_);
        if (amount < least) revert StakeTooLow(amount, least);
        Operator storage operator = _operators[taskId][msg.sender];
        if (operator.role != Role.None) revert AlreadyStaked(msg.sender);
        Side storage side = _sides[taskId][role_];
        if (side.operators.length == limit) revert TooManyOperators(limit);

        operator.role = role_;
        operator.commissionBps = commissionBps;
        operator.own = amount;
        operator.from = side.own;
        side.own += amount;
        side.operators.push(msg.sender);
        emit Staked(taskId, msg.sender, role_, amount, commissionBps);

        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc IStakeVault
    function delegate(TaskId taskId, address operator, uint128 amount) external nonReentrant {
        Phase have = arena.phase(taskId);
        if (have > Phase.Submission) revert WrongPhase(have, Phase.Submission);
        if (_operators[taskId][operator].role == Role.None) revert NotStaked(operator);
        uint256 least = arena.pay(taskId).minDelegation;
        if (amount < least) revert DelegationTooLow(amount, least);

        uint16 from = arena.currentRound(taskId) + 1;
        Checkpoints.Trace208 storage all = _operators[taskId][operator].delegated;
        Checkpoints.Trace208 storage mine = _delegations[taskId][operator][msg.sender].lent;
        all.push(from, uint128(all.latest()) + amount); // checked: no sum of an operator passes 128 bits
        mine.push(from, mine.latest() + amount);
        emit Delegated(taskId, operator, msg.sender, amount, from);

        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /* OUT */

    /// @inheritdoc IStakeVault
    function withdraw(TaskId taskId) external nonReentrant {
        _requirePhase(taskId, Phase.Closed);
        if (manager.pendingCases(taskId, msg.sender) != 0) revert CasePending(msg.sender);
        Operator storage operator = _operators[taskId][msg.sender];
        if (operator.role == Role.None || operator.withdrawn) revert NothingToPay(msg.sender);

        uint256 amount = operator.own - operator.burned;
        operator.withdrawn = true;
        emit Withdrawn(taskId, msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IStakeVault
    function undelegate(TaskId taskId, address operator) external nonReentrant {
        _requirePhase(taskId, Phase.Closed);
        Delegation storage delegation = _delegations[taskId][operator][msg.sender];
        uint256 amount = delegation.lent.latest();
        if (amount == 0 || delegation.withdrawn) revert NothingToPay(msg.sender);

        delegation.withdrawn = true;
        emit Undelegated(taskId, operator, msg.sender, amount);

        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IStakeVault
    function slash(TaskId taskId, address operator) external nonReentrant returns (uint256 burned) {
        if (msg.sender != address(manager)) revert NotAllowed(msg.sender);
        burned = slashable(taskId, operator);
        if (burned == 0) return 0;

        _operators[taskId][operator].burned = uint128(burned);
        emit Slashed(taskId, operator, burned);

        token.burn(burned);
    }

    /* VIEWS */

    /// @inheritdoc IStakeVault
    function slashable(TaskId taskId, address operator) public view returns (uint256) {
        Operator storage staked = _operators[taskId][operator];
        if (staked.burned != 0 || staked.withdrawn) return 0; // what is still here is other people's
        return ArenaMath.bpsOf(staked.own, arena.court(taskId).slashBps);
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
    function operators(TaskId taskId, Role role_) external view returns (address[] memory) {
        return _sides[taskId][role_].operators;
    }

    /// @inheritdoc IStakeVault
    function totals(TaskId taskId, Role role_) external view returns (uint256 own, uint256 count) {
        Side storage side = _sides[taskId][role_];
        return (side.own, side.operators.length);
    }

    /// @inheritdoc IStakeVault
    function stakesAt(TaskId taskId, Role role_, uint16 round, uint256 from, uint256 count)
        external
        view
        returns (Stake[] memory list)
    {
        address[] storage accounts = _sides[taskId][role_].operators;
        uint256 left = from < accounts.length ? accounts.length - from : 0;
        list = new Stake[](count < left ? count : left);
        for (uint256 i; i < list.length; ++i) {
            Operator storage staked = _operators[taskId][accounts[from + i]];
            list[i] = Stake({
                operator: accounts[from + i],
                commissionBps: staked.commissionBps,
                own: staked.own,
                delegated: uint128(staked.delegated.upperLookup(round))
            });
        }
    }

    /// @inheritdoc IStakeVault
    function range(TaskId taskId, address operator) external view returns (uint256 from, uint256 own) {
        Operator storage staked = _operators[taskId][operator];
        return (staked.from, staked.own);
    }

    /// @inheritdoc IStakeVault
    function delegationHistory(TaskId taskId, address operator, address delegator)
        external
        view
        returns (Stretch[] memory stretches)
    {
        Checkpoints.Trace208 storage lent = _delegations[taskId][operator][delegator].lent;
        stretches = new Stretch[](lent.length());
        for (uint32 k; k < stretches.length; ++k) {
            Checkpoints.Checkpoint208 memory sum = lent.pos(k);
            stretches[k] = Stretch({from: uint16(sum._key), amount: uint128(sum._value)});
        }
    }

    function _requirePhase(TaskId taskId, Phase need) private view {
        Phase have = arena.phase(taskId);
        if (have != need) revert WrongPhase(have, need);
    }

    function _bounds(TaskId taskId, Role role_) private view returns (uint256 leastStake, uint256 mostOperators) {
        Pay memory pay = arena.pay(taskId);
        if (role_ == Role.Trainer) return (pay.minTrainerStake, pay.maxTrainers);
        return (pay.minValidatorStake, pay.maxValidators);
    }
}
