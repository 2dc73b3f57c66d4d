"""Two runs compared as a whole: counts that add up, and the images that differ most."""

import heapq
import os
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dinoidd.ahead import ahead, batches
from dinoidd.diff.image import ImageDiff, diff_masks
from dinoidd.diff.masks import read_masks
from dinoidd.diff.matching import NAMED, Matching, Pair
from dinoidd.metrics import iou, tally
from dinoidd.output.reader import RunReader

_PAIRS_AT_ONCE = 128  # masks of 1080p streets: 2 x 5 MB, three times: in hand and ahead
_CHANGES = 12


@dataclass(kw_only=True)
class Comparison:
    """What is known after every image; memory is a few numbers an image, and the `keep` worst ones."""

    names: list[str]  # of the classes
    keep: int
    left_out: dict[str, int] = field(default_factory=dict)
    named: dict[str, list[str]] = field(default_factory=dict)
    matrix: np.ndarray = field(init=False)  # int64 [K + 1, K + 1], rows A, columns B
    equal_shares: array = field(default_factory=lambda: array("d"))  # of each image, in order
    _worst: list[tuple[float, int, ImageDiff]] = field(default_factory=list)

    def __post_init__(self) -> None:
        side = len(self.names) + 1
        self.matrix = np.zeros((side, side), np.int64)

    def add(self, image: ImageDiff) -> None:
        """Count one image."""
        if image.matrix is None:
            assert image.problem is not None
            self.left_out[image.problem] = self.left_out.get(image.problem, 0) + 1
            named = self.named.setdefault(image.problem, [])
            if len(named) < NAMED:
                named.append(f"{image.uri} ({image.detail})")
            return
        self.matrix += image.matrix
        self.equal_shares.append(image.equal_share)
        entry = (1 - image.equal_share, -len(self.equal_shares), image)  # the first one of equals
        if len(self._worst) < self.keep:
            heapq.heappush(self._worst, entry)
        else:
            heapq.heappushpop(self._worst, entry)

    @property
    def images(self) -> int:
        """How many were compared."""
        return len(self.equal_shares)

    @property
    def pixels(self) -> int:
        return int(self.matrix.sum())

    @property
    def equal_share(self) -> float:
        """Of all pixels, 0..1; NaN where nothing could be compared."""
        return int(np.trace(self.matrix)) / self.pixels if self.pixels else float("nan")

    def most_different(self) -> list[ImageDiff]:
        """The images that differ most, the most different first; equal ones last, if there is room."""
        return [image for _, _, image in sorted(self._worst, reverse=True)]

    def per_image(self) -> dict[str, float]:
        """Equal pixels of an image, as shares: mean, quantiles, and how many images are equal."""
        shares = np.array(self.equal_shares)
        if not shares.size:
            return {}
        least, p05, median = np.quantile(shares, [0, 0.05, 0.5]).tolist()
        equal = int((shares == 1).sum())
        return {
            "mean": float(shares.mean()),
            "median": median,
            "p05": p05,
            "least": least,
            "equal_images": equal,
        }

    def classes(self) -> list[dict[str, Any]]:
        """Each class: pixels in A, B and both, lost and gained ones, and IoU (None if in neither)."""
        K = len(self.names)
        both, gained, lost = tally(self.matrix, K).T.tolist()
        ious = iou(tally(self.matrix, K)).tolist()
        return [
            {
                "name": self.names[i],
                "pixels_a": both[i] + lost[i],
                "pixels_b": both[i] + gained[i],
                "pixels_both": both[i],
                "lost": lost[i],
                "gained": gained[i],
                "iou": None if np.isnan(ious[i]) else ious[i],
            }
            for i in range(K)
        ]

    def changes(self) -> list[dict[str, Any]]:
        """The most frequent ways in which pixels changed class."""
        K = len(self.names)
        moved = self.matrix[:K, :K].copy()
        np.fill_diagonal(moved, 0)
        order = [int(i) for i in np.argsort(-moved, axis=None, kind="stable")[:_CHANGES]]
        return [
            {
                "from": self.names[i // K],
                "to": self.names[i % K],
                "pixels": int(moved.flat[i]),
                "share": int(moved.flat[i]) / self.pixels,
                "share_of_class": int(moved.flat[i]) / int(self.matrix[i // K].sum()),
            }
            for i in order
            if moved.flat[i]
        ]


def compare(
    a: RunReader, b: RunReader, matching: Matching, *, keep: int, each: Callable[[ImageDiff], None]
) -> Comparison:
    """Compare all masks that both runs have, as a stream.

    Args:
        keep: how many of the most different images are kept with their masks.
        each: is told every image, in A's order.

    Raises:
        OutputError, StorageError: a run cannot be read.
    """
    comparison = Comparison(
        names=a.table.names,
        keep=keep,
        left_out={kind: count for kind, count in matching.left_out.items() if count},
        named=matching.named(),
    )
    for image in _diffs(a, b, matching):
        comparison.add(image)
        each(image)
    return comparison


def _diffs(a: RunReader, b: RunReader, matching: Matching) -> Iterator[ImageDiff]:
    """Masks are read a little ahead of the threads that compare them."""
    classes = len(a.table)

    def read(pairs: list[Pair]) -> list[tuple[str, bytes | None, bytes | None]]:
        of_a = read_masks(a, {p.a_id for p in pairs})
        of_b = read_masks(b, {p.b_id for p in pairs})
        return [(p.uri, of_a[p.a_id], of_b[p.b_id]) for p in pairs]

    def work(task: tuple[str, bytes | None, bytes | None]) -> ImageDiff:
        return diff_masks(*task, classes)

    pieces = (piece for batch in matching.pairs() for piece in batches(batch, _PAIRS_AT_ONCE))
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(threads) as workers:
        tasks = (task for piece in ahead(reader, read, pieces, 1) for task in piece)
        yield from ahead(workers, work, tasks, 2 * threads)
