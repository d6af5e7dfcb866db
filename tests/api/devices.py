"""The users' side: devices that build offers, envelopes and submissions as a client would, or bent on purpose.

A `TestUe` seals an input and drafts an offer; a `Draft` is that offer until it is a task, with the body of every
request of its life as JSON. Any field, key or signature can be replaced by the caller, so that refusals can be
provoked one by one.
"""

import secrets
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec

from api.stand_ins import WASM
from edgora.crypto.keys import SealingKey
from edgora.crypto.seal import ContentKey, Context, Envelope, open_sealed, result_digest, seal
from edgora.crypto.sign import SigningKey
from edgora.wire.codec import encode, from_u96, to_u96
from edgora.wire.hashing import keccak
from edgora.wire.inputs import TaskInput
from edgora.wire.ledger import Kind, Tx
from edgora.wire.market import Offer, OfferFlag, ResultCode, TaskPayload, VoucherPart
from edgora.wire.settlement import Voucher

if TYPE_CHECKING:
    from api.world import Platform

__all__ = ["Draft", "TestUe", "sealing_key"]


@cache
def sealing_key(label: str) -> SealingKey:
    """RSA keys are slow to make: one a label for the whole test run."""
    return SealingKey.generate()


class TestUe:
    """A device: builds offers, envelopes and submissions; every part can be bent by the caller."""

    __test__ = False

    def __init__(self, platform: "Platform", label: str = "ue") -> None:
        self.platform = platform
        self.key = SigningKey.derived(label + secrets.token_hex(4))
        self.sealing = sealing_key("ue")
        self.address = "0x" + self.key.address.hex()
        self.nonce = 0

    def sealed(self, *, source: int = 0, data: bytes = b"hello", args: bytes = b"", **fields: Any) -> "Draft":
        """An offer with its sealed input: 10 Mfuel at 100 gwei/Mfuel, deadline in 10 minutes of the fast clock."""
        self.nonce += 1
        genesis = self.platform.genesis
        fields = {"module_digest": keccak(WASM), "nonce": self.nonce, **fields}
        context = Context(genesis.chain_id, genesis.id, self.key.address, fields["nonce"], fields["module_digest"])
        server = self.platform.sealing[source if source < 4 else 0].public
        envelope, content = seal(TaskInput(args, data).pack(), [server], context, secrets.token_bytes)
        offer = Offer(
            ue=self.key.address, nonce=fields.pop("nonce"), module_digest=fields.pop("module_digest"),
            input_digest=envelope.cipher_digest, input_octets=len(envelope.ciphertext), output_octets=4_096,
            memory_pages=16, fuel_limit=10_000_000, price=100, desired_ms=5_000,
            deadline_ms=self.platform.clock.now_ms() + 600_000, result_key=self.sealing.public.digest,
            key_commit=content.commit, source=source, flags=0,
        )  # fmt: skip
        return Draft(self, msgspec.structs.replace(offer, **fields), envelope, content)

    async def submit(self, **how: Any) -> str:
        """Upload, order; the task's id. Raises AssertionError with the problem if refused."""
        draft = self.sealed(**how)
        uploaded = await draft.upload()
        assert uploaded.status_code in (200, 201), uploaded.text
        posted = await draft.post(uploaded.json()["stored"])
        assert posted.status_code == 202, posted.text
        return str(posted.json()["task"]["id"])


class Draft:
    """An offer before it is a task."""

    def __init__(self, ue: TestUe, offer: Offer, envelope: Envelope, content: ContentKey) -> None:
        self.ue, self.offer, self.envelope, self.content = ue, offer, envelope, content
        self.platform = ue.platform

    @property
    def id(self) -> bytes:
        return self.offer.digest(self.platform.genesis.market_domain())

    def offer_json(self) -> dict[str, Any]:
        body = {}
        for name in Offer.__struct_fields__:
            value = getattr(self.offer, name)
            body[name] = "0x" + value.hex() if isinstance(value, bytes) else value
        return body

    def upload_json(self) -> dict[str, Any]:
        return {
            "offer": self.offer_json(), "envelope": msgspec.to_builtins(self.envelope.to_jwe()),
            "result_key": "0x" + self.ue.sealing.public.spki.hex(),
        }  # fmt: skip

    async def upload(self, body: dict[str, Any] | None = None) -> httpx2.Response:
        source = self.platform.clients[self.offer.source if self.offer.source < 4 else 0]
        return await source.put(f"/v1/inputs/0x{self.offer.input_digest.hex()}", json=body or self.upload_json())

    def voucher(
        self, *, cap: int | None = None, until_s: int | None = None, key: SigningKey | None = None
    ) -> VoucherPart:
        market, params = self.platform.ledger.market, self.platform.genesis.market
        account = market.account(self.offer.ue)
        maximum = self.offer.fuel_limit * self.offer.price * 1000
        base = account.spent + account.reserved if account else 0
        now_s = self.platform.clock.now_ms() // 1000
        if until_s is None:
            until_s = now_s + params.exit_delay_s - params.margin_ms // 1000 - 60
            if account and account.voucher and account.unfinished:
                until_s = max(until_s, account.voucher.valid_until_s)
        cap = base + maximum if cap is None else cap
        digest = Voucher(cap, until_s).digest(self.platform.genesis.market_domain())
        return VoucherPart(to_u96(cap), until_s, (key or self.ue.key).sign(digest))

    def post_json(
        self, stored: str, *, voucher: VoucherPart | None = None, lane: int = 0, seq: int | None = None,
        until: int | None = None, key: SigningKey | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        ledger = self.platform.ledger
        if voucher is None and not self.offer.flags & OfferFlag.LOCK_LANE:
            voucher = self.voucher()
        seq = ledger.executor.next_seq((self.offer.ue, lane)) if seq is None else seq
        until = ledger.head.height + 2_000 if until is None else until
        payload = encode(TaskPayload(self.offer, bytes.fromhex(stored[2:]), voucher))
        tx = Tx(Kind.TASK, self.offer.ue, lane, seq, until, payload)
        signature = (key or self.ue.key).sign(tx.digest(ledger.domain))
        return {
            "offer": self.offer_json(), "stored": stored,
            "voucher": None if voucher is None else {
                "cap": str(from_u96(voucher.cap)), "valid_until_s": voucher.valid_until_s,
                "signature": "0x" + voucher.signature.hex(),
            },
            "lane": lane, "seq": seq, "valid_until_height": until, "signature": "0x" + signature.hex(),
            "result_key": "0x" + self.ue.sealing.public.spki.hex(),
        }  # fmt: skip

    async def post(self, stored: str, *, node: int = 0, **how: Any) -> httpx2.Response:
        return await self.platform.clients[node].post("/v1/tasks", json=self.post_json(stored, **how))

    def open_result(self, sealed: dict[str, Any]) -> bytes:
        """The output in a SealedResult, opened and compared with its digest."""
        envelope = Envelope.from_jwe(msgspec.convert(sealed["envelope"], type=type(self.envelope.to_jwe())))
        genesis = self.platform.genesis
        context = Context(genesis.chain_id, genesis.id, self.offer.ue, self.offer.nonce, self.offer.module_digest)
        output = open_sealed(envelope, self.ue.sealing, context, None).plaintext
        code = ResultCode[sealed["code"]]
        assert "0x" + result_digest(self.content, int(code), output).hex() == sealed["result_digest"]
        return output
