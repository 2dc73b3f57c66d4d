"""What a piece of a run came to: counts that add up across chunks, files and workers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SECONDS = ("fetch", "decode", "model", "encode", "write")


@dataclass
class Tally:
    """Counts over images; `seconds` are summed over threads and processes."""

    images: int = 0
    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by error_kind
    pixels: Counter[str] = field(default_factory=Counter)  # by class field
    images_with: Counter[str] = field(default_factory=Counter)  # images that hold the class
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(SECONDS, 0.0)
    )  # by stage
    bytes_read: int = 0
    bytes_written: int = 0  # by output files

    def add(self, other: "Tally") -> None:
        self.images += other.images
        self.ok += other.ok
        self.bytes_read += other.bytes_read
        self.bytes_written += other.bytes_written
        for name in ("errors", "pixels", "images_with"):
            getattr(self, name).update(getattr(other, name))
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds

    @property
    def failed(self) -> int:
        return self.images - self.ok

    @property
    def error_rate(self) -> float:
        return self.failed / self.images if self.images else 0.0

    def counts(self) -> dict[str, Any]:
        """As run.json has them."""
        return {"images": self.images, "ok": self.ok, "errors": dict(self.errors)}

    def to_dict(self) -> dict[str, Any]:
        return {k: dict(v) if isinstance(v, dict) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Tally":
        counters = {k: Counter(values[k]) for k in ("errors", "pixels", "images_with")}
        return cls(**{**values, **counters, "seconds": dict(values["seconds"])})


def total(tallies: Iterable[Tally]) -> Tally:
    result = Tally()
    for tally in tallies:
        result.add(tally)
    return result
