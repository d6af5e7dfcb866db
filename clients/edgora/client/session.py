"""One client's view of a deployment, and how it asks: nodes in turn, problems as typed errors, answers as resources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from edgora.client.steps import Flow, Http, Pause, Reply, Tell, Unreachable
from edgora.client.trust import Trust, hex0x, unhex
from edgora.client.wallet import Wallet
from edgora.wire import errors, rest

__all__ = ["Session", "account", "answers", "ask", "connect", "get", "servers"]

R = TypeVar("R")

_ROUNDS = 4
_PAUSE_MS = 300
_AT_ONCE_MS = 3_000
_BY_CODE: dict[str, type[errors.EdgoraError]] = {
    e.code: e
    for e in (errors.WireError, errors.BadSignature, errors.TooLarge, errors.NotFound, errors.Conflict,
              errors.Unavailable, errors.Unknown)
}  # fmt: skip


@dataclass(slots=True)
class Session:
    """nodes: base URLs, asked in turn. pinned: genesis id to insist on, None for trust on first use."""

    nodes: list[str]
    wallet: Wallet
    pinned: bytes | None = None
    trust: Trust | None = None
    info: rest.Info | None = None
    inside: bool = False
    """Whether we run inside the deployment's own network, where container names resolve and public URLs need not."""
    headers: Mapping[str, str] = field(default_factory=dict)
    _preferred: int = 0

    def known(self) -> tuple[Trust, rest.Info]:
        """What `connect` found. Raises if it was not called."""
        if self.trust is None or self.info is None:
            raise errors.Unavailable("not connected yet")
        return self.trust, self.info


def _problem(reply: Reply, what: str) -> errors.EdgoraError:
    try:
        problem = msgspec.json.decode(reply.body, type=rest.Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):  # HEAD has no body; a proxy speaks no problem+json
        kind = errors.NotFound if reply.status == 404 else errors.Refused if reply.status < 500 else errors.Unavailable
        return kind(f"{what}: HTTP {reply.status}")
    if problem.rule is not None:
        return errors.RuleRefused(problem.detail, rule=problem.rule, field=problem.field, fix=problem.fix)
    if problem.code == errors.TooMany.code:
        return errors.TooMany(
            problem.detail, retry_after_s=problem.retry_after_s or 1, field=problem.field, fix=problem.fix
        )
    known = _BY_CODE.get(problem.code, errors.Refused if problem.status < 500 else errors.Unavailable)
    return known(problem.detail, field=problem.field, fix=problem.fix)


def ask(
    session: Session,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    node: str | None = None,
    timeout_ms: int = 15_000,
) -> Flow[Reply]:
    """Send one request, to `node` or to each known node in turn until one answers, and return a 2xx reply.

    Repeats on silence, 429, 503 and 504 for a few rounds: every request of ours may be sent again as it is. A node that
    is behind does not know yet what another has acknowledged, so NotFound is final when every node that answered said
    it. Raises the typed error of a problem document otherwise.
    """
    last: errors.EdgoraError = errors.Unavailable("no node given", field="node")
    for attempt in range(_ROUNDS):
        count = 1 if node else len(session.nodes)
        missing: errors.NotFound | None = None
        for step in range(count):
            index = (session._preferred + step) % len(session.nodes)  # noqa: SLF001 - the session's own module
            base = node or session.nodes[index]
            reply: Reply | Unreachable = yield Http(
                method, base + path, body, content_type, {**session.headers, **(headers or {})}, timeout_ms
            )
            if isinstance(reply, Unreachable):
                last = errors.Unavailable(f"{method} {base}{path}: {reply.reason}", field="node")
                continue
            if reply.status < 300:
                if node is None:
                    session._preferred = index  # noqa: SLF001 - same
                return reply
            last = _problem(reply, f"{method} {base}{path}")
            if isinstance(last, errors.TooMany):
                yield Pause(min(last.retry_after_s * 1000, 5_000))
            elif isinstance(last, errors.NotFound):
                missing = last
            elif not isinstance(last, errors.Unavailable):
                raise last
        if missing is not None:
            raise missing
        if attempt + 1 < _ROUNDS:
            yield Pause(_PAUSE_MS * (attempt + 1))
    raise last


def get(session: Session, path: str, kind: type[R], node: str | None = None) -> Flow[R]:
    """GET a resource."""
    reply = yield from ask(session, "GET", path, node=node)
    return read(reply, kind)


def answers(session: Session, base: str) -> Flow[bool]:
    """Whether a node answers at once. The one that answered last is not asked again."""
    if session.nodes[session._preferred] == base:  # noqa: SLF001 - the session's own module
        return True
    reply = yield Http("GET", base + "/v1/info", None, headers=session.headers, timeout_ms=_AT_ONCE_MS)
    return not isinstance(reply, Unreachable) and reply.status < 300


def read(reply: Reply, kind: type[R]) -> R:
    """The resource in a reply. Raises Unavailable if the node does not speak our version."""
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.Unavailable(f"the node's answer is no {kind.__name__}: {error}") from None


def connect(session: Session) -> Flow[rest.Info]:
    """Learn the consortium from any node; pin its genesis id if none is pinned."""
    info = yield from get(session, "/v1/info", rest.Info)
    trust = Trust.from_document(unhex(info.genesis), session.pinned)
    if session.pinned is None:
        session.pinned = trust.id
        yield Tell("trust", f"first use: trusting consortium {hex0x(trust.id)} on the node's word")
    session.trust, session.info = trust, info
    return info


def servers(session: Session) -> Flow[Sequence[rest.Server]]:
    """All servers with adverts and key documents, as one node's ledger has them."""
    return (yield from get(session, "/v1/servers", rest.ServerList)).items


def account(session: Session) -> Flow[rest.Account]:
    """The wallet's own account."""
    return (yield from get(session, f"/v1/accounts/{hex0x(session.wallet.address)}", rest.Account))
