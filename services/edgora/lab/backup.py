"""Back up and restore a stopped node's home: keys, log, ledger, sealed bulk, in one archive of mode 0600.

Rule 1: never of a running node. Two instances of one identity are the twin fault (ledger.md 12), and a copy of a log
        that is being written is no log. The lock of the data directory decides.
Rule 2: an import goes into an empty home only, and leaves it empty if a file is not as it was.
Rule 3: what a validator signed after its backup was made is not in it. From an old backup it would sign something else
        for the same height, which is equivocation; so a restored node observes, unless whoever restores it says that
        this is the newest backup and that the node ran nowhere since.
"""

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import msgspec

from edgora.adapters.wal_files import DataDirectory
from edgora.wire.errors import Refused

__all__ = ["OBSERVER", "export_node", "import_node"]

OBSERVER = "observer"
"""A file in a home: this node follows the ledger and never votes."""
_OBSERVES = "restored from a backup that may not be the newest; from an old log a validator votes twice\n"
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


def export_node(home: Path, archive: Path | BinaryIO) -> int:
    """Write the archive, to a new file or a stream; the number of files.

    Raises Conflict while the node runs, Refused if there is no node or the file exists.
    """
    if not (home / "signer.key").exists():
        raise Refused(f"{home} is no node's home: it has no signer.key", field="home")
    lock = DataDirectory(home / "consensus")
    try:
        if not isinstance(archive, Path):
            return _write(home, archive)
        try:
            handle = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise Refused(
                f"{archive} cannot be made: {error.strerror}; nothing is overwritten", field="archive"
            ) from None
        with os.fdopen(handle, "wb") as out:
            count = _write(home, out)
            out.flush()
            os.fsync(out.fileno())
        return count
    finally:
        lock.close()


def _write(home: Path, out: BinaryIO) -> int:
    manifest = _Manifest(1, {str(p.relative_to(home)): _digest(p) for p in _files(home)})
    listing = msgspec.json.format(msgspec.json.encode(manifest))
    with tarfile.open(fileobj=out, mode="w|gz") as tar:
        head = tarfile.TarInfo(_MANIFEST)
        head.size, head.mode = len(listing), 0o600
        tar.addfile(head, io.BytesIO(listing))
        for name in manifest.files:
            tar.add(home / name, arcname=name, recursive=False)
    return len(manifest.files)


def import_node(archive: Path | BinaryIO, home: Path, *, votes: bool = False) -> int:
    """Restore an archive, from a file or a stream, into an empty home; the number of files.

    votes: the caller vouches for rule 3. Raises Refused if the archive is damaged, the home is not empty, or a node
    that only observed is to vote.
    """
    if home.exists() and any(home.iterdir()):
        raise Refused(f"{home} is not empty; a node is restored into an empty home only", field="home")
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / OBSERVER).write_text(_OBSERVES)  # first: should we die half way, what is there does not vote
        manifest = _read(archive, home)
        _check(manifest, home, votes=votes)
        if votes:
            (home / OBSERVER).unlink()
    except BaseException:
        _clear(home)
        raise
    return len(manifest.files)


def _read(archive: Path | BinaryIO, home: Path) -> _Manifest:
    try:
        with (
            tarfile.open(archive, mode="r:gz")
            if isinstance(archive, Path)
            else tarfile.open(fileobj=archive, mode="r|gz")
        ) as tar:
            head = tar.next()
            if head is None or head.name != _MANIFEST:
                raise Refused("the archive is no backup of a node", field="archive")
            source = tar.extractfile(head)
            assert source is not None
            manifest = msgspec.json.decode(source.read(), type=_Manifest)
            for member in tar:
                if member.isfile() and member.name in manifest.files:
                    content = tar.extractfile(member)
                    assert content is not None
                    _restore(home, member, content)
    except (OSError, EOFError, tarfile.TarError, msgspec.DecodeError) as error:
        raise Refused(f"the archive cannot be read: {error}", field="archive") from None
    return manifest


def _restore(home: Path, member: tarfile.TarInfo, content: IO[bytes]) -> None:
    """One file, durable; nothing outside the home and nothing that others may write."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise Refused(f"the archive names {member.name}, which is outside a home", field="archive")
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, member.mode & 0o755), "wb") as out:
        shutil.copyfileobj(content, out)
        out.flush()
        os.fsync(out.fileno())


def _check(manifest: _Manifest, home: Path, *, votes: bool) -> None:
    if votes and OBSERVER in manifest.files:
        raise Refused("this node only observed when it was backed up; it may not vote", field="votes")
    for name, digest in manifest.files.items():
        if not (home / name).is_file() or _digest(home / name) != digest:
            raise Refused(f"{name} in the archive is damaged", field="archive", fix="take another backup")


def _clear(home: Path) -> None:
    """Empty the home; it may be a mount point, so it stays itself."""
    for path in home.iterdir() if home.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
