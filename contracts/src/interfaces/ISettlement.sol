// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Certified batches of payments (contracts.md 6, 7).
interface ISettlement {
    // ---- types

    /// @notice A receipt with code 0 under a certified header.
    /// @param headers 1..64 packed headers: the one that holds the receipt, then its children up to the one that the
    /// votes (phase 2, current epoch) sign.
    /// @param signatures exactly q of 65 octets, in ascending order of the bitmap's bits.
    struct Certificate {
        uint64 view_;
        uint64 receiptHeight;
        uint32 receiptIndex;
        uint32 leafIndex;
        uint64 bitmap;
        bytes32 txHash;
        bytes headers;
        bytes32[] path;
        bytes signatures;
    }

    // ---- errors

    error SettlementOutOfOrder(uint256 given, uint256 expected);
    error SettlementBadReceipt();
    error SettlementBadPayload(uint256 offset);

    // ---- events

    event BatchSettled(uint64 indexed batchId, bytes32 taskRoot, uint256 paid);
    event SectionSkipped(uint64 indexed batchId, address indexed ue, uint256 total);
    event LockSkipped(uint64 indexed batchId, bytes32 indexed key);

    // ---- functions

    /// @notice Pay a certified batch; anyone may. Batches settle in order, each once. Sections and lock lines that are
    /// not payable are skipped with an event; a malformed payload reverts whole.
    function settle(uint64 batchId, bytes32 taskRoot, bytes calldata payload, Certificate calldata c) external;

    /// @notice Whether `leaf`, H(0x00 || abi.encode(task)), is leaf `index` of `count` under the taskRoot of a certified
    /// batch. Reverts if the certificate does not hold; stateless but for the current epoch.
    function verifyTask(
        uint64 batchId,
        bytes32 taskRoot,
        bytes32 payloadHash,
        Certificate calldata c,
        bytes32 leaf,
        uint256 index,
        uint256 count,
        bytes32[] calldata path
    ) external view returns (bool);

    /// @notice hashStruct(Batch) of a batch for this contract on this chain.
    function batchHash(uint64 batchId, bytes32 taskRoot, bytes32 payloadHash) external view returns (bytes32);

    /// @notice What a server can withdraw, and its reputation sums.
    function earned(uint16 id)
        external
        view
        returns (uint96 balance, uint56 desiredMs, uint56 actualMs, uint40 tasks);

    /// @notice Sum of desired over sum of actual milliseconds, times 1e18; 0 before the first task.
    function reputation(uint16 id) external view returns (uint256);

    /// @notice What the constructor fixed for ever.
    function params()
        external
        view
        returns (
            uint256 consortiumId,
            bytes32 genesis,
            uint256 lambdaBps,
            uint256 exitDelay,
            uint256 minStake,
            uint256 unbondDelay
        );
}
