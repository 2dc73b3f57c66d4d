"""The device that a model is on."""

import torch

from dinoidd.errors import ConfigError


def pick_device(name: str = "auto") -> str:
    """`cuda` or `cpu`; `auto` is the GPU where this machine has one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name: str) -> str:
    """The device of that name. Raises ConfigError where torch cannot use it."""
    device = pick_device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device '{name}' cannot be used here ({reason}): choose auto or cpu"
        ) from error
    return device
