// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Deposits, locks, exits, earnings (contracts.md 7).
interface ITaskMarket {
    // ---- errors

    error TaskMarketBadAmount();
    error TaskMarketBadDeadline(uint256 t);
    error TaskMarketOfferOpen(bytes32 key);
    error TaskMarketOfferUnknown(bytes32 key);
    error TaskMarketTooEarly(uint256 when);
    error TaskMarketBadSignature();
    error TaskMarketExiting();

    // ---- events

    event Deposited(address indexed ue, uint256 amount);
    event ExitRequested(address indexed ue, uint40 when);
    event Exited(address indexed ue, uint256 amount);
    event OfferOpened(bytes32 indexed offer, address indexed ue, uint256 amount, uint40 deadline);
    event OfferRefunded(bytes32 indexed offer, address indexed ue, uint256 amount);
    event EarningsWithdrawn(uint16 indexed id, address indexed to, uint256 amount);

    // ---- functions

    /// @notice Add to a UE's balance; anyone may. Never changes an exit, so dust cannot cancel one.
    function depositFor(address ue) external payable;

    /// @notice Lock the maximum price of one offer until `deadline`, inclusive. One lock per (sender, offer).
    function open(bytes32 offer, uint40 deadline) external payable;

    /// @notice Pay a lock (or its remainder) back to its UE, once its deadline has passed; anyone may.
    function refund(address ue, bytes32 offer) external;

    /// @notice Start to leave: the whole balance is free exitDelay later. Not while an exit is pending.
    function requestExit() external;

    /// @notice The same, carried by anyone for a UE that signed Exit(its exitNonce, validUntil).
    function requestExitFor(address ue, uint40 validUntil, bytes calldata sig) external;

    /// @notice Pay the whole balance to the UE at or after its exit time; anyone may. `spent` stays, so old vouchers
    /// stay worth what they were.
    function finishExit(address ue) external;

    /// @notice Pay all earnings of a server to `to`; its owner only.
    function withdraw(uint16 id, address to) external;

    function account(address ue)
        external
        view
        returns (uint96 balance, uint96 spent, uint40 exitAt, uint24 exitNonce);

    /// @notice Amount 0: no lock. Deadline 0: a remainder, refundable at once and not payable again.
    function lockOf(bytes32 key) external view returns (uint96 amount, uint40 deadline);

    function lockKey(address ue, bytes32 offer) external pure returns (bytes32);

    /// @notice EIP-712 domain "EdgoraMarket" of this contract on this chain, with the genesis id as salt.
    function domainSeparator() external view returns (bytes32);
}
