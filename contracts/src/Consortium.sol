// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {LedgerProof} from "./LedgerProof.sol";
import {IConsortium} from "./interfaces/IConsortium.sol";

/// @title Who may certify (epochs), who serves (registry), what they stand to lose (stakes).
/// @notice No owner, no admin, no pause. The set of validators changes only by a header that the current set certified.
abstract contract Consortium is IConsortium, ReentrancyGuardTransient {
    // ---- constants

    uint256 private constant _MIN_VALIDATORS = 4;
    uint256 private constant _MAX_VALIDATORS = 64;
    uint256 private constant _ADDRESS = 20;
    /// @dev Share of a stake that a report earns, and that a batch may take: one tenth.
    uint256 internal constant TENTH = 10;

    // ---- types

    struct Head {
        address page;
        uint32 epoch;
        uint64 batchId;
    }

    struct Server {
        address owner;
        uint96 stake;
        address signer;
        uint40 unbondAt;
        bytes32 metaHash;
    }

    struct Counters {
        uint16 serverCount;
        uint96 burnt;
    }

    // ---- storage

    Head internal _head;
    mapping(uint16 id => Server) internal _servers;
    /// @dev Id + 1; never cleared, so a signer address is never used twice.
    mapping(address signer => uint256) private _serverOf;
    Counters internal _counters;

    // ---- immutables

    uint256 internal immutable CONSORTIUM_ID;
    bytes32 internal immutable GENESIS;
    bytes32 internal immutable LEDGER_DOMAIN;
    uint256 internal immutable MIN_STAKE;
    uint256 internal immutable UNBOND_DELAY;

    // ---- constructor

    constructor(
        bytes memory validators,
        uint256 consortiumId,
        bytes32 genesis,
        uint256 minStake,
        uint256 unbondDelay
    ) {
        if (minStake > type(uint96).max) revert ConsortiumBadStake();
        CONSORTIUM_ID = consortiumId;
        GENESIS = genesis;
        LEDGER_DOMAIN = keccak256(
            abi.encode(
                LedgerProof.LEDGER_DOMAIN_TYPEHASH, keccak256("EdgeLedger"), keccak256("1"), consortiumId, genesis
            )
        );
        MIN_STAKE = minStake;
        UNBOND_DELAY = unbondDelay;
        _checkSet(validators);
        _head.page = _write(validators);
    }

    // ---- external

    /// @inheritdoc IConsortium
    function register(address owner, bytes32 metaHash) external payable returns (uint16 id) {
        if (owner == address(0)) revert ConsortiumNotOwner();
        if (msg.value < MIN_STAKE || msg.value > type(uint96).max) revert ConsortiumBadStake();
        if (_serverOf[msg.sender] != 0) revert ConsortiumSignerTaken(msg.sender);
        id = _counters.serverCount;
        if (id == type(uint16).max) revert ConsortiumFull();
        _counters.serverCount = id + 1;
        _serverOf[msg.sender] = uint256(id) + 1;
        _servers[id] = Server(owner, uint96(msg.value), msg.sender, 0, metaHash);
        _openEarnings(id);
        emit ServerRegistered(id, owner, msg.sender, metaHash, msg.value);
    }

    /// @inheritdoc IConsortium
    function setMeta(uint16 id, bytes32 metaHash) external {
        _ownedBySender(id).metaHash = metaHash;
        emit ServerMetaChanged(id, metaHash);
    }

    /// @inheritdoc IConsortium
    function unbond(uint16 id) external {
        Server storage s = _ownedBySender(id);
        if (s.unbondAt != 0) revert ConsortiumTooEarly(s.unbondAt);
        uint40 when = uint40(block.timestamp + UNBOND_DELAY);
        s.unbondAt = when;
        emit ServerUnbonding(id, when);
    }

    /// @inheritdoc IConsortium
    function withdrawStake(uint16 id) external nonReentrant {
        Server storage s = _ownedBySender(id);
        uint256 when = s.unbondAt;
        if (when == 0 || _isValidator(s.signer)) revert ConsortiumStakeLocked();
        if (block.timestamp < when) revert ConsortiumTooEarly(when);
        uint256 stake = s.stake;
        if (stake == 0) revert ConsortiumBadStake();
        s.stake = 0;
        emit StakeReturned(id, msg.sender, stake);
        _send(msg.sender, stake);
    }

    /// @inheritdoc IConsortium
    function slash(
        uint8 phase,
        uint64 epoch,
        uint64 view_,
        uint64 height,
        bytes32 hashA,
        bytes calldata sigA,
        bytes32 hashB,
        bytes calldata sigB
    ) external nonReentrant {
        if (hashA == hashB || (phase != LedgerProof.PREPARE && phase != LedgerProof.COMMIT)) revert ConsortiumNoFault();
        address signer = LedgerProof.recover(_voteDigest(phase, epoch, view_, height, hashA), sigA);
        if (
            signer == address(0)
                || signer != LedgerProof.recover(_voteDigest(phase, epoch, view_, height, hashB), sigB)
        ) revert ConsortiumNoFault();
        uint16 id = _idOf(signer);
        uint256 stake = _servers[id].stake;
        if (stake == 0) revert ConsortiumBadStake();
        uint256 bounty = stake / TENTH;
        _servers[id].stake = 0;
        _counters.burnt += uint96(stake - bounty);
        emit ServerSlashed(id, msg.sender, stake);
        _send(msg.sender, bounty);
    }

    /// @inheritdoc IConsortium
    function advanceEpoch(
        bytes calldata header,
        uint64 view_,
        uint256 bitmap,
        bytes calldata sigs,
        uint64 firstHeight,
        bytes calldata validators,
        bytes32 paramsHash
    ) external {
        (address page, uint256 current, uint64 batchId) = _readHead();
        if (header.length != LedgerProof.HEADER) revert LedgerProof.LedgerProofBadHeader(header.length);
        _checkCertificate(page, current, header, view_, bitmap, sigs);
        uint32 epoch = uint32(current + 1);
        bytes32 announced = keccak256(
            abi.encode(LedgerProof.EPOCH_TYPEHASH, epoch, firstHeight, keccak256(validators), paramsHash)
        );
        if (
            firstHeight != LedgerProof.heightOf(header, 0) + 1 || announced != LedgerProof.nextEpochOf(header)
        ) revert ConsortiumBadHeader();
        bytes memory set = validators;
        _checkSet(set);
        for (uint256 offset = 0; offset < set.length; offset += _ADDRESS) {
            Server storage s = _servers[_idOf(_addressAt(set, offset))];
            if (s.stake < MIN_STAKE || s.unbondAt != 0) revert ConsortiumBadStake();
        }
        page = _write(set);
        _head = Head(page, epoch, batchId);
        emit EpochAdvanced(epoch, firstHeight, page);
    }

    /// @inheritdoc IConsortium
    function head() external view returns (address page, uint32 epoch, uint64 batchId) {
        (address page_, uint256 epoch_, uint64 batchId_) = _readHead();
        return (page_, uint32(epoch_), batchId_);
    }

    /// @inheritdoc IConsortium
    function server(uint16 id)
        external
        view
        returns (address owner, uint96 stake, address signer, uint40 unbondAt, bytes32 metaHash)
    {
        Server storage s = _known(id);
        return (s.owner, s.stake, s.signer, s.unbondAt, s.metaHash);
    }

    /// @inheritdoc IConsortium
    function serverOf(address signer) external view returns (uint256) {
        return _serverOf[signer];
    }

    /// @inheritdoc IConsortium
    function counters() external view returns (uint16 serverCount, uint96 burnt) {
        return (_counters.serverCount, _counters.burnt);
    }

    // ---- internal

    /// @dev The earnings word of a new server: written non-zero, so that its first credit costs an update only.
    function _openEarnings(uint16 id) internal virtual;

    function _known(uint16 id) internal view returns (Server storage s) {
        s = _servers[id];
        if (s.owner == address(0)) revert ConsortiumUnknownServer();
    }

    function _ownedBySender(uint16 id) internal view returns (Server storage s) {
        s = _known(id);
        if (s.owner != msg.sender) revert ConsortiumNotOwner();
    }

    /// @dev One read of the word, three values on the stack.
    function _readHead() internal view returns (address page, uint256 epoch, uint64 batchId) {
        Head storage h = _head;
        return (h.page, h.epoch, h.batchId);
    }

    /// @dev Payments out: state first, then this with all gas, in a nonReentrant function.
    function _send(address to, uint256 amount) internal {
        // slither-disable-next-line arbitrary-send-eth : every caller pays what it has just taken off that party's state.
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert ConsortiumSendFailed(to);
    }

    /// @dev Reverts unless the last header carries a commit certificate of the current epoch. One digest serves all
    /// signatures, so votes of mixed views never add up.
    function _checkCertificate(
        address page,
        uint256 current,
        bytes calldata headers,
        uint64 view_,
        uint256 bitmap,
        bytes calldata signatures
    ) internal view {
        bytes32 hash = LedgerProof.lastHash(headers);
        uint256 last = headers.length - LedgerProof.HEADER;
        uint256 epoch = LedgerProof.epochOf(headers, last);
        if (epoch != current) revert ConsortiumWrongEpoch(epoch, current);
        bytes32 digest =
            _voteDigest(LedgerProof.COMMIT, epoch, view_, LedgerProof.heightOf(headers, last), hash);
        LedgerProof.checkVotes(page, digest, bitmap, signatures);
    }

    // ---- private

    function _voteDigest(uint256 phase, uint256 epoch, uint256 view_, uint256 height, bytes32 hash)
        private
        view
        returns (bytes32)
    {
        return LedgerProof.voteDigest(LEDGER_DOMAIN, phase, epoch, view_, height, hash);
    }

    function _idOf(address signer) private view returns (uint16) {
        uint256 place = _serverOf[signer];
        if (place == 0) revert ConsortiumUnknownServer();
        return uint16(place - 1);
    }

    function _isValidator(address signer) private view returns (bool) {
        bytes memory page = _head.page.code;
        for (uint256 offset = 1; offset < page.length; offset += _ADDRESS) {
            if (_addressAt(page, offset) == signer) return true;
        }
        return false;
    }

    /// @dev 4..64 distinct addresses, none zero. Quadratic, but a set is checked once an epoch.
    function _checkSet(bytes memory set) private pure {
        uint256 length = set.length;
        if (
            length % _ADDRESS != 0 || length < _MIN_VALIDATORS * _ADDRESS || length > _MAX_VALIDATORS * _ADDRESS
        ) revert ConsortiumBadValidators();
        unchecked {
            for (uint256 offset = 0; offset < length; offset += _ADDRESS) {
                address validator = _addressAt(set, offset);
                if (validator == address(0)) revert ConsortiumBadValidators();
                for (uint256 earlier = 0; earlier < offset; earlier += _ADDRESS) {
                    if (_addressAt(set, earlier) == validator) revert ConsortiumBadValidators();
                }
            }
        }
    }

    /// @dev Assembly: the 20 octets at an odd place of a packed list; callers keep `offset` inside.
    function _addressAt(bytes memory set, uint256 offset) private pure returns (address value) {
        assembly ("memory-safe") {
            value := shr(96, mload(add(add(set, 0x20), offset)))
        }
    }

    /// @dev A page is a contract whose code is 0x00 (STOP) and the packed addresses: the init code copies what follows
    /// its ten octets and returns it. Assembly: CREATE of raw code has no other spelling.
    function _write(bytes memory set) private returns (address page) {
        bytes memory code = abi.encodePacked(hex"61", uint16(set.length + 1), hex"80600a3d393df300", set);
        assembly ("memory-safe") {
            page := create(0, add(code, 0x20), mload(code))
        }
        if (page == address(0)) revert ConsortiumBadValidators();
    }
}
