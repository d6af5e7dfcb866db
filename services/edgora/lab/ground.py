"""Lay out a run folder: keys, genesis document, settings. Drawn once, then only read.

    <folder>/genesis.bin          the canonical genesis document (public)
    <folder>/genesis.json         the same for people: ids, addresses, parameters
    <folder>/scenario.json        what it was laid out from
    <folder>/deployer/deployer.key
    <folder>/node<i>/signer.key sealing.pem link.key   secrets of one node, mode 0600, its own volume in containers
    <folder>/node<i>/link.spki endpoint.json           what it may tell

Rule 1: laying out twice is the same as once; a folder that was laid out for another scenario is refused.
Rule 2: no two nodes share a folder, so a container mounts its own secrets and nobody else's.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgora.compute.engine import ENGINE
from edgora.crypto.keys import SealingKey
from edgora.crypto.links import LinkKey
from edgora.crypto.sign import SigningKey
from edgora.lab.scenario import Scenario
from edgora.wire.codec import decode, encode
from edgora.wire.errors import Refused
from edgora.wire.genesis import Genesis, GenesisServer, GenesisValidator
from edgora.wire.metadata import ServerMetadata

__all__ = [
    "Endpoint",
    "Ground",
    "NodeKeys",
    "draw_ground",
    "lay_out",
    "read_deployer_key",
    "read_endpoint",
    "read_genesis",
    "read_ground",
    "read_node_keys",
    "read_scenario",
]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node will be reached: part of its certified key document, so fixed before anything runs."""

    network_url: str
    public_url: str


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The secrets of one node."""

    signing: SigningKey
    sealing: SealingKey
    link: LinkKey

    @classmethod
    def generate(cls) -> "NodeKeys":
        return cls(SigningKey(os.urandom(32)), SealingKey.generate(), LinkKey.generate())

    def metadata(self, endpoint: Endpoint) -> ServerMetadata:
        return ServerMetadata(endpoint.network_url, endpoint.public_url, self.sealing.public.spki, self.link.spki)


@dataclass(frozen=True, slots=True)
class Ground:
    """A deployment that can start: who is in it and with which keys."""

    genesis: Genesis
    scenario: Scenario
    deployer: SigningKey
    nodes: tuple[NodeKeys, ...]
    endpoints: tuple[Endpoint, ...]


def draw_ground(scenario: Scenario, endpoints: Sequence[Endpoint], time_ms: int, chain_id: int | None = None) -> Ground:
    """Fresh keys and the genesis document over them. Nothing is written."""
    nodes = tuple(NodeKeys.generate() for _ in range(scenario.consortium.nodes))
    deployer = SigningKey(os.urandom(32))
    genesis = Genesis(
        version=_VERSION,
        consortium_id=scenario.consortium.id,
        chain_id=chain_id or scenario.chain.chain_id,
        validators=tuple(GenesisValidator(n.signing.address, n.link.spki) for n in nodes),
        servers=tuple(
            GenesisServer(i, n.signing.address, n.metadata(e).hash)
            for i, (n, e) in enumerate(zip(nodes, endpoints, strict=True))
        ),
        deployer=deployer.address,
        consensus=scenario.consensus_params(),
        market=scenario.market_params(),
        engine=ENGINE,
        time_ms=time_ms,
        min_stake_gwei=scenario.chain.min_stake_gwei,
        unbond_delay_s=scenario.chain.unbond_delay_s,
    )
    return Ground(genesis, scenario, deployer, nodes, tuple(endpoints))


def lay_out(
    scenario: Scenario, endpoints: Sequence[Endpoint], folder: Path, time_ms: int, homes: Path | None = None
) -> Ground:
    """Draw a deployment and write it to a folder, or read the one that is there. homes: where secrets go instead.

    Raises Refused if the folder was laid out for another scenario: keys are never overwritten.
    """
    if (folder / "genesis.bin").exists():
        ground = read_ground(folder, homes)
        if ground.scenario != scenario or ground.endpoints != tuple(endpoints):
            raise Refused(
                f"{folder} was laid out for another scenario", field="folder",
                fix="take a new folder, or remove this one with everything in it",
            )  # fmt: skip
        return ground
    ground = draw_ground(scenario, endpoints, time_ms)
    homes = homes or folder
    _secret(homes / "deployer" / "deployer.key", ground.deployer.secret.hex().encode())
    for i, (keys, endpoint) in enumerate(zip(ground.nodes, ground.endpoints, strict=True)):
        home = homes / f"node{i}"
        _secret(home / "signer.key", keys.signing.secret.hex().encode())
        _secret(home / "sealing.pem", keys.sealing.to_pem())
        _secret(home / "link.key", keys.link.secret.hex().encode())
        _public(home / "link.spki", keys.link.spki)
        _public(home / "endpoint.json", msgspec.json.encode(endpoint))
    _public(folder / "scenario.json", msgspec.json.format(msgspec.json.encode(scenario)))
    _public(folder / "genesis.json", msgspec.json.format(msgspec.json.encode(_readable(ground.genesis))))
    _public(folder / "genesis.bin", encode(ground.genesis))  # last: it says that the rest is there
    return ground


def read_genesis(folder: Path) -> Genesis:
    """The genesis document of a folder."""
    path = folder / "genesis.bin"
    try:
        return decode(path.read_bytes(), Genesis)
    except OSError as error:
        raise Refused(
            f"no genesis document at {path}: {error.strerror}", field="folder", fix="run `edgora genesis`"
        ) from None


def read_scenario(folder: Path) -> Scenario:
    """The scenario that a folder was laid out from."""
    return msgspec.json.decode((folder / "scenario.json").read_bytes(), type=Scenario)


def read_node_keys(home: Path) -> NodeKeys:
    """One node's secrets from its folder."""
    try:
        return NodeKeys(
            SigningKey(bytes.fromhex((home / "signer.key").read_text())),
            SealingKey.from_pem((home / "sealing.pem").read_bytes()),
            LinkKey.from_secret(bytes.fromhex((home / "link.key").read_text())),
        )
    except (OSError, ValueError) as error:
        raise Refused(f"the keys in {home} cannot be read: {error}", field="folder") from None


def read_deployer_key(homes: Path, genesis: Genesis) -> SigningKey:
    """The deployer's key. Raises Refused if it is not there or not the one that genesis names."""
    path = homes / "deployer" / "deployer.key"
    try:
        key = SigningKey(bytes.fromhex(path.read_text()))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} holds no key: {error}", field="homes") from None
    if key.address != genesis.deployer:
        raise Refused(
            f"{path} is the key of 0x{key.address.hex()}, genesis names 0x{genesis.deployer.hex()}", field="homes"
        )
    return key


def read_endpoint(home: Path) -> Endpoint:
    """Where the node of this folder is reached, as its certified key document says."""
    try:
        return msgspec.json.decode((home / "endpoint.json").read_bytes(), type=Endpoint)
    except (OSError, msgspec.DecodeError) as error:
        raise Refused(f"{home} is no node's folder: {error}", field="home", fix="run `edgora genesis` first") from None


def read_ground(folder: Path, homes: Path | None = None) -> Ground:
    """Everything that `lay_out` wrote."""
    homes = homes or folder
    genesis = read_genesis(folder)
    scenario = read_scenario(folder)
    each = [homes / f"node{i}" for i in range(len(genesis.validators))]
    endpoints = tuple(read_endpoint(home) for home in each)
    return Ground(
        genesis, scenario, read_deployer_key(homes, genesis), tuple(read_node_keys(h) for h in each), endpoints
    )


def _readable(genesis: Genesis) -> dict[str, object]:
    return {
        "genesis_id": "0x" + genesis.id.hex(),
        "consortium_id": genesis.consortium_id,
        "chain_id": genesis.chain_id,
        "market_address": "0x" + genesis.market_address.hex(),
        "validators": ["0x" + v.address.hex() for v in genesis.validators],
        "servers": [
            {"id": s.id, "signer": "0x" + s.signer.hex(), "meta_hash": "0x" + s.meta_hash.hex()}
            for s in genesis.servers
        ],
        "deployer": "0x" + genesis.deployer.hex(),
        "consensus": msgspec.structs.asdict(genesis.consensus),
        "market": msgspec.structs.asdict(genesis.market),
        "engine": genesis.engine,
        "time_ms": genesis.time_ms,
    }


def _secret(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(data)
        os.fsync(out.fileno())


def _public(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
