"""Label images: 8-bit grey PNGs whose values mean classes."""

import io

import numpy as np
from PIL import Image

# As the masks of a run are written: see dinoidd.output.mask.
_ZLIB = {"compress_level": 1, "compress_type": 3}


def encode_labels(values_HW: np.ndarray) -> bytes:
    """A grey PNG of uint8 values. Not a palette PNG: OpenCV would read its colours."""
    return encode_png(Image.fromarray(values_HW))


def encode_png(image: Image.Image) -> bytes:
    """A PNG that is quick to write, and small for pictures of areas."""
    png = io.BytesIO()
    image.save(png, "PNG", **_ZLIB)
    return png.getvalue()
