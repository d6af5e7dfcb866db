"""The SDK end to end: real nodes, real sandbox, real contract; blocking and asynchronous."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from edgora.client import Delivery, Journal, MemoryJournal, Order, Ticket, Wallet
from edgora.client.checks import verify_output
from edgora.client.flow import ticket_of
from edgora.client.images import Raster, photo
from edgora.client.kernels import demo_input, from_kernel_output, order_for_input, order_for_kernel
from edgora.wire import rest
from edgora.wire.errors import NotFound, Refused, RuleRefused, Unavailable, Unknown
from edgora.wire.inputs import TaskInput
from edgora.wire.kernels import names
from edgora.wire.market import ResultCode
from edgora.wire.settlement import lock_key
from embedded import ECHO, Embedded, own_module, spin, wallet


def delivered(answer: Delivery, order: Order) -> None:
    """The result is right, and it cost what the certified fuel says."""
    assert answer.code is ResultCode.OK
    assert verify_output(order.label, order.plaintext, answer.output)
    assert 0 < answer.fuel_used <= order.fuel_limit


def test_a_photo_travels_the_whole_way(platform: Embedded) -> None:
    order = order_for_kernel("sobel", photo(), {})
    with platform.client() as ue:
        ticket = ue.submit(order)
        answer = ue.deliver(ticket)
        delivered(answer, order)
        png, suffix = from_kernel_output("sobel", answer.output)
        source, edges = Raster.from_file(photo()), Raster.from_file(png)
        assert (suffix, edges.width, edges.height) == (".png", source.width, source.height)
        ended = ue.finish(ticket.task)
        assert (ended.state, int(ended.amount)) == ("SETTLED", answer.cost)
        account = ue.account()
        assert (int(account.spent), int(account.reserved)) == (answer.cost, 0)
        held = platform.run(platform.chain.account(ue.session.wallet.address))
        assert (held.balance, held.spent) == (int(account.balance), answer.cost)


async def test_every_kernel_side_by_side_with_one_key(platform: Embedded) -> None:
    orders = [order_for_input(kernel, demo_input(kernel, seed)) for seed, kernel in enumerate(names())]
    async with platform.async_client() as ue:
        answers = await asyncio.gather(*(ue.compute(order) for order in orders))
        for order, answer in zip(orders, answers, strict=True):
            delivered(answer, order)
        assert len({answer.task for answer in answers}) == len(orders)
        ended = await asyncio.gather(*(ue.finish(answer.task) for answer in answers))
        assert {task.state for task in ended} == {"SETTLED"}
        assert int((await ue.account()).spent) == sum(answer.cost for answer in answers)


def test_a_module_of_ones_own(platform: Embedded, rich: Wallet) -> None:
    order = own_module(ECHO, b"what comes in goes out")
    with platform.client(rich) as ue:
        answer = ue.compute(order)
        assert answer.code is ResultCode.OK
        assert b"what comes in goes out" in answer.output
        assert answer.certified.executor == answer.executor


def test_arguments_reach_a_module(platform: Embedded, rich: Wallet) -> None:
    order = own_module(ECHO, b"data")
    with_args = msgspec.structs.replace(TaskInput.unpack(order.plaintext), args=b"some\0arguments")
    assert with_args.pack() != order.plaintext
    with platform.client(rich) as ue:
        answer = ue.compute(replace(order, plaintext=with_args.pack()))
    assert b"some\0arguments" in answer.output


class Recorder(httpx2.HTTPTransport):
    """Notes every request; may lose answers after the node has given them."""

    def __init__(self, lose: str = "") -> None:
        super().__init__()
        self.seen: list[tuple[str, str, bytes]] = []
        self._lose = lose
        self.lost = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append((request.method, request.url.path, request.content))
        response = super().handle_request(request)
        if self._lose and not self.lost and (request.method, request.url.path) == ("POST", self._lose):
            response.read()
            self.lost += 1
            raise httpx2.ReadTimeout("the answer was lost", request=request)
        return response


def test_a_quote_signs_and_sends_nothing(platform: Embedded) -> None:
    transport = Recorder()
    with httpx2.Client(transport=transport) as http, platform.client(http=http) as ue:
        order = order_for_kernel("sobel", photo(), {})
        quote = ue.quote(order)
        assert quote.maximum == order.fuel_limit * quote.price * 1000
        assert 1 <= quote.servers <= 4
        assert quote.expected_ms > 0
        assert quote.source_url in platform.urls
        assert {method for method, _, _ in transport.seen} == {"GET"}
        assert ue.journal.tasks() == {}
        assert not ue.account().known


def test_a_quote_names_who_refuses_and_why(platform: Embedded) -> None:
    with platform.client() as ue:
        cheap = ue.quote(spin(price=15))
        assert cheap.servers == 1
        assert any("asks 16 gwei/Mfuel, above 15" in refusal for refusal in cheap.refusals)
        with pytest.raises(Refused, match="no live server takes it") as refused:
            ue.quote(spin(price=1))
        assert refused.value.field == "price"
        with pytest.raises(Refused, match="may hold"):
            ue.quote(spin(fuel_limit=10**12))


class Silent(httpx2.HTTPTransport):
    """One node takes no request: to its clients it stands still."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        self.asked = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if str(request.url).startswith(self._base):
            self.asked += 1
            raise httpx2.ReadTimeout("no answer", request=request)
        return super().handle_request(request)


def test_a_nearby_server_that_stands_still_is_nobodys_source(platform: Embedded, rich: Wallet) -> None:
    transport = Silent(platform.urls[0])
    with httpx2.Client(transport=transport) as http, platform.client(rich, http=http) as ue:
        assert ue.session.nodes[0] == platform.urls[0]
        assert any(s.id == 0 and s.live for s in ue.servers())
        quote = ue.quote(spin())
        assert quote.source_url in platform.urls[1:]
        delivered(ue.compute(spin()), spin())
    assert transport.asked >= 2  # once for the connection, once as a source


class Behind(httpx2.HTTPTransport):
    """No node knows any task for so many questions."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.left and request.method == "GET" and request.url.path.startswith("/v1/tasks/0x"):
            self.left -= 1
            told = rest.Problem(type="t", title="t", status=404, code="not_found", detail="no task up to height 7")
            return httpx2.Response(404, content=msgspec.json.encode(told), request=request)
        return super().handle_request(request)


def test_a_task_that_was_acknowledged_is_waited_for_though_all_nodes_are_behind(platform: Embedded, rich: Wallet) -> None:  # fmt: skip
    transport = Behind(2 * len(platform.urls))
    with httpx2.Client(transport=transport) as http, platform.client(rich, http=http) as ue:
        ticket = ue.submit(spin())
        assert ue.finish(ticket.task).state == "SETTLED"
        assert transport.left == 0


def test_a_task_that_nobody_knows_ends_the_wait(platform: Embedded, rich: Wallet) -> None:
    with platform.client(rich) as ue, pytest.raises(NotFound, match="no task 0x" + "5a" * 32):
        ue.finish(b"\x5a" * 32, patience_ms=400)


def test_an_open_task_is_cancelled(platform: Embedded) -> None:
    keys = platform.funded(10**16)  # its own: an earlier task of a shared one may end in between
    # Server 3 is the only one this cheap, and forwarding the input there costs more than it earns: it stays OPEN.
    order = spin(price=12, source=0, fuel_limit=1_000_000)
    with platform.client(keys) as ue:
        ticket = ue.submit(order)
        assert ue.task(ticket.task).state == "OPEN"
        assert ue.why(ticket.task).sentence
        reserved = int(ue.account().reserved)
        cancelled = ue.cancel(ticket.task)
        assert cancelled.state == "REFUNDED"
        assert int(ue.account().reserved) == reserved - ticket.offer.fuel_limit * ticket.offer.price * 1000
        with pytest.raises(RuleRefused) as refused:
            ue.cancel(ticket.task)
        assert refused.value.rule == "NOT_OPEN"
        with pytest.raises(Refused, match="ended without a result"):
            ue.deliver(ticket)


def test_the_lock_lane_needs_no_deposit_and_gets_its_rest_back(platform: Embedded) -> None:
    keys = wallet()
    platform.give_ether(keys.address)
    with platform.client(keys, open_lock=platform.lock_opener(keys)) as ue:
        ticket = ue.submit(spin(lock=True))
        answer = ue.deliver(ticket)
        assert answer.code is ResultCode.OK
        ended = ue.finish(ticket.task)
        assert (ended.state, int(ended.amount)) == ("SETTLED", answer.cost)
        assert int(ue.account().balance) == 0, "no deposit was ever made"

    async def refunded() -> None:
        while (await platform.chain.lock_of(lock_key(keys.address, ticket.task))).amount:
            await asyncio.sleep(0.2)

    platform.run(asyncio.wait_for(refunded(), 60))


def test_a_lock_without_a_way_to_the_chain_is_refused_before_it_is_signed(platform: Embedded) -> None:
    with platform.client() as ue:
        with pytest.raises(Unavailable, match="no way to call the contract"):
            ue.submit(spin(lock=True))
        assert ue.journal.tasks() == {}


def test_a_lost_answer_is_asked_for_again_with_the_same_bytes(platform: Embedded, rich: Wallet) -> None:
    path = f"/v1/tasks?ue=0x{rich.address.hex()}"
    before = msgspec.json.decode(platform.get(path).content, type=rest.TaskPage)
    transport = Recorder(lose="/v1/tasks")
    with httpx2.Client(transport=transport) as http, platform.client(rich, http=http) as ue:
        ticket = ue.submit(spin())
        sent = [body for method, path, body in transport.seen if (method, path) == ("POST", "/v1/tasks")]
        assert transport.lost == 1
        assert len(sent) == 2
        assert sent[0] == sent[1]
        after = msgspec.json.decode(platform.get(path).content, type=rest.TaskPage)
        known = {task.id for task in before.items}
        assert [task.id for task in after.items if task.id not in known] == ["0x" + ticket.task.hex()]
        assert ue.deliver(ticket).code is ResultCode.OK


class Crash(BaseException):
    """The process dies here."""


class CrashingJournal(Journal):
    """Dies right after a stage is on disk."""

    def __init__(self, path: Path, stage: str) -> None:
        super().__init__(path)
        self._stage = stage

    def note(self, task: bytes, stage: str, fields: Mapping[str, Any]) -> None:
        super().note(task, stage, fields)
        if stage == self._stage:
            self.close()
            raise Crash


@pytest.mark.parametrize("stage", ["signed", "accepted"])
def test_a_client_that_crashed_goes_on_from_its_journal(
    platform: Embedded, rich: Wallet, tmp_path: Path, stage: str
) -> None:
    path = tmp_path / "ue.journal"
    order = order_for_input("matmul", demo_input("matmul", 3))
    with platform.client(rich, journal=CrashingJournal(path, stage)) as ue, pytest.raises(Crash):
        ue.submit(order)
    with platform.client(rich, journal=Journal(path)) as again:
        [ticket] = again.resume()
        delivered(again.deliver(ticket), order)
        again.finish(ticket.task)
        assert again.resume() == []
    assert b"plaintext" not in path.read_bytes()


async def test_the_asynchronous_client_goes_on_from_a_journal_too(
    platform: Embedded, rich: Wallet, tmp_path: Path
) -> None:
    path = tmp_path / "ue.journal"
    async with platform.async_client(rich, journal=CrashingJournal(path, "signed")) as ue:
        with pytest.raises(Crash):
            await ue.submit(spin())
    async with platform.async_client(rich, journal=Journal(path)) as again:
        [ticket] = await again.resume()
        assert (await again.deliver(ticket)).code is ResultCode.OK


def test_a_ticket_outlives_the_client_that_made_it(platform: Embedded, rich: Wallet) -> None:
    journal = MemoryJournal()
    with platform.client(rich, journal=journal) as ue:
        ticket = ue.submit(spin())
    with platform.client(rich, nodes=[platform.urls[2]]) as other:
        again: Ticket = ticket_of(ticket.task, journal.tasks()[ticket.task])
        assert (again.offer, again.salt, again.tx_hash) == (ticket.offer, ticket.salt, ticket.tx_hash)
        assert other.deliver(again).code is ResultCode.OK


def test_a_client_that_stops_looking_leaves_no_stream_open(platform: Embedded, rich: Wallet) -> None:
    def streams() -> float:
        lines = platform.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("edgora_event_streams ")).split()[1])

    with platform.client(rich, nodes=platform.urls[:1]) as ue:
        ticket = ue.submit(spin(price=12, source=0, fuel_limit=1_000_000))
        with pytest.raises(Unknown, match="is OPEN after"):
            ue.deliver(ticket, patience_ms=600)
        end = time.monotonic() + 10
        while streams() and time.monotonic() < end:
            pass
        assert streams() == 0
        assert ue.cancel(ticket.task).state == "REFUNDED"


class NoFaucet(httpx2.HTTPTransport):
    """The nodes of a chain that nobody gives money away on."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if request.url.path != "/v1/info":
            return response
        body = msgspec.json.decode(response.read())
        return httpx2.Response(200, json={**body, "development": False}, request=request)


def test_without_money_and_without_a_faucet_it_says_where_to_deposit(platform: Embedded) -> None:
    with httpx2.Client(transport=NoFaucet()) as http, platform.client(http=http) as ue:
        with pytest.raises(Refused, match="no faucet") as refused:
            ue.submit(spin())
        assert refused.value.field == "balance"
        assert platform.genesis.market_address.hex() in str(refused.value.fix)
