"""A task that follows an allocation policy's plan: its work split as the plan says, and what came of it.

The plan gives the server a share of the work. Where the kernel can be split, that share goes to the platform as a task
of its own and the UE computes the rest beside it, at the plan's clock; the output is whole again when both are there.
Where it cannot, or the plan gives the server everything, the task goes as it is, and the record says why.
"""

import asyncio
from typing import TYPE_CHECKING

from edgora.allocator.plan_files import PPM, UeShare
from edgora.client import Order
from edgora.client.kernels import order_for_input
from edgora.client.split import Halves, SplitRefused, split
from edgora.ue.records import Followed, TaskRecord
from edgora.ue.work import Work, air_bits

if TYPE_CHECKING:
    from edgora.ue.device import Device, LocalRun

__all__ = ["Parts", "follow", "measure"]


class Parts:
    """A task that follows a plan: what goes to the server, and the UE's own part beside it."""

    def __init__(
        self, order: Order, halves: Halves | None, local: "asyncio.Future[LocalRun] | None", followed: Followed
    ) -> None:
        self.order = order
        self._halves, self._local, self._followed = halves, local, followed

    async def whole(self, remote: bytes) -> bytes:
        """The task's output: the server's, with the UE's part where there is one."""
        if self._halves is None or self._local is None:
            return remote
        own = await self._local
        self._followed.met_ms["local"] = round(own.ms, 2)
        self._followed.local_fuel = own.fuel_used
        return self._halves.merge(remote, own.output)

    async def give_up(self) -> None:
        """Nobody waits for the UE's part any more."""
        if self._local is not None and not self._local.done():
            self._local.cancel()
            await asyncio.gather(self._local, return_exceptions=True)


def follow(work: Work, record: TaskRecord, wave: int, share: UeShare, device: "Device | None") -> Parts:
    """Split the task as the plan says, as far as it can be, and begin the UE's part."""
    followed = record.followed = Followed(
        wave=wave, server=share.server, speed=share.speed, local_speed=share.local_speed, phi=share.phi, met_ms={}
    )
    order, halves, local = work.order, None, None
    try:
        if share.phi_ppm == PPM:
            raise SplitRefused("; ".join(share.reasons) or "the plan gives the server everything")
        halves = split(work.kernel, work.order.plaintext, share.phi)
    except SplitRefused as refused:
        followed.split = str(refused)
    else:
        assert device is not None
        followed.phi_met = halves.share
        followed.split = f"{100 * halves.share:.1f} % of its rows go to server {share.server}"
        order = order_for_input(work.kernel, halves.remote)
        local = asyncio.ensure_future(device.run(work.kernel, halves.local, share.local_speed))
    delays = share.delays(
        air_bits(len(work.order.plaintext)),
        work.order.fuel_limit,
        air_bits(work.order.output_octets),
        followed.phi_met,
    )
    followed.planned_ms = {name: round(ms, 2) for name, ms in delays._asdict().items()}
    followed.planned_ms["total"] = round(delays.total, 2)
    return Parts(order, halves, local, followed)


def measure(record: TaskRecord) -> None:
    """What the record saw, beside what was planned."""
    followed, ledger = record.followed, record.ledger_ms
    if followed is None:
        return
    if {"TaskAssigned", "ResultFiled"} <= ledger.keys():
        followed.met_ms["run"] = float(ledger["ResultFiled"] - ledger["TaskAssigned"])
    if "delivered" in record.seen_ms:
        followed.met_ms["total"] = float(record.seen_ms["delivered"])
    followed.met_ms = {name: round(ms, 2) for name, ms in followed.met_ms.items()}
