"""The consensus half of a node: wiring, and the process that holds it (ledger.md 1, 12, 17).

`ConsensusNode` ties one replica to a data directory, a transport and a clock; the embedded run makes four of them in
one process. `python -m edgora.node.consensus --config FILE` is the same node alone in a process, with its API half at
the other end of a Unix socket of mode 0600.

A data directory holds the lock, the log (`wal/`), the block store (`blocks.sqlite`) and, after a divergence of results,
the dumped state (`alarm.bin`). **Lost disk = lost identity**: a validator that lost its log must not vote with its old
key again. Set `observer = true` then, and re-enter with a new key by reconfiguration. `require_log = true` makes a start
without a log a refusal; set it once a validator has been started for the first time.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec

from edgora.adapters.links import Identity
from edgora.adapters.sqlite_store import SqliteStore
from edgora.adapters.system_clock import SystemClock
from edgora.adapters.tls_links import tls_links
from edgora.adapters.wal_files import DataDirectory, WalFiles, begin_log, has_begun, write_file
from edgora.crypto.links import LinkKey
from edgora.crypto.sign import SigningKey
from edgora.ledger.config import LedgerConfig, Params, genesis_header
from edgora.ledger.effects import DurableState
from edgora.ledger.replica import Replica
from edgora.ledger.wal import SEGMENT_OCTETS
from edgora.market.machine import Market
from edgora.node.consensus_link import (
    FROM_API,
    Asked,
    AskStatus,
    Call,
    CallAnswer,
    LocalConsensus,
    Serve,
    StatusIs,
    Stored,
    Submit,
    SubmitAnswer,
    read_frame,
    write_frame,
)
from edgora.node.driver import Driver
from edgora.ports.clock import Clock
from edgora.ports.transport import Transport
from edgora.wire.application import Application
from edgora.wire.codec import decode, encode
from edgora.wire.errors import Broken, EdgoraError, Refused, Unavailable
from edgora.wire.genesis import Genesis, LinkEndpoint

__all__ = [
    "ConsensusConfig", "ConsensusNode", "ConsensusSocket", "ledger_config", "main", "market", "read_config", "run",
]  # fmt: skip

_log = logging.getLogger(__name__)


def ledger_config(genesis: Genesis, index: int, *, observer: bool = False) -> LedgerConfig:
    """What genesis says, as the core takes it."""
    said = genesis.consensus
    return LedgerConfig(
        validators=genesis.addresses,
        index=index,
        domain=genesis.ledger_domain(),
        genesis=genesis_header(genesis.id, genesis.time_ms),
        params=Params(
            window=said.window,
            block_txs=said.block_txs,
            block_octets=said.block_octets,
            block_gap_ms=said.block_gap_ms,
            batch_delay_ms=said.first_tx_delay_ms,
            seal_delay_ms=said.seal_delay_ms,
            timeout_ms=said.timeout_ms,
            timeout_cap_ms=said.timeout_cap_ms,
            checkpoint_interval=said.checkpoint_every,
            validity_window=said.valid_blocks,
            clock_tolerance_ms=said.clock_skew_ms,
        ),
        voting=not observer,
    )


class ConsensusNode:
    """One validator's consensus half. `consensus` and `store` exist between `start` and `stop`."""

    consensus: LocalConsensus
    store: SqliteStore

    def __init__(
        self,
        genesis: Genesis,
        index: int,
        signing_key: SigningKey,
        link_key: LinkKey,
        data_dir: Path,
        transport: Transport,
        clock: Clock,
        application: Application,
        *,
        observer: bool = False,
        require_log: bool = False,
        segment_octets: int = SEGMENT_OCTETS,
        check_threads: int = 2,
    ) -> None:
        """The application must be in its genesis state. Raises Refused if a key is not the one that genesis names."""
        pinned = genesis.validators[index]
        if pinned.address != signing_key.address:
            raise Refused(
                f"the signing key is of 0x{signing_key.address.hex()}, genesis names 0x{pinned.address.hex()}"
                f" as validator {index}",
                field="signing_key",
            )
        if pinned.link_key != link_key.spki:
            raise Refused(f"the link key is not the one that genesis pins for validator {index}", field="link_key")
        self._genesis = genesis
        self._index = index
        self._signing_key = signing_key
        self._data_dir = data_dir
        self._transport = transport
        self._clock = clock
        self._application = application
        self._observer = observer
        self._require_log = require_log
        self._segment_octets = segment_octets
        self._check_threads = check_threads
        self._closing = contextlib.ExitStack()
        self._driver: Driver | None = None

    async def start(self) -> None:
        """Read the disk, boot the replica, connect.

        Raises Conflict if the data directory is in use, Broken if what it holds cannot be trusted.
        """
        try:
            await self._start()
        except BaseException:
            self._closing.close()
            raise

    async def _start(self) -> None:
        directory = DataDirectory(self._data_dir)
        self._closing.callback(directory.close)
        log = WalFiles(self._data_dir / "wal", self._segment_octets)
        self._closing.callback(log.close)
        self.store = SqliteStore(self._data_dir / "blocks.sqlite", self._genesis.id)
        self._closing.callback(self.store.close)
        snapshot = self.store.newest_snapshot()
        lost = self._require_log and not has_begun(self._data_dir)
        if not log.records and (lost or snapshot is not None or self.store.height() > 0):
            raise Broken(
                f"{self._data_dir} has no log, but this validator has voted before",
                fix="a validator that lost its log must not vote: start with observer = true in an empty directory",
            )
        begin_log(self._data_dir)
        config = ledger_config(self._genesis, self._index, observer=self._observer)
        self._driver = Driver(
            Replica(config, self._signing_key, self._application),
            clock=self._clock,
            transport=self._transport,
            log=log,
            store=self.store,
            on_alarm=self._dump,
            check_threads=self._check_threads,
        )
        self.consensus = LocalConsensus(self._driver, self._transport, self._genesis.addresses, self._index)
        try:
            await self._driver.start(DurableState(snapshot, log.records, secrets.randbits(63)))
        except BaseException:
            await self._driver.stop()
            self._driver = None
            raise
        log.records = ()

    def _dump(self, reason: str) -> None:
        """Results diverge: keep what we had computed, for people to compare between nodes."""
        state = sorted(self._application.snapshot().items())
        write_file(self._data_dir / "alarm.bin", encode([reason, self._clock.now_ms(), state]))

    async def failed(self) -> None:
        """Wait for the end: returns after `stop`, raises what made the replica stop by itself."""
        if self._driver is None:
            raise Unavailable("the node is not started")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self._driver.failed)

    async def stop(self) -> None:
        """Leave the consortium; the disk is as a crash would leave it, so a start continues. Twice does no harm."""
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.stop()
        self._closing.close()


# ---- the socket to the API half --------------------------------------------------------------------------------------


def _why(error: Exception) -> str:
    """One sentence for the API half. An error that nobody foresaw is logged, and the asker still gets an answer."""
    if isinstance(error, EdgoraError):
        return error.detail
    _log.error("a request of the API half failed", exc_info=error)
    return f"consensus failed on it: {type(error).__name__}"


class ConsensusSocket:
    """Serves one `LocalConsensus` to the API processes of this node."""

    def __init__(self, consensus: LocalConsensus, path: Path) -> None:
        self._consensus = consensus
        self._path = path
        self._server: asyncio.Server | None = None
        self._asking: dict[int, tuple[asyncio.StreamWriter, asyncio.Future[CallAnswer]]] = {}
        self._asked = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        # The directory lock makes us the only owner, so a socket file that is there is a dead one.
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        heights = self._spawn(self._tell_heights(writer))
        try:
            while True:
                message = await read_frame(reader, FROM_API)
                match message:
                    case Submit():
                        self._spawn(self._submit(message, writer))
                    case AskStatus():
                        self._spawn(self._status(message, writer))
                    case Call():
                        self._spawn(self._call(message, writer))
                    case Serve():
                        self._consensus.serve(self._asker(writer))
                    case CallAnswer():
                        asker, waiting = self._asking.get(message.id, (None, None))
                        if asker is writer and waiting is not None and not waiting.done():
                            waiting.set_result(message)
        except (OSError, EOFError):
            pass
        except Refused as error:
            _log.error("an API process was disconnected: %s", error.detail)
        finally:
            heights.cancel()
            for asker, waiting in self._asking.values():
                if asker is writer and not waiting.done():
                    waiting.set_exception(Unavailable("the API half of this node just went away"))
            self._writers.discard(writer)
            writer.close()

    async def _tell_heights(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(Unavailable, OSError):
            async for height in self._consensus.heights():
                write_frame(writer, Stored(height))
                await writer.drain()

    async def _submit(self, message: Submit, writer: asyncio.StreamWriter) -> None:
        try:
            said = SubmitAnswer(message.id, await self._consensus.submit(message.tx, message.hash), None)
        except Exception as error:
            said = SubmitAnswer(message.id, None, _why(error))
        write_frame(writer, said)

    async def _status(self, message: AskStatus, writer: asyncio.StreamWriter) -> None:
        try:
            said = StatusIs(message.id, await self._consensus.status(), None)
        except Exception as error:
            said = StatusIs(message.id, None, _why(error))
        write_frame(writer, said)

    async def _call(self, message: Call, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._consensus.call(message.server, message.request, message.timeout_ms)
            said = CallAnswer(message.id, answer, None)
        except Exception as error:
            said = CallAnswer(message.id, b"", _why(error))
        write_frame(writer, said)

    def _asker(self, writer: asyncio.StreamWriter) -> Callable[[int, bytes], Coroutine[object, object, bytes]]:
        async def ask(server: int, request: bytes) -> bytes:
            if writer.is_closing():
                raise Unavailable("the API half of this node is not up")
            self._asked += 1
            number = self._asked % 2**32
            waiting: asyncio.Future[CallAnswer] = asyncio.get_running_loop().create_future()
            self._asking[number] = writer, waiting
            try:
                write_frame(writer, Asked(number, server, request))
                answer = await asyncio.wait_for(waiting, 60)
            except TimeoutError:
                raise Unavailable("the API half of this node does not answer") from None
            finally:
                del self._asking[number]
            if answer.refusal is not None:
                raise Unavailable(answer.refusal)
            return answer.answer

        return ask

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


# ---- the process -----------------------------------------------------------------------------------------------------


class ConsensusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a consensus process is told (TOML). Paths are relative to the file's folder."""

    genesis_file: str
    """The canonical genesis document."""
    index: int
    signer_key_file: str
    """secp256k1 secret in hex."""
    link_key_file: str
    """Ed25519 secret, 32 octets in hex."""
    data_dir: str
    socket: str
    """Unix socket for the API half."""
    endpoints: tuple[str, ...]
    """host:port of each validator's links, by index, as the others reach it."""
    bind: str = ""
    """host:port to listen on; empty: our own endpoint."""
    observer: bool = False
    require_log: bool = False
    segment_octets: int = SEGMENT_OCTETS
    check_threads: int = 2
    lie_file: str = ""
    """Where the scenario allows faults: names the lie that this node tells (node.lies). Empty: none, ever."""
    log_level: str = "INFO"


def read_config(path: Path) -> ConsensusConfig:
    """Raises Refused, naming the setting at fault."""
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=ConsensusConfig)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", field="config") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Refused(f"{path}: {error}", field="config") from None
    names = ("genesis_file", "signer_key_file", "link_key_file", "data_dir", "socket")
    return msgspec.structs.replace(found, **{name: str(path.parent / getattr(found, name)) for name in names})


def _endpoint(text: str) -> LinkEndpoint:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 2**16:
        raise Refused(f"{text!r} is not host:port", field="endpoints")
    return LinkEndpoint(host.strip("[]"), int(port))


def _secret(path: str) -> bytes:
    try:
        secret = bytes.fromhex(Path(path).read_text().strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} does not hold a secret in hex: {error}", field="key") from None
    if len(secret) != 32:
        raise Refused(f"{path} holds {len(secret)} octets, a secret has 32", field="key")
    return secret


def _genesis(path: Path) -> Genesis:
    try:
        return decode(path.read_bytes(), Genesis)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", field="genesis_file") from None


async def run(config: ConsensusConfig, make_application: Callable[[Genesis], Application]) -> None:
    """One node until SIGTERM or SIGINT; raises what stopped the replica otherwise."""
    genesis = _genesis(Path(config.genesis_file))
    if not 0 <= config.index < len(genesis.validators) or len(config.endpoints) != len(genesis.validators):
        raise Refused(f"genesis has {len(genesis.validators)} validators: give index and one endpoint each")
    signing_key = SigningKey(_secret(config.signer_key_file))
    link_key = LinkKey.from_secret(_secret(config.link_key_file))
    clock = SystemClock()
    endpoints = [_endpoint(text) for text in config.endpoints]
    identity = Identity(genesis, config.index, signing_key, link_key)
    links: Transport = tls_links(identity, endpoints, clock, _endpoint(config.bind) if config.bind else None)
    if config.lie_file:
        from edgora.node.lies import EquivocatingLinks, LieFile

        links = EquivocatingLinks(links, signing_key, genesis.ledger_domain(), LieFile(Path(config.lie_file)))
    node = ConsensusNode(
        genesis,
        config.index,
        signing_key,
        link_key,
        Path(config.data_dir),
        links,
        clock,
        make_application(genesis),
        observer=config.observer,
        require_log=config.require_log,
        segment_octets=config.segment_octets,
        check_threads=config.check_threads,
    )
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, enough.set)
    try:
        await node.start()
        socket = ConsensusSocket(node.consensus, Path(config.socket))
        await socket.start()
    except OSError as error:
        await node.stop()
        raise Refused(f"the node cannot start: {error}") from error
    # All that lives now lives to the end: keep the collector from walking it again and again.
    gc.freeze()
    _log.info("validator %d of genesis %s is up at height %d", config.index, genesis.id.hex(), node.store.height())
    waits = [asyncio.ensure_future(enough.wait()), asyncio.ensure_future(node.failed())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not enough.is_set():
            waits[1].result()
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await socket.stop()
        await node.stop()


def market(genesis: Genesis) -> Application:
    """The application of the product in its genesis state."""
    return Market(
        genesis.market,
        genesis.servers,
        len(genesis.validators),
        genesis.ledger_domain(),
        genesis.market_domain(),
        genesis.chain_id,
        genesis.market_address,
    )


def main(make_application: Callable[[Genesis], Application] = market) -> int:
    """Exit status of the process: 0 after a signal, 2 for a refused start, 1 when the replica had to stop."""
    parser = argparse.ArgumentParser(prog="edgora.node.consensus", description="The consensus half of an Edgora node.")
    parser.add_argument("--config", type=Path, required=True, help="TOML file; see ConsensusConfig")
    arguments = parser.parse_args()
    try:
        config = read_config(arguments.config)
        logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        asyncio.run(run(config, make_application))
    except Refused as error:
        sys.stderr.write(f"{error.detail}\n" + (f"{error.fix}\n" if error.fix else ""))
        return 2
    except EdgoraError as error:
        sys.stderr.write(f"{error.detail}\n" + (f"{error.fix}\n" if error.fix else ""))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
