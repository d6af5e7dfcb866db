"""The profile `obs`: rules that promtool accepts and tests, and a Prometheus that is hardened like the rest."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from e2e.stack import ROOT, Stack, run, until
from edgora.adapters.loopback import free_port

pytestmark = pytest.mark.docker

FOLDER = ROOT / "deploy" / "prometheus"
IMAGE = "prom/prometheus:v2.42.0"
ALERTS = {
    "EdgoraAlarm", "EdgoraConsensusHalfAway", "EdgoraDiskNearlyFull", "EdgoraNoQuorum", "EdgoraNodeDown",
    "EdgoraSettlementBehind", "EdgoraStalled", "EdgoraStuckRound",
}  # fmt: skip


def promtool(*arguments: str, folder: Path = FOLDER, check: bool = True) -> str:
    done = run(
        "docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--volume", f"{folder}:/rules:ro",
        "--workdir", "/rules", "--entrypoint", "promtool", IMAGE, *arguments, check=check,
    )  # fmt: skip
    return (done.stdout + done.stderr).decode()


def test_rules_do_what_their_tests_say(engine: None) -> None:
    assert "SUCCESS" in promtool("test", "rules", "tests.yml")
    assert "8 rules found" in promtool("check", "rules", "alerts.yml")


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("min(edgora_round_age_seconds)", "max(edgora_round_age_seconds)"), ("ratio < 0.1", "ratio < 0.2")],
)  # fmt: skip
def test_their_tests_notice_a_wrong_rule(engine: None, tmp_path: Path, was: str, becomes: str) -> None:
    for name in ("rules.yml", "tests.yml", "alerts.yml"):
        text = (FOLDER / name).read_text()
        if name == "alerts.yml":
            assert was in text
            text = text.replace(was, becomes)
        (tmp_path / name).write_text(text)
    tmp_path.chmod(0o755)
    assert "FAILED" in promtool("test", "rules", "tests.yml", folder=tmp_path, check=False)


@pytest.fixture(scope="module")
def prometheus(engine: None) -> Iterator[Stack]:
    """Prometheus alone: no node of the consortium is there."""
    stack = Stack()
    stack.env["EDGORA_PROMETHEUS_PORT"] = str(free_port())
    try:
        stack.compose("--profile", "obs", "up", "--detach", "--no-deps", "prometheus")
        yield stack
    finally:
        stack.compose("--profile", "obs", "down", "--volumes", "--timeout", "5")


async def test_it_loads_every_rule_and_sees_that_nodes_are_down(prometheus: Stack) -> None:
    base = f"http://127.0.0.1:{prometheus.env['EDGORA_PROMETHEUS_PORT']}"

    async def rules() -> list[dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"{base}/api/v1/rules", timeout=5) as reply:
                document = json.loads(reply.read())
        except OSError:
            return []
        return [rule for group in document["data"]["groups"] for rule in group["rules"]]

    async def told() -> dict[str, dict[str, Any]] | None:
        found = {rule["name"]: rule for rule in await rules()}
        return found if len(found.get("EdgoraNodeDown", {}).get("alerts", ())) == 4 else None

    found = await until("the alert for four absent nodes is pending", told, 60)
    assert {name for name, rule in found.items() if rule["type"] == "alerting"} == ALERTS
    assert all(rule["health"] != "err" for rule in found.values())
    down = {alert["labels"]["instance"] for alert in found["EdgoraNodeDown"]["alerts"]}
    assert down == {f"node{i}:8000" for i in range(4)}, "the allocators are another job"


def test_it_is_hardened_and_published_on_loopback_only(prometheus: Stack) -> None:
    document = prometheus.inspect("prometheus")
    host = document["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert document["Config"]["User"] not in {"", "0", "root"}
    assert {binding["HostIp"] for bindings in host["PortBindings"].values() for binding in bindings} == {"127.0.0.1"}
    mounts = {mount["Destination"]: mount["RW"] for mount in document["Mounts"]}
    assert mounts == {"/etc/prometheus": False, "/prometheus": True}


async def test_it_becomes_healthy(prometheus: Stack) -> None:
    async def healthy() -> bool:
        return bool(prometheus.inspect("prometheus")["State"]["Health"]["Status"] == "healthy")

    await until("the container is healthy", healthy, 60)


async def test_it_watches_a_running_platform(stack: Stack) -> None:
    """Every node and allocator is scraped, what the rules record is there, and nothing fires."""
    stack.env.setdefault("EDGORA_PROMETHEUS_PORT", str(free_port()))
    base = f"http://127.0.0.1:{stack.env['EDGORA_PROMETHEUS_PORT']}/api/v1"
    await stack.all_well()
    try:
        stack.compose("--profile", "obs", "up", "--detach", "--no-deps", "prometheus")

        async def value(query: str) -> list[float]:
            try:
                with urllib.request.urlopen(f"{base}/query?{urlencode({'query': query})}", timeout=5) as reply:
                    return [float(found["value"][1]) for found in json.loads(reply.read())["data"]["result"]]
            except OSError:
                return []

        async def all_up() -> bool:
            return await value("up") == [1.0] * 8

        async def recorded() -> bool:
            return await value("edgora:nodes_up:count") == [4.0] and await value("edgora:quorum:votes") == [3.0]

        await until("four nodes and four allocators are scraped", all_up, 90)
        await until("the recording rules were evaluated", recorded, 60)
        (height,) = await value("edgora:committed_height:max")
        assert height >= 1
        assert all(0 < ratio < 1 for ratio in await value("edgora:disk_free:ratio"))
        firing = await value(
            'ALERTS{alertstate="firing", alertname!="EdgoraDiskNearlyFull"}'
        )  # how full this machine is, is its own affair
        assert firing == []
    finally:
        stack.compose("--profile", "obs", "rm", "--stop", "--force", "prometheus")
        run("docker", "volume", "rm", "--force", f"{stack.project}_prometheus")
