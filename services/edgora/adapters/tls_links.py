"""Links over TLS 1.3 and TCP: the carrier of the process and container runs (ledger.md 17).

Both sides show a certificate and trust only the anchors of the link keys that genesis pins (`crypto.links`), so OpenSSL
refuses a stranger. Host names mean nothing: whoever holds the pinned key is the peer, wherever it answers.
"""

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from edgora.adapters.links import Identity, LinkLimits, Links, Stream
from edgora.crypto.links import LinkKey, anchor_pem, certified_key
from edgora.ports.clock import Clock
from edgora.wire.genesis import LinkEndpoint

__all__ = ["TlsCarrier", "link_context", "tls_links"]

_BUFFERED = 256 * 1024
_HANDSHAKE_S = 5.0
_SHUTDOWN_S = 1.0


def link_context(key: LinkKey, peers: Sequence[bytes], *, server: bool) -> ssl.SSLContext:
    """TLS 1.3 only, our certificate, and as trust anchors the link keys (SPKI DER) of these peers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=b"".join(map(anchor_pem, peers)).decode())
    if server:
        # A resumed session would skip the certificates; each connection proves its key anew.
        context.num_tickets = 0
    # The ssl module takes a key from a file only. The folder is ours alone (0700) and gone at once.
    with tempfile.TemporaryDirectory(prefix="edgora-link-") as folder:
        path = Path(folder, "link.pem")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.private_pem() + key.certificate_pem())
        context.load_cert_chain(path)
    return context


class _TlsStream:
    """`links.Stream` over asyncio's TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        writer.transport.set_write_buffer_limits(high=_BUFFERED)
        session: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = session.getpeercert(binary_form=True)
        if certificate is None:
            raise ConnectionError("the peer showed no certificate")
        self._peer_key = certified_key(certificate)

    @property
    def peer_key(self) -> bytes:
        return self._peer_key

    async def readexactly(self, count: int) -> bytes:
        return await self._reader.readexactly(count)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


class TlsCarrier:
    """Listens on our endpoint, dials the others' (one endpoint a validator, by index)."""

    def __init__(
        self, key: LinkKey, index: int, peers: Sequence[bytes], endpoints: Sequence[LinkEndpoint], bind: LinkEndpoint
    ) -> None:
        others = [spki for i, spki in enumerate(peers) if i != index]
        self._server_context = link_context(key, others, server=True)
        self._client_context = link_context(key, others, server=False)
        self._endpoints = endpoints
        self._bind = bind
        self._server: asyncio.Server | None = None
        self._streams: set[_TlsStream] = set()

    async def listen(self, accept: Callable[[Stream], Awaitable[None]]) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stream = _TlsStream(reader, writer)
            self._streams.add(stream)
            try:
                await accept(stream)
            finally:
                self._streams.discard(stream)

        self._server = await asyncio.start_server(
            connected,
            self._bind.host,
            self._bind.port,
            ssl=self._server_context,
            ssl_handshake_timeout=_HANDSHAKE_S,
            ssl_shutdown_timeout=_SHUTDOWN_S,
        )

    @property
    def port(self) -> int:
        """Where we listen: of interest if the bind port was 0."""
        if self._server is None:
            raise RuntimeError("not listening")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def dial(self, peer: int) -> Stream:
        there = self._endpoints[peer]
        reader, writer = await asyncio.open_connection(
            there.host,
            there.port,
            ssl=self._client_context,
            server_hostname="",
            ssl_handshake_timeout=_HANDSHAKE_S,
            ssl_shutdown_timeout=_SHUTDOWN_S,
        )
        return _TlsStream(reader, writer)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for stream in list(self._streams):
                stream.abort()
            with contextlib.suppress(OSError):
                await self._server.wait_closed()


def tls_links(
    identity: Identity,
    endpoints: Sequence[LinkEndpoint],
    clock: Clock,
    bind: LinkEndpoint | None = None,
    limits: LinkLimits | None = None,
) -> Links:
    """The transport of a validator whose peers listen at these endpoints, ours included (bind overrides it locally)."""
    keys = [v.link_key for v in identity.genesis.validators]
    carrier = TlsCarrier(identity.link_key, identity.index, keys, endpoints, bind or endpoints[identity.index])
    return Links(identity, carrier, clock, limits)
