"""Arithmetic in float32 proper."""

import torch


def exact_float32(dtype: torch.dtype) -> None:
    """Where that is float32, let this process's GPUs compute convolutions in it too.

    By torch's default they round the inputs to TF32, of 10 bits. Matrix products do not, by default.
    """
    if dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False
