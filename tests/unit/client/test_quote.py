"""What a client is quoted from the servers' adverts: driven by hand against one scripted node."""

import msgspec
import pytest

from edgora.client.orders import Order, Quote, quote
from edgora.client.session import Session
from edgora.client.steps import Http, Reply
from edgora.client.wallet import Wallet
from edgora.crypto.keys import SealingKey
from edgora.crypto.sign import SigningKey
from edgora.wire import rest
from edgora.wire.errors import Refused, Unavailable

HASH, ADDRESS = "0x" + 64 * "0", "0x" + 40 * "0"
NODE = "http://node0"
WALLET = Wallet(SigningKey.derived("asker"), SealingKey.generate())
LIMITS = rest.Limits(
    fuel=10**9, desired_ms=60_000, input_octets=2**20, output_octets=2**20, memory_pages=64, module_octets=2**20,
    deadline_ms=600_000, tasks_per_ue=8, tx_octets=16_384, txs_per_request=16, requests_per_s=100, burst=100,
)  # fmt: skip
INFO = rest.Info(
    version="1", time_ms=1_000, height=5, header_time_ms=900, epoch=0, server=0, consortium_id=1,
    genesis_id=HASH, genesis="0x", chain_id=1, market_address=ADDRESS, validators=[], quorum=1,
    chain_seen=True, development=False, limits=LIMITS,
    params=rest.MarketParams(**(dict.fromkeys(rest.MarketParams.__slots__, 0) | {"prefer": "", "audit_pay": "0"})),
    consensus=rest.ConsensusParams(**dict.fromkeys(rest.ConsensusParams.__slots__, 0)),
)  # fmt: skip


def server(index: int, ask: int = 100, live: bool = True, keys: bool = True) -> rest.Server:
    url = f"http://node{index}"
    document = rest.KeyDocument(
        document="0x", meta_hash=HASH, signer=ADDRESS, rsa_spki="0x", link_key="0x", public_url=url, network_url=url
    )
    return rest.Server(
        id=index, signer=ADDRESS, meta_hash=HASH, live=live, bonded=True, credit=10**9, used=0, tasks=index, earned="0",
        advert=rest.Advert(
            speed=10**8, capacity=10**9, slots=1, ask=ask, uplink=10**6, forward="0", until_ms=10_000
        ),
        reputation=rest.Reputation(desired_ms=0, actual_ms=0, done=0, late=0, failed=0, disputed=0, score=None),
        keys=document if keys else None, position_m=None,
    )  # fmt: skip


def quoted(servers: list[rest.Server], **wishes: int) -> Quote:
    flow = quote(
        Session([NODE], WALLET),
        Order(module=b"", plaintext=b"", fuel_limit=10**6, output_octets=1, memory_pages=1, **wishes),
    )
    answers = {"/v1/info": INFO, "/v1/servers": rest.ServerList(items=servers, height=5, time_ms=900)}
    step = next(flow)
    while True:
        assert isinstance(step, Http)
        try:
            step = flow.send(Reply(200, msgspec.json.encode(answers[step.url[len(NODE) :]])))
        except StopIteration as done:
            return done.value


def test_the_price_is_one_that_every_live_server_accepts() -> None:
    found = quoted([server(0, ask=100), server(1, ask=140), server(2, ask=900, live=False)])
    assert (found.price, found.servers, found.source) == (140, 2, 0)
    assert quoted([server(0, ask=100), server(1, ask=140)], max_price=120).servers == 1


def test_a_price_that_nobody_takes_is_refused_with_everybodys_reason() -> None:
    with pytest.raises(Refused, match=r"server 0 asks 100 .* server 1 asks 140"):
        quoted([server(0, ask=100), server(1, ask=140)], price=90)


def test_a_wished_source_is_taken() -> None:
    assert quoted([server(0), server(1)], source=1).source == 1


def test_a_wished_source_that_is_not_live_is_refused() -> None:
    with pytest.raises(Refused, match="server 1 is not live") as refused:
        quoted([server(0), server(1, live=False)], source=1)
    assert refused.value.field == "source"


def test_a_wished_source_whose_keys_the_node_still_lacks_is_worth_another_try() -> None:
    with pytest.raises(Unavailable, match="no key document of server 1") as missing:
        quoted([server(0), server(1, keys=False)], source=1)
    assert (missing.value.field, missing.value.fix) == ("source", "ask again in a few seconds")


def test_without_a_live_server_one_is_told_to_wait() -> None:
    with pytest.raises(Unavailable, match="no server has a live advert"):
        quoted([server(0, live=False)])
