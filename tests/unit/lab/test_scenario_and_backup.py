"""Scenarios are strict, run folders are drawn once, backups are whole or refused."""

import tarfile

import pytest

from edgora.adapters.wal_files import DataDirectory
from edgora.lab.backup import export_node, import_node
from edgora.lab.ground import Endpoint, lay_out, read_ground
from edgora.lab.scenario import load, parse
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
            import io

            new.addfile(member, io.BytesIO(content))
    with pytest.raises(Refused, match="damaged"):
        import_node(broken, tmp_path / "restored")
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(Refused, match="cannot be read"):
        import_node(archive, tmp_path / "other")
