// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The payload of contracts.md 6 read in plain words: the reference that the fast path is compared with.
/// @notice No assembly, no unchecked arithmetic, no packing; slow and obvious. Tests only.
contract PlainPayload {
    error PlainBadPayload(uint256 offset);

    struct Result {
        /// Wei and tasks that each place of the server table earns from lines; penalties come on top.
        uint256[] credits;
        uint256[] tasks;
        /// What each section and each lock line asks for.
        uint256[] sectionTotals;
        uint256[] lockAmounts;
    }

    /// @param sectionPaid whether each section is payable; a section beyond the list is not.
    /// @param lockPaid the same for lock lines.
    function read(
        bytes calldata payload,
        uint256 serverCount,
        uint256 lambdaBps,
        bool[] calldata sectionPaid,
        bool[] calldata lockPaid
    ) external pure returns (Result memory result) {
        if (payload.length < 6) revert PlainBadPayload(0);
        uint256 places = uint8(payload[0]);
        uint256 sections = number(payload, 1, 2);
        uint256 locks = number(payload, 3, 2);
        uint256 penalties = uint8(payload[5]);
        uint256 offset = 6 + 10 * places;
        if (offset > payload.length) revert PlainBadPayload(6);

        result.credits = new uint256[](places);
        result.tasks = new uint256[](places);
        // A payload that is cut off may announce more than it holds: an entry takes at least 83 or 44 octets.
        result.sectionTotals = new uint256[](least(sections, payload.length / 83));
        result.lockAmounts = new uint256[](least(locks, payload.length / 44));

        for (uint256 i = 0; i < sections; i++) {
            if (offset + 83 > payload.length) revert PlainBadPayload(offset);
            uint256 lines = uint8(payload[offset + 82]);
            if (offset + 83 + 12 * lines > payload.length) revert PlainBadPayload(offset);
            offset += 83;
            uint256 total = 0;
            for (uint256 line = 0; line < lines; line++) {
                total += readLine(payload, offset, lambdaBps, i < sectionPaid.length && sectionPaid[i], result);
                offset += 12;
            }
            result.sectionTotals[i] = total;
        }
        for (uint256 i = 0; i < locks; i++) {
            if (offset + 44 > payload.length) revert PlainBadPayload(offset);
            result.lockAmounts[i] =
                readLine(payload, offset + 32, lambdaBps, i < lockPaid.length && lockPaid[i], result);
            offset += 44;
        }
        for (uint256 i = 0; i < penalties; i++) {
            if (offset + 15 > payload.length) revert PlainBadPayload(offset);
            uint256 beneficiary = uint8(payload[offset + 2]);
            if (beneficiary >= places && beneficiary != 255) revert PlainBadPayload(offset);
            if (number(payload, offset, 2) >= serverCount) revert PlainBadPayload(offset);
            offset += 15;
        }
        if (offset != payload.length) revert PlainBadPayload(offset);
        for (uint256 place = 0; place < places; place++) {
            if (number(payload, 6 + 10 * place, 2) >= serverCount) revert PlainBadPayload(6 + 10 * place);
        }
    }

    function readLine(bytes calldata payload, uint256 offset, uint256 lambdaBps, bool paid, Result memory result)
        private
        pure
        returns (uint256 amount)
    {
        uint256 receiver = uint8(payload[offset]);
        uint256 executor = uint8(payload[offset + 1]);
        if (receiver >= result.credits.length || executor >= result.credits.length) revert PlainBadPayload(offset);
        amount = number(payload, offset + 2, 6) * number(payload, offset + 8, 4) * 1000;
        if (paid) {
            uint256 fee = amount * lambdaBps / 10_000;
            result.credits[receiver] += fee;
            result.credits[executor] += amount - fee;
            result.tasks[executor] += 1;
        }
    }

    function number(bytes calldata data, uint256 offset, uint256 octets) private pure returns (uint256 value) {
        for (uint256 i = offset; i < offset + octets; i++) {
            value = value << 8 | uint8(data[i]);
        }
    }

    function least(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }
}
