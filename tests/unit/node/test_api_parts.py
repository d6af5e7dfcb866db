"""The small parts of the API half: bulk store, journal, settings, audit chains, logs, metrics, names."""

import io
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from edgora.adapters.blob_files import BlobFiles
from edgora.adapters.node_db import NodeDb
from edgora.market.reasons import sentence
from edgora.node import views
from edgora.node.audit_chain import AuditChains
from edgora.node.duties.adverts import Adverts
from edgora.node.peers import decode_request
from edgora.node.settings import read_settings
from edgora.node.why import consensus_sentence
from edgora.ports.blobs import Room
from edgora.ports.consensus import ConsensusStatus, VoterView
from edgora.ports.store import StoredBlock
from edgora.telemetry.logs import JsonFormatter
from edgora.telemetry.metrics import NodeMetrics
from edgora.wire import peer, rest
from edgora.wire.codec import encode, to_u96, to_u128
from edgora.wire.errors import Refused, TooMany, WireError
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Block, Header
from edgora.wire.market import Reason, TaskState
from edgora.wire.market_events import AccountChanged, RoundClosed, TaskSettled

KEY_A, KEY_B = bytes(32), b"\1" * 32


# ---- bulk ----------------------------------------------------------------------------------------------------------------


def test_bulk_survives_reopening_and_torn_writes_leave_nothing(tmp_path: Path) -> None:
    blobs = BlobFiles(tmp_path)
    blobs.put(Room.INPUTS, KEY_A, b"sealed")
    blobs.put(Room.INPUTS, KEY_A, b"sealed again")
    (tmp_path / "inputs" / "half.part").write_bytes(b"torn")
    again = BlobFiles(tmp_path)
    assert again.get(Room.INPUTS, KEY_A) == b"sealed again"
    assert [(s.key, s.octets) for s in again.all(Room.INPUTS)] == [(KEY_A, 12)]
    assert again.get(Room.RESULTS, KEY_A) is None
    again.delete(Room.INPUTS, KEY_A)
    again.delete(Room.INPUTS, KEY_A)
    assert not again.has(Room.INPUTS, KEY_A)


def test_a_full_room_refuses_and_gives_way_after_a_deletion(tmp_path: Path) -> None:
    quota = dict.fromkeys(Room, 10)
    blobs = BlobFiles(tmp_path, quota)
    blobs.put(Room.MODULES, KEY_A, b"12345678")
    with pytest.raises(TooMany):
        blobs.put(Room.MODULES, KEY_B, b"123")
    blobs.put(Room.MODULES, KEY_A, b"1234567890")
    blobs.put(Room.RESULTS, KEY_B, b"1234567890")
    blobs.delete(Room.MODULES, KEY_A)
    blobs.put(Room.MODULES, KEY_B, b"123")
    with pytest.raises(TooMany):
        BlobFiles(tmp_path, quota).put(Room.MODULES, KEY_A, b"12345678")


def test_the_journal_keeps_what_was_put(tmp_path: Path) -> None:
    journal = NodeDb(tmp_path / "journal.sqlite")
    journal.put("a", b"1")
    journal.put("a", b"2")
    journal.close()
    assert NodeDb(tmp_path / "journal.sqlite").get("a") == b"2"
    assert NodeDb(None).get("a") is None


# ---- audit chains --------------------------------------------------------------------------------------------------------


def test_audit_chains_come_back_from_the_journal_and_outlive_a_renewal() -> None:
    journal = NodeDb(None)
    chains = AuditChains(journal, length=8)
    tip = chains.tip
    first = chains.preimage(tip)
    assert first is not None
    assert keccak(first) == tip
    again = AuditChains(journal, length=8)
    assert again.tip == tip
    assert again.preimage(first) == chains.preimage(first)
    again.renew()
    assert again.tip != tip
    assert again.preimage(tip) == first, "the old chain serves until the ledger has the new tip"
    assert again.left(tip) == 8
    assert not again.newest_has(tip)
    assert again.newest_has(again.tip)
    assert AuditChains(journal, length=8).tip == again.tip
    assert again.preimage(bytes(32)) is None
    assert again.left(bytes(32)) == 0


# ---- settings, logs ------------------------------------------------------------------------------------------------------


def test_settings_come_from_file_then_environment_then_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "node.toml"
    file.write_text("index = 2\nlisten_port = 1\n[advert]\nspeed = 5\nask = 3\n")
    monkeypatch.setenv("EDGORA_ADVERT__ASK", "7")
    monkeypatch.setenv("EDGORA_LISTEN_PORT", "2")
    found = read_settings(file, listen_port=3)
    assert (found.index, found.listen_port, found.advert.speed, found.advert.ask) == (2, 3, 5, 7)
    assert found.listen_host == "127.0.0.1"


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"nonsense": 1}, "nonsense"), ({"advert": {"speed": 0}}, "advert.speed"), ({"index": "two"}, "index"),
     ({"public_url": "node0"}, None)],
)  # fmt: skip
def test_a_setting_at_fault_is_named(settings: dict[str, object], field: str | None) -> None:
    with pytest.raises(Refused) as refused:
        read_settings(None, **settings)
    assert refused.value.field == field


def test_logs_are_one_json_object_a_line_and_cut_what_is_long() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("test.edgora.logs")
    logger.handlers[:], logger.propagate = [handler], False
    logger.warning("result filed", extra={"task": b"\xab" * 32, "detail": "x" * 1_000, "fuel": 7})
    logger.error("it broke", exc_info=ValueError("why"))
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["fuel"]) == ("result filed", "WARNING", 7)
    assert first["task"] == "0x" + "ab" * 32
    assert len(first["detail"]) == 203
    assert second["error"] == "ValueError: why"


# ---- views ---------------------------------------------------------------------------------------------------------------


def test_rest_names_every_task_state() -> None:
    assert list(get_args(rest.TaskStateName)) == [state.name for state in TaskState]


def test_wide_integers_are_decimal_and_octets_are_hex() -> None:
    changed = AccountChanged(b"\1" * 20, to_u96(10**20), to_u96(0), to_u96(0), to_u96(5), 9, 0)
    found = views.plain(changed)
    assert (found["type"], found["balance"], found["ue"]) == ("AccountChanged", str(10**20), "0x" + "01" * 20)
    reason = Reason("ASK_ABOVE_PRICE", "", (60, 50))
    assert views.plain(reason)["sentence"] == sentence(reason)
    closed = RoundClosed(1, None, "greedy", to_u128(2**100), to_u128(1), None, 0, (), (), ())
    assert views.plain(closed)["value"] == str(2**100)


@pytest.mark.parametrize("text", ["", "0x1", "0xAB", "ab", "0x zz", "0x ab"])
def test_hex_has_one_form(text: str) -> None:
    with pytest.raises(Refused) as refused:
        views.unhex(text, "here")
    assert refused.value.field == "here"


def test_peer_requests_have_one_form() -> None:
    request = peer.GetInput(bytes(32), 7)
    assert decode_request(encode(request)) == request
    for bent in (b"", encode(request) + b"\0", encode([2, bytes(31), 7]), encode([99])):
        with pytest.raises(WireError):
            decode_request(bent)


def test_why_consensus_waits_names_numbers_and_the_silent() -> None:
    voters = tuple(VoterView(i, bytes(20), i != 3, None, 5, 0, i < 2) for i in range(4))
    status = ConsensusStatus(
        0, 2, True, 2, 0, 4, 3, 5, bytes(32), 5, 1, 0, 7, "COMMITTING", 250, 6, 2, 1_000, 0, None, voters
    )
    assert consensus_sentence(status) == "height 6 is being committed: 2 of 3 votes; silent: 3; since 250 ms"


# ---- metrics -------------------------------------------------------------------------------------------------------------


def test_a_used_chain_is_never_committed_twice() -> None:
    chains = AuditChains(NodeDb(None), length=70)
    tip = chains.tip
    for _ in range(8):
        tip = chains.preimage(tip) or b""
    own = SimpleNamespace(id=0, tip=tip)
    state = SimpleNamespace(done=())
    post = SimpleNamespace(market=SimpleNamespace(core=SimpleNamespace(state=state)))
    adverts = Adverts(post, chains)  # type: ignore[arg-type]
    first = chains.tip
    renewed = adverts._tip(own)  # type: ignore[arg-type]
    assert renewed not in {None, first}, "62 draws are left: a fresh chain, none of whose preimages was shown"
    own.tip = renewed
    assert adverts._tip(own) is None  # type: ignore[arg-type]
    own.tip = bytes(32)
    assert adverts._tip(own) == renewed, "a tip of a lost seed is replaced by ours"  # type: ignore[arg-type]


def test_metrics_are_a_nodes_own_and_their_labels_bounded() -> None:
    metrics, other = NodeMetrics(), NodeMetrics()
    header = Header(0, 9, bytes(32), bytes(32), 0, 8, bytes(32), bytes(32), 0, bytes(32), 6_000, bytes(20))
    stored = StoredBlock(Block(header, ()), None, (), bytes(32))
    rounds = [RoundClosed(n, None, f"policy {n}", to_u128(0), to_u128(0), None, 0, (), (), ()) for n in range(40)]
    settled = TaskSettled(bytes(32), 1, to_u96(5), to_u96(0))
    metrics.block(stored, [(6_000, event) for event in (*rounds, settled)])
    text = metrics.exposition().decode()
    assert "edgora_height 9.0" in text
    assert 'edgora_tasks_ended_total{state="SETTLED"} 1.0' in text
    policies = [line for line in text.splitlines() if line.startswith("edgora_rounds_total")]
    assert len(policies) == 17, "16 names and OTHER"
    assert "edgora_height 0.0" in other.exposition().decode()
