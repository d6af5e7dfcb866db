"""A scenario: the single description of a deployment (house.md 1.7).

One TOML file drives the embedded run, the processes and the containers. It says who serves and at what price, who
asks and for what, and which refunds are part of the plan. Nothing secret is in it: keys are drawn when a run folder is
laid out (`lab.ground`). Decoding is strict: an unknown key or a wrong type is refused by its path.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from edgora.ue.plan import Fleet, Refunds
from edgora.wire.errors import Refused
from edgora.wire.genesis import ConsensusParams
from edgora.wire.ledger import faulty
from edgora.wire.market import MarketParams

__all__ = ["Chain", "Consortium", "Faults", "Ports", "Scenario", "Server", "load", "override", "parse"]

P = TypeVar("P", MarketParams, ConsensusParams)

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Consortium(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    id: Positive = 1
    nodes: Annotated[int, msgspec.Meta(ge=4, le=64)] = 4


class Chain(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    kind: Literal["auto", "anvil", "evm", "rpc"] = "auto"
    """auto: anvil if found, else the in-process EVM. rpc: an endpoint that is there already (compose)."""
    rpc_url: str = ""
    chain_id: Positive = 31337
    min_stake_gwei: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 1_000_000
    unbond_delay_s: Positive = 14_400


class Ports(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """First of each range; 0 takes free ones. Everything binds to 127.0.0.1 outside containers."""

    api: Annotated[int, msgspec.Meta(ge=0, le=65_000)] = 8100
    api_step: Positive = 10
    links: Annotated[int, msgspec.Meta(ge=0, le=65_000)] = 0
    chain: Annotated[int, msgspec.Meta(ge=0, le=65_000)] = 0
    board: Annotated[int, msgspec.Meta(ge=0, le=65_000)] = 8080


class Faults(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Faults on purpose, through the board's panel (ports.faults)."""

    allowed: bool = False
    """Whether nodes can be killed, paused, cut off and made to lie. Never where money is real."""


class Server(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What one edge server sells and where it stands."""

    speed: Positive = 40_000_000
    """fuel per second, each slot."""
    capacity: Positive = 2_000_000_000
    slots: Positive = 2
    ask: Positive = 20
    """gwei per Mfuel."""
    uplink: Positive = 12_500_000
    """octets per second."""
    forward: Annotated[int, msgspec.Meta(ge=0)] = 1_000
    """wei per KiB forwarded."""
    x_m: float = 0.0
    y_m: float = 0.0
    policy: str = "greedy-global"

    def environment(self) -> dict[str, str]:
        """As a node's settings read it (node.settings)."""
        return {
            "EDGORA_ADVERT__SPEED": str(self.speed), "EDGORA_ADVERT__CAPACITY": str(self.capacity),
            "EDGORA_ADVERT__SLOTS": str(self.slots), "EDGORA_ADVERT__ASK": str(self.ask),
            "EDGORA_ADVERT__UPLINK": str(self.uplink), "EDGORA_ADVERT__FORWARD": str(self.forward),
            "EDGORA_ADVERT__POSITION_M": f"[{self.x_m}, {self.y_m}]",
        }  # fmt: skip


class Scenario(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    name: str = "city"
    seed: Annotated[int, msgspec.Meta(ge=0)] = 7
    consortium: Consortium = Consortium()
    chain: Chain = Chain()
    ports: Ports = Ports()
    faults: Faults = Faults()
    servers: tuple[Server, ...] = ()
    """One a node; empty for the default line-up."""
    fleet: Fleet = Fleet()
    plan: Refunds = Refunds()
    market: dict[str, int | str] = {}
    """Consortium parameters that differ from their defaults (market.md 9)."""
    consensus: dict[str, int | str] = {}

    def server(self, index: int) -> Server:
        return self.servers[index] if self.servers else _LINE_UP[index % len(_LINE_UP)]

    def market_params(self) -> MarketParams:
        return _params(MarketParams, {"auditors": max(2, 2 * faulty(self.consortium.nodes)), **self.market}, "market")

    def consensus_params(self) -> ConsensusParams:
        return _params(ConsensusParams, self.consensus, "consensus")


# A small city: a fast dear server in the middle, slower cheaper ones around it.
_LINE_UP = (
    Server(speed=80_000_000, ask=24, x_m=200, y_m=200, policy="exact"),
    Server(speed=50_000_000, ask=16, x_m=60, y_m=80),
    Server(speed=60_000_000, ask=20, x_m=340, y_m=90, policy="random"),
    Server(speed=40_000_000, ask=12, x_m=180, y_m=350, policy="exact"),
)


def _params(kind: type[P], changes: Mapping[str, object], table: str) -> P:
    known = {f.name: f.type for f in msgspec.structs.fields(kind)}
    for name, value in changes.items():
        path = f"{table}.{name}"
        if name not in known:
            raise Refused(f"{path} is no parameter; known: {', '.join(sorted(known))}", field=path)
        if not isinstance(value, known[name]) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise Refused(f"{path} is {value!r}; a {known[name].__name__} >= 0 is needed", field=path)
    return msgspec.structs.replace(kind(), **changes)


def parse(tables: Mapping[str, Any]) -> Scenario:
    """A scenario from decoded TOML. Raises Refused with the path of the first field at fault."""
    try:
        scenario = msgspec.convert(tables, Scenario)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at ")
        raise Refused(f"scenario: {sentence} at {path or '$'}", field=path.strip("`$.") or None) from None
    if scenario.servers and len(scenario.servers) != scenario.consortium.nodes:
        raise Refused(
            f"scenario: {len(scenario.servers)} servers for consortium.nodes = {scenario.consortium.nodes}; "
            "give one [[servers]] table a node or none",
            field="servers",
        )
    scenario.market_params()
    scenario.consensus_params()
    return scenario


def override(tables: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=value` settings (value read as JSON, else as a string) to decoded TOML."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise Refused(f"--set {setting}: expected key=value", field=path)
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            value = text
        *parents, leaf = path.split(".")
        table = tables
        for name in parents:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise Refused(f"--set {setting}: {name} is not a table", field=path)
        table[leaf] = value
    return tables


def load(path: Path | None, settings: Sequence[str] = ()) -> Scenario:
    """The scenario in a file (or the default one), with `--set` overrides."""
    tables: dict[str, Any] = {}
    if path is not None:
        try:
            tables = tomllib.loads(path.read_text())
        except OSError as error:
            raise Refused(f"scenario {path}: {error.strerror}", field="scenario") from None
        except tomllib.TOMLDecodeError as error:
            raise Refused(f"scenario {path}: {error}", field="scenario") from None
    return parse(override(tables, settings))
