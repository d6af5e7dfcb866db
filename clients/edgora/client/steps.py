"""What a client flow asks of the world, and what it gets back.

Rule 1: a flow is a generator; it yields one of these steps and is sent its answer. It opens no socket, reads no clock,
draws no randomness and writes no file, so the task protocol is written once and tested without a server.
Rule 2: a driver (sync.py, aio.py) performs steps and decides nothing. Whatever may fail comes back as a value
(`Unreachable`), so that going on to another node is the flow's decision.

The pattern is that of httpx's auth flows.
"""

from collections.abc import Generator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from edgora.wire.rest import Event

__all__ = [
    "Done",
    "Entropy",
    "Flow",
    "Follow",
    "Http",
    "Note",
    "Now",
    "OpenLock",
    "Pause",
    "Reply",
    "Step",
    "Tell",
    "Unreachable",
]

T = TypeVar("T")


class Done(NamedTuple):
    """A verb of a client is over: for whoever measures or traces. Instants are Unix ms of this machine's clock."""

    verb: Literal["submit", "deliver"]
    task: bytes
    began_ms: int
    ended_ms: int
    error: str | None = None
    """Why a delivery failed. Of a submission that failed there is no word: it may have no task yet."""


class Http(NamedTuple):
    """One request to one node. Answer: Reply or Unreachable."""

    method: str
    url: str
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    timeout_ms: int = 15_000


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Unreachable(NamedTuple):
    """No answer came; whether the request arrived is unknown. Every request of ours may be repeated as it is."""

    reason: str


class Follow(NamedTuple):
    """The next event of a server-sent stream after an id. Answer: Event, None after wait_ms of silence, Unreachable."""

    url: str
    after: int
    wait_ms: int


class Pause(NamedTuple):
    """Let time pass. Answer: None."""

    ms: int


class Now(NamedTuple):
    """Milliseconds of a clock that never goes back; for durations only. Answer: int."""


class Entropy(NamedTuple):
    """Random octets. Answer: bytes."""

    octets: int


class Note(NamedTuple):
    """A journal entry; it is durable when the answer (None) comes."""

    task: bytes
    stage: str
    fields: Mapping[str, Any]


class OpenLock(NamedTuple):
    """Lock lane: call open(offer, deadline) with this value on the contract and wait until mined. Answer: None."""

    offer: bytes
    wei: int
    deadline_s: int


class Tell(NamedTuple):
    """Progress for a person: a stage and one sentence. Answer: None."""

    stage: str
    sentence: str
    event: Event | None = None


Step = Http | Follow | Pause | Now | Entropy | Note | OpenLock | Tell
Flow = Generator[Step, Any, T]
