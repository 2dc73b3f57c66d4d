"""COCO's run-length encoding of a mask, class by class: column by column, counts as text."""

from collections.abc import Iterator

import numpy as np

_BITS = 5  # of a count in a letter
_LETTERS = 7  # for a count or difference of 32 bits
_FIRST = 48  # "0"
_MORE = 32  # set in a letter that another one follows


def encode_classes(mask_HW: np.ndarray) -> Iterator[tuple[int, str, int, list[int]]]:
    """Of every class on the mask: id, counts as COCO's text, area, and box (x, y, width, height).

    The counts alternate between pixels that are not of the class and pixels that are, down the
    columns from the top left.
    """
    height = mask_HW.shape[0]
    values = np.ascontiguousarray(mask_HW.T).reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))
    stops = np.append(starts[1:], values.size)
    classes = values[starts]
    order = np.argsort(classes, kind="stable")
    found, firsts = np.unique(classes[order], return_index=True)
    for class_id, runs in zip(found, np.split(order, firsts[1:]), strict=True):
        edges = np.stack([starts[runs], stops[runs]], axis=1).reshape(-1)
        counts = np.diff(edges, prepend=0)
        if edges[-1] < values.size:
            counts = np.append(counts, values.size - edges[-1])
        area = int(counts[1::2].sum())
        box = _box(starts[runs], stops[runs], height)
        yield int(class_id), counts_to_text(counts), area, box


def counts_to_text(counts: np.ndarray) -> str:
    """COCO's text for counts: from the fourth on the difference to the last but one, 5 bits a letter."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    shifts = _BITS * np.arange(_LETTERS)
    letters_NL = (values[:, None] >> shifts) & 31
    # A letter is the last when the rest of the number is but its sign.
    rest_NL = values[:, None] >> (shifts + _BITS)
    is_last_NL = rest_NL == np.where(letters_NL & 16, -1, 0)
    last_N = is_last_NL.argmax(axis=1)
    place_L = np.arange(_LETTERS)
    letters_NL |= np.where(place_L < last_N[:, None], _MORE, 0)
    kept = letters_NL[place_L <= last_N[:, None]] + _FIRST
    return kept.astype(np.uint8).tobytes().decode("ascii")


def _box(starts: np.ndarray, stops: np.ndarray, height: int) -> list[int]:
    """The box around runs; a run that goes on in the next column touches top and bottom."""
    first, last = starts // height, (stops - 1) // height
    left, right = int(first.min()), int(last.max())
    wraps = first != last
    top = 0 if wraps.any() else int((starts % height).min())
    bottom = height - 1 if wraps.any() else int(((stops - 1) % height).max())
    return [left, top, right - left + 1, bottom - top + 1]
