"""The shipped kernels as /board.json tells them: names for the ledger's digests, and what `edgora submit` takes.

The ledger knows modules by digest and a device knows kernels by name; the page shows both, and writes the command that
hands a user's file and options to a kernel (client.kernels has the rules).
"""

from dataclasses import dataclass
from typing import Final, Literal

from edgora.wire.kernels import Manifest, load, names

__all__ = ["BoardKernel", "KernelOption", "shipped_kernels"]

FileKind = Literal["picture", "octets", "json", "nothing"]

_FILES: Final[dict[str, FileKind]] = {
    "sobel": "picture", "blur": "picture", "hashpuzzle": "octets", "nftcheck": "json",
    "matmul": "nothing", "spin": "nothing", "cachemiss": "nothing",
}  # fmt: skip
"""What a kernel's file is. matmul draws its matrices where it is given no file, which is how the page calls it."""
_FROM_FILE: Final = {"width", "height", "channels"}
"""Arguments that follow from a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelOption:
    """A whole number that a user may give as `--arg name=value`."""

    name: str
    meaning: str
    least: int
    most: int | None
    default: int | None
    """What the kernel's manifest takes; null: the client chooses one that fits the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardKernel:
    digest: str
    """Module digest, 0x-hex."""
    name: str
    title: str
    summary: str
    file: FileKind
    args_octets: int
    """Length of its packed arguments, from which a sealed input's length follows."""
    options: list[KernelOption]


def _options(manifest: Manifest) -> list[KernelOption]:
    if _FILES[manifest.name] == "json":  # all of it stands in the file
        return []
    return [
        KernelOption(name=a.name, meaning=a.meaning, least=a.least, most=a.most, default=a.default)
        for a in manifest.arguments
        if a.type in {"u32", "u64"} and a.name not in _FROM_FILE
    ]


def shipped_kernels() -> list[BoardKernel]:
    """All of them, by name."""
    return [
        BoardKernel(
            digest=f"0x{load(name).digest.hex()}", name=name, title=load(name).manifest.title,
            summary=load(name).manifest.summary, file=_FILES[name],
            args_octets=load(name).manifest.arguments_octets, options=_options(load(name).manifest),
        )
        for name in names()
    ]  # fmt: skip
