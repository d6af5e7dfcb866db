"""Run a drawn plan against a live platform: each UE is one SDK client behind its own radio link.

The fleet draws where its UEs stand, funds them, lets each arrival go at its time and returns a record of every task. It
also keeps the company of a run: plans in waves where it has an allocation policy, mining UEs where it has a mining
policy, and word to development nodes of where the UEs stand. What a UE does with a task is in `equipment`.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgora.allocator.radio import Channel
from edgora.client import Done, Wallet
from edgora.client.trust import hex0x
from edgora.ue.equipment import Equipment
from edgora.ue.miner import KERNEL, MinedSlot, Puzzle, Sent, mine, prepared
from edgora.ue.plan import Arrival, Fleet, draw_positions, nearest
from edgora.ue.positions import tell_positions
from edgora.ue.radio import rates
from edgora.ue.records import FleetRun, TaskRecord
from edgora.ue.waves import Planner, Waves, Works
from edgora.wire.errors import EdgoraError, Refused

if TYPE_CHECKING:
    from edgora.ue.device import Device

__all__ = ["run_fleet", "until_interrupted"]


async def run_fleet(
    fleet: Fleet,
    arrivals: Sequence[Arrival],
    seed: int,
    urls: Mapping[int, str],
    places: Mapping[int, tuple[float, float]],
    *,
    genesis_id: str | None = None,
    inside: bool = False,
    on_change: Callable[[TaskRecord], None] | None = None,
    wallets: Sequence[Wallet] | None = None,
    planner: Planner | None = None,
    enough: asyncio.Event | None = None,
    on_done: Callable[[Done], None] | None = None,
) -> FleetRun:
    """Play the arrivals. urls and places: of each server by id. Returns when every task has ended or given up.

    planner: who makes the plans of `fleet.allocation`; Refused if there is a policy and nobody to ask. enough: once it
    is set no further task arrives; those under way are seen to their end. on_done: hears what every UE's client has done.
    """
    if fleet.allocation and planner is None:
        raise Refused(f"the fleet has the policy {fleet.allocation} and no allocator to ask", field="fleet.allocation")
    positions = draw_positions(fleet, seed)
    links = rates(Channel(bandwidth_hz=fleet.bandwidth_hz), fleet.power_w, positions, places)
    keys = list(wallets or [])
    while len(keys) < fleet.ues:
        keys.append(await asyncio.to_thread(Wallet.generate))
    works = Works(arrivals)
    devices = _devices(fleet)
    mining = await asyncio.to_thread(prepared, fleet.mining) if fleet.mining.policy else None
    ues = [
        Equipment(
            i,
            keys[i],
            [urls[s] for s in nearest(positions[i], places)],
            nearest(positions[i], places),
            links[i],
            genesis_id,
            inside,
            works,
            devices[i] if devices else None,
            on_done,
        )
        for i in range(fleet.ues)
    ]
    records: list[TaskRecord] = []
    mines: list[asyncio.Task[list[MinedSlot]]] = []
    waves: Waves | None = None
    enough = enough or asyncio.Event()
    telling = asyncio.create_task(tell_positions([hex0x(w.address) for w in keys[: fleet.ues]], positions, urls))
    start = time.monotonic()
    try:
        await asyncio.gather(*(ue.client.fund(fleet.deposit_gwei * 10**9) for ue in ues))
        if planner is not None and fleet.allocation:
            waves = Waves(
                fleet, seed, arrivals, works, [hex0x(w.address) for w in keys], positions, places, planner,
                ues[0].client.servers, lambda i, share: ues[i].tune(share),
            )  # fmt: skip
            await waves.begin()
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            if mining is not None:
                mines = [
                    group.create_task(mine(fleet.mining, mining, i, seed, _Site(ues[i], fleet, arrivals), enough))
                    for i in _miners(fleet, arrivals)
                ]
            for number, arrival in enumerate(arrivals):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, arrival.at_ms / 1000 - (time.monotonic() - start))):
                        await enough.wait()
                if enough.is_set():
                    break
                if waves is not None:
                    waves.arrived(number)
                record = TaskRecord(
                    number=number, ue=arrival.ue, kernel=arrival.kernel, fate=arrival.fate,
                    at_ms=int(1000 * (time.monotonic() - start)), seen_ms={}, ledger_ms={},
                )  # fmt: skip
                records.append(record)
                share = None if waves is None else waves.share(arrival.ue)
                group.create_task(ues[arrival.ue].play(fleet, arrival, record, share, on_change or (lambda _: None)))
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        if waves is not None:
            await waves.end()
        for ue in ues:
            await ue.close()
    return FleetRun(
        records=records, addresses=[hex0x(w.address) for w in keys], rates_bits_s=links, positions_m=positions,
        wall_ms=int(1000 * (time.monotonic() - start)), waves=[] if waves is None else waves.made,
        mined=[slot for mined in mines for slot in mined.result()],
    )  # fmt: skip


def until_interrupted(say: Callable[[str], None]) -> asyncio.Event:
    """Set at the first SIGINT or SIGTERM; the second one acts as usual."""
    enough, loop = asyncio.Event(), asyncio.get_running_loop()

    def ask_to_end() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        say("no further tasks; those under way are seen to their end; again stops at once")
        enough.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask_to_end)
    return enough


def _devices(fleet: Fleet) -> "list[Device]":
    """The UEs' own processors; only a fleet that splits tasks, or mines, needs the sandbox."""
    if not (fleet.allocation or fleet.mining.policy):
        return []
    from edgora.compute.sandbox import Sandbox
    from edgora.ue.device import Device

    sandbox = Sandbox()
    return [Device(sandbox) for _ in range(fleet.ues)]


def _miners(fleet: Fleet, arrivals: Sequence[Arrival]) -> list[int]:
    """The UEs that mine: the first ones that come with a hash puzzle, as far as there are any."""
    puzzlers = dict.fromkeys(arrival.ue for arrival in arrivals if arrival.kernel == KERNEL)
    return list(puzzlers)[: fleet.mining.ues]


class _Site:
    """What a mining UE has: see `miner.Site`."""

    def __init__(self, ue: Equipment, fleet: Fleet, arrivals: Sequence[Arrival]) -> None:
        self._ue, self._fleet = ue, fleet
        first = next(arrival for arrival in arrivals if arrival.ue == ue.index)
        self._bids = first._replace(kernel=KERNEL, fate="settle")

    def fade(self, share: float) -> None:
        self._ue.radio.fading = share

    def share(self) -> float:
        return self._ue.radio.fading

    async def load(self) -> float:
        """A server that cannot be asked is as good as busy."""
        with contextlib.suppress(EdgoraError):
            held = {s.id: s for s in await self._ue.client.servers() if s.live and s.advert is not None}
            for near in self._ue.near:
                if near in held and (advert := held[near].advert) is not None:
                    return min(1.0, held[near].used / max(1, advert.capacity))
        return 1.0

    async def send(self, puzzle: Puzzle) -> Sent:
        return await self._ue.have_done(self._fleet, self._bids, puzzle.order)

    async def compute(self, puzzle: Puzzle) -> bytes:
        assert self._ue.device is not None
        return (await self._ue.device.run(KERNEL, puzzle.plaintext, self._fleet.mining.clock)).output
