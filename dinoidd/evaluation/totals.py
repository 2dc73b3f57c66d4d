"""The sums of an evaluation: everything that its figures are made of."""

from dataclasses import dataclass, field

import numpy as np

from dinoidd.data.label_counts import Tally
from dinoidd.evaluation.counting import Counted, FrameCounts, Problem
from dinoidd.evaluation.counts_file import dense
from dinoidd.evaluation.frames import Frame
from dinoidd.metrics import tally


@dataclass(kw_only=True)
class Totals:
    """Counts over all frames; `tallies` has TP, FP and FN of every class in every frame."""

    classes: int
    matrix: np.ndarray = field(init=False)  # int64 [K + 1, K + 1]
    boundary: np.ndarray = field(init=False)  # int64 [K, 3]
    truth: Tally = field(default_factory=Tally)  # the raw values of the ground truth
    predicted: Tally = field(default_factory=Tally)  # and of the predictions
    boundary_widths: set[int] = field(default_factory=set)  # pixels
    frames: list[Frame] = field(default_factory=list)
    tallies: list[np.ndarray] = field(default_factory=list)  # int32 [K, 3], 0.3 kB for 26 classes
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((self.classes + 1, self.classes + 1), np.int64)
        self.boundary = np.zeros((self.classes, 3), np.int64)

    def add(self, counted: Counted) -> None:
        """Add what came back for a batch."""
        for counts in counted.frames:
            self.add_frame(counts)
        self.truth.merge(counted.truth)
        self.predicted.merge(counted.predicted)
        self.boundary_widths |= counted.boundary_widths
        self.problems += counted.problems

    def add_frame(self, counts: FrameCounts) -> None:
        matrix = dense(counts, self.classes)
        self.matrix += matrix
        self.boundary += counts.boundary
        self.frames.append(counts.frame)
        self.tallies.append(tally(matrix, self.classes).astype(np.int32))

    def stacked(self) -> np.ndarray:
        """The tallies as int64 [N, K, 3], in the order of `frames`."""
        if not self.tallies:
            return np.zeros((0, self.classes, 3), np.int64)
        return np.stack(self.tallies).astype(np.int64)

    def by_drive(self) -> dict[str, np.ndarray]:
        """The tallies [n, K, 3] of every drive's frames, drives sorted."""
        rows: dict[str, list[np.ndarray]] = {}
        for frame, counts in zip(self.frames, self.tallies, strict=True):
            rows.setdefault(frame.sequence, []).append(counts)
        return {drive: np.stack(rows[drive]).astype(np.int64) for drive in sorted(rows)}
