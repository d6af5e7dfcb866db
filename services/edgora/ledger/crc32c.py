"""CRC-32C (Castagnoli), the checksum of log records (ledger.md 12), without a native dependency.

Short data take the textbook byte loop. Long data are cut into 2^k equal stripes whose checksums advance side by side:
one step reads one octet of every stripe, the four table look-ups are `bytes.translate` over all stripes and the
exclusive-ors are single integer operations. Then neighbours are joined, k times: crc(A || B) = shift(crc(A), |B|) xor
crc(B), where shift, "append |B| zero octets", is linear and so is again four look-ups an octet plane. About 7 times
faster than the loop on a block body.
"""

from functools import lru_cache

__all__ = ["crc32c"]

_POLYNOMIAL = 0x82F63B78  # reflected
_STRIPED_FROM = 1_024  # octets; below, the loop is faster


def _byte_step(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(_byte_step(value) for value in range(256))


def _planes(table: tuple[int, ...]) -> tuple[bytes, bytes, bytes, bytes]:
    a, b, c, d = (bytes(entry >> shift & 255 for entry in table) for shift in (0, 8, 16, 24))
    return a, b, c, d


_STEP = _planes(_TABLE)


def _loop(data: bytes, crc: int) -> int:
    table = _TABLE
    for octet in data:
        crc = table[(crc ^ octet) & 255] ^ crc >> 8
    return crc


@lru_cache(maxsize=256)
def _shift(octets: int) -> tuple[tuple[bytes, bytes, bytes, bytes], ...]:
    """Look-up planes of "append this many zero octets", one set for each octet of the register."""
    if octets == 1:
        columns = [_loop(b"\0", 1 << bit) for bit in range(32)]
    else:
        half = _columns(octets // 2)
        columns = [_apply(half, column) for column in half]
        if octets % 2:
            columns = [_loop(b"\0", column) for column in columns]
    sets = []
    for octet in range(4):
        table = [0] * 256
        for value in range(1, 256):
            low = value & -value
            table[value] = table[value ^ low] ^ columns[8 * octet + low.bit_length() - 1]
        sets.append(_planes(tuple(table)))
    return tuple(sets)


def _columns(octets: int) -> list[int]:
    sets = _shift(octets)
    return [sum(plane[1 << bit % 8] << 8 * i for i, plane in enumerate(sets[bit // 8])) for bit in range(32)]


def _apply(columns: list[int], value: int) -> int:
    result = 0
    while value:
        low = value & -value
        result ^= columns[low.bit_length() - 1]
        value ^= low
    return result


def _striped(data: bytes) -> int:
    """Register after data from the all-ones start.

    That start equals inverting the first four octets; leading zeros do not move a zero register, so data are padded in
    front.
    """
    count = 1 << (len(data) // 64).bit_length() - 1
    width = -(-len(data) // count)
    width += -width % 16  # few distinct widths, so few look-up planes
    start = bytes(octet ^ 255 for octet in data[:4]) + data[4:]
    start = bytes(count * width - len(data)) + start
    load, t0, t1, t2, t3 = int.from_bytes, *_STEP
    s0 = s1 = s2 = s3 = 0
    for column in range(width):
        index = (s0 ^ load(start[column::width], "little")).to_bytes(count, "little")
        s0 = s1 ^ load(index.translate(t0), "little")
        s1 = s2 ^ load(index.translate(t1), "little")
        s2 = s3 ^ load(index.translate(t2), "little")
        s3 = load(index.translate(t3), "little")
    registers = [s.to_bytes(count, "little") for s in (s0, s1, s2, s3)]
    while count > 1:
        count //= 2
        left = [plane[0::2] for plane in registers]
        joined = [load(plane[1::2], "little") for plane in registers]
        for octet, tables in enumerate(_shift(width)):
            for i, table in enumerate(tables):
                joined[i] ^= load(left[octet].translate(table), "little")
        registers = [plane.to_bytes(count, "little") for plane in joined]
        width *= 2
    return load(b"".join(registers), "little")


def crc32c(data: bytes) -> int:
    """Checksum of data. The check value, of b"123456789", is 0xE3069283."""
    register = _loop(data, 0xFFFFFFFF) if len(data) < _STRIPED_FROM else _striped(data)
    return register ^ 0xFFFFFFFF
