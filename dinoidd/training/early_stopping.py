"""The best epoch so far, and when to stop waiting for a better one."""

import math


class BestEpoch:
    """Keeps the epoch of the highest mIoU. NaN, where no pixel could be judged, is never better."""

    def __init__(self, epoch: int = 0, miou: float = math.nan) -> None:
        self.epoch, self.miou = epoch, miou

    def update(self, epoch: int, miou: float) -> bool:
        """Whether this one is the best so far; of equals the first."""
        better = not math.isnan(miou) and not miou <= self.miou
        if better:
            self.epoch, self.miou = epoch, miou
        return better

    def exhausted(self, epoch: int, patience: int | None) -> bool:
        """Whether `patience` epochs in a row were no better."""
        return patience is not None and epoch - self.epoch >= patience
