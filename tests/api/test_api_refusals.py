"""Bad input, every kind that the API sees: a typed refusal that names the field and what to do, never a 500."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from api.devices import Draft, TestUe
from api.stand_ins import WASM
from api.world import Platform
from edgora.crypto.sign import SigningKey
from edgora.node.settings import LimitSettings
from edgora.wire.codec import encode
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, SignedTx, Tx

pytestmark = pytest.mark.asyncio(loop_scope="module")
STRANGER = SigningKey.derived("somebody else")
ZERO = "0x" + "00" * 32


def refused(answer: Any, status: int, code: str, field: str | None, rule: str | None = None) -> dict[str, Any]:
    """The problem document, which must be complete."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), answer.text
    assert problem["type"] == f"urn:edgora:problem:{code}"
    assert problem["field"] == field, answer.text
    assert problem["rule"] == rule
    assert problem["detail"]
    assert problem["fix"], answer.text
    return problem


# ---- posting a task ----------------------------------------------------------------------------------------------------


async def drafted(platform: Platform, **how: Any) -> tuple[TestUe, Draft, str]:
    ue = await platform.funded_ue()
    draft = ue.sealed(**how)
    uploaded = await draft.upload()
    assert uploaded.status_code == 201, uploaded.text
    return ue, draft, uploaded.json()["stored"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spare(platform: Platform) -> tuple[Draft, str]:
    """An uploaded offer that no test gets accepted, with its Stored."""
    _, draft, stored = await drafted(platform)
    return draft, stored


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body.pop(name)


def with_(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        *parents, leaf = path.split(".")
        for parent in parents:
            body = body[parent]
        body[leaf] = value

    return change


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        (without("signature"), 400, "bad_request", "signature"),
        (with_("signature", "0x" + "00" * 65), 401, "bad_signature", "signature"),
        (with_("signature", "0x1b"), 400, "bad_request", "signature"),
        (with_("offer.fuel_limit", "10"), 400, "bad_request", "offer.fuel_limit"),
        (with_("offer.fuel_limit", 10.5), 400, "bad_request", "offer.fuel_limit"),
        (with_("offer.fuel_limit", True), 400, "bad_request", "offer.fuel_limit"),
        (with_("offer.fuel_limit", 2**48), 400, "bad_request", "offer.fuel_limit"),
        (with_("offer.fuel_limit", -1), 400, "bad_request", "offer.fuel_limit"),
        (with_("offer.ue", "0x" + "AB" * 20), 400, "bad_request", "offer.ue"),
        (with_("offer.surprise", 1), 400, "bad_request", "offer.surprise"),
        (with_("surprise", 1), 400, "bad_request", "surprise"),
        (with_("offer", None), 400, "bad_request", "offer"),
        (with_("voucher.cap", "-1"), 400, "bad_request", "voucher.cap"),
        (with_("voucher.cap", 10), 400, "bad_request", "voucher.cap"),
        (with_("voucher.cap", str(2**96)), 400, "bad_request", "voucher.cap"),
        (with_("result_key", "0x00"), 400, "bad_request", "result_key"),
        (with_("valid_until_height", 0), 401, "bad_signature", "signature"),
        (with_("stored", "0x" + "11" * 65), 401, "bad_signature", "signature"),
    ],
)
async def test_a_bent_body_is_refused_by_its_field(
    platform: Platform, spare: tuple[Draft, str], change: Callable[[dict[str, Any]], None], status: int, code: str,
    field: str,
) -> None:  # fmt: skip
    draft, stored = spare
    body = draft.post_json(stored)
    change(body)
    refused(await platform.clients[0].post("/v1/tasks", json=body), status, code, field)


async def test_signatures_of_others_and_for_other_chains(platform: Platform, spare: tuple[Draft, str]) -> None:
    draft, stored = spare
    refused(await draft.post(stored, key=STRANGER), 401, "bad_signature", "signature")
    refused(await draft.post("0x" + "11" * 65), 401, "bad_signature", "stored")
    body = draft.post_json(stored)
    other = replace(platform.genesis, consortium_id=8)
    tx = Tx(Kind.TASK, draft.offer.ue, body["lane"], body["seq"], body["valid_until_height"], b"")
    body["signature"] = "0x" + draft.ue.key.sign(tx.digest(other.ledger_domain())).hex()
    refused(await platform.clients[0].post("/v1/tasks", json=body), 401, "bad_signature", "signature")
    wrong_voucher = draft.voucher(key=STRANGER)
    refused(
        await draft.post(stored, voucher=wrong_voucher), 422, "rule_refused", "voucher.signature", "VOUCHER_SIGNATURE"
    )


async def test_replays(platform: Platform) -> None:
    ue, draft, stored = await drafted(platform)
    assert (await draft.post(stored)).status_code == 202
    await platform.until(lambda: all(n.follower.height >= platform.ledger.head.height for n in platform.nodes))
    replayed = await draft.post(stored, seq=1)
    refused(replayed, 422, "rule_refused", "offer.nonce", "OFFER_SEEN")
    old_seq = ue.sealed()
    stored = (await old_seq.upload()).json()["stored"]
    refused(await old_seq.post(stored, seq=0), 422, "rule_refused", "seq", "DUPLICATE")
    refused(await old_seq.post(stored, seq=500), 400, "bad_request", "seq")


async def test_an_idempotency_key_stands_for_one_request(platform: Platform) -> None:
    ue, draft, stored = await drafted(platform)
    other = ue.sealed()
    other_stored = (await other.upload()).json()["stored"]
    headers = {"Idempotency-Key": "the only one"}
    body = draft.post_json(stored)
    client = platform.clients[0]
    first = await client.post("/v1/tasks", json=body, headers=headers)
    again = await client.post("/v1/tasks", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["tx_hash"] == again.json()["tx_hash"]
    mixed = await client.post("/v1/tasks", json=other.post_json(other_stored), headers=headers)
    refused(mixed, 409, "conflict", "header.Idempotency-Key")


async def test_expired_and_far_windows(platform: Platform, spare: tuple[Draft, str]) -> None:
    draft, stored = spare
    height = platform.ledger.head.height
    refused(await draft.post(stored, until=1), 400, "bad_request", "valid_until_height")
    refused(await draft.post(stored, until=height + 6_000), 400, "bad_request", "valid_until_height")


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"fuel_limit": 10**12 + 1}, "offer.fuel_limit", "FUEL_LIMIT"),
        ({"fuel_limit": 3_000_000_000}, "offer.fuel_limit", "FUEL_TOO_LARGE"),
        ({"desired_ms": 0}, "offer.desired_ms", "DESIRED_TIME"),
        ({"output_octets": 2**25}, "offer.output_octets", "OUTPUT_SIZE"),
        ({"memory_pages": 1025}, "offer.memory_pages", "MEMORY"),
        ({"price": 1}, "offer.price", "PRICE_TOO_LOW"),
        ({"flags": 4}, "offer.flags", "FLAGS"),
        ({"flags": 2}, "voucher", "VOUCHER_UNEXPECTED"),
    ],
)
async def test_rules_of_the_market_name_field_value_and_fix(
    platform: Platform, spare: tuple[Draft, str], fields: dict[str, Any], field: str, rule: str
) -> None:
    draft = spare[0].ue.sealed(**fields)
    stored = (await draft.upload()).json()["stored"]
    voucher = draft.voucher(cap=10**17)
    problem = refused(await draft.post(stored, voucher=voucher), 422, "rule_refused", field, rule)
    value = next(iter(fields.values()))
    assert f"{value:,}" in problem["detail"] or rule in {"VOUCHER_UNEXPECTED"}


async def test_money_that_is_not_there(platform: Platform, spare: tuple[Draft, str]) -> None:
    ue = TestUe(platform, "poor")
    draft = ue.sealed()
    stored = (await draft.upload()).json()["stored"]
    refused(await draft.post(stored), 422, "rule_refused", "voucher", "DEPOSIT_SHORT")
    draft, stored = spare
    now_s = platform.clock.now_ms() // 1000
    for how, rule, field in (
        ({"cap": 1}, "VOUCHER_SHORT", "voucher.cap"),
        ({"until_s": now_s + 5}, "VOUCHER_TOO_EARLY", "voucher.valid_until_s"),
        ({"until_s": now_s + 10**6}, "VOUCHER_TOO_LATE", "voucher.valid_until_s"),
    ):
        refused(await draft.post(stored, voucher=draft.voucher(**how)), 422, "rule_refused", field, rule)
    unfunded_lock = draft.ue.sealed(flags=2)
    stored = (await unfunded_lock.upload()).json()["stored"]
    refused(await unfunded_lock.post(stored), 422, "rule_refused", "offer", "LOCK_UNKNOWN")


async def test_admission_of_the_pool_is_told(platform: Platform, spare: tuple[Draft, str]) -> None:
    draft, stored = spare
    cases = {
        "POOL_FULL": (429, "too_many", None), "SENDER_FULL": (429, "too_many", None), "CONFLICT": (409, "conflict", "seq"),
        "ALARM": (503, "unavailable", None), "TOO_LARGE": (413, "too_large", "payload"),
        "TOO_MANY_LANES": (422, "rule_refused", "lane"),
    }  # fmt: skip
    try:
        for reason, (status, code, field) in cases.items():
            platform.consensus[0].refuse = reason
            answer = await draft.post(stored)
            refused(answer, status, code, field, "TOO_MANY_LANES" if status == 422 else None)
            assert (answer.headers.get("Retry-After") is not None) == (status == 429)
    finally:
        platform.consensus[0].refuse = None


async def test_a_wait_that_runs_out_is_unknown(platform: Platform) -> None:
    _, draft, stored = await drafted(platform)
    platform.ledger.frozen = True
    try:
        body = draft.post_json(stored)
        answer = await platform.clients[0].post("/v1/tasks?timeout_ms=30", json=body)
        problem = refused(answer, 504, "unknown", None)
        assert "identical bytes" in problem["fix"]
    finally:
        platform.ledger.thaw()
    again = await platform.clients[0].post("/v1/tasks", json=body)
    assert again.status_code == 202, "the same bytes sent again get the answer that the first wait missed"


# ---- uploading an input ------------------------------------------------------------------------------------------------


async def put(draft: Draft, body: dict[str, Any], node: int = 0, digest: str | None = None) -> Any:
    path = digest or f"0x{draft.offer.input_digest.hex()}"
    return await draft.platform.clients[node].put(f"/v1/inputs/{path}", json=body)


async def test_an_input_is_checked_before_it_is_stored(platform: Platform) -> None:
    ue = TestUe(platform)
    draft = ue.sealed(data=b"x" * 50)
    whole = draft.upload_json()

    def bent(path: str, value: Any) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(json.dumps(whole))
        with_(path, value)(body)
        return body

    refused(await put(draft, whole, digest=ZERO), 400, "bad_request", "offer.input_digest")
    refused(await put(draft, whole, node=1), 400, "bad_request", "offer.source")
    refused(await put(draft, bent("offer.input_octets", 49)), 400, "bad_request", "offer.input_octets")
    ciphertext = whole["envelope"]["ciphertext"]
    flipped = ("A" if ciphertext[0] != "A" else "B") + ciphertext[1:]
    refused(await put(draft, bent("envelope.ciphertext", flipped)), 400, "bad_request", "envelope.ciphertext")
    refused(await put(draft, bent("envelope.ciphertext", "@@")), 400, "bad_request", "envelope.ciphertext")
    refused(await put(draft, bent("envelope.protected", "e30")), 400, "bad_encoding", "envelope.protected")
    refused(await put(draft, bent("envelope.recipients", [])), 400, "bad_encoding", "envelope.recipients")
    refused(await put(draft, bent("offer.nonce", 99)), 400, "bad_request", "envelope.aad")
    refused(await put(draft, bent("offer.key_commit", ZERO)), 400, "bad_request", "envelope.recipients")
    refused(
        await put(draft, bent("result_key", "0x" + platform.sealing[0].public.spki.hex())),
        400,
        "bad_request",
        "result_key",
    )
    refused(await put(draft, bent("offer.deadline_ms", 1)), 400, "bad_request", "offer.deadline_ms")
    refused(await put(draft, bent("envelope.extra", 1)), 400, "bad_request", "envelope.extra")
    unknown = ue.sealed(module_digest=keccak(b"no such module"))
    problem = refused(await unknown.upload(), 422, "rule_refused", "offer.module_digest", "MODULE_UNKNOWN")
    assert problem["fix"].startswith("PUT /v1/modules/0x")
    misdirected = ue.sealed(source=0)
    for_other = replace(misdirected.envelope, recipients=ue.sealed(source=1).envelope.recipients)
    misdirected.envelope = for_other
    refused(await misdirected.upload(), 400, "bad_request", "envelope.recipients")
    assert (await draft.upload()).status_code == 201
    assert (await draft.upload()).status_code == 200


# ---- modules, paths, methods, bodies -----------------------------------------------------------------------------------


async def test_modules(platform: Platform) -> None:
    client, name = platform.clients[0], "0x" + keccak(WASM).hex()
    assert (await client.get(f"/v1/modules/{name}")).content == WASM
    head = await client.head(f"/v1/modules/{name}")
    assert (head.status_code, head.content) == (200, b"")
    assert (await client.head(f"/v1/modules/{ZERO}")).status_code == 404
    assert (await client.put(f"/v1/modules/{name}", content=WASM)).status_code == 200
    refused(await client.get(f"/v1/modules/{ZERO}"), 404, "not_found", "digest")
    refused(await client.put(f"/v1/modules/{name}", content=WASM + b"\0"), 400, "bad_request", "digest")
    rubbish = b"\0asm rubbish"
    answer = await client.put(f"/v1/modules/0x{keccak(rubbish).hex()}", content=rubbish)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, "bad_module", "body")
    huge = bytes(4 * 1024 * 1024 + 1)
    refused(await client.put(f"/v1/modules/0x{keccak(huge).hex()}", content=huge), 413, "too_large", "body")


async def test_bodies_paths_and_methods(platform: Platform) -> None:
    client = platform.clients[0]
    as_json = {"Content-Type": "application/json"}
    for path in ("/v1/tasks", "/v1/tx", "/v1/txs"):
        refused(await client.post(path, content=b"{not json", headers=as_json), 400, "bad_request", "body")
        assert (await client.post(path, content=b"[]", headers=as_json)).status_code == 400
        assert (await client.post(path, content=b"\xff\xfe", headers=as_json)).status_code == 400
        assert (await client.post(path, content=b"[" * 100_000, headers=as_json)).status_code in {400, 413}
    big = json.dumps({"surprise": "x" * 100_000})
    refused(await client.post("/v1/tasks", content=big, headers=as_json), 413, "too_large", "body")
    refused(await client.get("/v1/nothing"), 404, "not_found", None)
    refused(await client.delete("/v1/tasks"), 405, "method_not_allowed", None)
    refused(await client.get("/v1/tx"), 405, "method_not_allowed", None)
    refused(await client.get("/v1/tasks/0x12"), 400, "bad_request", "path.id")
    refused(await client.get(f"/v1/tasks/{ZERO}"), 404, "not_found", "id")
    refused(await client.get("/v1/tasks?limit=0"), 400, "bad_request", "query.limit")
    refused(await client.get("/v1/tasks?limit=ten"), 400, "bad_request", "query.limit")
    refused(await client.get("/v1/tasks?cursor=x"), 400, "bad_request", "query.cursor")
    refused(await client.get("/v1/tasks?state=DREAMING"), 400, "bad_request", "query.state")
    refused(await client.get("/v1/headers?from=9&to=1"), 400, "bad_request", "query.to")
    refused(await client.get("/v1/blocks/0"), 404, "not_found", "height")
    refused(await client.get("/v1/epochs/1"), 404, "not_found", "epoch")
    refused(await client.get("/v1/servers/9"), 404, "not_found", "id")
    refused(await client.get("/v1/allocations/999999"), 404, "not_found", "round")
    refused(await client.get("/v1/batches/999999"), 404, "not_found", "id")
    refused(await client.get(f"/v1/receipt/{ZERO}/proof"), 404, "not_found", "hash")
    refused(await client.get("/v1/state/0x00?read=guess"), 400, "bad_request", "query.read")
    refused(
        await client.get("/v1/events", headers={"Last-Event-ID": "yesterday"}),
        400,
        "bad_request",
        "header.Last-Event-ID",
    )


async def test_plain_transactions(platform: Platform) -> None:
    client, ledger = platform.clients[0], platform.ledger
    ue = await platform.funded_ue()
    binary = {"Content-Type": "application/msgpack"}

    def tx(kind: int = Kind.NOOP, key: SigningKey = ue.key, sender: bytes = ue.key.address, **how: Any) -> SignedTx:
        body = Tx(kind, sender, how.get("lane", 7), how.get("seq", 0), ledger.head.height + 50, how.get("payload", b""))
        return SignedTx(body, key.sign(body.digest(ledger.domain)))

    refused(
        await client.post("/v1/tx", content=encode(tx(key=STRANGER)), headers=binary), 401, "bad_signature", "signature"
    )
    unknown = tx(key=STRANGER, sender=STRANGER.address)
    refused(
        await client.post("/v1/tx", content=encode(unknown), headers=binary),
        422,
        "rule_refused",
        "sender",
        "UNKNOWN_SENDER",
    )
    refused(await client.post("/v1/tx", content=encode(tx(kind=77)), headers=binary), 400, "bad_request", "kind")
    refused(
        await client.post("/v1/tx", content=encode(tx(payload=bytes(17_000))), headers=binary),
        413,
        "too_large",
        "payload",
    )
    refused(
        await client.post("/v1/tx?wait=soon", content=encode(tx()), headers=binary), 400, "bad_request", "query.wait"
    )
    refused(
        await client.post("/v1/tx?timeout_ms=0", content=b"", headers=binary), 400, "bad_request", "query.timeout_ms"
    )
    refused(await client.post("/v1/tx?speed=1", content=b"", headers=binary), 400, "bad_request", "query.speed")
    for bent in (encode(tx())[:-1], encode(tx()) + b"\0", b"", encode([1, 2])):
        answer = await client.post("/v1/tx", content=bent, headers=binary)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_encoding")
    many = await client.post("/v1/txs", content=encode([tx(seq=i) for i in range(257)]), headers=binary)
    refused(many, 413, "too_large", "txs")


async def test_the_faucet(platform: Platform) -> None:
    client, address = platform.clients[0], TestUe(platform).address
    refused(await client.post("/v1/dev/faucet", json={"address": address, "wei": "0"}), 400, "bad_request", "wei")
    refused(await client.post("/v1/dev/faucet", json={"address": address, "wei": "9" * 30}), 400, "bad_request", "wei")
    refused(await client.post("/v1/dev/faucet", json={"address": "0x12"}), 400, "bad_request", "address")
    platform.chain.down = True
    try:
        answer = await client.post("/v1/dev/faucet", json={"address": address})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    finally:
        platform.chain.down = False


async def test_one_source_cannot_take_all() -> None:
    limits = LimitSettings(tx_per_s=1, tx_burst=2, requests_per_s=1, request_burst=12)
    async with Platform(live=False, limits=limits) as platform:
        client = platform.clients[0]
        tx = {
            "kind": 9, "sender": "0x" + "11" * 20, "lane": 0, "seq": 0, "valid_until_height": 9, "payload": "0x",
            "signature": "0x" + "11" * 65,
        }  # fmt: skip
        answers = [await client.post("/v1/tx", json=tx) for _ in range(3)]
        assert [a.status_code for a in answers] == [401, 401, 429]
        assert int(answers[2].headers["Retry-After"]) >= 1
        statuses = [(await client.get("/v1/info")).status_code for _ in range(12)]
        assert statuses[0] == 200
        assert statuses[-1] == 429
        assert (await platform.clients[1].get("/v1/info")).status_code == 200, "another node has its own budget"
