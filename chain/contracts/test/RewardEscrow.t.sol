// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IRewardEscrow} from "../src/interfaces/IRewardEscrow.sol";
import {Stake} from "../src/interfaces/IStakeVault.sol";
import {ITasks, TaskConfig} from "../src/interfaces/ITasks.sol";
import {CasePending, NotAllowed, NothingToPay, TooLate, WrongPhase} from "../src/types/Errors.sol";
import {Phase, Role} from "../src/types/Types.sol";
import {BaseTest} from "./BaseTest.sol";

/// @dev A budget of 2 * 90 + 200 and a deposit of 30. Alice has 1,000 of her own, 400 lent and a commission of 20 %.
abstract contract EscrowTest is BaseTest {
    uint256 internal constant BUDGET = 380e18;
    uint256 internal constant DEPOSIT = 30e18;
    uint256 internal constant POOL = 22_857142857142857142; // delegators' part of 100: 100 * 0.8 * 400/1,400

    function setUp() public virtual override {
        super.setUp();
        _stake(alice, Role.Trainer, 1_000e18, 2_000);
        _stake(bob, Role.Trainer, 1_000e18, 2_000);
        _delegate(dora, alice, 300e18);
        _delegate(dan, alice, 100e18);
    }

    /// @dev As Scoring does it, with the stakes of the round.
    function _allocate(uint16 round, uint256 toAlice, uint256 toBob) internal returns (uint256) {
        Stake[] memory stakes = vault.stakesAt(taskId, Role.Trainer, round, 0, 2);
        uint256[] memory amounts = new uint256[](2);
        (amounts[0], amounts[1]) = (toAlice, toBob);
        vm.prank(address(scoring));
        return escrow.allocate(taskId, round, stakes, amounts);
    }

    function _sponsor(address who, uint16 round, uint128 amount) internal {
        vm.prank(who);
        escrow.sponsor(taskId, round, amount);
    }

    function _redirect(address trainer) internal returns (uint256) {
        vm.prank(address(manager));
        return escrow.redirect(taskId, trainer);
    }

    function _claim(address who) internal {
        vm.prank(who);
        escrow.claim(taskId);
    }

    function _claimDelegated(address who, address operator) internal {
        vm.prank(who);
        escrow.claimDelegated(taskId, operator);
    }

    function _reclaim(address who) internal {
        vm.prank(who);
        escrow.reclaim(taskId);
    }

    function _setAttested(bool attested) internal {
        vm.mockCall(address(scoring), abi.encodeCall(scoring.attested, (taskId)), abi.encode(attested));
    }
}

contract BooksTest is EscrowTest {
    function test_onlyTheArenaFundsOnlyScoringAllocatesAndOnlyTheManagerRedirects() public {
        bytes memory refused = abi.encodeWithSelector(NotAllowed.selector, creator);
        vm.startPrank(creator);
        vm.expectRevert(refused);
        escrow.fund(taskId, 1, 1);
        vm.expectRevert(refused);
        escrow.allocate(taskId, 1, new Stake[](0), new uint256[](0));
        vm.expectRevert(refused);
        escrow.redirect(taskId, alice);
    }

    function test_budgetAndDepositArrive() public view {
        assertEq(token.balanceOf(address(escrow)), BUDGET + DEPOSIT);
        assertEq(escrow.budgetOf(taskId).budget, BUDGET);
        assertEq(escrow.budgetOf(taskId).deposit, DEPOSIT);
    }

    function test_nobodyIsAllocatedMoreThanTheBudget() public {
        _createTask(_config()); // another task's money lies in the same contract
        assertEq(_allocate(1, 200e18, 100e18), 300e18);
        vm.expectRevert(abi.encodeWithSelector(IRewardEscrow.OverBudget.selector, BUDGET, BUDGET + 1));
        this.allocateAsScoring(2, 80e18, 1);
        _allocate(2, 80e18, 0);
        assertEq(escrow.budgetOf(taskId).allocated, BUDGET);
        assertEq(escrow.allocated(taskId, alice), 280e18);
        assertEq(escrow.allocated(taskId, bob), 100e18);
    }

    /// @dev One call, so that expectRevert sees its end.
    function allocateAsScoring(uint16 round, uint256 toAlice, uint256 toBob) external {
        _allocate(round, toAlice, toBob);
    }

    function test_theDepositIsNoReward() public {
        _allocate(1, BUDGET, 0);
        vm.expectRevert(abi.encodeWithSelector(IRewardEscrow.OverBudget.selector, BUDGET, BUDGET + DEPOSIT));
        this.allocateAsScoring(2, DEPOSIT, 0);
    }

    function test_anAllocationOfNothingLeavesNoTrace() public {
        vm.recordLogs();
        assertEq(_allocate(1, 0, 0), 0);
        assertEq(vm.getRecordedLogs().length, 0);
    }

    /* SPONSORS */

    function test_sponsorsRaiseTheRewardOfARound() public {
        vm.expectEmit(address(escrow));
        emit IRewardEscrow.Sponsored(taskId, 2, stranger, 50e18);
        _sponsor(stranger, 2, 50e18);
        _sponsor(dan, 2, 1e18);
        assertEq(escrow.sponsored(taskId, 2), 51e18);
        assertEq(escrow.sponsored(taskId, 1), 0);
        assertEq(escrow.budgetOf(taskId).sponsored, 51e18);
        assertEq(token.balanceOf(address(escrow)), BUDGET + DEPOSIT + 51e18);
        _allocate(2, BUDGET + 51e18, 0);
    }

    function test_sponsorsGiveBeforeTheRoundIsSettled() public {
        vm.warp(_times(1).settleFrom - 1);
        _sponsor(stranger, 1, 1e18);
        vm.warp(_times(1).settleFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).settleFrom));
        _sponsor(stranger, 1, 1e18);
        _sponsor(stranger, 3, 1e18);
    }

    function test_sponsorsGiveSomethingToARoundThatIs() public {
        vm.expectRevert(IRewardEscrow.ZeroAmount.selector);
        _sponsor(stranger, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, 4));
        _sponsor(stranger, 4, 1e18);
        vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, 0));
        _sponsor(stranger, 0, 1e18);
    }

    /// @dev However much there is of the token: what could be allocated always fits, so no sponsor stops a settlement.
    function test_allThatIsGivenHas128Bits() public {
        deal(address(token), stranger, type(uint128).max);
        uint128 room = type(uint128).max - uint128(BUDGET);
        bytes memory full = abi.encodeWithSelector(IRewardEscrow.OverBudget.selector, room, uint256(room) + 1);
        vm.expectRevert(full);
        _sponsor(stranger, 1, room + 1);
        _sponsor(stranger, 1, room);
        _allocate(1, type(uint128).max, 0);
        _warpTo(Phase.Closed);
        _claimDelegated(dora, alice);
        _claimDelegated(dan, alice);
        _claim(alice);
    }
}

contract ClaimsTest is EscrowTest {
    function test_nothingIsPaidBeforeTheTaskIsClosed() public {
        _allocate(1, 100e18, 0);
        bytes memory wrong = abi.encodeWithSelector(WrongPhase.selector, Phase.Challenging, Phase.Closed);
        vm.warp(_phases().closedFrom - 1);
        assertEq(escrow.claimable(taskId, alice), 0);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), 0);
        vm.expectRevert(wrong);
        _claim(alice);
        vm.expectRevert(wrong);
        _claimDelegated(dora, alice);
        vm.expectRevert(wrong);
        _reclaim(creator);
        vm.expectRevert(wrong);
        escrow.burnDeposit(taskId);
        vm.warp(_phases().closedFrom);
        _claim(alice);
        _claimDelegated(dora, alice);
    }

    function test_theRewardIsSharedByStakeAndCommission() public {
        _allocate(1, 100e18, 0);
        _warpTo(Phase.Closed);
        assertEq(escrow.claimable(taskId, alice), 100e18 - POOL);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), POOL * 3 / 4);
        assertEq(escrow.claimableDelegated(taskId, alice, dan), POOL / 4, "rounded down");
        uint256[3] memory before = [token.balanceOf(alice), token.balanceOf(dora), token.balanceOf(dan)];
        _claim(alice);
        _claimDelegated(dora, alice);
        _claimDelegated(dan, alice);
        assertEq(token.balanceOf(alice) - before[0], 100e18 - POOL, "view and action agree");
        assertEq(token.balanceOf(dora) - before[1], POOL * 3 / 4);
        assertEq(token.balanceOf(dan) - before[2], POOL / 4);
    }

    function test_aNewcomerTakesNothingOfWhatWasEarnedBefore() public {
        _warpTo(Phase.Submission);
        _delegate(stranger, alice, 400e18); // counts from round 2
        _allocate(1, 100e18, 0);
        _allocate(2, 0, 100e18);
        _warpTo(Phase.Closed);
        assertEq(escrow.claimableDelegated(taskId, alice, stranger), 0);
        assertEq(escrow.claimableDelegated(taskId, alice, dan), POOL / 4, "nor makes it less");
    }

    function test_whoHasNoDelegatorsKeepsAll() public {
        _allocate(1, 0, 100e18);
        _warpTo(Phase.Submission);
        _delegate(dan, bob, 1_000e18); // counts from round 2
        _allocate(2, 0, 100e18);
        _warpTo(Phase.Closed);
        assertEq(escrow.claimable(taskId, bob), 160e18);
        assertEq(escrow.claimableDelegated(taskId, bob, dan), 40e18 - 1, "the index rounds down");
    }

    function test_theSplitDoesNotChangeWhenPrincipalLeavesFirst() public {
        _allocate(1, 100e18, 0);
        _warpTo(Phase.Closed);
        uint256 due = escrow.claimableDelegated(taskId, alice, dora);
        vm.prank(alice);
        vault.withdraw(taskId);
        vm.prank(dan);
        vault.undelegate(taskId, alice);
        vm.prank(dora);
        vault.undelegate(taskId, alice);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), due);
        _claimDelegated(dora, alice);
        _claimDelegated(dan, alice);
        _claim(alice);
    }

    function test_everyPartIsPaidOnce() public {
        _allocate(1, 100e18, 0);
        _warpTo(Phase.Closed);
        _claim(alice);
        _claimDelegated(dora, alice);
        assertEq(escrow.claimable(taskId, alice), 0);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), 0);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, alice));
        _claim(alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, dora));
        _claimDelegated(dora, alice);
    }

    function test_strangersHaveNothingToClaim() public {
        _allocate(1, 100e18, 0);
        _warpTo(Phase.Closed);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, stranger));
        _claim(stranger);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, stranger));
        _claimDelegated(stranger, alice);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, alice));
        _claimDelegated(alice, alice);
    }

    /* FORFEIT */

    function test_redirectingTakesTheWholeRewardForGood() public {
        _allocate(1, 100e18 + 9, 0);
        uint256 supply = token.totalSupply();
        assertEq(_redirect(alice), 90e18 + 9, "the burn rounds down");
        vm.expectRevert(abi.encodeWithSelector(IRewardEscrow.AlreadyForfeited.selector, alice));
        _redirect(alice);
        assertEq(token.balanceOf(address(manager)), 90e18 + 9);
        assertEq(token.totalSupply(), supply - 10e18);

        assertEq(_allocate(2, 50e18, 20e18), 20e18, "hers is dropped");
        assertEq(escrow.budgetOf(taskId).allocated, 120e18 + 9);
        _warpTo(Phase.Closed);
        bytes memory gone = abi.encodeWithSelector(IRewardEscrow.AlreadyForfeited.selector, alice);
        vm.expectRevert(gone);
        _claim(alice);
        vm.expectRevert(gone);
        _claimDelegated(dora, alice);
        assertEq(escrow.claimable(taskId, alice), 0);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), 0);
        _claim(bob);
    }

    function test_aPendingCaseHoldsTheRewardOfThatTrainerAlone() public {
        _allocate(1, 100e18, 100e18);
        bytes memory question = abi.encodeCall(manager.pendingCases, (taskId, alice));
        vm.mockCall(address(manager), question, abi.encode(1));
        _warpTo(Phase.Closed);
        bytes memory pending = abi.encodeWithSelector(CasePending.selector, alice);
        vm.expectRevert(pending);
        _claim(alice);
        vm.expectRevert(pending);
        _claimDelegated(dora, alice);
        assertEq(escrow.claimable(taskId, alice), 0);
        assertEq(escrow.claimableDelegated(taskId, alice, dora), 0);
        _claim(bob);
        vm.mockCall(address(manager), question, abi.encode(0));
        _claim(alice);
        _claimDelegated(dora, alice);
    }
}

contract CreatorsPartTest is EscrowTest {
    function test_theCreatorReclaimsWhatWasNotAllocatedOnce() public {
        _allocate(1, 100e18, 0);
        _warpTo(Phase.Closed);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, stranger));
        _reclaim(stranger);
        uint256 before = token.balanceOf(creator);
        _reclaim(creator);
        assertEq(token.balanceOf(creator), before + 280e18);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, creator));
        _reclaim(creator);
        _claim(alice);
    }

    function test_thereIsNothingToReclaimOfAnEmptyBudget() public {
        _allocate(1, BUDGET, 0);
        _warpTo(Phase.Closed);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, creator));
        _reclaim(creator);
    }

    /// @dev The attack: collect what a sponsor (an emission) gives by keeping rewards small.
    function test_noSponsorAddsToWhatTheCreatorGetsBack() public {
        _sponsor(stranger, 1, 100e18);
        _allocate(1, 100e18, 0);
        _warpTo(Phase.Closed);
        uint256 supply = token.totalSupply();
        vm.expectEmit(address(escrow));
        emit IRewardEscrow.Reclaimed(taskId, creator, 280e18, 100e18);
        _reclaim(creator);
        assertEq(token.totalSupply(), supply - 100e18);
    }

    function test_whoOpenedTheFinalSetGetsTheDepositBack() public {
        _allocate(1, BUDGET, 0);
        _setAttested(true);
        _warpTo(Phase.Closed);
        vm.expectRevert(IRewardEscrow.DepositEarned.selector);
        escrow.burnDeposit(taskId);
        uint256 before = token.balanceOf(creator);
        _reclaim(creator);
        assertEq(token.balanceOf(creator), before + DEPOSIT);
        assertEq(escrow.budgetOf(taskId).deposit, 0);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, creator));
        _reclaim(creator);
    }

    function test_anAbsentCreatorsDepositBurnsOnce() public {
        _warpTo(Phase.Closed);
        _reclaim(creator);
        assertEq(escrow.budgetOf(taskId).deposit, DEPOSIT, "not the creator's to have");
        uint256 supply = token.totalSupply();
        vm.expectEmit(address(escrow));
        emit IRewardEscrow.DepositBurned(taskId, DEPOSIT);
        vm.prank(stranger);
        escrow.burnDeposit(taskId);
        assertEq(token.totalSupply(), supply - DEPOSIT);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, address(this)));
        escrow.burnDeposit(taskId);
        assertEq(token.balanceOf(address(escrow)), 0);
    }

    /// @dev I2 and the law of the ledger: allocated + reclaimed + burned = budget + sponsored, and what is paid and burned
    /// and lies here still is what came in, whoever was convicted.
    function testFuzz_everyWeiIsAccountedFor(uint256[6] memory amounts, uint128 gift, uint8 what) public {
        uint256 supply = token.totalSupply();
        gift = uint128(bound(gift, 0, 1_000e18));
        if (gift > 0) _sponsor(stranger, 3, gift);
        for (uint16 k; k < 3; ++k) {
            uint256 room = BUDGET + gift - escrow.budgetOf(taskId).allocated;
            uint256 toAlice = bound(amounts[k], 0, room);
            _allocate(k + 1, toAlice, bound(amounts[k + 3], 0, room - toAlice));
            if (k == what % 5) _redirect(alice);
        }
        uint256 allocated = escrow.budgetOf(taskId).allocated;
        uint256 given = _payAll(what);
        uint256 burned = supply - token.totalSupply();
        assertEq(given + burned + token.balanceOf(address(escrow)), BUDGET + gift + DEPOSIT);
        assertLe(token.balanceOf(address(escrow)), 4, "two wei a stretch");
        uint256 notEarned = BUDGET > allocated ? BUDGET - allocated : 0;
        assertEq(_reclaimed, notEarned, "reclaimed");
        assertEq(allocated + _reclaimed + _burnedAtReclaim, BUDGET + gift);
    }

    uint256 private _reclaimed;
    uint256 private _burnedAtReclaim;

    function _payAll(uint8 what) private returns (uint256 given) {
        uint256 before = token.balanceOf(address(escrow)) + token.balanceOf(address(manager));
        _warpTo(Phase.Closed);
        (uint256 creators, uint256 supply) = (token.balanceOf(creator), token.totalSupply());
        try this.reclaimAsCreator() {} catch {}
        (_reclaimed, _burnedAtReclaim) = (token.balanceOf(creator) - creators, supply - token.totalSupply());
        if (escrow.claimable(taskId, alice) > 0) _claim(alice);
        if (escrow.claimable(taskId, bob) > 0) _claim(bob);
        if (escrow.claimableDelegated(taskId, alice, dora) > 0) _claimDelegated(dora, alice);
        if (escrow.claimableDelegated(taskId, alice, dan) > 0) _claimDelegated(dan, alice);
        uint256 burned = supply - token.totalSupply();
        escrow.burnDeposit(taskId);
        given = before - token.balanceOf(address(escrow)) - burned - DEPOSIT;
        if (what % 5 >= 3) assertEq(token.balanceOf(address(manager)), 0, "nobody was convicted");
    }

    function reclaimAsCreator() external {
        _reclaim(creator);
    }
}

/// @dev I6, I24: delegators' shares over rounds, against sums made round by round and against the Python model.
contract DelegatorsShareTest is BaseTest {
    uint16 private constant ROUNDS = 6; // and the final one

    address[3] private _lenders;
    uint256[3] private _lent;
    uint256[3] private _stretches;
    uint256[3] private _naive;

    function setUp() public override {
        super.setUp();
        _lenders = [dora, dan, stranger];
        for (uint256 k; k < 3; ++k) {
            deal(address(token), _lenders[k], type(uint128).max);
        }
        deal(address(token), alice, type(uint128).max);
        deal(address(token), creator, type(uint128).max);
    }

    function _newTask(uint128 own, uint16 commission) private {
        vm.warp(1_700_000_000);
        taskId = _createTask(_manyRounds());
        _stake(alice, Role.Trainer, own, commission);
    }

    function _manyRounds() private view returns (TaskConfig memory config) {
        config = _config();
        config.clock.rounds = ROUNDS;
        (config.pay.minTrainerStake, config.pay.minDelegation) = (1, 1);
        (config.pay.roundReward, config.pay.finalReward) = (1e27, 1e27);
    }

    /// @dev 0 is the registration; what is lent in round r counts from r + 1.
    function _warpToRound(uint16 round) private {
        if (round > 0) vm.warp(_phases().submissionFrom + uint256(round - 1) * 1 days);
    }

    function _allocate(uint16 round, uint256 amount) private returns (Stake memory) {
        Stake[] memory stakes = vault.stakesAt(taskId, Role.Trainer, round, 0, 1);
        uint256[] memory amounts = new uint256[](1);
        amounts[0] = amount;
        vm.prank(address(scoring));
        escrow.allocate(taskId, round, stakes, amounts);
        return stakes[0];
    }

    /// @dev An amount of any magnitude up to 1e26 wei.
    function _anyAmount(uint256 seed) private pure returns (uint128) {
        return uint128(bound(seed, 1, 10 ** (seed % 27)));
    }

    /// @dev In each round somebody may lend more; then the round before has earned. A claim is at most the exact part
    /// and less than two wei a stretch below it; the sum made of whole numbers is at most a wei a round below it.
    function testFuzz_claimsAreTheSumsOverRounds(uint256[7] memory seeds, uint128 own, uint16 commission) public {
        (own, commission) = (uint128(bound(own, 1, 1e27)), uint16(bound(commission, 0, 10_000)));
        _newTask(own, commission);
        uint256 pools;
        for (uint16 r; r <= ROUNDS; ++r) {
            uint256 seed = uint256(keccak256(abi.encode(seeds[r])));
            if (seed % 3 > 0) _lend(seed % 3, r, _anyAmount(seed >> 8));
            if (seed % 4 > 0) pools += _earn(r + 1, _anyAmount(seed >> 16), own, commission);
        }
        _warpTo(Phase.Closed);
        uint256 claims;
        for (uint256 k; k < 3; ++k) {
            uint256 claim = escrow.claimableDelegated(taskId, alice, _lenders[k]);
            assertLe(claim, _naive[k] + ROUNDS + 1, "not above the exact part");
            assertGe(claim + 2 * _stretches[k], _naive[k], "less than two wei a stretch below it");
            claims += claim;
        }
        assertLe(claims, pools, "claims within pools");
        assertEq(escrow.claimable(taskId, alice) + pools, escrow.allocated(taskId, alice), "to the wei");
    }

    function _lend(uint256 k, uint16 round, uint128 amount) private {
        _warpToRound(round);
        _delegate(_lenders[k], alice, amount);
        _lent[k] += amount;
        ++_stretches[k];
    }

    function _earn(uint16 round, uint256 reward, uint256 own, uint256 commission) private returns (uint256 pool) {
        uint256 all = _lent[0] + _lent[1] + _lent[2];
        assertEq(_allocate(round, reward).delegated, all);
        if (all == 0) return 0;
        pool = Math.mulDiv(reward, (10_000 - commission) * all, 10_000 * (own + all));
        for (uint256 k; k < 3; ++k) {
            _naive[k] += Math.mulDiv(pool, _lent[k], all);
        }
    }

    /* THE MODEL */

    string private _json;

    /// @dev tests/golden/delegations.json is what chain/delegation.py says; here it is said by vault and escrow.
    function test_claimsAreTheModelsToTheWei() public {
        _json = vm.readFile(string.concat(vm.projectRoot(), "/../../tests/golden/delegations.json"));
        uint256 cases;
        for (; vm.keyExistsJson(_json, _path(cases, "own")); ++cases) {
            _play(cases);
        }
        assertGt(cases, 20, "the golden file was read");
    }

    function _path(uint256 number, string memory field) private pure returns (string memory) {
        return string.concat(".cases[", vm.toString(number), "].", field);
    }

    function _uint(uint256 number, string memory field) private view returns (uint256) {
        return vm.parseJsonUint(_json, _path(number, field));
    }

    function _uints(uint256 number, string memory field) private view returns (uint256[] memory) {
        return vm.parseJsonUintArray(_json, _path(number, field));
    }

    function _play(uint256 number) private {
        _newTask(uint128(_uint(number, "own")), uint16(_uint(number, "commission_bps")));
        uint256[] memory rewards = _uints(number, "rewards");
        uint256[] memory who = _uints(number, "delegators");
        uint256[] memory amounts = _uints(number, "amounts");
        uint256[] memory inRound = _uints(number, "rounds");
        for (uint256 k; k < who.length; ++k) {
            _warpToRound(uint16(inRound[k]));
            _delegate(_lenders[who[k]], alice, uint128(amounts[k]));
        }
        for (uint16 r; r < rewards.length; ++r) {
            _allocate(r + 1, rewards[r]);
        }
        _warpTo(Phase.Closed);
        string memory where = vm.toString(number);
        assertEq(escrow.claimable(taskId, alice), _uint(number, "operator"), where);
        uint256[] memory claims = _uints(number, "claims");
        for (uint256 k; k < claims.length; ++k) {
            assertEq(escrow.claimableDelegated(taskId, alice, _lenders[k]), claims[k], where);
        }
    }
}
