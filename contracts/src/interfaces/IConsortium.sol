// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Validator sets, servers and their stakes (contracts.md 7).
interface IConsortium {
    // ---- errors

    error ConsortiumBadValidators();
    error ConsortiumWrongEpoch(uint256 given, uint256 current);
    error ConsortiumBadHeader();
    error ConsortiumNotOwner();
    error ConsortiumTooEarly(uint256 when);
    error ConsortiumBadStake();
    error ConsortiumSignerTaken(address signer);
    error ConsortiumUnknownServer();
    error ConsortiumFull();
    error ConsortiumStakeLocked();
    error ConsortiumNoFault();
    error ConsortiumSendFailed(address to);

    // ---- events

    event EpochAdvanced(uint64 indexed epoch, uint64 firstHeight, address indexed page);
    event ServerRegistered(
        uint16 indexed id, address indexed owner, address indexed signer, bytes32 metaHash, uint256 stake
    );
    event ServerMetaChanged(uint16 indexed id, bytes32 metaHash);
    event ServerUnbonding(uint16 indexed id, uint40 when);
    event StakeReturned(uint16 indexed id, address indexed owner, uint256 amount);
    event ServerSlashed(uint16 indexed id, address indexed reporter, uint256 stake);
    event ServerPenalised(uint16 indexed id, uint256 amount);

    // ---- functions

    /// @notice Become a server: the sender is the signer, for ever; the stake is what it sends, at least minStake.
    /// @param owner who may change, unbond and withdraw; not zero (ConsortiumNotOwner).
    /// @param metaHash keccak of the canonical metadata document that the server serves itself.
    function register(address owner, bytes32 metaHash) external payable returns (uint16 id);

    function setMeta(uint16 id, bytes32 metaHash) external;

    /// @notice Start to leave: the stake is free unbondDelay later. Once only.
    function unbond(uint16 id) external;

    /// @notice Pay the stake to the owner, after the delay and only while the signer is no validator.
    function withdrawStake(uint16 id) external;

    /// @notice Two votes of one signer for one place with different hashes cost it its stake: 10 % to the sender, the
    /// rest is burnt in place. Valid for every epoch. Nothing left to take: ConsortiumBadStake.
    function slash(
        uint8 phase,
        uint64 epoch,
        uint64 view_,
        uint64 height,
        bytes32 hashA,
        bytes calldata sigA,
        bytes32 hashB,
        bytes calldata sigB
    ) external;

    /// @notice Follow the ledger into its next epoch; certificates of the old one are dead from then on.
    /// @param header the last header of the epoch, packed, 220 octets.
    /// @param validators the next set, 20 octets each, in index order: registered, staked, not unbonding.
    function advanceEpoch(
        bytes calldata header,
        uint64 view_,
        uint256 bitmap,
        bytes calldata sigs,
        uint64 firstHeight,
        bytes calldata validators,
        bytes32 paramsHash
    ) external;

    /// @notice The page that holds the validators, the epoch, and the last settled batch.
    function head() external view returns (address page, uint32 epoch, uint64 batchId);

    /// @notice A registered server; reverts for an unknown id.
    function server(uint16 id)
        external
        view
        returns (address owner, uint96 stake, address signer, uint40 unbondAt, bytes32 metaHash);

    /// @notice Id + 1 of the server with this signer; 0 if it never registered.
    function serverOf(address signer) external view returns (uint256);

    /// @notice How many servers ever registered, and the wei burnt in place.
    function counters() external view returns (uint16 serverCount, uint96 burnt);
}
