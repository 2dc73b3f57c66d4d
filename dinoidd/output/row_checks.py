"""Whether rows of `images/` hold together: what one row says must agree with itself."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinoidd.classes import ClassTable
from dinoidd.output.findings import Findings

# Of `mask` only the path: it is empty, and it tells whether there is a mask without reading any.
COLUMNS = [
    *("image_id", "uri", "status", "error_kind", "error", "height", "width", "mask.path"),
    *("pixels", "fraction", "confidence", "entropy", "margin"),
]
_MEANS = ("confidence", "entropy", "margin")
_ROUNDING = 1e-6  # of a float32 in 0..1


class RowChecks:
    """The checks of one batch of rows with the columns COLUMNS; all of it vectorised."""

    def __init__(self, batch: pa.RecordBatch, table: ClassTable, findings: Findings) -> None:
        self.batch, self.table, self.findings = batch, table, findings
        self.ids = _numpy(batch["image_id"])
        status = batch["status"].cast(pa.string())
        self.ok = _numpy(pc.equal(status, "ok"))
        self.error = _numpy(pc.equal(status, "error"))
        self.has_mask = _numpy(batch["mask"].is_valid())
        self.height, self.width = (_integers(batch[n], missing=0) for n in ("height", "width"))
        self.area = self.height * self.width

    def run(self) -> None:
        """Add all that is wrong to the findings."""
        self._check_status()
        self._check_reasons()
        self._check_sizes()
        self._check_counts()
        for name in _MEANS:
            self._check_mean(name)

    def _check_status(self) -> None:
        ok, error = self.ok, self.error
        self._tell(
            "unknown status",
            ~ok & ~error,
            self._value("has status {}, neither 'ok' nor 'error'", "status"),
        )
        self._tell("mask missing", ok & ~self.has_mask, _says("is ok, but has no mask"))
        self._tell("mask of an error", error & self.has_mask, _says("is an error, but has a mask"))

    def _check_reasons(self) -> None:
        for name in ("error_kind", "error"):
            column = self.batch[name]
            filled = _numpy(pc.greater(pc.utf8_length(column), 0).fill_null(False))
            self._tell("reason missing", self.error & ~filled, _says(f"is an error without {name}"))
            wrong = self.ok & _numpy(column.is_valid())
            self._tell("ok with an error", wrong, self._value(f"is ok, but has {name} {{}}", name))

    def _check_sizes(self) -> None:
        bad = self.ok & ((self.height <= 0) | (self.width <= 0))
        self._tell("no size", bad, lambda i: f"is ok, but its size is {self._size(i)}")

    def _check_counts(self) -> None:
        """`pixels` against the size, then `fraction` against `pixels`, where the former holds."""
        pixels = np.stack([_integers(c, missing=-1) for c in self.batch["pixels"].flatten()])
        uncounted = pixels < 0
        bad = self.ok & uncounted.any(axis=0)
        self._tell(
            "pixels missing",
            bad,
            lambda i: f"has no number in pixels.{self.table.fields[uncounted[:, i].argmax()]}",
        )
        sized = self.ok & ~bad & (self.area > 0)
        sums = pixels.sum(axis=0)
        self._tell(
            "pixels do not add up",
            sized & (sums != self.area),
            lambda i: f"has {sums[i]:,} pixels counted, but {self._size(i)} are {self.area[i]:,}",
        )
        self._check_fractions(pixels, sized)

    def _check_fractions(self, pixels: np.ndarray, sized: np.ndarray) -> None:
        fractions = np.stack([_floats(c) for c in self.batch["fraction"].flatten()])
        expected = pixels / np.maximum(self.area, 1)
        wrong = ~(np.abs(fractions - expected) <= _ROUNDING)  # NaN is wrong, too

        def sentence(i: int) -> str:
            k = int(wrong[:, i].argmax())
            name = self.table.fields[k]
            told, right = f"{fractions[k, i]:.6g}", f"{expected[k, i]:.6g}"
            return f"has fraction.{name} {told}, but pixels.{name} make {right}"

        self._tell("wrong fraction", sized & wrong.any(axis=0), sentence)

    def _check_mean(self, name: str) -> None:
        values = _floats(self.batch[name])
        bad = self.ok & ~((values >= 0) & (values <= 1))
        self._tell(f"wrong {name}", bad, lambda i: f"has {name} {values[i]:.6g}, not one in 0 to 1")

    def _tell(self, kind: str, bad: np.ndarray, sentence: Callable[[int], str]) -> None:
        rows = np.flatnonzero(bad)
        self.findings.add_rows(kind, rows, lambda i: f"image {self.ids[i]} {sentence(i)}")

    def _value(self, text: str, column: str) -> Callable[[int], str]:
        return lambda i: text.format(repr(self.batch[column][i].as_py()))

    def _size(self, i: int) -> str:
        return f"{self.width[i]}x{self.height[i]}"


def _says(text: str) -> Callable[[int], str]:
    return lambda _: text


def _numpy(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)


def _integers(column: pa.Array, missing: int) -> np.ndarray:
    return _numpy(column.cast(pa.int64()).fill_null(missing))


def _floats(column: pa.Array) -> np.ndarray:
    """float64, null as NaN."""
    return _numpy(column.cast(pa.float64()).fill_null(float("nan")))
