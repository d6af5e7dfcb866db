"""What a machine can do and what stands in the way: ports, clock, chain, disk, engine, speed.

Each finding is a value with a verdict and, where it is bad, the fix. Nothing is changed.
"""

import asyncio
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
import msgspec

from edgora.adapters.anvil_chain import AnvilChain, find_anvil
from edgora.compute.engine import ENGINE
from edgora.compute.meter import calibrate
from edgora.compute.sandbox import Sandbox
from edgora.wire import rest
from edgora.wire.errors import EdgoraError

__all__ = ["Finding", "examine"]

_SKEW_MS = 1_000
_FREE_OCTETS = 2 * 1024**3
_SYNCS = 32
_HEAD_S = 60
"""A head this far from our clock is no live chain."""


class Finding(msgspec.Struct, kw_only=True):
    """verdict: ok, warn (works, but) or bad (will not work)."""

    name: str
    verdict: str
    sentence: str
    fix: str | None = None
    numbers: dict[str, int | float | str] = {}


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding(
                name=f"port {port}", verdict="warn", sentence=f"127.0.0.1:{port} is taken: {error.strerror}",
                fix="stop what uses it, or set other ports (scenario: ports; compose: EDGORA_NODE<i>_PORT, EDGORA_CHAIN_PORT)",
            )  # fmt: skip
    return Finding(name=f"port {port}", verdict="ok", sentence=f"127.0.0.1:{port} is free")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            start = time.perf_counter()
            file.write(bytes(65_536))
            file.flush()
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - start))
    median, worst = statistics.median(times), max(times)
    sentence = f"{free / 1e9:.1f} GB free in {folder}; 64 KiB synced in {median:.2f} ms (worst {worst:.1f} ms)"
    numbers: dict[str, int | float | str] = {
        "free_octets": free,
        "sync_ms_p50": round(median, 3),
        "sync_ms_max": round(worst, 3),
    }
    if free < _FREE_OCTETS:
        return Finding(
            name="disk",
            verdict="bad",
            sentence=sentence,
            fix="free at least 2 GiB: a node that cannot write stops",
            numbers=numbers,
        )
    verdict = "warn" if median > 20 else "ok"
    fix = "every vote waits for the disk; a faster one shortens each block" if verdict == "warn" else None
    return Finding(name="disk", verdict=verdict, sentence=sentence, fix=fix, numbers=numbers)


def _speed(slots: int) -> Finding:
    speed = calibrate(Sandbox(), slots)
    return Finding(
        name="speed", verdict="ok", numbers={"fuel_per_s": speed, "slots": slots},
        sentence=f"{speed:,} fuel/s in each of {slots} slots, all busy, on the cache-missing kernel: advertise at most that",
    )  # fmt: skip


def _engine(genesis_engine: str | None) -> Finding:
    if genesis_engine is not None and genesis_engine != ENGINE:
        return Finding(
            name="engine", verdict="bad", sentence=f"this machine runs {ENGINE}, the consortium agreed on {genesis_engine}",
            fix="install the wasmtime version of the genesis document: fuel may differ otherwise",
        )  # fmt: skip
    return Finding(name="engine", verdict="ok", sentence=f"WASM engine {ENGINE}")


def _anvil() -> Finding:
    found = find_anvil()
    if found is None:
        return Finding(
            name="anvil", verdict="warn", sentence="no anvil found; the demo uses the in-process EVM", fix="npm ci"
        )
    return Finding(name="anvil", verdict="ok", sentence=f"anvil at {found}")


async def _chain(url: str) -> Finding:
    chain = AnvilChain(url, bytes(20), call_timeout_s=3)
    try:
        head = await chain.latest()
    except EdgoraError as error:
        return Finding(name="chain", verdict="bad", sentence=error.detail, fix="start the chain or give --chain-rpc")
    finally:
        await chain.close()
    behind = int(time.time()) - head.time_s
    stands = abs(behind) > _HEAD_S
    return Finding(
        name="chain", verdict="warn" if stands else "ok", numbers={"block": head.number, "behind_s": behind},
        sentence=f"{url}: block {head.number}, {behind} s old",
        fix="look whether the chain makes blocks and has the right time: tasks wait while it is not seen" if stands else None,
    )  # fmt: skip


async def _node(http: httpx2.AsyncClient, url: str) -> list[Finding]:
    try:
        sent = time.time()
        reply = await http.get(f"{url}/v1/info")
        back = time.time()
        info = msgspec.json.decode(reply.content, type=rest.Info)
        status = msgspec.json.decode((await http.get(f"{url}/v1/status")).content, type=rest.Status)
    except (httpx2.HTTPError, msgspec.DecodeError) as error:
        return [
            Finding(
                name=f"node {url}",
                verdict="bad",
                sentence=f"does not answer: {error}",
                fix="start it, or look into its log",
            )
        ]
    skew = info.time_ms - 500 * (sent + back)
    found = [
        Finding(
            name=f"clock {url}", verdict="ok" if abs(skew) < _SKEW_MS else "bad", numbers={"skew_ms": round(skew)},
            sentence=f"its clock is {skew:+.0f} ms from ours", fix=None if abs(skew) < _SKEW_MS else "set both clocks by NTP",
        )
    ]  # fmt: skip
    found.append(Finding(name=f"consensus {url}", verdict="warn" if status.alarm else "ok", sentence=status.sentence))
    return found


async def examine(
    *,
    ports: Sequence[int],
    folder: Path,
    nodes: Sequence[str],
    chain_rpc: str | None,
    slots: int,
    genesis_engine: str | None,
) -> list[Finding]:
    """Look at everything asked for; speed takes some seconds."""
    found = [_port(port) for port in ports]
    found += [await asyncio.to_thread(_disk, folder), _engine(genesis_engine), _anvil()]
    if chain_rpc is not None:
        found.append(await _chain(chain_rpc))
    async with httpx2.AsyncClient(timeout=3.0) as http:
        for url in nodes:
            found += await _node(http, url.rstrip("/"))
    if slots:
        found.append(await asyncio.to_thread(_speed, slots))
    return found
