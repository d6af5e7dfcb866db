"""What stands inside a sealed input (README.md, Sealing): the module's arguments and its data.

A WASI command gets `args` split at NUL octets as its arguments and `data` on standard input; a bare module gets
`args || data` in one buffer, so its arguments have a layout of fixed length that it knows (wire.kernels describes the
layout of ours).
"""

import msgspec

from edgora.wire.codec import decode, encode

__all__ = ["TaskInput"]


class TaskInput(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Plaintext of an input: canonical MessagePack [args, data]."""

    args: bytes
    data: bytes

    def pack(self) -> bytes:
        return encode(self)

    @classmethod
    def unpack(cls, plaintext: bytes) -> "TaskInput":
        """Raises WireError for anything but the canonical form; says nothing of the content."""
        return decode(plaintext, cls)

    def __repr__(self) -> str:
        return f"TaskInput({len(self.args)} + {len(self.data)} octets, hidden)"
