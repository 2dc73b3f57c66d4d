"""Small data sets in IDD's layout with predictions, for the tests of the evaluation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dinoidd.cli import main

FIXTURE = Path(__file__).parent / "fixtures" / "idd_eval"
OFFICIAL = "gtFine_labellevel3Ids.png"


def save(path: Path, ids: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def street(seed: int, shape: tuple[int, int] = (36, 64)) -> np.ndarray:
    """Bands and boxes of IDD's classes, some void: uint8."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(shape, np.uint8)
    ids[: shape[0] // 2] = 25
    for _ in range(14):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        ids[y : y + 9, x : x + 12] = rng.choice([1, 2, 4, 5, 9, 12, 20, 22, 24, 255])
    ids[-1, -2:] = 0, 255
    return ids


def worse(ids: np.ndarray, seed: int, boxes: int = 3) -> np.ndarray:
    """A prediction: no void, and boxes of wrong classes."""
    rng = np.random.default_rng([seed, boxes])
    drawn = np.where(ids == 255, 0, ids).astype(np.uint8)
    for _ in range(boxes):
        y, x = rng.integers(0, ids.shape[0]), rng.integers(0, ids.shape[1])
        drawn[y : y + 5, x : x + 7] = rng.integers(0, 26)
    return drawn


@dataclass(frozen=True)
class SmallSet:
    """`root`/gtFine/val/DRIVE/NAME_gtFine_labellevel3Ids.png and `root`/pred/DRIVE/NAME..."""

    root: Path

    @property
    def truth(self) -> Path:
        return self.root / "gtFine" / "val"

    @property
    def pred(self) -> Path:
        return self.root / "pred"

    def label(self, drive: str, frame: str) -> Path:
        return self.truth / drive / f"{frame}_{OFFICIAL}"

    def drawn(self, drive: str, frame: str) -> Path:
        return self.pred / drive / f"{frame}_{OFFICIAL}"

    def evaluate(self, *args: object, rc: int = 0) -> dict[str, Any]:
        """The result of the command, whose exit status is checked."""
        return run("--data", self.root, "--predictions", self.pred, *args, rc=rc, to=self.root)


def make_set(root: Path, drives: int = 2, frames: int = 3) -> SmallSet:
    small = SmallSet(root)
    for index in range(drives * frames):
        drive, frame = str(index // frames), f"{index % frames:06d}"  # names repeat in every drive
        ids = street(index)
        save(small.label(drive, frame), ids)
        save(small.drawn(drive, frame), worse(ids, index))
    return small


def run(*args: object, rc: int = 0, to: Path) -> dict[str, Any]:
    """`dinoidd evaluate` in this process; its JSON."""
    out = to / "result.json"
    out.unlink(missing_ok=True)
    assert main(["evaluate", *map(str, args), "--json", str(out)]) == rc
    return json.loads(out.read_bytes())


def class_of(result: dict[str, Any], name: str, level: str | None = None) -> dict[str, Any]:
    level = level or result["finest_level"]
    return next(c for c in result["levels"][level]["classes"] if c["name"] == name)
