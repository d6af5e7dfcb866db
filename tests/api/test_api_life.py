"""A task's whole life through REST: every resource that speaks of it, and the proofs that make it believable."""

import asyncio
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from api.stand_ins import WASM
from api.world import Platform
from edgora.crypto.proof import check_receipt_proof, check_state_proof
from edgora.crypto.sign import recover
from edgora.market.state import account_key, server_key
from edgora.ports.consensus import CheckpointView, EvidenceView, ViewStep
from edgora.wire.codec import decode, encode
from edgora.wire.genesis import Genesis
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, ReceiptProof, SignedTx, Tx, TxProof
from edgora.wire.market import Cancel, ResultHash, Stored
from edgora.wire.pbft import Offence
from edgora.wire.state_proof import StateProof

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def get(platform: Platform, path: str, node: int = 0) -> Any:
    answer = await platform.clients[node].get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_task_is_run_delivered_and_paid(platform: Platform) -> None:
    ue = await platform.funded_ue()
    draft = ue.sealed(source=1, data=b"abc")
    uploaded = await draft.upload()
    assert uploaded.status_code == 201
    stored = uploaded.json()["stored"]
    word = Stored(draft.id).digest(platform.genesis.ledger_domain())
    assert recover(word, bytes.fromhex(stored[2:])) == platform.signing[1].address
    body = draft.post_json(stored)
    posted = await platform.clients[2].post("/v1/tasks", json=body)
    assert posted.status_code == 202, posted.text
    task = posted.json()["task"]["id"]
    assert posted.headers["Location"] == posted.json()["location"] == f"/v1/tasks/{task}"
    await platform.until(lambda: all(platform.state(task, i) == "SETTLED" for i in range(4)))

    again = await platform.clients[3].post("/v1/tasks", json=body)
    assert (again.status_code, again.json()["tx_hash"]) == (202, posted.json()["tx_hash"]), "same bytes, same answer"

    for node in range(4):
        found = await get(platform, f"/v1/tasks/{task}", node)
        assert found["state"] == "SETTLED"
        fuel = found["result"]["fuel_used"]
        assert found["amount"] == str(fuel * 100 * 1000)
        assert found["why"] == f"paid by batch {found['batch']}"
        sealed = await get(platform, f"/v1/tasks/{task}/result", node)
        assert draft.open_result(sealed) == b"cba"
        assert len(found["result"]["holders"]) >= 2
        assert found["executor"] not in found["result"]["holders"]

    account = await get(platform, f"/v1/accounts/{ue.address}")
    assert account["spent"] == found["amount"]
    assert account["reserved"] == "0"
    assert account["lanes"] == [{"lane": 0, "next_seq": 1}]
    batch = await get(platform, f"/v1/batches/{found['batch']}")
    assert batch["state"] == "SETTLED"
    assert task in batch["tasks"]
    assert batch in (await get(platform, "/v1/batches"))["items"]
    earned = {s["id"]: int(s["earned"]) for s in (await get(platform, "/v1/servers"))["items"]}
    assert sum(earned.values()) >= int(found["amount"])


async def test_the_settler_tells_what_the_chain_charged(platform: Platform) -> None:
    """Others know that the batch is settled, not what it cost: the receipt is the relayer's."""
    ue = await platform.funded_ue()
    task = await ue.submit()
    await platform.until(lambda: all(platform.state(task, node) == "SETTLED" for node in range(4)))
    batch = (await get(platform, f"/v1/tasks/{task}"))["batch"]
    (settler,) = [server for number, server in platform.chain.settled if number == batch]
    used = [(await get(platform, f"/v1/batches/{batch}", node))["gas_used"] for node in range(4)]
    assert used == [50_000 if node == settler else None for node in range(4)], "FakeChain's receipts say 50,000"


async def test_proofs_of_a_task_check_offline(platform: Platform) -> None:
    ue = await platform.funded_ue()
    task = await ue.submit(source=0, data=b"proof")
    await platform.until(lambda: platform.state(task) == "SETTLED")
    proofs = await get(platform, f"/v1/tasks/{task}/proof")
    genesis, domain = platform.genesis, platform.genesis.ledger_domain()
    assert [bytes.fromhex(v[2:]) for v in proofs["validators"]] == list(genesis.addresses)
    assert [(p["name"], p["kind"]) for p in proofs["items"]] == [
        (name, kind) for name in ("TASK", "RESULT_HASH", "SETTLEMENT") for kind in ("receipt", "tx")
    ]
    for item in proofs["items"]:
        data = bytes.fromhex(item["proof"][2:])
        if item["kind"] == "receipt":
            receipt = decode(data, ReceiptProof)
            assert check_receipt_proof(receipt, genesis.addresses, domain) is None
            assert receipt.receipt.code == 0
            assert "0x" + receipt.receipt.tx_hash.hex() == item["tx_hash"]
        elif item["name"] == "RESULT_HASH":
            filed = decode(decode(data, TxProof).tx.tx.payload, ResultHash)
            assert "0x" + filed.offer_id.hex() == task
    for path in ("tx", "receipt"):
        lone = await get(platform, f"/v1/{path}/{proofs['items'][0]['tx_hash']}/proof")
        assert lone["proof"].startswith("0x")


async def test_certified_reads_prove_presence_and_absence(platform: Platform) -> None:
    ue = await platform.funded_ue()
    await platform.until(lambda: platform.nodes[0].follower.certified_state() is not None)
    genesis, domain = platform.genesis, platform.genesis.ledger_domain()
    for key, there in ((server_key(2), True), (account_key(ue.key.address), True), (b"m/s/nobody", False)):
        async with asyncio.timeout(20):
            while True:  # the deposit's own block may not be certified yet
                value = await get(platform, f"/v1/state/0x{key.hex()}?read=certified")
                if (value["value"] is not None) == there:
                    break
        proof = decode(bytes.fromhex(value["proof"][2:]), StateProof)
        assert check_state_proof(proof, genesis.addresses, domain) is None
        assert proof.value == (None if value["value"] is None else bytes.fromhex(value["value"][2:]))
        denied = replace(proof, key=server_key(1) if key != server_key(1) else server_key(0), pairs=())
        assert check_state_proof(denied, genesis.addresses, domain) is not None, "a key that is there is not deniable"
        changed = replace(proof, pairs=tuple((name, value + b"!") for name, value in proof.pairs) or ((key, b"!"),))
        assert check_state_proof(changed, genesis.addresses, domain) is not None
    local = await get(platform, f"/v1/state/0x{server_key(2).hex()}")
    linear = await get(platform, f"/v1/state/0x{server_key(2).hex()}?read=linear")
    assert local["value"] is not None
    assert linear["height"] >= local["height"]


async def test_what_the_platform_is(platform: Platform) -> None:
    info = await get(platform, "/v1/info", 3)
    document = decode(bytes.fromhex(info["genesis"][2:]), Genesis)
    assert document == platform.genesis
    assert "0x" + keccak(bytes.fromhex(info["genesis"][2:])).hex() == info["genesis_id"]
    assert (info["server"], info["quorum"], info["development"]) == (3, 3, True)
    await platform.until(lambda: all(n._directory.get(i) for n in platform.nodes for i in range(4)))
    servers = (await get(platform, "/v1/servers"))["items"]
    for server in servers:
        keys = server["keys"]
        assert "0x" + keccak(bytes.fromhex(keys["document"][2:])).hex() == keys["meta_hash"] == server["meta_hash"]
        assert (server["live"], server["bonded"], server["position_m"]) == (True, True, [1.5, 2.0])
    assert await get(platform, "/v1/servers/2") | {"tasks": 0} == servers[2] | {"tasks": 0}


async def test_blocks_headers_and_transactions(platform: Platform) -> None:
    ue = await platform.funded_ue()
    task = await ue.submit()
    await platform.until(lambda: platform.state(task) == "SETTLED")
    tx_hash = (await get(platform, f"/v1/tasks/{task}"))["tx_hash"]
    status = await get(platform, f"/v1/tx/{tx_hash}")
    assert (status["level"], status["tx"]["kind_name"], status["receipt"]["rule"]) == ("CERTIFIED", "TASK", "OK")
    block = await get(platform, f"/v1/blocks/{status['height']}")
    assert block["txs"][status["index"]]["hash"] == tx_hash
    assert block["certified"]
    headers = (await get(platform, f"/v1/headers?from=1&to={status['height']}"))["items"]
    assert [h["height"] for h in headers] == list(range(1, status["height"] + 1))
    assert all(a["hash"] == b["parent"] for a, b in itertools.pairwise(headers))
    assert headers[-1] == block["header"]
    seen: list[int] = []
    cursor = ""
    while True:
        page = await get(platform, f"/v1/blocks?limit=7{cursor}")
        seen += [b["height"] for b in page["items"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert seen == sorted(set(seen), reverse=True)
    assert seen[-1] == 1
    epoch = await get(platform, "/v1/epochs/0")
    assert len(epoch["validators"]) == 4
    unknown = await get(platform, f"/v1/tx/0x{'00' * 32}")
    assert (unknown["level"], unknown["receipt"]) == ("UNKNOWN", None)


async def test_a_round_tells_who_won_and_why(platform: Platform) -> None:
    ue = await platform.funded_ue()
    task = await ue.submit(source=3)
    await platform.until(lambda: platform.state(task) == "SETTLED")
    found = await get(platform, f"/v1/tasks/{task}")
    allocation = await get(platform, f"/v1/allocations/{found['round']}")
    assert {"task": task, "server": found["executor"]} in allocation["pairs"]
    assert allocation["winner"] == "greedy"
    assert allocation["instance"]["round"] == found["round"]
    choice = next(c for c in allocation["choices"] if c["task"] == task)
    assert choice["server"] == found["executor"]
    assert len(choice["alternatives"]) == 3
    assert all(a["reason"]["sentence"] for a in choice["alternatives"])
    why = await get(platform, f"/v1/tasks/{task}/why")
    assert why["choice"] == choice
    listed = (await get(platform, "/v1/allocations?limit=200"))["items"]
    assert found["round"] in [a["round"] for a in listed]
    assert all(a["instance"] is None for a in listed)


async def test_lists_filter_and_page(platform: Platform) -> None:
    ue = await platform.funded_ue()
    tasks = [await ue.submit(source=i) for i in range(3)]
    await platform.until(lambda: all(platform.state(t) == "SETTLED" for t in tasks))
    mine = (await get(platform, f"/v1/tasks?ue={ue.address}"))["items"]
    assert [t["id"] for t in mine] == tasks[::-1]
    first = await get(platform, f"/v1/tasks?ue={ue.address}&limit=2")
    rest = await get(platform, f"/v1/tasks?ue={ue.address}&limit=2&cursor={first['cursor']}")
    assert [t["id"] for t in first["items"] + rest["items"]] == tasks[::-1]
    assert rest["cursor"] is None
    of_source = (await get(platform, f"/v1/tasks?ue={ue.address}&server=1"))["items"]
    assert tasks[1] in [t["id"] for t in of_source]
    kernel = keccak(WASM).hex()
    assert len((await get(platform, f"/v1/tasks?ue={ue.address}&kernel=0x{kernel}&state=SETTLED"))["items"]) == 3
    assert (await get(platform, f"/v1/tasks?ue={ue.address}&state=OPEN"))["items"] == []


async def test_an_open_task_can_be_cancelled_by_its_ue_alone(platform: Platform) -> None:
    ue, other = await platform.funded_ue(), await platform.funded_ue()
    draft = ue.sealed(fuel_limit=1_900_000_000, deadline_ms=platform.clock.now_ms() + 3_000_000)
    filler = [await ue.submit(fuel_limit=1_900_000_000, args=b"hang", desired_ms=60_000,
                              deadline_ms=platform.clock.now_ms() + 3_000_000, source=i) for i in range(4)]  # fmt: skip
    await platform.until(lambda: all(platform.state(t) == "ASSIGNED" for t in filler))
    posted = await draft.post((await draft.upload()).json()["stored"])
    assert posted.status_code == 202, posted.text
    task = posted.json()["task"]["id"]
    why = await get(platform, f"/v1/tasks/{task}/why")
    assert why["state"] == "OPEN"
    assert "no server has room" in why["sentence"]

    def order(who: Any) -> dict[str, Any]:
        ledger = platform.ledger
        seq = ledger.executor.next_seq((who.key.address, 1))
        tx = Tx(Kind.CANCEL, who.key.address, 1, seq, ledger.head.height + 500, encode(Cancel(draft.id)))
        signature = who.key.sign(tx.digest(ledger.domain))
        return {"lane": 1, "seq": seq, "valid_until_height": tx.valid_until, "signature": "0x" + signature.hex()}

    stranger = await platform.clients[0].post(f"/v1/tasks/{task}/cancel", json=order(other))
    assert (stranger.status_code, stranger.json()["code"]) == (401, "bad_signature")
    cancelled = await platform.clients[0].post(f"/v1/tasks/{task}/cancel", json=order(ue))
    assert cancelled.status_code == 200, cancelled.text
    assert cancelled.json()["state"] == "REFUNDED"
    assert cancelled.json()["why"] == "cancelled by its UE"
    late = await platform.clients[0].post(f"/v1/tasks/{task}/cancel", json=order(ue))
    assert (late.status_code, late.json()["rule"]) == (422, "NOT_OPEN")
    running = await get(platform, f"/v1/tasks/{filler[0]}/why")
    assert "of 1,900,000,000 fuel" in running["sentence"]
    no_result = await platform.clients[0].get(f"/v1/tasks/{filler[0]}/result")
    assert (no_result.status_code, no_result.json()["code"]) == (404, "not_found")


async def test_transactions_by_json_and_msgpack(platform: Platform) -> None:
    ue = await platform.funded_ue()
    ledger = platform.ledger

    def noop(seq: int) -> SignedTx:
        tx = Tx(Kind.NOOP, ue.key.address, 3, seq, ledger.head.height + 100, b"%d" % seq)
        return SignedTx(tx, ue.key.sign(tx.digest(ledger.domain)))

    first = noop(0)
    as_json = {
        "kind": 9, "sender": ue.address, "lane": 3, "seq": 0, "valid_until_height": first.tx.valid_until,
        "payload": "0x" + first.tx.payload.hex(), "signature": "0x" + first.signature.hex(),
    }  # fmt: skip
    client = platform.clients[0]
    done = await client.post("/v1/tx?wait=certified", json=as_json)
    assert done.status_code == 200, done.text
    assert done.json()["level"] == "CERTIFIED"
    binary = {"Content-Type": "application/msgpack"}
    again = await client.post("/v1/tx", content=encode(first), headers=binary)
    assert again.json()["receipt"] == done.json()["receipt"], "the same bytes are answered with the same receipt"
    admitted = await client.post("/v1/tx?wait=admitted", content=encode(noop(1)), headers=binary)
    assert (admitted.status_code, admitted.json()["level"]) == (202, "ADMITTED")
    many = await client.post("/v1/txs", content=encode([noop(2), noop(3), noop(9_999)]), headers=binary)
    items = many.json()["items"]
    assert [item["level"] for item in items] == ["COMMITTED", "COMMITTED", "UNKNOWN"]
    assert items[2]["problem"]["field"] == "seq"


async def test_status_metrics_and_health(platform: Platform) -> None:
    status = await get(platform, "/v1/status", 1)
    assert status["sentence"].startswith("nothing to order: height ")
    assert status["server"] == 1
    assert set(status["duties"]) >= {"adverts", "rounds", "runs", "draws", "audits", "chain_facts", "settle", "cleanup"}
    assert status["chain_sentence"]
    metrics = (await platform.clients[1].get("/metrics")).text
    other = (await platform.clients[2].get("/metrics")).text
    assert 'edgora_receipts_total{code="OK",kind="ADVERT"} 4.0' in metrics
    assert "edgora_height" in other
    assert (await get(platform, "/healthz"))["ok"]
    assert (await get(platform, "/readyz"))["ok"]
    platform.consensus[1].away = True
    try:
        away = await platform.clients[1].get("/readyz")
        assert (away.status_code, away.json()["ok"]) == (503, False)
        assert (await platform.clients[1].get("/v1/status")).json()["code"] == "unavailable"
        assert (await platform.clients[1].get("/metrics")).status_code == 200
    finally:
        platform.consensus[1].away = False


async def test_view_changes_are_told_with_their_reason(platform: Platform) -> None:
    consensus = platform.consensus[2]
    consensus.steps = (
        ViewStep(1_000, False, 1, 1, 0, "the primary is silent", ()), ViewStep(1_250, True, 1, 1, None, "", (1, 2, 3)),
    )  # fmt: skip
    found = await get(platform, "/v1/views", 2)
    assert (found["server"], found["view"], found["view_active"]) == (2, 0, True)
    entered, left = found["items"]
    assert (entered["step"], entered["at_ms"], entered["asked"], entered["left"]) == ("ENTERED", 1_250, [1, 2, 3], None)
    assert (left["step"], left["left"], left["view"], left["primary"]) == ("LEFT", 0, 1, 1)
    assert left["sentence"] == "left view 0 and asked for view 1 with primary 1: the primary is silent"
    consensus.away = True
    try:
        assert (await platform.clients[2].get("/v1/views")).status_code == 503
        assert (await platform.clients[2].get("/v1/checkpoints")).status_code == 503
    finally:
        consensus.away, consensus.steps = False, ()


async def test_stable_checkpoints_are_told_with_who_signed(platform: Platform) -> None:
    every = platform.genesis.consensus.checkpoint_every
    platform.consensus[1].checkpoints = tuple(
        CheckpointView(5_000 * i, every * i, bytes([i]) * 32, bytes(32), (0, 1, 3)) for i in (1, 2)
    )
    found = await get(platform, "/v1/checkpoints", 1)
    height = (await get(platform, "/v1/status", 1))["executed_height"]
    assert found["every"] == every
    assert found["next"] % every == 0
    assert 0 < found["next"] - height <= every + 1
    assert [(item["height"], item["signers"], item["stable_ms"]) for item in found["items"]] == [
        (2 * every, [0, 1, 3], 10_000), (every, [0, 1, 3], 5_000),
    ]  # fmt: skip


async def test_evidence_that_a_replica_holds_names_the_offence(platform: Platform) -> None:
    platform.consensus[3].evidence = (EvidenceView(Offence.DOUBLE_VOTE, 2, b"\x01\x02"),)
    try:
        found = await get(platform, "/v1/evidence", 3)
        (held,) = found["held"]
        assert (held["offence"], held["accused"], held["proof"]) == ("DOUBLE_VOTE", 2, "0x0102")
        assert held["sentence"] == "validator 2 signed votes for two different blocks at one place"
        assert (await get(platform, "/v1/evidence", 0))["held"] == []
        platform.consensus[3].away = True
        assert (await get(platform, "/v1/evidence", 3))["held"] == [], "what is ordered is served all the same"
    finally:
        platform.consensus[3].away, platform.consensus[3].evidence = False, ()


async def test_a_block_says_whose_votes_certify_it(platform: Platform) -> None:
    for summary in (await get(platform, "/v1/blocks?limit=5"))["items"]:
        block = await get(platform, f"/v1/blocks/{summary['height']}")
        assert (summary["signers"], summary["view"]) == (block["signers"], block["view"])


async def test_a_task_that_is_not_ordered_yet_says_so(platform: Platform) -> None:
    ue = await platform.funded_ue()
    draft = ue.sealed()
    stored = (await draft.upload()).json()["stored"]
    platform.ledger.frozen = True
    posting = asyncio.ensure_future(draft.post(stored))
    try:
        await platform.until(lambda: any(tx.tx.kind == Kind.TASK for tx in platform.ledger.pending.values()))
        why = await get(platform, f"/v1/tasks/0x{draft.id.hex()}/why")
        assert why["state"] == "UNORDERED"
        assert "not ordered yet: 2 of 3 votes" in why["sentence"]
        assert (await platform.clients[1].get(f"/v1/tasks/0x{draft.id.hex()}/why")).status_code == 404
    finally:
        platform.ledger.thaw()
    assert (await posting).status_code == 202


async def test_openapi_names_every_route(platform: Platform) -> None:
    document = (await platform.clients[0].get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    paths = {
        "/v1/info", "/v1/servers", "/v1/servers/{id}", "/v1/accounts/{address}", "/v1/inputs/{digest}", "/v1/tasks",
        "/v1/tasks/{id}", "/v1/tasks/{id}/why", "/v1/tasks/{id}/events", "/v1/tasks/{id}/result",
        "/v1/tasks/{id}/proof", "/v1/tasks/{id}/cancel", "/v1/modules/{digest}", "/v1/tx", "/v1/txs", "/v1/tx/{hash}",
        "/v1/tx/{hash}/proof", "/v1/receipt/{hash}/proof", "/v1/blocks", "/v1/blocks/{height}", "/v1/headers",
        "/v1/epochs/{epoch}", "/v1/state/{key}", "/v1/allocations", "/v1/allocations/{round}", "/v1/batches",
        "/v1/batches/{id}", "/v1/evidence", "/v1/views", "/v1/checkpoints", "/v1/status", "/v1/events",
        "/v1/positions", "/v1/dev/positions", "/v1/dev/faucet", "/healthz", "/readyz",
        "/metrics",
    }  # fmt: skip
    assert set(document["paths"]) == paths
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]


async def test_the_contract_does_not_change_silently(platform: Platform) -> None:
    """The served document equals the stored one; EDGORA_REWRITE=1 stores the new one, to be reviewed as a diff."""
    served = (await platform.clients[0].get("/openapi.json")).json()
    stored = Path(__file__).with_name("openapi.json")
    if os.environ.get("EDGORA_REWRITE"):
        stored.write_text(json.dumps(served, indent=1, sort_keys=True) + "\n")
    assert served == json.loads(stored.read_text())
