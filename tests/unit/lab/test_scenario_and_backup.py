"""Scenarios are strict, run folders are drawn once, backups are whole or refused."""

import hashlib
import io
import json
import shutil
import tarfile
import tomllib

import pytest
from typer.testing import CliRunner

from edgora.adapters.wal_files import DataDirectory
from edgora.cli import app
from edgora.lab.backup import export_node, import_node
from edgora.lab.ground import Endpoint, lay_out, read_deployer_key, read_ground
from edgora.lab.processes import lay_out_local
from edgora.lab.scenario import load, parse
from edgora.lab.supervise import NodePlan, node_children
from edgora.wire.errors import Conflict, Refused


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("fleet.ues=0", "fleet.ues"),
        ("fleet.uess=3", "fleet"),
        ("market.batch=3", "market.batch"),
        ("market.batch_ms=soon", "market.batch_ms"),
        ("consortium.nodes=3", "consortium.nodes"),
        ("consensus.window=x", "consensus.window"),
        ("seed=-1", "seed"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_bad_value_is_refused_by_its_path(setting: str, field: str) -> None:
    with pytest.raises(Refused) as refused:
        load(None, [setting])
    assert field in f"{refused.value.field} {refused.value.detail}"


def test_servers_must_be_as_many_as_nodes() -> None:
    with pytest.raises(Refused, match=r"3 servers for consortium\.nodes = 4"):
        parse({"servers": [{}, {}, {}]})


def test_every_shipped_scenario_loads(request) -> None:
    files = sorted((request.config.rootpath / "deploy" / "scenarios").glob("*.toml"))
    assert files
    for file in files:
        load(file)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    scenario = load(None)
    endpoints = [Endpoint(f"http://node{i}:8000", f"http://127.0.0.1:81{i}0") for i in range(4)]
    return folder, scenario, endpoints, lay_out(scenario, endpoints, folder, 1_700_000_000_000)


def test_laying_out_again_changes_nothing(laid_out) -> None:
    folder, scenario, endpoints, ground = laid_out
    again = lay_out(scenario, endpoints, folder, 1_800_000_000_000)
    assert again.genesis == ground.genesis
    assert read_ground(folder).genesis.id == ground.genesis.id


def test_a_folder_of_another_scenario_is_refused(laid_out) -> None:
    folder, _, endpoints, _ = laid_out
    with pytest.raises(Refused, match="another scenario"):
        lay_out(load(None, ["seed=8"]), endpoints, folder, 0)


def test_secrets_are_private_and_no_two_nodes_share_any(laid_out) -> None:
    folder, *_ = laid_out
    seen: set[bytes] = set()
    for i in range(4):
        for name in ("signer.key", "sealing.pem", "link.key"):
            path = folder / f"node{i}" / name
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.read_bytes() not in seen
            seen.add(path.read_bytes())


@pytest.fixture
def home(laid_out, tmp_path):
    source = laid_out[0] / "node0"
    home = tmp_path / "node0"
    home.mkdir()
    for file in source.iterdir():
        (home / file.name).write_bytes(file.read_bytes())
    (home / "consensus" / "wal").mkdir(parents=True)
    (home / "consensus" / "wal" / "0001").write_bytes(bytes(range(256)) * 40)
    return home


def test_a_backup_restores_every_octet(home, tmp_path) -> None:
    archive = tmp_path / "backup.tar.gz"
    count = export_node(home, archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert import_node(archive, tmp_path / "restored") == count
    for file in ("signer.key", "sealing.pem", "link.key", "consensus/wal/0001"):
        assert (tmp_path / "restored" / file).read_bytes() == (home / file).read_bytes()


def test_a_running_node_is_not_exported(home, tmp_path) -> None:
    running = DataDirectory(home / "consensus")
    with pytest.raises(Conflict, match="in use"):
        export_node(home, tmp_path / "backup.tar.gz")
    running.close()
    assert not (tmp_path / "backup.tar.gz").exists()


def test_an_import_goes_into_an_empty_home_only(home, tmp_path) -> None:
    archive = tmp_path / "backup.tar.gz"
    export_node(home, archive)
    with pytest.raises(Refused, match="not empty"):
        import_node(archive, home)


def test_a_damaged_backup_is_refused(home, tmp_path) -> None:
    archive = tmp_path / "backup.tar.gz"
    export_node(home, archive)
    broken = tmp_path / "broken.tar.gz"
    with tarfile.open(archive) as old, tarfile.open(broken, "w:gz") as new:
        for member in old:
            data = old.extractfile(member)
            assert data is not None
            content = data.read()
            if member.name.endswith("0001"):
                content = b"\xff" + content[1:]
            new.addfile(member, io.BytesIO(content))
    with pytest.raises(Refused, match="damaged"):
        import_node(broken, tmp_path / "restored", votes=True)
    assert list((tmp_path / "restored").iterdir()) == []
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(Refused, match="cannot be read"):
        import_node(archive, tmp_path / "other")


def test_an_archive_writes_nothing_outside_the_home(tmp_path) -> None:
    archive, content = io.BytesIO(), b"x"
    listing = json.dumps({"version": 1, "files": {"../outside": hashlib.sha256(content).hexdigest()}}).encode()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, data in (("edgora-backup.json", listing), ("../outside", content)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    archive.seek(0)
    with pytest.raises(Refused, match="outside"):
        import_node(archive, tmp_path / "home")
    assert not (tmp_path / "outside").exists()


def told(home, folder) -> dict[str, object]:
    """What the consensus half of this home would be started with."""
    node_children(NodePlan(
        home=home, genesis=folder, index=0, links=["127.0.0.1:1"] * 4, link_bind="127.0.0.1:1", listen="127.0.0.1:8100",
        chain_rpc="http://127.0.0.1:8545",
    ))  # fmt: skip
    return tomllib.loads((home / "consensus.toml").read_text())


def test_a_restored_node_observes_unless_the_backup_is_vouched_for(home, laid_out, tmp_path) -> None:
    (home / "api").mkdir()
    (home / "api" / "journal.sqlite").write_bytes(b"journal")
    assert (told(home, laid_out[0])["observer"], told(home, laid_out[0])["require_log"]) == (False, True)
    archive = io.BytesIO()
    export_node(home, archive)
    observer, voter = tmp_path / "observer", tmp_path / "voter"
    for votes, restored in ((False, observer), (True, voter)):
        archive.seek(0)
        import_node(archive, restored, votes=votes)
        assert told(restored, laid_out[0])["observer"] is not votes
    # A validator whose log is gone has voted, so it may not start; one that never ran has none.
    shutil.rmtree(voter / "consensus")
    assert told(voter, laid_out[0])["require_log"] is True
    assert told(laid_out[0] / "node1", laid_out[0])["require_log"] is False


def test_what_only_observed_never_comes_back_as_a_voter(home, tmp_path) -> None:
    archive = io.BytesIO()
    export_node(home, archive)
    archive.seek(0)
    import_node(archive, tmp_path / "observer")
    again = io.BytesIO()
    export_node(tmp_path / "observer", again)
    again.seek(0)
    with pytest.raises(Refused, match="only observed"):
        import_node(again, tmp_path / "voter", votes=True)
    assert list((tmp_path / "voter").iterdir()) == []


def test_a_key_that_genesis_does_not_name_deploys_nothing(laid_out, tmp_path) -> None:
    folder, *_, ground = laid_out
    assert read_deployer_key(folder, ground.genesis).address == ground.genesis.deployer
    (tmp_path / "deployer").mkdir()
    shutil.copy(folder / "node0" / "signer.key", tmp_path / "deployer" / "deployer.key")
    with pytest.raises(Refused, match="genesis names"):
        read_deployer_key(tmp_path, ground.genesis)


def test_free_ports_are_chosen_once(tmp_path) -> None:
    scenario = load(None, ["ports.api=0"])
    first = lay_out_local(scenario, tmp_path)
    assert len({e.public_url for e in first.endpoints}) == 4
    assert lay_out_local(scenario, tmp_path).endpoints == first.endpoints


def test_genesis_takes_a_pattern_or_a_url_for_each_node(tmp_path) -> None:
    def genesis(folder, *urls: str):
        options = [word for url in urls for word in ("--public-url", url)]
        arguments = ["genesis", "--folder", str(folder), "--network-url", "http://n{i}:8000", *options, "--json"]
        return CliRunner().invoke(app, arguments)

    own = [f"http://127.0.0.1:9{i}00" for i in range(4)]
    assert genesis(tmp_path / "own", *own).exit_code == 0
    endpoints = [json.loads((tmp_path / "own" / f"node{i}" / "endpoint.json").read_bytes()) for i in range(4)]
    assert [e["public_url"] for e in endpoints] == own
    assert [e["network_url"] for e in endpoints] == [f"http://n{i}:8000" for i in range(4)]
    for bad in (own[:2], ["http://x:{what}"]):
        refused = genesis(tmp_path / "bad", *bad)
        assert refused.exit_code == 2
        assert json.loads(refused.stdout)["error"]["field"] == "public-url"
    assert not (tmp_path / "bad").exists()
