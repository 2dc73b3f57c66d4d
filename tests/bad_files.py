"""Files of every bad and odd kind that turn up in a bucket of street images, each with what it is."""

import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from image_files import encoded, oriented, picture, png
from PIL import Image

MAX_BYTES = 100_000


def _noise(height: int = 40, width: int = 60) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _frames(kind: str) -> bytes:
    first, *rest = (picture(seed=s) for s in range(3))
    return encoded(first, kind, save_all=True, append_images=rest)


def _jpeg(**options: object) -> bytes:
    return encoded(picture(), "JPEG", **options)


def _noisy(kind: str, **options: object) -> bytes:
    return encoded(_noise(), kind, **options)


def _cut(data: bytes, keep: float | int) -> bytes:
    """The first part of a file: a share, or (negative) all but so many bytes."""
    return data[: keep if isinstance(keep, int) else round(len(data) * keep)]


def _hole(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64 :]


def _with_segment(marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment behind its first two bytes."""
    data = _jpeg()
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def _claims(width: int, height: int) -> bytes:
    """A small JPEG whose header says another size."""
    data = bytearray(_jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _bomb() -> bytes:
    side = 20_000
    return png(side, side, 1, 0, bytes((side // 8 + 1) * side))


def _interlaced() -> bytes:
    """Grey, 13 x 9, in the seven passes of Adam7."""
    pixels, rows = np.arange(13 * 9, dtype=np.uint8).reshape(9, 13), b""
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    for y, x, down, right in [*starts, (1, 0, 2, 1)]:
        rows += b"".join(b"\0" + line.tobytes() for line in pixels[y::down, x::right] if line.size)
    data = bytearray(png(13, 9, 8, 0, rows))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def _bad_checksum() -> bytes:
    data = bytearray(_noisy("PNG"))
    at = data.index(b"IDAT") + 40
    data[at] ^= 0xFF
    return bytes(data)


def _transparent_palette() -> bytes:
    return encoded(picture().convert("P"), "PNG", transparency=3)


def _float_tiff() -> bytes:
    return encoded(
        Image.fromarray(np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)), "TIFF"
    )


def _deep(kind: str) -> bytes:
    ramp = np.linspace(0, 65_535, 24 * 36).reshape(24, 36).astype(np.uint16)
    return encoded(Image.fromarray(ramp), kind)


CONTENTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty.jpg": ("no bytes", lambda: b""),
    "one-byte.jpg": ("one byte", lambda: b"\xff"),
    "zeros.jpg": ("zeros, of a disk that was full", lambda: bytes(4096)),
    "text.jpg": ("text", lambda: b"not an image\n" * 9),
    "error-page.jpg": ("an HTML error page", lambda: b"<!DOCTYPE html><h1>404 Not Found</h1>"),
    "drawing.png": ("SVG", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "scan.tif": ("PDF", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"),
    "archive.jpg": ("a ZIP archive", lambda: b"PK\3\4" + bytes(60)),
    "phone.jpg": ("HEIC", lambda: struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(99)),
    "camera.tif": ("camera RAW (CR2)", lambda: b"II*\0\x10\0\0\0CR\2\0" + bytes(64)),
    "new.jpg": ("JPEG XL", lambda: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)),
    "animation.png": ("a GIF animation", lambda: _frames("GIF")),
    "still.jpg": ("AVIF", lambda: encoded(picture(), "AVIF")),
    "cinema.jpg": ("JPEG 2000", lambda: encoded(picture(), "JPEG2000")),
    "icon.png": ("ICO", lambda: encoded(picture(32, 32), "ICO")),
    "plain.bmp": ("BMP", lambda: encoded(picture(), "BMP")),
    "lossless.webp": ("lossless WebP", lambda: encoded(picture(), "WEBP", lossless=True)),
    "animation.webp": ("a WebP animation", lambda: _frames("WEBP")),
    "animated.png": ("an animated PNG", lambda: _frames("PNG")),
    "half.webp": ("the first half of a WebP", lambda: _cut(_noisy("WEBP"), 0.5)),
    "jpeg-2-bytes.jpg": ("JPEG, its first 2 bytes", lambda: _cut(_noisy("JPEG"), 2)),
    "jpeg-header.jpg": ("JPEG, cut in its header", lambda: _cut(_noisy("JPEG"), 100)),
    "jpeg-half.jpg": ("JPEG, its first half", lambda: _cut(_noisy("JPEG"), 0.5)),
    "jpeg-99.jpg": ("JPEG, its first 99 %", lambda: _cut(_noisy("JPEG"), 0.99)),
    "jpeg-no-end.jpg": ("JPEG without its end mark", lambda: _cut(_noisy("JPEG"), -2)),
    "jpeg-more.jpg": ("JPEG with bytes behind its end", lambda: _jpeg() + b"more" * 99),
    "jpeg-hole.jpg": ("JPEG with 64 zeros inside", lambda: _hole(_noisy("JPEG"))),
    "jpeg-claims.jpg": ("JPEG that claims 65,000 x 65,000", lambda: _claims(65_000, 65_000)),
    "jpeg-flat.jpg": ("JPEG that claims no rows", lambda: _claims(44, 0)),
    "progressive.jpg": ("progressive JPEG", lambda: _jpeg(progressive=True)),
    "cmyk.jpg": ("CMYK JPEG", lambda: encoded(picture().convert("CMYK"), "JPEG")),
    "grey.jpg": ("grey JPEG", lambda: encoded(picture().convert("L"), "JPEG")),
    "turned.jpg": ("JPEG turned by EXIF", lambda: _jpeg(exif=oriented(6))),
    "exif-9.jpg": ("EXIF orientation 9, which is none", lambda: _jpeg(exif=oriented(9))),
    "exif-broken.jpg": (
        "broken EXIF",
        lambda: _with_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    ),
    "icc-broken.jpg": ("a broken colour profile", lambda: _jpeg(icc_profile=b"no profile")),
    "stereo.jpg": ("MPO, two pictures", lambda: _frames("MPO")),
    "png-half.png": ("PNG, its first half", lambda: _cut(_noisy("PNG"), 0.5)),
    "png-header.png": ("PNG, cut in its header", lambda: _cut(_noisy("PNG"), 20)),
    "png-no-end.png": ("PNG without its end chunk", lambda: _cut(_noisy("PNG"), -12)),
    "png-checksum.png": ("PNG with a wrong byte", _bad_checksum),
    "png-no-size.png": ("PNG of 0 x 0 pixels", lambda: png(0, 0, 8, 2, b"")),
    "interlaced.png": ("interlaced PNG", _interlaced),
    "bilevel.png": ("1-bit PNG", lambda: encoded(picture().convert("1"), "PNG")),
    "deep-grey.png": ("16-bit grey PNG", lambda: _deep("PNG")),
    "deep-color.png": (
        "16-bit colour PNG",
        lambda: png(4, 2, 16, 2, (b"\0" + bytes(range(24))) * 2),
    ),
    "palette.png": ("palette PNG with transparency", _transparent_palette),
    "alpha.png": ("PNG with alpha", lambda: encoded(picture().convert("RGBA"), "PNG")),
    "grey-alpha.png": ("grey PNG with alpha", lambda: encoded(picture().convert("LA"), "PNG")),
    "bomb.png": ("a decompression bomb", _bomb),
    "dot.png": ("1 x 1", lambda: encoded(picture(1, 1), "PNG")),
    "column.png": ("1 x 5,000", lambda: encoded(Image.new("RGB", (1, 5_000)), "PNG")),
    "wide.png": ("60,000 pixels wide", lambda: encoded(Image.new("RGB", (60_000, 3)), "PNG")),
    "deep.tif": ("16-bit TIFF", lambda: _deep("TIFF")),
    "float.tif": ("TIFF of floats", _float_tiff),
    "pages.tif": ("TIFF with three pages", lambda: _frames("TIFF")),
    "half.tif": ("TIFF, its first half", lambda: _cut(_noisy("TIFF"), 0.5)),
    "really-png.jpg": ("PNG under the name of a JPEG", lambda: encoded(picture(), "PNG")),
    "heavy.bmp": ("over --max-bytes", lambda: encoded(picture(200, 200), "BMP")),
}
NAMES = {
    "a b.png": "a space",
    "a#b?.png": "`#` and `?`",
    "100%.png": "a percent sign",
    "a%2Fb.png": "`%2F`",
    "glob*[x].png": "the letters of a glob",
    "caf\u00e9.png": "composed Unicode (NFC)",
    "cafe\u0301.png": "decomposed Unicode (NFD)",
    "größe-日本-🚗.png": "several scripts",
    "_under.png": "a leading underscore",
    "-dash.png": "a leading dash",
    "quote'\".png": "quotes",
    "back\\slash.png": "a backslash",
    "line\nbreak.png": "a line break",
    "red\x1b[31m.png": "a terminal's control letters",
    f"{'x' * 251}.png": "255 letters",
    ".hidden.png": "a leading dot",
    os.fsdecode(b"latin-\xe9.png"): "not UTF-8",
}


def write_bad_files(folder: Path) -> None:
    """Make them all."""
    for name, (_, make) in CONTENTS.items():
        (folder / name).write_bytes(make())
    (folder / "names").mkdir()
    for name in NAMES:
        (folder / "names" / name).write_bytes(encoded(picture(), "PNG"))


SPECIAL: dict[str, tuple[str, Callable[[Path], object]]] = {
    "link.png": ("a link to an image", lambda p: p.symlink_to(p.parent / "dot.png")),
    "dangling.png": ("a link to nothing", lambda p: p.symlink_to(p.parent / "nothing")),
    "circle.png": ("a link to itself", lambda p: p.symlink_to(p)),
    "device.png": ("a link to a device", lambda p: p.symlink_to("/dev/zero")),
    "pipe.png": ("a named pipe", lambda p: os.mkfifo(p)),
    "socket.png": ("a socket", lambda p: _socket(p)),
    "sparse.png": ("8 GB of nothing", lambda p: _sparse(p)),
    "folder.png/inside.png": ("an image in a folder named like one", lambda p: _inside(p)),
}
LATER: dict[str, tuple[str, Callable[[Path], object]]] = {
    "vanished.png": ("removed after it was indexed", lambda p: p.unlink()),
    "changed.png": ("another size than when indexed", lambda p: p.write_bytes(_jpeg())),
    "now-a-folder.png": ("a folder since it was indexed", lambda p: (p.unlink(), p.mkdir())),
}


def _socket(path: Path) -> None:
    here = os.getcwd()  # noqa: PTH109 (such a path may have 108 letters only)
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 33)


def _inside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(encoded(picture(), "PNG"))
