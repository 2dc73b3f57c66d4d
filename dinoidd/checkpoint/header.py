"""The header of a safetensors file, read through byte ranges: two small reads, wherever the file is."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from dinoidd.errors import CheckpointError

_LARGEST_HEADER = 100 << 20  # bytes; safetensors' own limit


@dataclass(frozen=True, kw_only=True)
class Header:
    """Text metadata, and each tensor's shape."""

    metadata: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def read_header(read: Callable[[int, int], bytes], size: int, label: str) -> Header:
    """Parse the header of a file of `size` bytes, given a function that reads bytes [start, stop).

    Raises:
        CheckpointError: not a safetensors file, or cut short.
    """
    length = int.from_bytes(read(0, 8), "little") if size >= 8 else size
    if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
        raise CheckpointError(
            f"{label} is not a safetensors file ({size:,} bytes, no valid header): "
            "make a checkpoint with 'dinoidd convert'"
        )
    try:
        entries = json.loads(read(8, 8 + length))
        metadata = entries.pop("__metadata__", {})
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{label} has a broken safetensors header: {error}") from error
    if 8 + length + end != size:
        raise CheckpointError(
            f"{label} is cut short or has surplus bytes: {size:,} bytes, its header says "
            f"{8 + length + end:,}. Copy it again."
        )
    return Header(metadata=metadata, shapes=shapes)
