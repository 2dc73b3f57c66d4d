"""How large a cache will be, told before it is written.

Shapes: L prediction layers, Q queries, C decoder width, K classes, P points, S side of the square.
"""

import math

from dinoidd.models import SegmenterConfig
from dinoidd.training.config import TrainConfig

_PICTURE_IMAGES = 8  # validation images whose pixels are kept, to be looked at
_FLOAT = 4  # bytes
_CLASSES = 12  # of a street image; labels are not read for an estimate


def row_bytes(
    config: TrainConfig, model: SegmenterConfig, image_size: int, *, validation: bool
) -> int:
    """About how many bytes an image takes, in one view."""
    width = 2 if config.precision == "bfloat16" else _FLOAT  # of queries and masks
    layers = model.decoder.query_layers + 1 if config.deep_supervision else 1
    queries = model.decoder.queries
    size = layers * queries * model.decoder.width * width
    if config.loss.kind == "pixel":
        size += config.loss.points * (layers * queries * width + 1)
    else:
        size += 4 * layers * queries * min(model.classes, _CLASSES) * _FLOAT
    if validation:
        size += queries * (image_size // 4) ** 2 * width + image_size**2
    return size


def rows_per_file(row: int, rows: int, *, batch: int, actors: int, target: int = 64 << 20) -> int:
    """Whole batches of rows that make a file of about `target` bytes, fewer in a small run.

    A file is the unit of work too, so that all actors are busy to the end of it.
    """
    fair_share = max(1, math.ceil(rows / (4 * actors)))
    wanted = min(max(1, target // row), fair_share)
    return max(1, round(wanted / batch)) * batch


def pictured(row: int) -> bool:
    """Whether a validation row keeps its pixels."""
    return row < _PICTURE_IMAGES
