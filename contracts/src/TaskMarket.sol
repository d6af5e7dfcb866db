// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Consortium} from "./Consortium.sol";
import {LedgerProof} from "./LedgerProof.sol";
import {ITaskMarket} from "./interfaces/ITaskMarket.sol";

/// @title The money of UEs (deposits, locks) and of servers (earnings), and every way out of it.
/// @notice Settle and refund partition time: a second belongs to exactly one of them. No way out needs a consent.
abstract contract TaskMarket is ITaskMarket, Consortium {
    // ---- constants

    bytes32 internal constant VOUCHER_TYPEHASH = keccak256("Voucher(uint96 cap,uint40 validUntil)");
    bytes32 private constant _EXIT_TYPEHASH = keccak256("Exit(uint24 nonce,uint40 validUntil)");
    bytes32 private constant _DOMAIN_TYPEHASH = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
    );
    uint256 private constant _BASIS_POINTS = 10_000;
    uint256 private constant _MAX_LOCK = 30 days;
    uint256 private constant _MIN_EXIT_DELAY = 60 seconds;
    uint256 private constant _MAX_EXIT_DELAY = 30 days;

    // ---- types

    struct Earned {
        uint96 balance;
        uint56 desiredMs;
        uint56 actualMs;
        uint40 tasks;
        uint8 open;
    }

    struct Account {
        uint96 balance;
        uint96 spent;
        uint40 exitAt;
        uint24 exitNonce;
    }

    struct Lock {
        uint96 amount;
        uint40 deadline;
    }

    // ---- storage (behind Consortium's)

    mapping(uint16 id => Earned) internal _earned;
    mapping(address ue => Account) internal _account;
    mapping(bytes32 key => Lock) internal _lock;

    // ---- immutables

    uint256 internal immutable LAMBDA_BPS;
    uint256 internal immutable EXIT_DELAY;
    uint256 private immutable _CHAIN_ID;
    bytes32 private immutable _DOMAIN;

    // ---- constructor

    constructor(uint256 lambdaBps, uint256 exitDelay) {
        if (lambdaBps > _BASIS_POINTS) revert TaskMarketBadAmount();
        if (exitDelay < _MIN_EXIT_DELAY || exitDelay > _MAX_EXIT_DELAY) revert TaskMarketBadDeadline(exitDelay);
        // A server that misbehaved must not be gone before the last voucher it could have certified has ended.
        if (UNBOND_DELAY < 2 * exitDelay) revert TaskMarketBadDeadline(UNBOND_DELAY);
        LAMBDA_BPS = lambdaBps;
        EXIT_DELAY = exitDelay;
        _CHAIN_ID = block.chainid;
        _DOMAIN = _domain();
    }

    // ---- external

    /// @inheritdoc ITaskMarket
    function depositFor(address ue) external payable {
        Account storage a = _account[ue];
        uint256 balance = a.balance + msg.value;
        if (msg.value == 0 || balance > type(uint96).max) revert TaskMarketBadAmount();
        a.balance = uint96(balance);
        emit Deposited(ue, msg.value);
    }

    /// @inheritdoc ITaskMarket
    function open(bytes32 offer, uint40 deadline) external payable {
        if (msg.value == 0 || msg.value > type(uint96).max) revert TaskMarketBadAmount();
        if (deadline <= block.timestamp || deadline > block.timestamp + _MAX_LOCK) {
            revert TaskMarketBadDeadline(deadline);
        }
        bytes32 key = lockKey(msg.sender, offer);
        Lock storage lock = _lock[key];
        if (lock.amount != 0) revert TaskMarketOfferOpen(key);
        lock.amount = uint96(msg.value);
        lock.deadline = deadline;
        emit OfferOpened(offer, msg.sender, msg.value, deadline);
    }

    /// @inheritdoc ITaskMarket
    function refund(address ue, bytes32 offer) external nonReentrant {
        bytes32 key = lockKey(ue, offer);
        Lock storage lock = _lock[key];
        (uint256 amount, uint256 deadline) = (lock.amount, lock.deadline);
        if (amount == 0) revert TaskMarketOfferUnknown(key);
        if (block.timestamp <= deadline) revert TaskMarketTooEarly(deadline);
        lock.amount = 0;
        lock.deadline = 0;
        emit OfferRefunded(offer, ue, amount);
        _send(ue, amount);
    }

    /// @inheritdoc ITaskMarket
    function requestExit() external {
        _requestExit(msg.sender);
    }

    /// @inheritdoc ITaskMarket
    function requestExitFor(address ue, uint40 validUntil, bytes calldata sig) external {
        if (block.timestamp > validUntil) revert TaskMarketBadDeadline(validUntil);
        bytes32 exit = keccak256(abi.encode(_EXIT_TYPEHASH, _account[ue].exitNonce, validUntil));
        address signer = LedgerProof.recover(LedgerProof.typedDigest(domainSeparator(), exit), sig);
        if (signer == address(0) || signer != ue) revert TaskMarketBadSignature();
        _requestExit(ue);
    }

    /// @inheritdoc ITaskMarket
    function finishExit(address ue) external nonReentrant {
        Account storage a = _account[ue];
        uint256 when = a.exitAt;
        if (when == 0 || block.timestamp < when) revert TaskMarketTooEarly(when);
        uint256 balance = a.balance;
        a.balance = 0;
        a.exitAt = 0;
        emit Exited(ue, balance);
        _send(ue, balance);
    }

    /// @inheritdoc ITaskMarket
    function withdraw(uint16 id, address to) external nonReentrant {
        _ownedBySender(id);
        Earned storage e = _earned[id];
        uint256 balance = e.balance;
        if (balance == 0) revert TaskMarketBadAmount();
        e.balance = 0;
        emit EarningsWithdrawn(id, to, balance);
        _send(to, balance);
    }

    /// @inheritdoc ITaskMarket
    function account(address ue)
        external
        view
        returns (uint96 balance, uint96 spent, uint40 exitAt, uint24 exitNonce)
    {
        Account storage a = _account[ue];
        return (a.balance, a.spent, a.exitAt, a.exitNonce);
    }

    /// @inheritdoc ITaskMarket
    function lockOf(bytes32 key) external view returns (uint96 amount, uint40 deadline) {
        return (_lock[key].amount, _lock[key].deadline);
    }

    // ---- public

    /// @inheritdoc ITaskMarket
    function lockKey(address ue, bytes32 offer) public pure returns (bytes32) {
        return keccak256(abi.encode(ue, offer));
    }

    /// @inheritdoc ITaskMarket
    function domainSeparator() public view returns (bytes32) {
        return block.chainid == _CHAIN_ID ? _DOMAIN : _domain();
    }

    // ---- internal

    /// @inheritdoc Consortium
    function _openEarnings(uint16 id) internal override {
        _earned[id].open = 1;
    }

    // ---- private

    function _requestExit(address ue) private {
        Account storage a = _account[ue];
        if (a.exitAt != 0) revert TaskMarketExiting();
        uint40 when = uint40(block.timestamp + EXIT_DELAY);
        a.exitAt = when;
        a.exitNonce += 1;
        emit ExitRequested(ue, when);
    }

    function _domain() private view returns (bytes32) {
        return keccak256(
            abi.encode(
                _DOMAIN_TYPEHASH, keccak256("EdgoraMarket"), keccak256("1"), block.chainid, address(this), GENESIS
            )
        );
    }
}
