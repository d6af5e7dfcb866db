"""Back up and restore a stopped node's home: keys, log, ledger, sealed bulk, in one archive of mode 0600.

Rule 1: never of a running node. Two instances of one identity are the twin fault (ledger.md 12), and a copy of a log
        that is being written is no log. The lock of the data directory decides.
Rule 2: an import goes into an empty home only, and the archive's checksums are compared before anything is written.
"""

import hashlib
import os
import tarfile
from pathlib import Path

import msgspec

from edgora.adapters.wal_files import DataDirectory
from edgora.wire.errors import Refused

__all__ = ["export_node", "import_node"]

_MANIFEST = "edgora-backup.json"
_SKIPPED = frozenset(("consensus.sock", "consensus.toml", "lock"))


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    files: dict[str, str]
    """Path -> SHA-256."""


def _files(home: Path) -> list[Path]:
    return sorted(p for p in home.rglob("*") if p.is_file() and not p.is_symlink() and p.name not in _SKIPPED)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def export_node(home: Path, archive: Path) -> int:
    """Write the archive; the number of files. Raises Conflict while the node runs, Refused if there is no node."""
    if not (home / "signer.key").exists():
        raise Refused(f"{home} is no node's home: it has no signer.key", field="home")
    lock = DataDirectory(home / "consensus")
    try:
        manifest = _Manifest(1, {str(p.relative_to(home)): _digest(p) for p in _files(home)})
        listing = home / _MANIFEST
        listing.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        handle = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as out, tarfile.open(fileobj=out, mode="w:gz") as tar:
                for name in (_MANIFEST, *manifest.files):
                    tar.add(home / name, arcname=name, recursive=False)
                tar.close()
                out.flush()
                os.fsync(out.fileno())
        finally:
            listing.unlink()
        return len(manifest.files)
    except FileExistsError:
        raise Refused(f"{archive} exists; it is not overwritten", field="archive") from None
    finally:
        lock.close()


def import_node(archive: Path, home: Path) -> int:
    """Restore an archive into an empty home; the number of files. Raises Refused if it is damaged or home is not empty."""
    if home.exists() and any(home.iterdir()):
        raise Refused(f"{home} is not empty; a node is restored into an empty home only", field="home")
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            head = tar.next()
            if head is None or head.name != _MANIFEST:
                raise Refused(f"{archive} is no backup of a node", field="archive")
            source = tar.extractfile(head)
            assert source is not None
            manifest = msgspec.json.decode(source.read(), type=_Manifest)
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            tar.extractall(home, members=[m for m in tar if m.isfile() and m.name in manifest.files], filter="data")
    except (OSError, EOFError, tarfile.TarError, msgspec.DecodeError) as error:
        raise Refused(f"{archive} cannot be read: {error}", field="archive") from None
    for name, digest in manifest.files.items():
        if not (home / name).is_file() or _digest(home / name) != digest:
            raise Refused(
                f"{name} in {archive} is damaged; nothing may start from it",
                field="archive",
                fix=f"empty {home} and take another backup",
            )
    return len(manifest.files)
