"""In what numbers a model computes: the names, and which one a device does best with."""

import torch

from dinoidd.errors import ConfigError
from dinoidd.inference.device import pick_device
from dinoidd.models import Segmenter, SegmenterConfig
from dinoidd.models.quantised import quantise

# Of weights as they are loaded. The last two are bfloat16 but for the backbone's matrices.
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float8": torch.bfloat16,
    "int8": torch.bfloat16,
}
_QUANTISED = ("float8", "int8")
_FLOAT8_CAPABILITY = (8, 9)  # of the first GPUs that multiply it: Ada, then Hopper
_NARROW = 384  # backbone width below which a CPU gains nothing: its time is not in matrices


def check_dtype(name: str) -> None:
    """Raises ConfigError: there is no such dtype; the message lists those there are."""
    if name != "auto" and name not in DTYPES:
        raise ConfigError(f"unknown dtype '{name}': there are {', '.join(DTYPES)}")


def pick_dtype(name: str, device: str, config: SegmenterConfig) -> str:
    """A name of `DTYPES`. `auto` is bfloat16 on GPUs and, for models that gain from it, on CPUs that
    multiply it (AMX, AVX512-BF16); float32 elsewhere.

    The device may be another machine's; `check_gpu` asks this one's.

    Raises:
        ConfigError: there is no such dtype, or no such device computes in it.
    """
    check_dtype(name)
    picked = pick_device(device)
    if name == "float8" and not picked.startswith("cuda"):
        raise _no_float8(f"the device is {picked}")
    if name != "auto":
        return name
    if picked.startswith("cuda"):
        return "bfloat16"
    wide = config.backbone.embed_dim >= _NARROW
    return "bfloat16" if wide and cpu_multiplies_bfloat16() else "float32"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this machine's CPU has instructions for it."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def check_gpu(name: str, device: str) -> None:
    """Raises ConfigError: this machine's GPU cannot compute in that dtype."""
    if name == "float8" and device.startswith("cuda") and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability(device)
        if capability < _FLOAT8_CAPABILITY:
            gpu = torch.cuda.get_device_name(device)
            raise _no_float8(f"{gpu} has {'.'.join(map(str, capability))}")


def _no_float8(reason: str) -> ConfigError:
    return ConfigError(
        f"--dtype float8 needs a GPU of compute capability 8.9 (Ada, Hopper) or newer, and {reason}: "
        "use int8 or bfloat16"
    )


def in_dtype(model: Segmenter, name: str) -> Segmenter:
    """A model loaded as `DTYPES[name]` has it, made to compute in that dtype."""
    return quantise(model, name) if name in _QUANTISED else model
