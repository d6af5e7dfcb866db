"""ADVERT: say what this server sells, before the last one ends and after every fault (market.md 2, 3, 5).

The first advert commits the tip of the audit chain. A chain that is nearly used up, or whose seed this node does not
have, is replaced by a later advert, which the ledger takes only while no result waits for our draw.
"""

import logging

from edgora.market.checks import waiting_for
from edgora.market.duties import advert_due
from edgora.market.records import Server
from edgora.node.audit_chain import AuditChains
from edgora.node.duties.post import Post
from edgora.wire.codec import encode
from edgora.wire.ledger import Kind
from edgora.wire.market import Advert, code_name, refusal_numbers, refusal_sentence

__all__ = ["Adverts"]

_log = logging.getLogger("edgora.duty.adverts")
LOOK_S = 1.0
REST_S = 0.2
"""After a refusal: the ledger takes one advert per server and 100 ms."""
FEW_DRAWS = 64


class Adverts:
    """Keeps this server live."""

    name = "adverts"

    def __init__(self, post: Post, chains: AuditChains) -> None:
        self._post, self._chains = post, chains
        self.says = "not started"

    async def run(self) -> None:
        """File an advert whenever one is due."""
        while True:
            if await self._file_if_due():
                continue
            await self._post.moved_or(LOOK_S)

    async def _file_if_due(self) -> bool:
        post, now = self._post, self._post.ledger_ms()
        own = post.market.server(post.index)
        if own is None or not own.registered:
            self.says = "waits until the validators have seen our registration on the chain"
            return False
        if own.leaving:
            self.says = "this server is leaving and sells nothing more"
            return False
        tip = self._tip(own)
        changed = own.advert is not None and self._numbers() != _numbers_of(own.advert)
        if not (advert_due(post.market, post.index, now, post.settings.advert.valid_ms // 2) or changed or tip):
            self.says = f"live until {own.advert.until_ms if own.advert else 0}"
            return False
        offered = post.settings.advert
        advert = Advert(*self._numbers(), now + offered.valid_ms, tip)
        receipt = await post.lanes.send(Kind.ADVERT, encode(advert))
        if receipt.code:
            numbers = refusal_numbers(receipt.output[2:])
            self.says = f"refused: {refusal_sentence(receipt.code, numbers)}"
            _log.warning("advert refused", extra={"rule": code_name(receipt.code)})
            await post.moved_or(REST_S)
        else:
            _log.info("advert filed", extra={"until_ms": advert.until_ms, "new_tip": tip is not None})
        return True

    def _numbers(self) -> tuple[int, int, int, int, int, int]:
        offered = self._post.settings.advert
        return offered.speed, offered.capacity, offered.slots, offered.ask, offered.uplink, offered.forward

    def _tip(self, own: Server) -> bytes | None:
        """A tip to commit, or None: the ledger's is ours and has draws left, or it cannot be replaced now."""
        if own.tip is None:
            return self._chains.tip
        if self._chains.left(own.tip) >= FEW_DRAWS or waiting_for(self._post.market.core, own.id):
            return None
        if self._chains.newest_has(own.tip):
            self._chains.renew()
        return self._chains.tip


def _numbers_of(advert: Advert) -> tuple[int, int, int, int, int, int]:
    return advert.speed, advert.capacity, advert.slots, advert.ask, advert.uplink, advert.forward
