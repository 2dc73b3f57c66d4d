"""`dinoidd plan segment`: what a segmentation run will take, from a sample of its images."""

import argparse
import json
from typing import TYPE_CHECKING

from dinoidd.cli.options import (
    add_accelerator_option,
    add_base_option,
    add_compile_option,
    add_dtype_option,
    add_storage_options,
    storage_options,
)
from dinoidd.cli.window_options import add_window_options, windows_of
from dinoidd.errors import ConfigError

if TYPE_CHECKING:
    from dinoidd.config import SegmentConfig
    from dinoidd.segment.plan import SegmentPlan, Took

EXAMPLES = """\
A sample goes through the job's own stages with one actor; everything else is reckoned from that, and
each line says from what. Run it on the kind of machine that the run will have.

examples:
  dinoidd plan segment --manifest OUTPUT --checkpoint model.safetensors --gpu-price 4.10 --deadline 8h
  dinoidd plan segment --input s3://bucket/drive/ --preset vit7b16 --actors 8
  dinoidd plan segment --manifest OUTPUT --checkpoint model.safetensors --run OUTPUT
"""
_FIELDS = (
    "checkpoint",
    "preset",
    "base",
    "classes",
    "image_size",
    "compile",
    "dtype",
    "batch_size",
    "threads",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("--manifest", metavar="URI", help="what `dinoidd index` wrote: its --output")
    add("--input", nargs="+", metavar="URI", help="or inputs, which are listed first")
    add("--where", metavar="SQL", help="of the inputs, as of `dinoidd segment`")
    add("--checkpoint", metavar="FILE", help="path or URL of what `convert` or `train` wrote")
    add("--preset", metavar="NAME", help="or a preset with random weights, which is as fast")
    add_base_option(parser)
    add("--classes", metavar="NAME|FILE", help="class table of a preset (idd)")
    add("--image-size", type=int, metavar="N", help="pixels of the model's square (the model's)")
    add_dtype_option(parser)
    add_compile_option(parser)
    add("--batch-size", type=int, default=8, metavar="N", help="images a forward (8)")
    add("--threads", type=int, default=8, metavar="N", help="downloads at a time in one task (8)")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add_accelerator_option(parser)
    add("--sample", type=int, default=256, metavar="N", help="images that are timed (256)")
    add("--actors", type=int, default=1, metavar="N", help="that the run will have (1)")
    add("--gpu-price", type=float, metavar="PRICE", help="of a GPU for an hour, like 4.10")
    add("--deadline", metavar="TIME", help="like 8h or 30m: how many GPUs make it?")
    add(
        "--run", dest="took", metavar="OUTPUT", help="a finished run: what it took, beside the plan"
    )
    add(
        "--scratch",
        metavar="URI",
        help="where the sample's rows are for a while; a cluster of several nodes needs a place that "
        "all of them reach (a temporary folder of this machine)",
    )
    add("--json", action="store_true", help="print JSON")
    add_window_options(parser)
    add_storage_options(parser)
    add("--address", help="a Ray cluster; without it RAY_ADDRESS, or an embedded Ray")


def run(args: argparse.Namespace) -> int:
    from dinoidd.log import start_logging
    from dinoidd.segment.plan import SegmentPlan, measure, took
    from dinoidd.sizes import parse_seconds

    config = _config(args)
    deadline = None if args.deadline is None else parse_seconds("--deadline", args.deadline)
    before = None if args.took is None else took(args.took, storage_options(args))
    start_logging()
    images, measured = measure(
        config,
        sample=args.sample,
        manifest=args.manifest,
        device=args.device,
        address=args.address,
        accelerator_type=args.accelerator_type,
    )
    plan = SegmentPlan(
        images=images,
        measured=measured,
        actors=args.actors,
        gpu_price=args.gpu_price,
        deadline_seconds=deadline,
    )
    if args.json:
        more = {} if before is None else {"took": before.to_dict(args.gpu_price)}
        print(json.dumps(plan.to_dict() | more, indent=1))
    else:
        print(
            "\n".join([*_lines(plan), *([] if before is None else _took(before, args.gpu_price))])
        )
    return 0


def _config(args: argparse.Namespace) -> "SegmentConfig":
    """Raises ConfigError: what is given cannot be planned."""
    from dinoidd.config import SegmentConfig

    if (args.manifest is None) == (args.input is None):
        raise ConfigError(
            "give either --manifest URI or --input URI: which images are to be planned?"
        )
    if args.manifest is not None and args.where is not None:
        raise ConfigError("--where goes with --input: a manifest is the choice of its images")
    for name in ("sample", "actors"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)}: at least 1 is needed")
    if args.gpu_price is not None and not args.gpu_price >= 0:
        raise ConfigError(f"--gpu-price {args.gpu_price}: a price is 0 or more")
    first, *others = args.input or [args.manifest]
    return SegmentConfig(
        input=first,
        more_inputs=tuple(others),
        where=args.where,
        output=args.scratch or "",
        endpoint_url=args.endpoint_url,
        windows=windows_of(args),
        **{name: getattr(args, name) for name in _FIELDS},
    )


def _lines(plan: "SegmentPlan") -> list[str]:
    from dinoidd.log import duration
    from dinoidd.segment.summary import size_text

    sample, deadline = plan.measured, plan.in_time()
    model = sample.seconds["model"]
    lines = [
        _line("images", f"{plan.images:,}"),
        _line(
            "sample", f"{sample.images:,} images, {sample.ok:,} ok, one actor on {sample.device}"
        ),
        _line(
            "speed",
            f"{sample.images_per_second:.2f} images/s an actor",
            f"{sample.timed:,} images after start-up; the model takes {1000 * model:.0f} ms of each",
        ),
        _line("time", f"{duration(3600 * plan.hours)} with {_placed(plan)}", _rest(plan)),
        *_costs(plan),
    ]
    if deadline is not None:
        assert plan.deadline_seconds is not None
        within = f"within {duration(plan.deadline_seconds)}"
        lines.append(_line("deadline", f"{_placed(deadline)} {within}"))
        lines += _costs(deadline) if deadline.cost is not None else []
    lines += [
        _line(
            "cores",
            f"{sample.cores_per_actor:.1f} CPU cores an actor, "
            f"{sample.downloads_per_actor:.1f} downloads at a time",
            "1 for the actor, and the seconds of "
            + ", ".join(
                f"{s} {1000 * sample.seconds[s]:.0f} ms"
                for s in ("fetch", "decode", "encode", "write")
            )
            + " an image",
        ),
        _line(
            "output",
            size_text(plan.output_bytes),
            f"{size_text(sample.bytes_written)} a row of the sample",
        ),
    ]
    return lines


def _line(name: str, value: str, rests_on: str = "") -> str:
    return f"{name:<10}{value}" + (f" ({rests_on})" if rests_on else "")


def _placed(plan: "SegmentPlan") -> str:
    """`8 GPUs and 24 CPU cores`."""
    what = "GPU" if plan.measured.device == "cuda" else "actor"
    return f"{plan.actors:,} {what}{'s'[: plan.actors > 1]} and {plan.cores:,} CPU cores"


def _rest(plan: "SegmentPlan") -> str:
    return (
        f"{plan.images:,} / {plan.measured.images_per_second:.2f} images/s / {plan.actors:,}, and "
        f"{plan.measured.startup_seconds:.0f} s of start-up"
    )


def _costs(plan: "SegmentPlan") -> list[str]:
    if plan.gpu_price is None:
        return []
    if plan.cost is None:
        return [
            _line("cost", "unknown", "the sample ran without a GPU, so its speed tells nothing")
        ]
    hours = plan.hours * plan.actors
    return [
        _line(
            "cost",
            f"{plan.cost:,.2f}, {plan.cost / plan.images * 1e6:,.2f} a million images",
            f"{hours:,.2f} GPU-hours at {plan.gpu_price:.2f}",
        )
    ]


def _took(before: "Took", gpu_price: float | None) -> list[str]:
    from dinoidd.log import duration
    from dinoidd.segment.summary import size_text

    what = "GPU" if before.device == "cuda" else "actor"
    cost = before.cost(gpu_price)
    return [
        _line(
            "took",
            f"{before.images:,} images in {duration(3600 * before.hours)} with {before.actors:,} "
            f"{what}{'s'[: before.actors > 1]}: {before.images_per_second_per_actor:.2f} images/s an "
            f"actor with start-up, {before.actor_hours:,.2f} {what}-hours, "
            f"{size_text(before.output_bytes)}" + ("" if cost is None else f", cost {cost:,.2f}"),
        )
    ]
