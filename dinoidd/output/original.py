"""Original images again, small, decoded as they were when they were segmented."""

from PIL import Image

from dinoidd.data.image import decode_image
from dinoidd.storage import ObjectReader

_MAX_BYTES = 512 << 20
_MAX_PIXELS = 1 << 30


def read_original(
    reader: ObjectReader, uri: str, box: tuple[int, int]
) -> tuple[tuple[int, int], Image.Image]:
    """The full (width, height) of an image after EXIF rotation, and the image, fitted into `box`.

    Raises:
        StorageError: the object cannot be read.
        ImageError: it is not an image, or not a whole one.
    """
    image = decode_image(reader.read(uri, _MAX_BYTES), max_pixels=_MAX_PIXELS).image
    scale = min(box[0] / image.width, box[1] / image.height)
    small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.size, image.resize(small, Image.Resampling.LANCZOS)
