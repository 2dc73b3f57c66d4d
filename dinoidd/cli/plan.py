"""`dinoidd plan`: what a run will need, told before anything is rented or allocated."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from dinoidd.cli import plan_segment
from dinoidd.cli.options import add_storage_options
from dinoidd.errors import ConfigError

if TYPE_CHECKING:
    from dinoidd.models import SegmenterConfig
    from dinoidd.training.config import TrainConfig
    from dinoidd.training.memory_plan import MemoryPlan, Phase

DOES_NOT_FIT = 1
_NUMBERS = {
    "--batch-size": "images a step, over all workers",
    "--image-size": "pixels of the model's square",
    "--workers": "processes that train together",
}
PLANS = """\
The options above are those of `dinoidd plan segment`, which is meant where no plan is named.
`dinoidd plan train --help` says what a training's memory is planned from.
"""
EXAMPLES = """\
Planned are the tensors of a step, on the assumption that every image shows every class, and 1 GB for CUDA
itself where it is used. No weights are read or made, and no Ray is needed.

examples:
  dinoidd plan train --recipe idd_20ep --preset vit7b16 --gpu-memory 40GB
  dinoidd plan train --recipe idd_20ep --preset vitl16 --set trained=head micro_batch=2

exit status: 0; 1 where it does not fit; 2 for an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    plan_segment.add_arguments(parser)  # `dinoidd plan --manifest ...` plans a segmentation
    parser.epilog = PLANS
    plans = parser.add_subparsers(dest="plan", metavar="PLAN")
    text = "time, cost, GPUs, cores and output size of a segmentation"
    segment = plans.add_parser("segment", help=text, description=text.capitalize() + ".")
    plan_segment.add_arguments(segment)
    segment.set_defaults(mistaken=segment.error)
    text = "peak memory of a training"
    train = plans.add_parser("train", help=text, description=text.capitalize() + ".")
    train.set_defaults(mistaken=train.error)
    train.formatter_class = argparse.RawDescriptionHelpFormatter
    train.epilog = EXAMPLES
    train.add_argument("--recipe", metavar="NAME|FILE", help="as of `dinoidd train`")
    train.add_argument(
        "--set",
        dest="settings",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any setting of the recipe, by its dotted name",
    )
    for option, text in _NUMBERS.items():
        train.add_argument(option, type=int, metavar="N", help=f"{text} (the recipe's)")
    train.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), default="auto", help="(auto: the recipe's)"
    )
    model = train.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", metavar="FILE", help="the base; its header is read alone")
    model.add_argument("--preset", metavar="NAME", help="or a preset's sizes (the recipe's)")
    train.add_argument(
        "--gpu-memory", metavar="SIZE", help="of one device, like 40GB: does it fit?"
    )
    train.add_argument("--json", action="store_true", help="print JSON")
    add_storage_options(train)


def run(args: argparse.Namespace) -> int:
    if args.plan == "train":
        return _plan_training(args)
    if args.plan is None and args.manifest is None and args.input is None:
        raise ConfigError(
            "what is to be planned? `dinoidd plan segment --manifest OUTPUT --checkpoint FILE`, or "
            "`dinoidd plan train --recipe NAME`; --help says more"
        )
    return plan_segment.run(args)


def _plan_training(args: argparse.Namespace) -> int:
    from dinoidd.training.linear import for_head
    from dinoidd.training.memory_plan import parse_bytes, plan_memory
    from dinoidd.training.recipes import resolve

    room = None if args.gpu_memory is None else parse_bytes(args.gpu_memory)
    # where data and output are does not matter to memory
    config = resolve(
        args.recipe,
        args.settings,
        data="-",
        output="-",
        checkpoint=args.checkpoint,
        preset=args.preset,
        endpoint_url=args.endpoint_url,
        batch_size=args.batch_size,
        image_size=args.image_size,
        workers=args.workers,
        **_device(args.device),
    )
    model = _model(config)
    plan = plan_memory(model, for_head(config, model, config))
    fits = room is None or plan.peak <= room
    if args.json:
        told = {
            "gpu_memory": room,
            "fits": fits,
            "advice": [] if fits or room is None else plan.advice(room),
        }
        print(json.dumps(plan.to_dict() | (told if room is not None else {}), indent=1))
    else:
        print(_table(plan))
        if room is not None:
            print(_answer(plan, room))
    return 0 if fits else DOES_NOT_FIT


def _device(device: str) -> dict[str, Any]:
    """As `dinoidd train` understands its --device."""
    if device == "auto":
        return {}
    return {"use_gpu": device == "cuda"} | ({"accelerator_type": "none"} if device == "cpu" else {})


def _model(config: "TrainConfig") -> "SegmenterConfig":
    from dinoidd.checkpoint.model import read_model_info
    from dinoidd.classes import load_class_table
    from dinoidd.models import preset
    from dinoidd.models.config import resized
    from dinoidd.training.samples import storage_of

    classes = len(load_class_table(config.classes))
    if config.checkpoint is not None:
        info = read_model_info(config.checkpoint, storage_of(config))
        return resized(info.config, classes=classes)
    assert config.preset is not None
    return resized(preset(config.preset), classes=classes)


def _table(plan: "MemoryPlan") -> str:
    config, size = plan.config, plan.config.image_size or plan.model.image_size
    lines = [
        f"{plan.model.name} at {size}x{size}, {plan.config.trained} trained: "
        f"{plan.trained_parameters:,} numbers, {config.precision}"
        + (", activation checkpointing" if config.activation_checkpointing else "")
        + (f", {config.workers} workers" if config.workers > 1 else "")
        + (f", sharding {config.sharding}" if config.sharding != "none" else "")
    ]
    for phase in plan.phases:
        images = f"{phase.images} image{'s' if phase.images > 1 else ''} a forward"
        lines.append(f"{phase.name}, {images}")
        lines += [f"  {name:<34}{_shown(value):>12}" for name, value in _rows(phase).items()]
    told = "peak, with 1 GB for CUDA itself" if plan.overhead else "peak of the tensors"
    lines.append(f"{told:<36}{_shown(plan.peak):>12}")
    return "\n".join(lines)


def _rows(phase: "Phase") -> dict[str, int]:
    rows = {f"weights, {n}": b for n, b in phase.weights.items() if b > 1000}
    rows |= {"gradients": phase.gradients, "optimiser's moments": phase.optimizer}
    rows |= {"activations kept for backward": phase.activations}
    rows |= {"more, at the worst moment": phase.transient, "workers' exchange": phase.exchange}
    return {name: size for name, size in rows.items() if size} | {"together": phase.peak}


def _answer(plan: "MemoryPlan", room: int) -> str:
    left = room - plan.peak
    if left >= 0:
        return f"fits {_shown(room)}: yes, {_shown(left)} left"
    remedies = plan.advice(room)
    if plan.held <= room:
        tries = ", or ".join(remedies)
        return f"fits {_shown(room)}: no, {_shown(-left)} too much. Try --set {tries}"
    others = ", or ".join(["a larger GPU or a smaller model", *remedies])
    return (
        f"fits {_shown(room)}: no, the weights and their moments alone take {_shown(plan.held)}. "
        f"Take {others}"
    )


def _shown(size: int) -> str:
    """`12.9 GB`, `340 MB`, `0.2 MB`."""
    if size >= 10**9:
        return f"{size / 10**9:.1f} GB"
    return f"{size / 10**6:,.0f} MB" if size >= 10**7 else f"{size / 10**6:.1f} MB"
