// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Consortium} from "./Consortium.sol";
import {LedgerProof} from "./LedgerProof.sol";
import {TaskMarket} from "./TaskMarket.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";

/// @title The deployed contract: pays batches that the ledger's quorum certified (contracts.md 6, 7).
/// @notice A quorum that lies can take from nobody more than that UE signed (voucher) or locked. `settle` calls nobody
/// but ecrecover, so it needs no guard.
contract Settlement is ISettlement, TaskMarket {
    using LedgerProof for bytes;

    // ---- constants

    bytes32 private constant _BATCH_TYPEHASH =
        keccak256("Batch(uint256 chainId,address market,uint64 batchId,bytes32 taskRoot,bytes32 payloadHash)");
    /// @dev Kind of a SETTLEMENT transaction; the executor writes it in front of every receipt's output.
    uint256 private constant _KIND = 5;

    /// @dev Octets of the payload's records.
    uint256 private constant _COUNTS = 6;
    uint256 private constant _ROW = 10;
    uint256 private constant _SECTION = 83;
    uint256 private constant _LINE = 12;
    uint256 private constant _LOCK_LINE = 44;
    uint256 private constant _PENALTY = 15;
    /// @dev Beneficiary of a penalty that is burnt.
    uint256 private constant _BURN = 255;

    uint256 private constant _BASIS_POINTS = 10_000;
    /// @dev A credit word: wei in the low 128 bits (10,000 lines below 2^90 fit), tasks computed above.
    uint256 private constant _ONE_TASK = 1 << 128;

    // ---- constructor

    constructor(
        bytes memory validators,
        uint256 consortiumId,
        bytes32 genesis,
        uint256 lambdaBps,
        uint256 exitDelay,
        uint256 minStake,
        uint256 unbondDelay
    ) Consortium(validators, consortiumId, genesis, minStake, unbondDelay) TaskMarket(lambdaBps, exitDelay) {}

    // ---- external

    /// @inheritdoc ISettlement
    function settle(uint64 batchId, bytes32 taskRoot, bytes calldata payload, Certificate calldata c) external {
        (address page, uint256 epoch, uint256 last) = _readHead();
        if (batchId != last + 1) revert SettlementOutOfOrder(batchId, last + 1);
        _checkReceipt(page, epoch, batchHash(batchId, taskRoot, keccak256(payload)), c);
        uint256 paid = _pay(batchId, payload);
        // Last: a settle that ran out of gas half way has settled nothing.
        _head.batchId = batchId;
        emit BatchSettled(batchId, taskRoot, paid);
    }

    /// @inheritdoc ISettlement
    function verifyTask(
        uint64 batchId,
        bytes32 taskRoot,
        bytes32 payloadHash,
        Certificate calldata c,
        bytes32 leaf,
        uint256 index,
        uint256 count,
        bytes32[] calldata path
    ) external view returns (bool) {
        (address page, uint256 epoch,) = _readHead();
        _checkReceipt(page, epoch, batchHash(batchId, taskRoot, payloadHash), c);
        return LedgerProof.included(leaf, index, count, path, taskRoot);
    }

    /// @inheritdoc ISettlement
    function earned(uint16 id)
        external
        view
        returns (uint96 balance, uint56 desiredMs, uint56 actualMs, uint40 tasks)
    {
        Earned storage e = _earned[id];
        return (e.balance, e.desiredMs, e.actualMs, e.tasks);
    }

    /// @inheritdoc ISettlement
    function reputation(uint16 id) external view returns (uint256) {
        Earned storage e = _earned[id];
        return e.actualMs == 0 ? 0 : uint256(e.desiredMs) * 1e18 / e.actualMs;
    }

    /// @inheritdoc ISettlement
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
        )
    {
        return (CONSORTIUM_ID, GENESIS, LAMBDA_BPS, EXIT_DELAY, MIN_STAKE, UNBOND_DELAY);
    }

    // ---- public

    /// @inheritdoc ISettlement
    function batchHash(uint64 batchId, bytes32 taskRoot, bytes32 payloadHash) public view returns (bytes32) {
        return LedgerProof.hash6(
            _BATCH_TYPEHASH, block.chainid, uint256(uint160(address(this))), batchId, uint256(taskRoot), payloadHash
        );
    }

    // ---- private: proof

    /// @dev Reverts unless a receipt with code 0 and output kind || batch stands under a header that the current epoch
    /// certified, itself or by links.
    function _checkReceipt(address page, uint256 epoch, bytes32 batch, Certificate calldata c) private view {
        bytes calldata headers = c.headers;
        _checkCertificate(page, epoch, headers, c.view_, c.bitmap, c.signatures);
        bytes32 output;
        uint256 kind = _KIND;
        // Assembly: 34 odd octets in scratch space.
        assembly ("memory-safe") {
            mstore(0, shl(240, kind))
            mstore(2, batch)
            output := keccak256(0, 34)
        }
        bytes32 receipt = LedgerProof.hash6(
            LedgerProof.RECEIPT_TYPEHASH, uint256(c.txHash), c.receiptHeight, c.receiptIndex, 0, output
        );
        bool included = LedgerProof.included(
            LedgerProof.leafOf(receipt), c.leafIndex, headers.receiptCountOf(), c.path, headers.receiptRootOf()
        );
        if (!included) revert SettlementBadReceipt();
    }

    // ---- private: payment

    /// @dev Walks the payload once, front to back. Money moves into `credits`, one word a server of the table, and from
    /// there into storage at the end.
    function _pay(uint64 batchId, bytes calldata payload) private returns (uint256 paid) {
        if (payload.length < _COUNTS) revert SettlementBadPayload(0);
        unchecked {
            uint256 counts = payload.word(0);
            uint256 places = counts >> 248;
            uint256 offset = _COUNTS + _ROW * places;
            if (offset > payload.length) revert SettlementBadPayload(_COUNTS);
            uint256[] memory credits = new uint256[](places);
            (offset, paid) = _paySections(batchId, payload, offset, uint16(counts >> 232), credits);
            uint256 fromLocks;
            (offset, fromLocks) = _payLocks(batchId, payload, offset, uint16(counts >> 216), credits);
            paid += fromLocks;
            offset = _penalise(payload, offset, uint8(counts >> 208), credits);
            if (offset != payload.length) revert SettlementBadPayload(offset);
            _credit(payload, credits);
        }
    }

    /// @dev A section pays all its lines or none. Skipped, never reverted: nobody signed it, it exceeds cap or balance,
    /// or its time is over.
    function _paySections(uint64 batchId, bytes calldata payload, uint256 offset, uint256 sections, uint256[] memory credits)
        private
        returns (uint256, uint256 paid)
    {
        if (sections == 0) return (offset, 0);
        bytes32 domain = domainSeparator();
        unchecked {
            for (; sections != 0; --sections) {
                uint256 terms = payload.word(offset + 65); // cap u96, validUntil u40, k u8
                uint256 end = offset + _SECTION + _LINE * uint8(terms >> 112);
                if (offset + _SECTION > payload.length || end > payload.length) revert SettlementBadPayload(offset);
                uint256 total = _addLines(payload, offset + _SECTION, end, credits);
                address ue = LedgerProof.recoverAt(_voucherDigest(domain, terms), payload, offset);
                if (_spend(ue, terms, total)) {
                    paid += total;
                } else {
                    _undoLines(payload, offset + _SECTION, end, credits);
                    emit SectionSkipped(batchId, ue, total);
                }
                offset = end;
            }
        }
        return (offset, paid);
    }

    /// @dev Assembly: hashStruct(Voucher) in the free octets; abi.encode would grow memory by a voucher a section.
    function _voucherDigest(bytes32 domain, uint256 terms) private pure returns (bytes32) {
        bytes32 typeHash = VOUCHER_TYPEHASH;
        bytes32 voucher;
        assembly ("memory-safe") {
            let m := mload(0x40)
            mstore(m, typeHash)
            mstore(add(m, 0x20), shr(160, terms))
            mstore(add(m, 0x40), and(shr(120, terms), 0xffffffffff))
            voucher := keccak256(m, 0x60)
        }
        return LedgerProof.typedDigest(domain, voucher);
    }

    /// @dev Takes a section's total from its UE's deposit; false if it may not.
    /// Assembly: balance and spent change in one word, read and written once.
    function _spend(address ue, uint256 terms, uint256 total) private returns (bool) {
        Account storage a = _account[ue];
        uint256 word;
        assembly ("memory-safe") {
            word := sload(a.slot)
        }
        unchecked {
            bool payable_ = ue != address(0) && uint96(word >> 96) + total <= terms >> 160 && uint96(word) >= total
                && block.timestamp <= uint40(terms >> 120);
            if (!payable_) return false;
            // No field runs over: spent + total <= cap < 2^96, total <= balance.
            word = word + (total << 96) - total;
        }
        assembly ("memory-safe") {
            sstore(a.slot, word)
        }
        return true;
    }

    /// @dev A lock line pays iff the lock exists, is in time and large enough; what remains has deadline 0.
    function _payLocks(uint64 batchId, bytes calldata payload, uint256 offset, uint256 locks, uint256[] memory credits)
        private
        returns (uint256, uint256 paid)
    {
        unchecked {
            for (; locks != 0; --locks) {
                uint256 end = offset + _LOCK_LINE;
                if (end > payload.length) revert SettlementBadPayload(offset);
                bytes32 key = bytes32(payload.word(offset));
                uint256 amount = _addLines(payload, offset + 32, end, credits);
                Lock storage slot = _lock[key];
                Lock memory lock = slot;
                // A lock that does not exist, or that is closed, has deadline 0.
                if (block.timestamp <= lock.deadline && amount <= lock.amount) {
                    slot.amount = uint96(lock.amount - amount);
                    slot.deadline = 0;
                    paid += amount;
                } else {
                    _undoLines(payload, offset + 32, end, credits);
                    emit LockSkipped(batchId, key);
                }
                offset = end;
            }
        }
        return (offset, paid);
    }

    /// @dev Adds the lines between two octets to the credits; returns their sum. Each word of `credits` is wei and tasks.
    /// Assembly: this is the loop that a thousand tasks go through, 290 gas a line instead of 620.
    function _addLines(bytes calldata payload, uint256 offset, uint256 end, uint256[] memory credits)
        private
        view
        returns (uint256 total)
    {
        uint256 lambda = LAMBDA_BPS;
        uint256 bad = 0;
        assembly ("memory-safe") {
            let places := mload(credits)
            let base := add(credits, 0x20)
            let last := add(payload.offset, end)
            for { let p := add(payload.offset, offset) } lt(p, last) { p := add(p, 12) } {
                let line := calldataload(p)
                let receiver := shr(248, line)
                let executor := byte(1, line)
                if iszero(and(lt(receiver, places), lt(executor, places))) {
                    bad := sub(p, payload.offset)
                    break
                }
                let amount := mul(mul(and(shr(192, line), 0xffffffffffff), and(shr(160, line), 0xffffffff)), 1000)
                total := add(total, amount)
                let fee := div(mul(amount, lambda), 10000)
                let word := add(base, shl(5, receiver))
                mstore(word, add(mload(word), fee))
                word := add(base, shl(5, executor))
                mstore(word, add(add(mload(word), sub(amount, fee)), shl(128, 1)))
            }
        }
        // No line stands at octet 0.
        if (bad != 0) revert SettlementBadPayload(bad);
    }

    /// @dev Takes the lines of a skipped section or lock back out of the credits: `_addLines` in plain words.
    function _undoLines(bytes calldata payload, uint256 offset, uint256 end, uint256[] memory credits) private view {
        unchecked {
            for (; offset < end; offset += _LINE) {
                uint256 line = payload.word(offset);
                uint256 amount = uint256(uint48(line >> 192)) * uint32(line >> 160) * 1000;
                uint256 fee = amount * LAMBDA_BPS / _BASIS_POINTS;
                credits[line >> 248] -= fee;
                credits[uint8(line >> 240)] -= amount - fee + _ONE_TASK;
            }
        }
    }

    /// @dev Lost disputes. A batch takes at most a tenth of the stake that a server had before its first line here.
    function _penalise(bytes calldata payload, uint256 offset, uint256 penalties, uint256[] memory credits)
        private
        returns (uint256)
    {
        if (penalties == 0) return offset;
        uint256[] memory fined = new uint256[](penalties); // id u16 above what it may still lose u96
        uint256 known = 0;
        uint256 burnt = 0;
        // What is taken stands in a stake, and stakes are money that came in: no sum reaches 2^96.
        unchecked {
            for (; penalties != 0; --penalties) {
                if (offset + _PENALTY > payload.length) revert SettlementBadPayload(offset);
                uint256 penalty = payload.word(offset); // id u16, beneficiary u8, wei u96
                uint16 id = uint16(penalty >> 240);
                uint256 beneficiary = uint8(penalty >> 232);
                Server storage s = _servers[id];
                if ((beneficiary >= credits.length && beneficiary != _BURN) || s.owner == address(0)) {
                    revert SettlementBadPayload(offset);
                }
                uint256 i = 0;
                while (i < known && fined[i] >> 96 != id) ++i;
                if (i == known) {
                    fined[i] = uint256(id) << 96 | s.stake / TENTH;
                    ++known;
                }
                uint256 taken = uint96(penalty >> 136);
                if (taken > uint96(fined[i])) taken = uint96(fined[i]);
                fined[i] -= taken;
                s.stake -= uint96(taken);
                if (beneficiary == _BURN) burnt += taken;
                else credits[beneficiary] += taken;
                emit ServerPenalised(id, taken);
                offset += _PENALTY;
            }
        }
        if (burnt != 0) _counters.burnt += uint96(burnt);
        return offset;
    }

    /// @dev Credits and reputation sums into storage, one word a server. Sums saturate; `open` is 1 for every server.
    /// Assembly: five fields of one word, read and written once.
    function _credit(bytes calldata payload, uint256[] memory credits) private {
        unchecked {
            for (uint256 place = 0; place < credits.length; ++place) {
                uint256 row = payload.word(_COUNTS + _ROW * place); // id u16, desiredMs u32, actualMs u32
                Earned storage e = _earned[uint16(row >> 240)];
                uint256 word;
                assembly ("memory-safe") {
                    word := sload(e.slot)
                }
                if (word >> 248 == 0) revert SettlementBadPayload(_COUNTS + _ROW * place);
                uint256 credit = credits[place];
                uint256 balance = uint96(word) + uint128(credit);
                if (balance > type(uint96).max) revert TaskMarketBadAmount();
                uint256 desired = uint56(word >> 96) + uint256(uint32(row >> 208));
                uint256 actual = uint56(word >> 152) + uint256(uint32(row >> 176));
                uint256 tasks = uint40(word >> 208) + (credit >> 128);
                if (desired > type(uint56).max) desired = type(uint56).max;
                if (actual > type(uint56).max) actual = type(uint56).max;
                if (tasks > type(uint40).max) tasks = type(uint40).max;
                word = balance | desired << 96 | actual << 152 | tasks << 208 | 1 << 248;
                assembly ("memory-safe") {
                    sstore(e.slot, word)
                }
            }
        }
    }
}
