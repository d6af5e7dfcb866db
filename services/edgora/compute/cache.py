"""Compiled modules, kept by digest: the most recent in memory, all of them in a folder if one is given.

A file is SHA-256(rest) || canonical MessagePack of an Artifact; a file that is damaged counts as absent. An artifact is
machine code that will be run, so the folder must be the node's own (it is made with mode 0700); its name in there says
engine and module, so another engine never finds it. A module is compiled once however many ask for it at one time.
"""

import hashlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from edgora.compute.engine import ENGINE
from edgora.compute.module import BadModule
from edgora.wire.codec import U16, decode, encode
from edgora.wire.errors import WireError
from edgora.wire.hashing import keccak
from edgora.wire.units import ModuleDigest

__all__ = ["Artifact", "ArtifactCache"]

_REFUSALS: Final = 1024
_HEAD: Final = 32


class Artifact(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A compiled module and what its outline said."""

    wasi: bool
    has_start: bool
    memory_pages: U16
    code: bytes

    def __repr__(self) -> str:
        return f"Artifact({len(self.code)} octets)"


class ArtifactCache:
    """Artifacts by module digest, least recently used first to go. Safe to use from many threads."""

    def __init__(self, octets: int, folder: Path | None = None) -> None:
        """Keep at most so many octets in memory; folder None keeps nothing elsewhere."""
        self._room = octets
        self._held: OrderedDict[bytes, Artifact] = OrderedDict()
        self._octets = 0
        self._refused: OrderedDict[bytes, str] = OrderedDict()
        self._pending: dict[bytes, threading.Lock] = {}
        self._lock = threading.Lock()
        self._folder = None if folder is None else folder / keccak(ENGINE.encode()).hex()[:16]
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, digest: ModuleDigest) -> Artifact | None:
        """The artifact, from memory or folder. Raises BadModule if the module is known to be a bad one."""
        with self._lock:
            if digest in self._refused:
                raise BadModule(self._refused[digest])
            artifact = self._held.get(digest)
            if artifact is not None:
                self._held.move_to_end(digest)
                return artifact
        artifact = self._load(digest)
        if artifact is not None:
            self._keep(digest, artifact)
        return artifact

    def get_or_make(self, digest: ModuleDigest, make: Callable[[], Artifact]) -> Artifact:
        """The artifact, made by the first who asks while the others wait. BadModule is remembered, other errors not."""
        with self._lock:
            turn = self._pending.setdefault(digest, threading.Lock())
        try:
            with turn:
                artifact = self.get(digest)
                if artifact is None:
                    artifact = self._made(digest, make)
                return artifact
        finally:
            with self._lock:
                self._pending.pop(digest, None)

    def _made(self, digest: ModuleDigest, make: Callable[[], Artifact]) -> Artifact:
        try:
            artifact = make()
        except BadModule as error:
            with self._lock:
                self._refused[digest] = error.detail
                while len(self._refused) > _REFUSALS:
                    self._refused.popitem(last=False)
            raise
        self._keep(digest, artifact)
        self._save(digest, artifact)
        return artifact

    def _keep(self, digest: ModuleDigest, artifact: Artifact) -> None:
        with self._lock:
            if digest in self._held or len(artifact.code) > self._room:
                return
            self._held[digest] = artifact
            self._octets += len(artifact.code)
            while self._octets > self._room:
                _, gone = self._held.popitem(last=False)
                self._octets -= len(gone.code)

    def _load(self, digest: ModuleDigest) -> Artifact | None:
        if self._folder is None:
            return None
        try:
            stored = (self._folder / digest.hex()).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return decode(stored[_HEAD:], Artifact) if _sealed(stored[_HEAD:]) == stored else None
        except WireError:
            return None

    def _save(self, digest: ModuleDigest, artifact: Artifact) -> None:
        """Whole or not at all; a full disk costs a compilation next time, not this run."""
        if self._folder is None:
            return
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(_sealed(encode(artifact)))
            Path(file.name).replace(self._folder / digest.hex())
        except OSError:
            return


def _sealed(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest() + octets
