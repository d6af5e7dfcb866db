"""A consortium for tests: genesis, keys that follow from labels, and signed transactions of the counter application."""

import contextlib
import itertools
import os
import socket
from pathlib import Path

from edgora.adapters.links import Identity, LinkLimits, Links
from edgora.adapters.memory_links import MemoryNetwork
from edgora.adapters.system_clock import SystemClock
from edgora.adapters.tls_links import tls_links
from edgora.crypto.links import LinkKey
from edgora.crypto.sign import SigningKey
from edgora.lab.sim.counter import CounterApp, CounterOp, Do
from edgora.wire.codec import encode
from edgora.wire.genesis import ConsensusParams, Genesis, GenesisServer, GenesisValidator, LinkEndpoint
from edgora.wire.ledger import Kind, SignedTx, Tx, tx_hash
from edgora.wire.market import MarketParams

_OFFSET = itertools.count()
CLIENT = SigningKey.derived("client")
SMALL_SEGMENTS = 256 * 1024


class Consortium:
    """n validators and one client, `CLIENT`, that the counter application knows from the start."""

    def __init__(self, n: int = 4, **params: int) -> None:
        self.signing = [SigningKey.derived(f"validator {i}") for i in range(n)]
        self.link = [LinkKey.derived(f"link {i}") for i in range(n)]
        pairs = list(zip(self.signing, self.link, strict=True))
        self.genesis = Genesis(
            1, 7, 31337,
            tuple(GenesisValidator(signing.address, link.spki) for signing, link in pairs),
            tuple(GenesisServer(i, key.address, bytes(32)) for i, key in enumerate(self.signing)),
            bytes(20), ConsensusParams(**params), MarketParams(), "test", SystemClock().now_ms(),
        )  # fmt: skip
        self.domain = self.genesis.ledger_domain()

    def identity(self, index: int) -> Identity:
        return Identity(self.genesis, index, self.signing[index], self.link[index])

    def application(self) -> CounterApp:
        return CounterApp([CLIENT.address])

    def tx(
        self, seq: int, *, lane: int = 0, do: Do = Do.ADD, key: bytes = b"n", amount: int = 1
    ) -> tuple[SignedTx, bytes]:
        """A transaction of CLIENT and its hash."""
        tx = Tx(Kind.TASK, CLIENT.address, lane, seq, 4_000, encode(CounterOp(do, key, amount)))
        digest = tx_hash(tx, self.domain)
        return SignedTx(tx, CLIENT.sign(digest)), digest


class Wires:
    """Transports of one consortium, all over memory or all over TLS on loopback."""

    def __init__(self, consortium: Consortium, kind: str) -> None:
        self.consortium = consortium
        self.kind = kind
        self.clock = SystemClock()
        self.network = MemoryNetwork()
        self._ports: list[int] = []

    async def reserve(self) -> None:
        """Find free ports for TLS, below the range that outgoing connections are given, so that none is taken away."""
        if self.kind == "tls":
            candidates = itertools.count(20_000 + next(_OFFSET) * 16 + os.getpid() % 500 * 20)
            while len(self._ports) < len(self.consortium.link):
                port = 20_000 + next(candidates) % 12_000
                with socket.socket() as probe, contextlib.suppress(OSError):
                    probe.bind(("127.0.0.1", port))
                    self._ports.append(port)

    @property
    def endpoints(self) -> list[LinkEndpoint]:
        return [LinkEndpoint("127.0.0.1", port) for port in self._ports]

    def links(self, index: int, limits: LinkLimits | None = None, identity: Identity | None = None) -> Links:
        identity = identity or self.consortium.identity(index)
        if self.kind == "memory":
            return self.network.links(identity, self.clock, limits)
        return tls_links(identity, self.endpoints, self.clock, limits=limits)


def write_files(consortium: Consortium, folder: Path, endpoints: list[LinkEndpoint]) -> list[Path]:
    """Configuration files of one consensus process a validator."""
    (folder / "genesis.bin").write_bytes(encode(consortium.genesis))
    addresses = ", ".join(f'"{e.host}:{e.port}"' for e in endpoints)
    files = []
    for i, (signing, link) in enumerate(zip(consortium.signing, consortium.link, strict=True)):
        (folder / f"signer{i}.key").write_text(signing.secret.hex())
        (folder / f"link{i}.key").write_text(link.secret.hex())
        files.append(folder / f"node{i}.toml")
        files[-1].write_text(
            f'genesis_file = "genesis.bin"\nindex = {i}\nsigner_key_file = "signer{i}.key"\n'
            f'link_key_file = "link{i}.key"\ndata_dir = "data{i}"\nsocket = "s{i}.sock"\n'
            f"endpoints = [{addresses}]\nsegment_octets = {SMALL_SEGMENTS}\n"
        )
    return files
