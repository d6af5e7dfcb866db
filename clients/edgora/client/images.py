"""Pictures in and out: files of any usual format to raw rasters, rasters to PNG.

A raster is what the image kernels take and give: width, height, channels (u32 each, little endian) and the samples row
by row, one octet each, gray or RGB. Decoding stands on the client's side on purpose: a kernel then does arithmetic and
no parsing, and its fuel follows from the picture's size alone. Pillow does the decoding; phones' pictures are JPEG.
"""

import io
import struct
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from edgora.wire.errors import Refused, TooLarge, WireError

__all__ = ["MAX_SAMPLES", "Raster", "photo"]

MAX_SAMPLES: Final = 16 * 1024 * 1024 - 1024
"""Largest input of a task (market.md 8), less room for arguments and framing."""

_FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_HEAD: Final = struct.Struct("<III")
_MODES: Final = {1: "L", 3: "RGB"}


@dataclass(frozen=True, slots=True)
class Raster:
    """An image as samples. channels is 1 (gray) or 3 (RGB)."""

    width: int
    height: int
    channels: int
    samples: bytes = field(repr=False)

    @classmethod
    def from_file(cls, file: bytes) -> "Raster":
        """Decode a picture: upright as the camera says, transparency on white, gray stays gray.

        Raises TooLarge before decoding if it has more than MAX_SAMPLES samples, Refused if it is no picture.
        """
        try:
            with Image.open(io.BytesIO(file), formats=_FORMATS) as opened:
                gray = opened.mode in {"1", "L", "LA", "I;16"}
                count = opened.width * opened.height * (1 if gray else 3)
                if count > MAX_SAMPLES:
                    raise TooLarge(
                        f"the picture is {opened.width} x {opened.height}: {count} samples; at most {MAX_SAMPLES} fit",
                        field="FILE", fix="scale it down first",
                    )  # fmt: skip
                image = _flat(ImageOps.exif_transpose(opened), gray)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise Refused(
                f"not a picture that can be read; {', '.join(_FORMATS)} can", field="FILE",
            ) from None  # fmt: skip
        return cls(image.width, image.height, 1 if gray else 3, image.tobytes())

    @classmethod
    def from_octets(cls, octets: bytes) -> "Raster":
        """Read what an image kernel gave. Raises WireError if header and length do not fit."""
        if len(octets) < _HEAD.size:
            raise WireError("the raster has no header")
        width, height, channels = _HEAD.unpack_from(octets)
        if channels not in _MODES or not width or not height or width * height * channels + _HEAD.size != len(octets):
            raise WireError(f"{len(octets)} octets are no raster of {width} x {height} x {channels}")
        return cls(width, height, channels, octets[_HEAD.size :])

    def to_octets(self) -> bytes:
        """As image kernels read and write it."""
        return _HEAD.pack(self.width, self.height, self.channels) + self.samples

    def to_png(self) -> bytes:
        image = Image.frombytes(_MODES[self.channels], (self.width, self.height), self.samples)
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        return file.getvalue()

    def crop(self, left: int, top: int, width: int, height: int) -> "Raster":
        """A part of the raster; it must lie inside."""
        image = Image.frombytes(_MODES[self.channels], (self.width, self.height), self.samples)
        part = image.crop((left, top, left + width, top + height))
        return Raster(width, height, self.channels, part.tobytes())


def photo() -> bytes:
    """A small picture that ships with the client, as PNG: something to send when there is nothing else."""
    return (files("edgora.client") / "data" / "photo.png").read_bytes()


def _flat(image: Image.Image, gray: bool) -> Image.Image:
    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if gray else "RGB")
