"""The device that a model is on."""

import torch


def pick_device(name: str = "auto") -> str:
    """`cuda` or `cpu`; `auto` is the GPU where this machine has one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
