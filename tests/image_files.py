"""Image files in memory, some of which Pillow reads but cannot write."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

LIMIT = 100_000_000  # pixels


def picture(height: int = 30, width: int = 44, seed: int = 0) -> Image.Image:
    """A smooth RGB picture, so that lossy formats stay near it."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """What Pillow alone makes of the bytes."""
    return Image.open(io.BytesIO(data))


def oriented(orientation: int) -> Image.Exif:
    """EXIF that says how the image is turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a street"
    return exif


def png(width: int, height: int, bits: int, color: int, rows: bytes) -> bytes:
    """A PNG with any header; `rows` are its raw lines, each with its filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
