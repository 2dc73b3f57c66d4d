"""The learning rate over the optimiser steps of a run."""

import math


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """What the learning rates are multiplied by: linear warm-up, then a half cosine down to 0.

    Args:
        step: the one about to be made, from 0.
        steps: of the whole run.
        warmup: steps before the full rate is reached.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
