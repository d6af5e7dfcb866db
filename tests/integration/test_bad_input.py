"""Bad input through the whole stack: a typed refusal that names field and fix, or an end that says why; never a 500.

What a single node's REST refuses by itself is in tests/api; here are the things that need the consortium: modules that
misbehave while they run, inputs that nobody can open, money that is not there, bytes that come twice.
"""

import asyncio
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import msgspec
import pytest

from edgora.client import Delivery, MemoryJournal, Ticket, Wallet
from edgora.client.kernels import order_for_module
from edgora.crypto.seal import Context, Envelope
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused, RuleRefused
from embedded import ECHO, Embedded, own_module, spin, wallet

RUN = """
(module
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 1024))
  (func (export "alloc") (param $n i32) (result i32) (global.get $top))
  (func $again (result i64) (call $again))
  (func (export "run") (param $at i32) (param $n i32) (result i64) {body}))
"""
LOOP = "(loop $for_ever (br $for_ever)) (i64.const 0)"
MEMORY_BOMB = """
(loop $more (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (br $more)) (i64.const 0)"""
FUEL = 20_000_000


class Alarms(logging.Handler):
    """Errors that a node logs: none may come of what a user sends."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


@pytest.fixture(autouse=True)
def nobody_is_alarmed() -> Iterator[None]:
    """No node logs an error: none stops, none answers 500."""
    alarms = Alarms()
    logging.getLogger("edgora").addHandler(alarms)
    yield
    logging.getLogger("edgora").removeHandler(alarms)
    assert alarms.records == []


# ---- modules that misbehave while they run: they end with their code and are paid for what they used -----------------------


MISBEHAVIOUR = {
    "unreachable": ("(unreachable)", "TRAP", False),
    "division by zero": ("(i64.extend_i32_u (i32.div_u (i32.const 1) (i32.const 0)))", "TRAP", True),
    "wild load": ("(i64.load (i32.const 0x7fffffff))", "TRAP", True),
    "endless recursion": ("(call $again)", "TRAP", True),
    "output outside memory": ("(i64.const 0x7fffffff00000008)", "TRAP", False),
    "endless loop": (LOOP, "OUT_OF_FUEL", True),
    "memory bomb": (MEMORY_BOMB, "MEMORY", False),
    "output bomb": ("(i64.const 0x0000000000020000)", "OUTPUT", False),
}
"""What it does, its result code, and whether it costs the whole fuel limit (a fault does; a clean end what it used)."""


@pytest.fixture(scope="module")
def misbehaved(platform: Embedded, rich: Wallet) -> dict[str, tuple[Ticket, Delivery, rest.Task]]:
    """All of them side by side, to the payment."""

    async def play() -> dict[str, tuple[Ticket, Delivery, rest.Task]]:
        async with platform.async_client(rich) as ue:

            async def one(body: str) -> tuple[Ticket, Delivery, rest.Task]:
                order = own_module(RUN.format(body=body), b"x", fuel_limit=FUEL, memory_pages=8, output_octets=4_096)
                ticket = await ue.submit(order)
                return ticket, await ue.deliver(ticket), await ue.finish(ticket.task)

            ends = await asyncio.gather(*(one(body) for body, _, _ in MISBEHAVIOUR.values()))
            return dict(zip(MISBEHAVIOUR, ends, strict=True))

    return asyncio.run(play())


@pytest.mark.parametrize("what", MISBEHAVIOUR)
def test_a_module_that_misbehaves_is_paid_for_what_it_used(
    misbehaved: dict[str, tuple[Ticket, Delivery, rest.Task]], what: str
) -> None:
    _, code, whole = MISBEHAVIOUR[what]
    ticket, answer, ended = misbehaved[what]
    assert answer.code.name == code
    assert answer.output == b""
    assert (answer.fuel_used == FUEL) == whole
    assert answer.fuel_used > 0
    assert (ended.state, int(ended.amount)) == ("SETTLED", answer.fuel_used * ticket.offer.price * 1000)


def test_less_memory_than_a_module_starts_with(platform: Embedded, rich: Wallet) -> None:
    with platform.client(rich) as ue:
        answer = ue.compute(own_module(RUN.format(body="(i64.const 0)"), b"x", memory_pages=1))
    assert (answer.code.name, answer.fuel_used) == ("MEMORY", 0)


# ---- modules that are refused before anything is signed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wat", "word"),
    [
        ('(module (import "env" "fork" (func)) (memory (export "memory") 1))', "env"),
        ('(module (import "wasi_snapshot_preview1" "sock_open" (func)) (memory (export "memory") 1) (func (export "_start")))',
         "sock_open"),
        ('(module (func (export "run") (param i32 i32) (result i64) (i64.const 0)))', "memory"),
        (RUN.replace('"memory") 2', '"memory") 2000').format(body="(i64.const 0)"), "pages"),
        (RUN.replace("(result i64) {body}", "(result i32) {body}").format(body="(i32.const 0)"), "run"),
    ],
    ids=["host import", "socket import", "no memory", "too much memory", "wrong signature"],
)  # fmt: skip
def test_a_module_that_may_not_run_is_refused_before_it_is_signed(
    platform: Embedded, rich: Wallet, wat: str, word: str
) -> None:
    journal = MemoryJournal()
    with platform.client(rich, journal=journal) as ue, pytest.raises(Refused) as refused:
        ue.submit(own_module(wat))
    assert word in refused.value.detail
    assert refused.value.field == "body"
    assert journal.tasks() == {}


def test_a_binary_that_only_looks_like_a_module(platform: Embedded, rich: Wallet) -> None:
    for wasm in (
        b"\x00asm",
        b"\x00asm\x01\x00\x00\x00" + bytes(40),
        b"\x00asm\x01\x00\x00\x00\x01\xff\xff\xff\xff\x0f",
    ):
        order = order_for_module(wasm, b"", {}, fuel_limit=1_000, output_octets=8, memory_pages=1)
        with platform.client(rich) as ue, pytest.raises(Refused):
            ue.submit(order)


def test_a_module_over_the_limit(platform: Embedded, rich: Wallet) -> None:
    wasm = b"\x00asm\x01\x00\x00\x00" + bytes(4 * 1024 * 1024)
    order = order_for_module(wasm, b"", {}, fuel_limit=1_000, output_octets=8, memory_pages=1)
    with platform.client(rich) as ue, pytest.raises(Refused) as refused:
        ue.submit(order)
    assert refused.value.code == "too_large"


# ---- inputs --------------------------------------------------------------------------------------------------------------------


def test_an_input_that_nobody_can_open_costs_nothing(
    platform: Embedded, rich: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digest, key and commitment are right, so the source stores it; two servers cannot open it; the UE is refunded."""
    from edgora.client import flow

    seal = flow.seal

    def spoilt(*arguments: Any) -> tuple[Envelope, Any]:
        envelope, key = seal(*arguments)
        torn = bytearray(envelope.ciphertext)
        torn[len(torn) // 2] ^= 1
        return msgspec.structs.replace(envelope, ciphertext=bytes(torn)), key

    monkeypatch.setattr(flow, "seal", spoilt)
    with platform.client(rich) as ue:
        before = int(ue.account().spent)
        ticket = ue.submit(spin())
        with pytest.raises(Refused, match=r"could not open the input") as refused:
            ue.deliver(ticket)
        assert "nothing was charged" in str(refused.value.fix)
        ended = ue.finish(ticket.task)
        assert (ended.state, ended.amount) == ("REFUNDED", "0")
        assert "could not open the input" in ended.why
        assert int(ue.account().spent) == before


def test_an_input_sealed_for_another_chain(platform: Embedded, rich: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgora.client import flow

    def elsewhere(chain: int, *rest_: Any) -> Context:
        return Context(chain + 1, *rest_)

    monkeypatch.setattr(flow, "Context", elsewhere)
    with platform.client(rich) as ue, pytest.raises(Refused, match="another chain") as refused:
        ue.submit(spin())
    assert refused.value.field == "envelope.aad"


def test_a_signature_for_another_consortium(platform: Embedded, rich: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    with platform.client(rich) as ue:
        ue.connect()
        trust, _ = ue.session.known()
        elsewhere = msgspec.structs.replace(platform.genesis, consortium_id=99)
        trust.domain = elsewhere.ledger_domain()
        # The source's Stored is for the real one, so this client would stop there: let it believe.
        monkeypatch.setattr(type(trust), "check_stored", lambda *_: None)
        with pytest.raises(EdgoraError) as refused:
            ue.submit(spin())
    assert (refused.value.code, refused.value.field) == ("bad_signature", "signature")


# ---- bytes that come twice, and money that is not there --------------------------------------------------------------------------


def recorded(platform: Embedded, keys: Wallet) -> bytes:
    """A signed submission that was accepted."""
    journal = MemoryJournal()
    with platform.client(keys, journal=journal) as ue:
        ticket = ue.submit(spin())
        ue.deliver(ticket)
    submission: str = journal.tasks()[ticket.task]["submission"]
    return submission.encode()


def test_the_same_bytes_to_every_node_at_once_run_once(platform: Embedded, rich: Wallet) -> None:
    body = recorded(platform, rich)
    headers = {"Content-Type": "application/json"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(
            lambda url: httpx2.post(f"{url}/v1/tasks", content=body, headers=headers, timeout=60), platform.urls * 2
        ))  # fmt: skip
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["tx_hash"] for answer in answers}) == 1
    assert len({answer.json()["height"] for answer in answers}) == 1


def test_a_replayed_offer_is_told_from_a_repeated_request(platform: Embedded, rich: Wallet) -> None:
    """The same offer under a new sequence number: the ledger has seen it."""
    submission = msgspec.json.decode(recorded(platform, rich), type=rest.TaskSubmission)
    from edgora.client.trust import hex0x, offer_of, unhex
    from edgora.wire.codec import encode, to_u96
    from edgora.wire.ledger import Kind, Tx
    from edgora.wire.market import TaskPayload, VoucherPart

    voucher = submission.voucher
    assert voucher is not None
    part = VoucherPart(to_u96(int(voucher.cap)), voucher.valid_until_s, unhex(voucher.signature))
    payload = encode(TaskPayload(offer_of(submission.offer), unhex(submission.stored), part))
    tx = Tx(Kind.TASK, rich.address, submission.lane, submission.seq + 1, submission.valid_until_height, payload)
    body = msgspec.to_builtins(submission)
    domain = platform.genesis.ledger_domain()
    body |= {"seq": tx.seq, "signature": hex0x(rich.signing.sign(tx.digest(domain)))}
    answer = httpx2.post(f"{platform.urls[1]}/v1/tasks", json=body, timeout=60)
    assert (answer.status_code, answer.json()["rule"]) == (422, "OFFER_SEEN")
    assert answer.json()["field"] == "offer.nonce"


def test_money_that_is_not_there_is_refused_by_the_ledger(
    platform: Embedded, rich: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that believes itself rich: every node still looks at the account."""
    from edgora.client import flow

    def never(session: Any, wei: int) -> Any:
        return (yield from flow.account(session))

    monkeypatch.setattr(flow, "fund", never)
    with platform.client(wallet()) as ue, pytest.raises(RuleRefused) as stranger:
        ue.submit(spin())
    assert (stranger.value.rule, stranger.value.field) == ("DEPOSIT_SHORT", "voucher")
    with platform.client(rich) as ue:
        dear = spin(price=4_000_000, fuel_limit=100_000_000)
        with pytest.raises(RuleRefused) as poor:
            ue.submit(dear)
        assert poor.value.rule in {"DEPOSIT_SHORT", "ESCROW_SHORT", "BALANCE_SHORT", "VOUCHER_SHORT"}
        assert poor.value.field
        assert ue.compute(spin()).code.name == "OK", "and the lane goes on"


def test_a_deadline_in_the_past_or_too_far(platform: Embedded, rich: Wallet) -> None:
    with platform.client(rich) as ue:
        for patience in (-5_000, 1):
            with pytest.raises(Refused):
                ue.submit(spin(patience_ms=patience))
        with pytest.raises(Refused) as far:
            ue.submit(spin(patience_ms=3_700_000))
    assert far.value.field == "deadline"


def test_an_offer_that_nobody_can_serve_in_time_expires_and_costs_nothing(platform: Embedded, rich: Wallet) -> None:
    with platform.client(rich) as ue:
        ticket = ue.submit(spin(price=12, source=0, fuel_limit=1_000_000, patience_ms=4_000))
        ended = ue.finish(ticket.task, 60_000)
    assert (ended.state, ended.amount) == ("REFUNDED", "0")
    assert "expired" in ended.why


# ---- what is no HTTP at all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"\xff" * 4_096,
    ],
    ids=["TLS", "half a line", "negative length", "endless length", "bad chunk", "long path", "long header", "noise"],
)  # fmt: skip
def test_octets_that_are_no_request(platform: Embedded, octets: bytes) -> None:
    host, _, port = platform.urls[2].removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as raw:
        raw.settimeout(10)
        try:
            raw.sendall(octets)
            raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(65_536)
        except OSError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 5")
    assert platform.get("/healthz", 2).status_code == 200


def nested(depth: int) -> bytes:
    return b'{"offer":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"\xff\xfe", b'"\xed\xa0\x80"', nested(5_000), b"1e999", b'{"offer": NaN}', b'{"a":1}' * 2],
    ids=["nothing", "null", "no UTF-8", "a surrogate", "nested", "huge number", "NaN", "two documents"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/tx", "/v1/txs", "/v1/dev/faucet"])
def test_json_that_is_none(platform: Embedded, path: str, body: bytes) -> None:
    answer = httpx2.post(
        platform.urls[0] + path, content=body, headers={"Content-Type": "application/json"}, timeout=60
    )
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert 400 <= answer.status_code < 500, answer.text
    assert problem["code"]
    assert problem["detail"]


def test_a_body_without_an_end_is_cut_off_at_the_limit(platform: Embedded) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 65_536

    answer = httpx2.post(
        f"{platform.urls[0]}/v1/tasks", content=endless(), headers={"Content-Type": "application/json"}, timeout=60
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_after_all_this_a_good_task_is_served(platform: Embedded, rich: Wallet) -> None:
    with platform.client(rich) as ue:
        answer = ue.compute(own_module(ECHO, b"still here"))
    assert b"still here" in answer.output
    for node in range(4):
        assert platform.get("/readyz", node).status_code == 200
        assert platform.get("/v1/status", node).json()["alarm"] is None
        assert "edgora_alarm 0.0" in platform.get("/metrics", node).text
