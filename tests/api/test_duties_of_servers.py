"""Duties seen from outside: what four nodes do when something fails, lies, is slow or starts again."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from api.world import PARAMS, Platform
from edgora.crypto.proof import check_receipt_proof
from edgora.crypto.seal import unwrap
from edgora.ledger.effects import SnapshotImage
from edgora.node.records import InputRecord
from edgora.ports.blobs import Room
from edgora.wire.codec import decode, encode
from edgora.wire.errors import Broken, Unavailable
from edgora.wire.ledger import Kind
from edgora.wire.market import Advert, Draw, ResultHash, TaskState
from edgora.wire.market_events import AuditDrawn, Verdict
from edgora.wire.peer import Answer, GetInput, GetModule, GetResult, HoldResult, Refusal

AUDITED = replace(PARAMS, audit_bps=10_000)


def node_events(platform: Platform, kind: type) -> list[Any]:
    return [item.event for item in platform.nodes[0].follower.archive.recent if isinstance(item.event, kind)]


def ordered(platform: Platform, kind: Kind) -> list[Any]:
    """(signed transaction, receipt) of every transaction of a kind."""
    found = []
    for stored in platform.ledger.store.blocks.values():
        pairs = zip(stored.block.txs, stored.receipts, strict=True)
        found += [(tx, receipt) for tx, receipt in pairs if tx.tx.kind == kind]
    return found


async def test_registration_follows_the_genesis_order_and_adverts_commit_a_tip() -> None:
    async with Platform() as platform:
        assert [platform.chain.registered[key.address] for key in platform.signing] == [0, 1, 2, 3]
        adverts = [decode(tx.tx.payload, Advert) for tx, receipt in ordered(platform, Kind.ADVERT) if not receipt.code]
        assert len(adverts) == 4
        assert all(advert.tip is not None for advert in adverts)
        assert len({advert.tip for advert in adverts}) == 4


async def test_another_contract_is_a_refusal_to_start() -> None:
    async with Platform(live=False) as platform:
        await platform.nodes[3].stop()
        platform.chain.code = b"\1" * 32
        with pytest.raises(Broken, match="another contract"):
            await platform.add_node(3)


async def test_every_task_is_audited_where_the_rule_says_so() -> None:
    async with Platform(params=AUDITED) as platform:
        ue = await platform.funded_ue()
        task = await ue.submit(flags=1, source=0, data=b"check me")
        await platform.until(lambda: platform.state(task) == "SETTLED")
        drawn = node_events(platform, AuditDrawn)
        assert [(d.audited, len(d.auditors), d.witness is not None) for d in drawn] == [(True, 2, True)]
        verdict = node_events(platform, Verdict)[0]
        assert verdict.upheld
        assert len([tx for tx, _ in ordered(platform, Kind.DRAW)]) == 1
        draw = decode(ordered(platform, Kind.DRAW)[0][0].tx.payload, Draw)
        assert draw.up_to < platform.ledger.head.height
        filings = [decode(tx.tx.payload, ResultHash) for tx, r in ordered(platform, Kind.RESULT_HASH) if not r.code]
        assert len({(f.code, f.result_digest, f.fuel_used) for f in filings}) == 1
        assert sum(f.cipher_digest is None for f in filings) >= 1, "auditors file without holders"


async def test_an_executor_that_lies_is_disputed_and_its_result_not_served() -> None:
    async with Platform(params=AUDITED) as platform:
        ue = await platform.funded_ue()
        await platform.until(lambda: all(platform.ledger.market.is_live(s) for s in platform.ledger.market.servers()))
        honest = platform.runners[0].run

        async def lying(runner: Any, job: Any) -> Any:
            outcome = await honest(job)
            return type(outcome)(outcome.code, b"lie" + outcome.output, outcome.fuel_used, outcome.wall_ms)

        # The source with the best value runs it itself; whoever that is, it lies as an executor and as an auditor.
        platform.runners[0].run = lying.__get__(platform.runners[0])
        task = await ue.submit(flags=1, source=0)
        await platform.until(lambda: platform.state(task) in {"REFUNDED", "SETTLED"})
        found = (await platform.clients[1].get(f"/v1/tasks/{task}")).json()
        if found["executor"] == 0:
            assert found["state"] == "REFUNDED"
            assert found["why"].startswith("disputed")
            answer = await platform.clients[1].get(f"/v1/tasks/{task}/result")
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        else:
            assert 0 in node_events(platform, Verdict)[0].against


@pytest.mark.parametrize(("args", "code", "paid"), [(b"trap", "TRAP", 77), (b"", "OK", 1_005)])
async def test_paid_codes_are_paid(args: bytes, code: str, paid: int) -> None:
    async with Platform() as platform:
        ue = await platform.funded_ue()
        task = await ue.submit(args=args)
        await platform.until(lambda: platform.state(task) == "SETTLED")
        found = (await platform.clients[0].get(f"/v1/tasks/{task}")).json()
        assert (found["result"]["code"], found["result"]["fuel_used"]) == (code, paid)


async def test_what_pays_nothing_goes_to_another_server_once() -> None:
    async with Platform() as platform:
        ue = await platform.funded_ue()
        task = await ue.submit(args=b"wall", source=2)
        await platform.until(lambda: platform.state(task) == "REFUNDED")
        found = (await platform.clients[0].get(f"/v1/tasks/{task}")).json()
        assert (found["reopened"], found["amount"]) == (1, "0")
        assert "wall time" in found["why"]
        filers = {tx.tx.sender for tx, receipt in ordered(platform, Kind.RESULT_HASH) if not receipt.code}
        assert len(filers) == 2
        account = (await platform.clients[0].get(f"/v1/accounts/{ue.address}")).json()
        assert (account["reserved"], account["spent"]) == ("0", "0")
        # A server whose task went back files a new advert by itself.
        await platform.until(lambda: all(platform.ledger.market.is_live(s) for s in platform.ledger.market.servers()))


async def test_inputs_leave_for_a_reason_on_the_ledger_only() -> None:
    async with Platform(params=replace(PARAMS, file_ms=400_000)) as platform:
        ue = await platform.funded_ue()
        draft = ue.sealed(source=1, args=b"hang")
        stored = (await draft.upload()).json()["stored"]
        assert (await draft.post(stored)).status_code == 202
        market = platform.ledger.market
        await platform.until(lambda: (t := market.task(draft.id)) is not None and t.state == TaskState.ASSIGNED)
        task = market.task(draft.id)
        assert task is not None
        executor = task.executor
        assert executor is not None
        await platform.until(lambda: any(r.jobs for r in platform.runners))
        stranger = next(i for i in range(4) if i not in {1, executor})

        async def ask(caller: int, request: Any, server: int = 1) -> Any:
            return decode(await platform.ledger.handlers[server](caller, encode(request)), Answer)

        given = await ask(executor, GetInput(draft.id, 0))
        assert given.total == draft.offer.input_octets
        assert given.data == draft.envelope.ciphertext
        held = HoldResult(draft.id, 0, bytes(32), bytes(32), 3, 0, b"abc")
        requests = (GetInput(draft.id, 0), GetResult(draft.id, 0), held, GetModule(bytes(32), 0))
        answers = await asyncio.gather(*(ask(stranger, request) for request in requests))
        assert all(isinstance(answer, Refusal) for answer in answers)
        assert "neither an assignment nor an audit" in answers[0].detail
        for garbage in (b"", b"\x91\xff", encode([9, 9])):
            assert isinstance(decode(await platform.ledger.handlers[1](0, garbage), Answer), Refusal)


async def test_only_ciphertext_is_on_disk_and_the_key_is_resealed() -> None:
    async with Platform() as platform:
        ue = await platform.funded_ue()
        secret = b"the plain input of this UE"
        task = await ue.submit(source=0, data=secret)
        await platform.until(lambda: platform.state(task) == "SETTLED")
        found = (await platform.clients[0].get(f"/v1/tasks/{task}")).json()
        folder = platform.nodes[0]._journal  # every node's folder is below this one's parent
        assert folder is not None
        octets = b"".join(path.read_bytes() for path in platform.folder.rglob("*") if path.is_file())
        assert secret not in octets
        assert secret[::-1] not in octets
        executor = found["executor"]
        record = decode(platform.blobs(executor).get(Room.INPUTS, bytes.fromhex(task[2:])) or b"", InputRecord)
        assert unwrap(record.envelope, platform.sealing[executor], record.offer.key_commit)


async def test_a_result_outlives_its_executor() -> None:
    async with Platform() as platform:
        ue = await platform.funded_ue()
        draft = ue.sealed(source=3, data=b"keep me")
        stored = (await draft.upload()).json()["stored"]
        posted = await draft.post(stored)
        task = posted.json()["task"]["id"]
        await platform.until(lambda: platform.state(task) == "SETTLED")
        found = (await platform.clients[0].get(f"/v1/tasks/{task}")).json()
        platform.ledger.cut.add(found["executor"])
        others = [i for i in range(4) if i not in {found["executor"], *found["result"]["holders"]}]
        for node in [*found["result"]["holders"], *others]:
            sealed = await platform.clients[node].get(f"/v1/tasks/{task}/result")
            assert sealed.status_code == 200, sealed.text
            assert draft.open_result(sealed.json()) == b"em peek"


async def test_a_source_that_cannot_be_reached_costs_nobody_its_name() -> None:
    async with Platform() as platform:
        ue = await platform.funded_ue()
        draft = ue.sealed(source=1, fuel_limit=1_000_000_000)
        filler = await ue.submit(source=1, args=b"hang", fuel_limit=1_900_000_000)  # the source itself has no room left
        await platform.until(lambda: platform.state(filler) == "ASSIGNED")
        holder = (await platform.clients[0].get(f"/v1/tasks/{filler}")).json()["executor"]
        stored = (await draft.upload()).json()["stored"]
        platform.ledger.cut.add(1)
        posted = await draft.post(stored)
        assert posted.status_code == 202, posted.text
        task = posted.json()["task"]["id"]
        if holder == 1:
            await platform.until(lambda: any(
                decode(tx.tx.payload, ResultHash).code == 8 for tx, _ in ordered(platform, Kind.RESULT_HASH)
            ))  # fmt: skip
            platform.ledger.cut.clear()
            servers = list(platform.ledger.market.servers())
            assert all(server.late == 0 for server in servers)
            assert platform.state(task) is not None


async def test_batches_are_settled_in_turns_even_if_the_first_is_gone() -> None:
    async with Platform() as platform:
        ue = await platform.funded_ue()
        task = await ue.submit()
        await platform.until(lambda: platform.state(task) == "SETTLED")
        assert [batch for batch, _ in platform.chain.settled] == [1]
        proof = platform.chain.proofs[0]
        assert check_receipt_proof(proof, platform.genesis.addresses, platform.genesis.ledger_domain()) is None
        await platform.nodes[2].stop()
        platform.ledger.handlers.pop(2, None)
        second = await ue.submit(source=0)
        await platform.until(lambda: platform.state(second) == "SETTLED")
        assert [batch for batch, _ in platform.chain.settled] == [1, 2]
        assert platform.chain.settled[1][1] != 2, "it was validator 2's turn, which is gone: another one pays"


async def test_locks_are_refunded_to_their_ue() -> None:
    async with Platform() as platform:
        ue = await platform.funded_ue()
        now_s = platform.clock.now_ms() // 1000
        platform.chain.put(platform.chain.dev.open(ue.key.address, b"\7" * 32, 10**15, now_s + 20))
        await platform.until(lambda: len(list(platform.ledger.market.locks())) == 1)
        await platform.until(lambda: not list(platform.ledger.market.locks()))
        assert not platform.chain.dev.locks


async def test_a_chain_that_is_away_is_waited_for() -> None:
    params = replace(PARAMS, margin_ms=50_000)
    async with Platform(params=params) as platform:
        ue = await platform.funded_ue()
        platform.chain.down = True
        await platform.until(lambda: not platform.nodes[0].follower.chain_seen(platform.clock.now_ms()))
        info = (await platform.clients[0].get("/v1/info")).json()
        assert info["chain_seen"] is False
        status = (await platform.clients[0].get("/v1/status")).json()
        assert "have not seen the chain" in status["chain_sentence"]
        draft = ue.sealed()
        stored = (await draft.upload()).json()["stored"]
        posting = asyncio.ensure_future(draft.post(stored))
        await platform.until(
            lambda: bool(platform.nodes[0].duties) and "not reached" in platform.nodes[0].duties[6].says
        )
        platform.chain.down = False
        answer = await posting
        assert answer.status_code == 202, answer.text


async def test_a_node_that_starts_again_goes_on_where_it_was() -> None:
    async with Platform(params=replace(PARAMS, file_ms=400_000)) as platform:
        ue = await platform.funded_ue()
        task = await ue.submit(source=2, args=b"hang", deadline_ms=platform.clock.now_ms() + 3_000_000)
        await platform.until(lambda: platform.state(task) == "ASSIGNED")
        executor = (await platform.clients[0].get(f"/v1/tasks/{task}")).json()["executor"]
        await platform.until(lambda: bool(platform.runners[executor].jobs))
        tip = next(s.tip for s in platform.ledger.market.servers() if s.id == executor)
        await platform.nodes[executor].stop()
        # While it is away the ledger goes on, and its store now starts at a snapshot.
        other = await ue.submit(source=(executor + 1) % 4)
        await platform.until(lambda: platform.state(other, (executor + 1) % 4) == "SETTLED")
        state = platform.ledger.executor.freeze()
        platform.ledger.store.image = SnapshotImage(platform.ledger.head, state.root, state.merged())
        node = await platform.add_node(executor)
        assert node.follower.height >= platform.ledger.store.image.height
        await platform.until(lambda: bool(platform.runners[executor].jobs))
        again = (await platform.clients[executor].get(f"/v1/tasks/{other}")).json()
        assert again["state"] == "SETTLED"
        assert again["tx_hash"] is not None
        proofs = (await platform.clients[executor].get(f"/v1/tasks/{other}/proof")).json()
        assert [p["name"] for p in proofs["items"][::2]] == ["TASK", "RESULT_HASH", "SETTLEMENT"]
        assert next(s.tip for s in platform.ledger.market.servers() if s.id == executor) == tip, "the same audit chain"


async def test_a_node_tells_what_happened_while_it_was_away_beyond_a_state_transfer() -> None:
    async with Platform() as platform:
        ue = await platform.funded_ue()
        before = await ue.submit(source=0)
        await platform.until(lambda: platform.state(before, 3) == "SETTLED")
        since = platform.nodes[3].follower.height
        await platform.nodes[3].stop()
        missed = await ue.submit(source=1)
        await platform.until(lambda: platform.state(missed, 0) == "SETTLED")
        told = {task: (await platform.clients[0].get(f"/v1/tasks/{task}")).json() for task in (before, missed)}
        earned = (await platform.clients[0].get("/v1/servers")).json()["items"]
        # What came to its store meanwhile is a state alone: no block, no event.
        state, store = platform.ledger.executor.freeze(), platform.ledger.store
        store.image = SnapshotImage(platform.ledger.head, state.root, state.merged())
        gap = range(since + 1, store.image.height + 1)
        store.blocks = {height: block for height, block in store.blocks.items() if height not in gap}
        store.stored_events = [event for event in store.stored_events if event.height not in gap]
        node = await platform.add_node(3)
        assert node.follower.height == store.image.height
        for task, known in told.items():
            again = (await platform.clients[3].get(f"/v1/tasks/{task}")).json()
            for name in ("state", "amount", "executor", "result", "offer", "maximum", "batch"):
                assert again[name] == known[name], (name, task)
        assert (await platform.clients[3].get(f"/v1/tasks/{missed}")).json()["tx_hash"] is None, (
            "that block is not here"
        )
        again = (await platform.clients[3].get("/v1/servers")).json()["items"]
        assert [s.get("earned") for s in again] == [s.get("earned") for s in earned]
        page = (await platform.clients[3].get("/v1/tasks")).json()["items"]
        assert [task["id"] for task in page] == [missed, before]


async def test_a_diverging_state_stops_the_node() -> None:
    async with Platform() as platform:
        node = platform.nodes[1]
        ledger = platform.ledger
        honest = ledger.store.append

        def forged(stored: Any, events: Any) -> None:
            honest(stored._replace(state_root=bytes(32)), events)

        ledger.store.append = forged  # type: ignore[method-assign]
        ledger.make([], [])
        assert node.failed is not None
        async with asyncio.timeout(20):
            with pytest.raises(Broken, match="state root"):
                await asyncio.shield(node.failed)
        with pytest.raises(Broken):
            await platform.until(lambda: False)


async def test_bulk_goes_when_its_time_is_over() -> None:
    async with Platform(params=replace(PARAMS, keep_ms=20_000)) as platform:
        ue = await platform.funded_ue()
        kept = ue.sealed(source=0)
        assert (await kept.upload()).status_code == 201
        task = await ue.submit(source=0)
        await platform.until(lambda: all(platform.state(task, i) == "SETTLED" for i in range(4)))
        rooms = [platform.blobs(i) for i in range(4)]
        name = bytes.fromhex(task[2:])
        assert any(room.has(Room.RESULTS, name) for room in rooms)
        ended = platform.clock.now_ms()
        await platform.until(lambda: platform.clock.now_ms() > ended + 25_000)
        for node in platform.nodes:
            await node.duties[-1].sweep()  # type: ignore[attr-defined]
        assert not any(room.has(Room.RESULTS, name) or room.has(Room.INPUTS, name) for room in rooms)
        assert rooms[0].has(Room.INPUTS, kept.id), "an offer that may still be posted keeps its input"
        answer = await platform.clients[1].get(f"/v1/tasks/{task}/result")
        assert (answer.status_code, answer.json()["code"]) == (503, Unavailable.code)
