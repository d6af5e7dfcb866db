"""The committed artifacts are what the sources give, and say what contracts.md says of storage and code."""

import pytest

from chain.evm_world import CHAIN_ID, RICH, World, hexed
from chain.mutants import MUTANTS, QUICK, hunt, mutate
from edgora.contracts import Artifact, build, expected_code, settlement
from edgora.crypto.sign import SigningKey
from edgora.wire.hashing import keccak

SLOTS = ["_head", "_servers", "_serverOf", "_counters", "_earned", "_account", "_lock"]
WORDS = {
    "_head": [("page", 160), ("epoch", 32), ("batchId", 64)],
    "_servers": [("owner", 160), ("stake", 96), ("signer", 160), ("unbondAt", 40), ("metaHash", 256)],
    "_counters": [("serverCount", 16), ("burnt", 96)],
    "_earned": [("balance", 96), ("desiredMs", 56), ("actualMs", 56), ("tasks", 40), ("open", 8)],
    "_account": [("balance", 96), ("spent", 96), ("exitAt", 40), ("exitNonce", 24)],
    "_lock": [("amount", 96), ("deadline", 40)],
}


def compiler() -> None:
    try:
        build.find_solc()
    except RuntimeError as missing:
        pytest.skip(str(missing))


def test_artifacts_are_what_the_sources_give(capsys: pytest.CaptureFixture[str]) -> None:
    compiler()
    assert build.main(["--check"]) == 0, capsys.readouterr().err


def test_check_tells_a_stale_artifact(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {"Settlement.json": build.artifact_text.__doc__ or ""}
    monkeypatch.setattr(build, "build", lambda: changed)
    monkeypatch.setattr(Artifact, "from_json", classmethod(lambda cls, text: None))
    assert build.main(["--check"]) == 1
    assert "Settlement.json: differs" in capsys.readouterr().err


def test_storage_stands_where_the_specification_puts_it() -> None:
    rows = settlement().storage
    slots = {row["name"]: row["slot"] for row in rows if "slot" in row}
    assert slots == {name: place for place, name in enumerate(SLOTS)}
    for name, fields in WORDS.items():
        members = [row for row in rows if str(row["name"]).startswith(name + ".")]
        assert [(str(row["name"]).split(".")[1], 8 * int(str(row["octets"]))) for row in members] == fields
        place = 0
        for row, (_, bits) in zip(members, fields, strict=True):
            place = max(place, 256 * int(str(row["word"])))
            assert 256 * int(str(row["word"])) + 8 * int(str(row["octet"])) == place, row["name"]
            place += bits


def test_code_of_a_deployment_follows_from_its_parameters() -> None:
    world = World(validators=5, registered=0, lambda_bps=777)
    deployer = SigningKey.derived("deployer").address
    expected = expected_code(world.parameters, CHAIN_ID, deployer, world.artifact)
    assert bytes(world.evm.get_code(hexed(world.market)) or b"").rstrip(b"\0") == expected.rstrip(b"\0")
    other = expected_code(world.parameters._replace(lambda_bps=778), CHAIN_ID, deployer, world.artifact)
    assert keccak(other) != keccak(expected)


def test_runtime_hash_is_the_runtimes() -> None:
    assert settlement().runtime_hash == keccak(settlement().runtime)
    assert len(settlement().runtime) <= 24_576  # EIP-170


def test_a_page_is_code_that_nobody_can_run() -> None:
    world = World(validators=13, registered=0)
    page = world.view("head")[0]
    code = bytes(world.evm.get_code(hexed(page)) or b"")
    assert code[: 1 + 20 * 13] == b"\0" + b"".join(world.quorum.addresses)
    assert world.evm.message_call(hexed(RICH.address), hexed(page), b"\x01") == b""


def test_every_mutant_still_has_its_place() -> None:
    sources = build.read_sources()
    for mutant in MUTANTS:
        assert mutate(mutant, sources) != sources


@pytest.mark.parametrize("name", [QUICK[0], *(pytest.param(name, marks=pytest.mark.slow) for name in QUICK[1:])])
def test_planted_bug_is_caught(name: str) -> None:
    """A bounded part of `python tests/chain/mutants.py`."""
    compiler()
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    hunters = {"section skip without undo": "test_money_attacks.py", "v unchecked": "test_vectors.py"}
    assert hunt(mutant, (hunters.get(name, "test_attacks.py"),)) is not None
