"""I9: q votes with one changed bit anywhere never pass; neither do q - 1 (contracts.md 12)."""

from collections.abc import Iterator

from chain.evm_world import Refused, World
from edgora.wire.settlement import CertificateArguments, Line, Payload, Penalty, ServerRow, certificate_arguments


def _flipped(data: bytes) -> Iterator[bytes]:
    for at in range(8 * len(data)):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        yield bytes(changed)


def _neighbours(c: CertificateArguments) -> Iterator[CertificateArguments]:
    """Every certificate that differs in one bit."""
    widths = {"view": 64, "receipt_height": 64, "receipt_index": 32, "leaf_index": 32, "bitmap": 64}
    for name, bits in widths.items():
        for bit in range(bits):
            yield c._replace(**{name: getattr(c, name) ^ 1 << bit})
    for name in ("tx_hash", "headers", "signatures"):
        for changed in _flipped(getattr(c, name)):
            yield c._replace(**{name: changed})
    for place, node in enumerate(c.path):
        for changed in _flipped(node):
            yield c._replace(path=[*c.path[:place], changed, *c.path[place + 1 :]])


def test_no_neighbour_of_a_certified_batch_settles() -> None:
    world = World()
    payload = Payload(
        (ServerRow(0, 1, 1), ServerRow(1, 2, 2)),
        (world.section(world.ue("ue"), [Line(0, 1, 10**6, 50)]),),
        (),
        (Penalty(1, 0, 5),),
    )
    certified = world.certified(payload, receipts=5, leaf=2, links=1)
    arguments = certificate_arguments(certified.proof)
    tried = 0

    def try_settle(batch_id: int, root: bytes, packed: bytes, c: CertificateArguments) -> None:
        nonlocal tried
        tried += 1
        try:
            world.raw(bytes(19) + b"\1", world.abi.call("settle", batch_id, root, packed, c))
        except Refused:
            return
        raise AssertionError(f"settled: batch {batch_id}, root {root.hex()}, payload {packed.hex()}, {c}")

    for neighbour in _neighbours(arguments):
        try_settle(1, certified.task_root, certified.payload, neighbour)
    for root in _flipped(certified.task_root):
        try_settle(1, root, certified.payload, arguments)
    for packed in _flipped(certified.payload):
        try_settle(1, certified.task_root, packed, arguments)
    for packed in (certified.payload[:-1], certified.payload + b"\0"):
        try_settle(1, certified.task_root, packed, arguments)
    for bit in range(64):
        try_settle(1 ^ 1 << bit, certified.task_root, certified.payload, arguments)
    few = arguments._replace(bitmap=arguments.bitmap & ~1, signatures=arguments.signatures[65:])
    try_settle(1, certified.task_root, certified.payload, few)
    assert tried > 6_000
    world.settle(certified)
    assert world.named("BatchSettled")[0][2] == 5 * 10**10
