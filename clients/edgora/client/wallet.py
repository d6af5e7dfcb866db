"""The keys of a UE: one to sign with, one to open results with. Both stay on the device, in one file of mode 0600."""

import os
from pathlib import Path
from typing import Self

import msgspec

from edgora.crypto.keys import SealingKey
from edgora.crypto.sign import SigningKey
from edgora.wire.errors import Refused
from edgora.wire.units import Address

__all__ = ["Wallet"]


class _KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    address: str
    signing_key: str
    sealing_key_pem: str


class Wallet:
    """A UE's signing key (secp256k1) and sealing key (RSA-3072)."""

    __slots__ = ("sealing", "signing")

    def __init__(self, signing: SigningKey, sealing: SealingKey) -> None:
        self.signing = signing
        self.sealing = sealing

    @property
    def address(self) -> Address:
        return self.signing.address

    @classmethod
    def generate(cls) -> Self:
        """Fresh keys from the system's entropy; RSA takes some 0.1 to 1 s."""
        return cls(SigningKey(os.urandom(32)), SealingKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Keys from a file. Refuses a file that others can read, or that is not ours."""
        try:
            mode = path.stat().st_mode & 0o777
            data = path.read_bytes()
        except OSError as error:
            raise Refused(f"key file {path}: {error.strerror}", field="key") from None
        if mode & 0o077:
            raise Refused(
                f"key file {path} has mode {mode:04o}; others can read it", field="key", fix=f"chmod 600 {path}"
            )
        try:
            file = msgspec.json.decode(data, type=_KeyFile)
            wallet = cls(
                SigningKey(bytes.fromhex(file.signing_key)), SealingKey.from_pem(file.sealing_key_pem.encode())
            )
        except (msgspec.DecodeError, ValueError) as error:
            raise Refused(f"key file {path} does not hold Edgora keys: {error}", field="key") from None
        if file.address != "0x" + wallet.address.hex():
            raise Refused(f"key file {path} names {file.address}, its key is 0x{wallet.address.hex()}", field="key")
        return wallet

    def save(self, path: Path) -> None:
        """Write a new file of mode 0600. Never overwrites: a lost key is a lost deposit."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = _KeyFile(1, "0x" + self.address.hex(), self.signing.secret.hex(), self.sealing.to_pem().decode())
        data = msgspec.json.format(msgspec.json.encode(file), indent=1)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise Refused(f"key file {path} exists; it is not overwritten", field="key") from None
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())

    @classmethod
    def open(cls, path: Path) -> tuple[Self, bool]:
        """The keys in the file, made first if there is none. The second value says whether they are new."""
        if path.exists():
            return cls.load(path), False
        wallet = cls.generate()
        wallet.save(path)
        return wallet, True

    def __repr__(self) -> str:
        return f"Wallet(0x{self.address.hex()})"
