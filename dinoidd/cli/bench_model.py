"""`dinoidd bench model`: the network's speed, without images, weights or Ray; and `bench dtypes`."""

import argparse

from dinoidd.cli.options import add_base_option, add_storage_options, storage_options
from dinoidd.config import DTYPES
from dinoidd.errors import ConfigError

_SHORT = {"bf16": "bfloat16", "fp32": "float32", "fp8": "float8"}


def add_model_bench(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "the network alone, from pixels to classes, by part and beside the machine's peak"
    parser = benches.add_parser("model", help=text, description=text.capitalize() + ".")
    add = parser.add_argument
    add(
        "--preset",
        default="vits16",
        metavar="NAME",
        help="its size; the weights are drawn (vits16)",
    )
    add("--image-size", type=int, default=512, metavar="N", help="pixels of the square (512)")
    add("--batch-size", type=int, default=8, metavar="N", help="images a forward (8)")
    add(
        "--original-size",
        default="1920x1080",
        metavar="WxH",
        help="of the images, whose classes are wanted (1920x1080)",
    )
    add("--decoder-width", type=int, metavar="N", help="of both decoders (the preset's)")
    add(
        "--dtype",
        default="auto",
        choices=(*DTYPES, *_SHORT),
        help="auto: what `segment` takes on that device",
    )
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--compile", action="store_true", help="through torch.compile")
    add("--baseline", action="store_true", help="the reference's arrangement beside it")
    add("--repeats", type=int, default=5, metavar="N", help="of which the median is told (5)")
    add("--threads", type=int, metavar="N", help="of torch (its own choice)")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(measure=_measure)


def _measure(args: argparse.Namespace, folder: str) -> tuple[dict[str, object], str]:
    del folder  # of the benches that write
    import torch

    from dinoidd.bench.model import ModelBench, format_model, measure_model
    from dinoidd.inference.device import usable_device
    from dinoidd.models import preset

    _check_counts(args, "batch_size", "repeats")
    if args.baseline and preset(args.preset).head != "mask2former":
        raise ConfigError(f"--baseline goes with a Mask2Former head, which {args.preset} has not")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = usable_device(args.device)
    bench = ModelBench(
        preset=args.preset,
        decoder_width=args.decoder_width,
        image_size=args.image_size,
        original_size=_size(args.original_size),
        batch_size=args.batch_size,
        dtype=_SHORT.get(args.dtype, args.dtype),
        device=device,
        compiled=args.compile,
        baseline=args.baseline,
        repeats=args.repeats,
    )
    speed = measure_model(bench)
    return speed.to_dict(), format_model(speed)


def _check_counts(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least 1")


def _size(text: str) -> tuple[int, int]:
    """Rows and columns of "WIDTHxHEIGHT"."""
    try:
        columns, rows = (int(part) for part in text.lower().split("x"))
    except ValueError:
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise ConfigError(f"--original-size {text}: WIDTHxHEIGHT is needed, like 1920x1080")
    return rows, columns


def add_dtypes_bench(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "on real images: how many pixels get another class in fewer bits, and the speed"
    parser = benches.add_parser("dtypes", help=text, description=text.capitalize() + ".")
    add = parser.add_argument
    add("images", nargs="+", metavar="URI", help="images, folders, globs")
    add("--checkpoint", metavar="FILE", help="of `convert` or `train`")
    add_base_option(parser)
    add("--preset", metavar="NAME", help="instead: random weights, whose agreement means nothing")
    add("--dtypes", nargs="+", default=["bfloat16"], metavar="NAME", help="(bfloat16)")
    add("--limit", type=int, default=64, metavar="N", help="images at most, the first ones (64)")
    add("--batch-size", type=int, default=8, metavar="N", help="(8)")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--json", action="store_true", help="print JSON")
    add_storage_options(parser)
    parser.set_defaults(measure=_compare)


def _compare(args: argparse.Namespace, folder: str) -> tuple[dict[str, object], str]:
    from pathlib import Path

    from dinoidd.bench.dtypes import compare_dtypes, format_dtypes
    from dinoidd.inference.source import ModelSource
    from dinoidd.prediction.run import list_arguments

    _check_counts(args, "limit", "batch_size")
    storage = storage_options(args)
    source = ModelSource(
        checkpoint=args.checkpoint, base=args.base, preset=args.preset, storage=storage
    )
    listing = list_arguments(args.images, Path(folder), storage)
    if listing.problems:
        raise ConfigError("; ".join(listing.problems))
    dtypes = [_SHORT.get(name, name) for name in args.dtypes]
    uris = [image.uri for image in listing.images[: args.limit]]
    comparison = compare_dtypes(source, uris, dtypes, args.device, args.batch_size)
    return comparison.to_dict(), format_dtypes(comparison)
