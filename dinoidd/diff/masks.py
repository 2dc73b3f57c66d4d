"""Masks of a run by image id."""

from collections.abc import Iterable

import numpy as np

from dinoidd.errors import OutputError
from dinoidd.exports.selection import read_rows
from dinoidd.output.reader import RunReader


def read_masks(run: RunReader, ids: Iterable[int]) -> dict[int, bytes | None]:
    """The PNGs of these images; of the row groups that hold them the masks alone are read.

    Raises:
        OutputError: an image has no row, or a file is damaged.
    """
    wanted = np.array(sorted(ids), np.int64)
    rows = read_rows(run, wanted, ["mask"])
    masks = {row["image_id"]: (row["mask"] or {}).get("bytes") for row in rows}
    lost = [i for i in wanted.tolist() if i not in masks]
    if lost:
        raise OutputError(f"{run.uri} has no row of image {lost[0]}: run `dinoidd verify` on it")
    return masks
