"""Makes photo.png: a lake at dusk before mountains, from arithmetic and a hash alone.

    python clients/edgora/client/data/make_photo.py

Same samples on every machine: integers and midpoint displacement, no float library calls that differ. The file's bytes
may differ with zlib; tests compare samples.
"""

import hashlib
import io
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT, SHORE = 320, 240, 150


def noise(*place: int | str) -> int:
    """0 to 255, from the place's hash."""
    return hashlib.sha256(repr(place).encode()).digest()[0]


def ridge(name: str, low: int, high: int, rough: int) -> list[int]:
    """Heights of a mountain range, one a column: midpoint displacement over 512 columns."""
    heights = {0: (low + high) // 2, 512: (low + high) // 2}
    step, swing = 512, high - low
    while step > 1:
        half = step // 2
        for left in range(0, 512, step):
            mid = (heights[left] + heights[left + step]) // 2
            heights[left + half] = mid + (noise(name, left, step) - 128) * swing // 256
        step, swing = half, swing * rough // 100
    return [min(max(heights[x], low), high) for x in range(WIDTH)]


def blend(a: tuple[int, int, int], b: tuple[int, int, int], part: int, whole: int) -> tuple[int, int, int]:
    r, g, blue = ((p * (whole - part) + q * part) // whole for p, q in zip(a, b, strict=True))
    return r, g, blue


def scene() -> list[list[tuple[int, int, int]]]:
    """Rows of pixels: sky, sun, three ranges, trees, and their reflection."""
    far, near = ridge("far", 62, 118, 52), ridge("near", 96, 140, 56)
    trees = [SHORE - 5 - noise("tree", x // 3) // 22 - noise("top", x) // 90 for x in range(WIDTH)]
    rows = []
    for y in range(SHORE):
        sky = blend((38, 58, 110), (250, 178, 112), y, SHORE)
        row = []
        for x in range(WIDTH):
            away = (x - 226) ** 2 + (y - 84) ** 2
            pixel = (255, 240, 200) if away < 170 else blend((255, 226, 168), sky, min(away, 5200), 5200)
            if y >= far[x]:
                pixel = blend((104, 96, 138), (176, 132, 138), y - far[x], 90)
            if y >= near[x]:
                light = max(near[min(x + 3, WIDTH - 1)] - near[x], -6) + 6
                pixel = blend((52, 54, 84), (112, 86, 96), min(light, 12), 16)
            if y >= trees[x]:
                pixel = blend((14, 22, 24), (30, 42, 36), noise("leaf", x, y), 512)
            row.append(pixel)
        rows.append(row)
    for y in range(SHORE, HEIGHT):
        depth = y - SHORE
        mirrored = max(SHORE - 1 - depth * 3 // 2, 0)
        shift = (noise("wave", y) - 128) * (4 + depth) // 600
        row = []
        for x in range(WIDTH):
            pixel = rows[mirrored][min(max(x + shift, 0), WIDTH - 1)]
            row.append(blend(pixel, (20, 32, 62), 70 + depth, 230))
        rows.append(row)
    return rows


def png() -> bytes:
    """The picture with a little grain, as an optimised PNG."""
    samples = bytearray()
    for y, row in enumerate(scene()):
        for x, pixel in enumerate(row):
            grain = (noise("grain", x // 2, y // 2) >> 7) * 2
            samples += bytes(min(c + grain, 255) & 0xFC | 1 for c in pixel)
    file = io.BytesIO()
    Image.frombytes("RGB", (WIDTH, HEIGHT), bytes(samples)).save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    Path(__file__).with_name("photo.png").write_bytes(png())
