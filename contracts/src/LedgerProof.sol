// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Proofs of the PBFT ledger: header hash, quorum certificate, Merkle path, strict signatures.
/// @notice Everything here is a pure function of its arguments, of a validator page's code and of ecrecover. The same
/// rules stand in Python (`edgora.crypto.proof`, `edgora.wire.ledger`); both read the same vectors.
/// @dev Assembly reads packed calldata at arbitrary octets, which plain Solidity does with a bounds check and a copy a
/// field. Every block is memory-safe: scratch space, or octets at and behind the free pointer that nobody keeps.
library LedgerProof {
    // ---- constants

    bytes32 internal constant HEADER_TYPEHASH = keccak256(
        "Header(uint64 epoch,uint64 height,bytes32 parent,bytes32 txRoot,uint32 txCount,uint64 execHeight,bytes32 stateRoot,bytes32 receiptRoot,uint32 receiptCount,bytes32 nextEpoch,uint64 timeMs,address proposer)"
    );
    bytes32 internal constant VOTE_TYPEHASH =
        keccak256("Vote(uint8 phase,uint64 epoch,uint64 view,uint64 height,bytes32 blockHash)");
    bytes32 internal constant RECEIPT_TYPEHASH =
        keccak256("Receipt(bytes32 txHash,uint64 height,uint32 index,uint16 code,bytes output)");
    bytes32 internal constant EPOCH_TYPEHASH =
        keccak256("Epoch(uint64 epoch,uint64 firstHeight,bytes32 validatorsHash,bytes32 paramsHash)");
    bytes32 internal constant LEDGER_DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,bytes32 salt)");

    /// @dev Octets of a packed header, and where its fields stand.
    uint256 internal constant HEADER = 220;
    uint256 internal constant MAX_HEADERS = 64;
    uint256 private constant _HEIGHT = 8;
    uint256 private constant _PARENT = 16;
    uint256 private constant _RECEIPT_ROOT = 124;
    uint256 private constant _RECEIPT_COUNT = 156;
    uint256 private constant _NEXT_EPOCH = 160;

    uint256 internal constant SIGNATURE = 65;
    uint256 internal constant PREPARE = 1;
    uint256 internal constant COMMIT = 2;
    /// @dev Half of the order of secp256k1: a signature with a larger s has a twin and is nobody's.
    uint256 internal constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    // ---- errors

    error LedgerProofBadQuorum(uint256 given, uint256 needed);
    error LedgerProofBadSigner(uint256 index);
    error LedgerProofBadHeader(uint256 length);
    error LedgerProofBadLink(uint256 index);
    error LedgerProofPrecompile();

    // ---- headers

    /// @notice q: votes that certify among n validators (ledger.md 0).
    function quorum(uint256 n) internal pure returns (uint256) {
        unchecked {
            return (n + (n - 1) / 3) / 2 + 1;
        }
    }

    /// @notice The 32 octets of `data` from `offset` on; zero octets stand behind the end of calldata. Unchecked on purpose:
    /// callers have compared `offset` with the length.
    function word(bytes calldata data, uint256 offset) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := calldataload(add(data.offset, offset))
        }
    }

    function epochOf(bytes calldata headers, uint256 offset) internal pure returns (uint256) {
        return word(headers, offset) >> 192;
    }

    function heightOf(bytes calldata headers, uint256 offset) internal pure returns (uint256) {
        return uint64(word(headers, offset) >> 128);
    }

    function receiptRootOf(bytes calldata headers) internal pure returns (bytes32) {
        return bytes32(word(headers, _RECEIPT_ROOT));
    }

    function receiptCountOf(bytes calldata headers) internal pure returns (uint256) {
        return word(headers, _RECEIPT_COUNT) >> 224;
    }

    function nextEpochOf(bytes calldata header) internal pure returns (bytes32) {
        return bytes32(word(header, _NEXT_EPOCH));
    }

    /// @notice hashStruct(Header) of the packed header at `offset`.
    /// @dev Assembly: thirteen words from eleven odd offsets; abi.encode of decoded fields costs 900 gas more.
    function headerHash(bytes calldata headers, uint256 offset) internal pure returns (bytes32 hash) {
        bytes32 typeHash = HEADER_TYPEHASH;
        assembly ("memory-safe") {
            let m := mload(0x40)
            let p := add(headers.offset, offset)
            mstore(m, typeHash)
            mstore(add(m, 0x20), shr(192, calldataload(p))) // epoch
            mstore(add(m, 0x40), shr(192, calldataload(add(p, 8)))) // height
            calldatacopy(add(m, 0x60), add(p, 16), 0x40) // parent, txRoot
            mstore(add(m, 0xa0), shr(224, calldataload(add(p, 80)))) // txCount
            mstore(add(m, 0xc0), shr(192, calldataload(add(p, 84)))) // execHeight
            calldatacopy(add(m, 0xe0), add(p, 92), 0x40) // stateRoot, receiptRoot
            mstore(add(m, 0x120), shr(224, calldataload(add(p, 156)))) // receiptCount
            mstore(add(m, 0x140), calldataload(add(p, 160))) // nextEpoch
            mstore(add(m, 0x160), shr(192, calldataload(add(p, 192)))) // timeMs
            mstore(add(m, 0x180), shr(96, calldataload(add(p, 200)))) // proposer
            hash := keccak256(m, 0x1a0)
        }
    }

    /// @notice Hash of the last of 1..64 packed headers, each the child of the one before it.
    function lastHash(bytes calldata headers) internal pure returns (bytes32 hash) {
        uint256 length = headers.length;
        unchecked {
            // length - 1 wraps for none at all, so one comparison holds both ends.
            if (length % HEADER != 0 || length - 1 >= MAX_HEADERS * HEADER) revert LedgerProofBadHeader(length);
            hash = headerHash(headers, 0);
            for (uint256 offset = HEADER; offset < length; offset += HEADER) {
                bool child = bytes32(word(headers, offset + _PARENT)) == hash
                    && heightOf(headers, offset) == heightOf(headers, offset - HEADER) + 1;
                if (!child) revert LedgerProofBadLink(offset / HEADER);
                hash = headerHash(headers, offset);
            }
        }
    }

    // ---- typed hashes

    /// @notice H of six words: hashStruct of Vote, Receipt and Batch, which all have a type hash and five fields.
    /// @dev Assembly: abi.encode allocates and checks the allocation, 150 gas a time.
    function hash6(bytes32 a, uint256 b, uint256 c, uint256 d, uint256 e, bytes32 f)
        internal
        pure
        returns (bytes32 hash)
    {
        assembly ("memory-safe") {
            let m := mload(0x40)
            mstore(m, a)
            mstore(add(m, 0x20), b)
            mstore(add(m, 0x40), c)
            mstore(add(m, 0x60), d)
            mstore(add(m, 0x80), e)
            mstore(add(m, 0xa0), f)
            hash := keccak256(m, 0xc0)
        }
    }

    /// @notice Digest(s) = H(0x1901 || domain || hashStruct(s)).
    /// @dev Assembly: 66 odd octets without an allocation; runs once a certificate and once a section.
    function typedDigest(bytes32 domain, bytes32 structHash) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let m := mload(0x40)
            mstore(m, "\x19\x01")
            mstore(add(m, 2), domain)
            mstore(add(m, 34), structHash)
            digest := keccak256(m, 66)
        }
    }

    function voteDigest(bytes32 domain, uint256 phase, uint256 epoch, uint256 view_, uint256 height, bytes32 hash)
        internal
        pure
        returns (bytes32)
    {
        return typedDigest(domain, hash6(VOTE_TYPEHASH, phase, epoch, view_, height, hash));
    }

    // ---- signatures

    /// @notice Who signed `digest`, or the zero address: v not 27 or 28, s in the upper half, no point for r.
    /// @dev Assembly: 65 odd octets into the precompile's four words; they stand in scratch space and over the free
    /// pointer and the zero word, which are put back. A precompile that fails (only for want of gas) reverts, one that returns nothing is an answer. Without this
    /// difference the sender could choose a gas limit at which a valid section is skipped for ever.
    function recoverAt(bytes32 digest, bytes calldata data, uint256 offset) internal view returns (address signer) {
        uint256 half = HALF_ORDER;
        bool failed;
        assembly ("memory-safe") {
            let p := add(data.offset, offset)
            let v := byte(0, calldataload(add(p, 0x40)))
            // v - 27 wraps for smaller v, so one comparison holds both ends.
            if gt(lt(sub(v, 27), 2), gt(calldataload(add(p, 0x20)), half)) {
                let free := mload(0x40)
                mstore(0, digest)
                mstore(0x20, v)
                calldatacopy(0x40, p, 0x40)
                failed := iszero(staticcall(gas(), 1, 0, 0x80, 0, 0x20))
                // Nothing returned leaves the digest in place: multiply it away.
                signer := mul(mload(0), eq(returndatasize(), 0x20))
                mstore(0x40, free)
                mstore(0x60, 0)
            }
        }
        if (failed) revert LedgerProofPrecompile();
    }

    /// @notice Who signed `digest` with a signature that stands alone; any length but 65 is nobody.
    function recover(bytes32 digest, bytes calldata signature) internal view returns (address) {
        return signature.length == SIGNATURE ? recoverAt(digest, signature, 0) : address(0);
    }

    /// @notice Reverts unless exactly q validators of the page signed `digest`, in ascending order of their bits.
    /// @dev Assembly: the page is code, so it is read with EXTCODECOPY (2,700 gas whatever n; n storage words cost
    /// 2,100 each). Its first octet is 0x00, so nobody can run it.
    function checkVotes(address page, bytes32 digest, uint256 bitmap, bytes calldata signatures) internal view {
        uint256 table;
        uint256 n;
        assembly ("memory-safe") {
            let size := sub(extcodesize(page), 1)
            n := div(size, 20)
            table := mload(0x40)
            extcodecopy(page, table, 1, size)
            mstore(0x40, and(add(add(table, size), 31), not(31)))
        }
        unchecked {
            uint256 needed = quorum(n);
            uint256 left = signatures.length;
            if (left != SIGNATURE * needed) revert LedgerProofBadQuorum(left / SIGNATURE, needed);
            if (bitmap >> n != 0) revert LedgerProofBadSigner(n);
            for (uint256 i = 0; bitmap != 0; ++i) {
                if (bitmap & 1 != 0) {
                    address signer = recoverAt(digest, signatures, signatures.length - left);
                    address validator;
                    assembly ("memory-safe") {
                        validator := shr(96, mload(add(table, mul(i, 20))))
                    }
                    // No validator is the zero address, so nobody never matches.
                    if (signer != validator) revert LedgerProofBadSigner(i);
                    left -= SIGNATURE;
                }
                bitmap >>= 1;
            }
            // More bits than signatures have wrapped `left`, fewer have left some: both are the bits' count.
            if (left != 0) revert LedgerProofBadQuorum((SIGNATURE * needed - left) / SIGNATURE, needed);
        }
    }

    // ---- Merkle trees (ledger.md 2)

    /// @notice H(0x00 || data) for data of one word.
    function leafOf(bytes32 data) internal pure returns (bytes32 leaf) {
        assembly ("memory-safe") {
            mstore8(0, 0)
            mstore(1, data)
            leaf := keccak256(0, 33)
        }
    }

    /// @notice Whether `node` is leaf `index` of `count` under `root`. The path's shape follows from index and count; a
    /// lone last node moves up unchanged.
    /// @dev Assembly: 65 octets a level in scratch space, 200 gas instead of 280 (8 levels at 256 receipts). The tag
    /// stands at 0x1f, the children at 0x20 and 0x40; the free pointer, which lives there, is put back.
    function included(bytes32 node, uint256 index, uint256 count, bytes32[] calldata path, bytes32 root)
        internal
        pure
        returns (bool held)
    {
        assembly ("memory-safe") {
            held := lt(index, count)
            let offset := path.offset
            let free := mload(0x40)
            mstore(0, 1)
            // The number of a level's last node: a left node that is not the last has a sibling.
            for { let last := sub(count, 1) } last { last := shr(1, last) } {
                let right := shl(5, and(index, 1))
                if or(right, lt(index, last)) {
                    mstore(add(0x20, right), node)
                    mstore(sub(0x40, right), calldataload(offset))
                    node := keccak256(0x1f, 65)
                    offset := add(offset, 0x20)
                }
                index := shr(1, index)
            }
            mstore(0x40, free)
            // A path that is too short read on in calldata, one that is too long has octets left: both end elsewhere.
            held := and(held, and(eq(offset, add(path.offset, shl(5, path.length))), eq(node, root)))
        }
    }
}
