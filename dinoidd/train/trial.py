"""One trial of a sweep: what Ray Tune runs in a process of its own."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from dinoidd.errors import DivergedError
from dinoidd.train.allocator import expandable_segments
from dinoidd.train.cache import CacheRecord
from dinoidd.train.cached_feed import CachedFeed
from dinoidd.train.head_file import read_head
from dinoidd.train.plan import Plan
from dinoidd.train.relay import Nobody
from dinoidd.training.fit import fit
from dinoidd.training.records import EpochRecord
from dinoidd.training.world import Alone


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one combination of settings came to."""

    settings: dict[str, Any]
    miou: float  # NaN: no validation pixel could be judged, or the trial diverged
    epoch: int  # of that mIoU
    val_loss: float  # of that epoch
    seconds: float
    error: str | None = None  # why it diverged

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Smaller is better; the worst is to diverge, then NaN."""
        unknown = math.isnan(self.miou)
        return self.error is not None, unknown, 0.0 if unknown else -self.miou


def run_trial(
    params: dict[str, Any], *, plans: list[tuple[Plan, CacheRecord]], device: str
) -> None:
    """One combination. One that diverges has a result too: it would diverge again."""
    plan, record = plans[params["trial"]]
    expandable_segments()
    torch.set_num_threads(1)
    best = BestRecord()
    try:
        _fit(plan, record, torch.device(device), best)
    except DivergedError as error:
        tune.report(best.diverged(str(error)))
    else:
        tune.report(best.reached())


def _fit(plan: Plan, record: CacheRecord, device: torch.device, best: "BestRecord") -> None:
    head, _ = read_head(plan)
    world = Alone()
    fit(
        head.to(device),
        plan.config,
        CachedFeed(plan.cache, record, plan.config, world),
        world,
        best,
        device=device,
        save=lambda state, is_best: None,
    )


class BestRecord(Nobody):
    """A Recorder that keeps the best epoch."""

    def __init__(self) -> None:
        self.record: EpochRecord | None = None
        self.seconds = 0.0

    def epoch(self, record: EpochRecord) -> None:
        self.seconds += record.seconds
        if self.record is None or record.best_epoch == record.epoch:
            self.record = record

    def reached(self) -> dict[str, Any]:
        """The fields of a `Trial`, but for its settings."""
        assert self.record is not None
        return {
            "miou": self.record.miou,
            "epoch": self.record.epoch,
            "val_loss": self.record.val_loss,
            "seconds": self.seconds,
            "error": None,
        }

    def diverged(self, reason: str) -> dict[str, Any]:
        """The same of a trial that has no end worth keeping."""
        nothing = {"miou": math.nan, "epoch": 0, "val_loss": math.nan}
        return nothing | {"seconds": self.seconds, "error": reason}
