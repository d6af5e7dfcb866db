"""A node is a messenger: whatever it forges, the SDK notices before anybody relies on it.

The forger stands in the client's transport and changes single answers of an honest node; that is all that a dishonest
node, or somebody on the way to it, can do.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import msgspec
import pytest

from edgora.client import Client, MemoryJournal, Ticket, Untrusted, Wallet
from edgora.client.flow import ticket_of
from edgora.client.trust import offer_of
from edgora.crypto.keys import SealingKey
from edgora.wire import rest
from edgora.wire.codec import decode, encode
from edgora.wire.errors import EdgoraError, Refused, Unknown
from edgora.wire.metadata import ServerMetadata
from embedded import Embedded, spin

Change = Callable[[dict[str, Any]], None]


class Forger(httpx2.HTTPTransport):
    """Changes the JSON of answers to one method and path (by its end); counts how often."""

    def __init__(self, method: str, path: str, change: Change) -> None:
        super().__init__()
        self._method, self._path, self._change = method, path, change
        self.forged = 0
        self.methods: set[str] = set()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.methods.add(request.method)
        response = super().handle_request(request)
        here = request.method == self._method and request.url.path.endswith(self._path)
        if not here or response.status_code >= 300:
            return response
        body = msgspec.json.decode(response.read())
        self._change(body)
        self.forged += 1
        return httpx2.Response(response.status_code, json=body, request=request)


@contextmanager
def lied_to(platform: Embedded, keys: Wallet, forger: Forger, **how: Any) -> Iterator[Client]:
    with httpx2.Client(transport=forger) as http, platform.client(keys, http=http, **how) as ue:
        yield ue


def flipped(text: str, bit: int = 0) -> str:
    """0x-hex with one bit changed, counted from the end."""
    data = bytearray.fromhex(text[2:])
    data[-1 - bit // 8] ^= 1 << bit % 8
    return "0x" + data.hex()


# ---- the anchor --------------------------------------------------------------------------------------------------------


def test_another_consortium_than_the_pinned_one_is_refused(platform: Embedded, rich: Wallet) -> None:
    with platform.client(rich, genesis_id=flipped(platform.genesis_id)) as ue:
        with pytest.raises(Untrusted, match="pinned is") as untrusted:
            ue.submit(spin())
        assert untrusted.value.field == "genesis_id"
        assert ue.journal.tasks() == {}


def test_first_use_is_said_aloud_and_pins(platform: Embedded, rich: Wallet) -> None:
    told: list[str] = []
    with platform.client(rich, genesis_id=None, on_progress=lambda tell: told.append(tell.sentence)) as ue:
        ue.connect()
        assert "0x" + (ue.session.pinned or b"").hex() == platform.genesis_id
        assert any(platform.genesis_id in sentence and "on the node's word" in sentence for sentence in told)


def test_a_changed_genesis_document_is_refused(platform: Embedded, rich: Wallet) -> None:
    genesis = platform.genesis

    def other_validators(body: dict[str, Any]) -> None:
        forged = msgspec.structs.replace(genesis, validators=genesis.validators[::-1])
        body["genesis"] = "0x" + encode(forged).hex()

    def torn(body: dict[str, Any]) -> None:
        body["genesis"] = body["genesis"][:-2]

    for change in (other_validators, torn):
        forger = Forger("GET", "/v1/info", change)
        with lied_to(platform, rich, forger) as ue, pytest.raises(EdgoraError) as refused:
            ue.connect()
        assert isinstance(refused.value, Refused)
        assert forger.forged


# ---- before anything is sealed -------------------------------------------------------------------------------------------


def test_an_input_is_never_sealed_to_a_forged_key(platform: Embedded, rich: Wallet) -> None:
    eavesdropper = SealingKey.generate()

    def forged(body: dict[str, Any]) -> None:
        keys = body["keys"]
        document = decode(bytes.fromhex(keys["document"][2:]), ServerMetadata)
        own = msgspec.structs.replace(document, rsa_spki=eavesdropper.public.spki)
        keys["document"], keys["rsa_spki"] = "0x" + encode(own).hex(), "0x" + own.rsa_spki.hex()
        keys["meta_hash"] = body["meta_hash"] = "0x" + own.hash.hex()

    forger = Forger("GET", "/v1/servers/0", forged)
    with lied_to(platform, rich, forger) as ue:
        with pytest.raises(Untrusted, match="not the certified one") as untrusted:
            ue.submit(spin(source=0))
        assert untrusted.value.field == "source"
        assert ue.journal.tasks() == {}
    assert forger.forged
    assert "PUT" not in forger.methods, "nothing was uploaded"


def test_a_stored_that_the_source_did_not_sign_is_refused(platform: Embedded, rich: Wallet) -> None:
    def forged(body: dict[str, Any]) -> None:
        body["stored"] = flipped(body["stored"], 40)

    class Source(Forger):
        """The path ends with the input's digest, which nobody knows beforehand."""

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            self._path = request.url.path if request.url.path.startswith("/v1/inputs/") else "-"
            return super().handle_request(request)

    forger = Source("PUT", "-", forged)
    with lied_to(platform, rich, forger) as ue:
        with pytest.raises(Untrusted, match="not signed by server"):
            ue.submit(spin(source=1))
        assert ue.journal.tasks() == {}
    assert forger.forged
    assert "POST" not in forger.methods, "no transaction was sent"


# ---- results and their proofs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(platform: Embedded, rich: Wallet) -> tuple[Ticket, Ticket, bytes]:
    """Two tasks of one UE that are done and certified, and the first one's output."""
    journal = MemoryJournal()
    with platform.client(rich, journal=journal) as ue:
        first, second = ue.submit(spin()), ue.submit(spin(rounds=30_000))
        output = ue.deliver(first).output
        ue.deliver(second)
    kept = journal.tasks()
    return ticket_of(first.task, kept[first.task]), ticket_of(second.task, kept[second.task]), output


@pytest.mark.parametrize("member", ["iv", "ciphertext", "tag"])
def test_a_changed_sealed_result_is_refused(
    platform: Embedded, rich: Wallet, done: tuple[Ticket, Ticket, bytes], member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(body: dict[str, Any]) -> None:
        text = body["envelope"][member]
        body["envelope"][member] = ("B" if text[0] == "A" else "A") + text[1:]

    monkeypatch.setattr("edgora.client.flow._ATTEMPTS", 2)
    forger = Forger("GET", "/result", change)
    # No certified filing has that cipher digest, so the client asks again, in vain, and then says so.
    with lied_to(platform, rich, forger) as ue, pytest.raises((Unknown, Refused)):
        ue.deliver(done[0])
    assert forger.forged


def test_a_result_of_another_task_is_refused(
    platform: Embedded, rich: Wallet, done: tuple[Ticket, Ticket, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgora.client.flow._ATTEMPTS", 2)
    other = platform.get(f"/v1/tasks/0x{done[1].task.hex()}/result").json()
    forger = Forger("GET", f"0x{done[0].task.hex()}/result", lambda body: body.update(other))
    with lied_to(platform, rich, forger) as ue, pytest.raises((Unknown, Refused)):
        ue.deliver(done[0])
    assert forger.forged


def test_a_result_with_the_other_tasks_proofs_is_refused_too(
    platform: Embedded, rich: Wallet, done: tuple[Ticket, Ticket, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgora.client.flow._ATTEMPTS", 2)
    result = platform.get(f"/v1/tasks/0x{done[1].task.hex()}/result").json()
    proofs = platform.get(f"/v1/tasks/0x{done[1].task.hex()}/proof").json()

    class Both(Forger):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            self._path = request.url.path if request.url.path.endswith(("/result", "/proof")) else "-"
            self._change = lambda body: body.update(result if request.url.path.endswith("/result") else proofs)
            return super().handle_request(request)

    forger = Both("GET", "-", lambda body: None)
    with lied_to(platform, rich, forger) as ue, pytest.raises((Unknown, Refused)):
        ue.deliver(done[0])
    assert forger.forged >= 2


def forge_proof(kind: str, name: str, bit: int) -> Change:
    def change(body: dict[str, Any]) -> None:
        for item in body["items"]:
            if (item["kind"], item["name"]) == (kind, name):
                item["proof"] = flipped(item["proof"], bit)

    return change


@pytest.mark.parametrize("kind", ["receipt", "tx"])
@pytest.mark.parametrize("bit", [0, 300, 1_000, 2_001])
def test_a_changed_proof_is_refused(
    platform: Embedded, rich: Wallet, done: tuple[Ticket, Ticket, bytes], kind: str, bit: int
) -> None:
    forger = Forger("GET", "/proof", forge_proof(kind, "RESULT_HASH", bit))
    with lied_to(platform, rich, forger) as ue, pytest.raises(Untrusted) as untrusted:
        ue.deliver(done[0])
    assert untrusted.value.field == "proof"
    assert forger.forged


def test_numbers_that_are_not_proven_are_not_believed(
    platform: Embedded, rich: Wallet, done: tuple[Ticket, Ticket, bytes]
) -> None:
    """What the node says beside the proof (code, fuel, digest) is not what the client goes by."""

    def change(body: dict[str, Any]) -> None:
        body.update(code="TRAP", fuel_used=1, result_digest="0x" + "11" * 32)

    forger = Forger("GET", "/result", change)
    with lied_to(platform, rich, forger) as ue:
        answer = ue.deliver(done[0])
    assert forger.forged
    assert answer.code.name == "OK"
    assert answer.fuel_used > 1
    assert answer.output == done[2]


def test_only_its_ue_can_open_a_result(platform: Embedded, done: tuple[Ticket, Ticket, bytes]) -> None:
    stranger = Wallet(platform.cluster.running_ground.deployer, SealingKey.generate())
    with platform.client(stranger) as ue, pytest.raises(EdgoraError, match=r"recipient|sealed|key"):
        ue.deliver(done[0])


def test_one_honest_node_is_enough(platform: Embedded, rich: Wallet, done: tuple[Ticket, Ticket, bytes]) -> None:
    """The forger sits on one node; a client that asks another gets the result."""
    liar = platform.urls[0].rpartition(":")[2]

    class OneLiar(Forger):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if str(request.url.port) != liar:
                return httpx2.HTTPTransport.handle_request(self, request)
            return super().handle_request(request)

    forger = OneLiar("GET", "/proof", forge_proof("tx", "RESULT_HASH", 9))
    with lied_to(platform, rich, forger) as ue, pytest.raises(Untrusted):
        ue.deliver(done[0])
    with lied_to(platform, rich, forger, nodes=platform.urls[1:]) as ue:
        assert ue.deliver(done[0]).output == done[2]


async def test_the_asynchronous_client_checks_the_same(
    platform: Embedded, rich: Wallet, done: tuple[Ticket, Ticket, bytes]
) -> None:
    class AsyncForger(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await super().handle_async_request(request)
            if not request.url.path.endswith("/proof"):
                return response
            body = msgspec.json.decode(await response.aread())
            forge_proof("receipt", "RESULT_HASH", 77)(body)
            return httpx2.Response(response.status_code, json=body, request=request)

    async with httpx2.AsyncClient(transport=AsyncForger()) as http, platform.async_client(rich, http=http) as ue:
        with pytest.raises(Untrusted):
            await asyncio.wait_for(ue.deliver(done[0]), 60)


def test_an_offer_survives_the_way_to_rest_and_back(done: tuple[Ticket, Ticket, bytes]) -> None:
    ticket = done[0]
    submission = msgspec.json.decode(ticket.fields["submission"], type=rest.TaskSubmission)
    assert offer_of(submission.offer) == ticket.offer
