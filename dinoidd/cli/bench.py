"""`dinoidd bench`: speed as ratios of one run."""

import argparse
import json
import os
from typing import TYPE_CHECKING

from dinoidd.cli.bench_model import add_dtypes_bench, add_model_bench
from dinoidd.cli.options import add_input_options, add_storage_options, inputs_of

if TYPE_CHECKING:
    from dinoidd.config import SegmentConfig
    from dinoidd.inference.source import ModelSource
    from dinoidd.training.config import TrainConfig

_TRAIN_IMAGES = 96
_VAL_SHARE = 0.14  # validation images for each training image, as IDD has them: 981 to 6,993
_SPLITS = ("train", "val")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    benches = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    text = "the whole job, beside the model alone and a plain loop over the same images"
    pipeline = benches.add_parser("pipeline", help=text, description=text.capitalize() + ".")
    add_input_options(pipeline, required=False)
    pipeline.add_argument(
        "--images",
        type=int,
        default=2_000,
        metavar="N",
        help="scenes to make, without --input (2000)",
    )
    _add_model(pipeline, "tiny")
    pipeline.add_argument("--batch-size", type=int, default=8, metavar="N", help="(8)")
    pipeline.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of torch (1 beside a GPU, otherwise all cores but one: that decodes and encodes)",
    )
    pipeline.add_argument(
        "--model-ms",
        type=float,
        metavar="MS",
        help="a model that sleeps so long an image instead, as if a GPU did the work",
    )
    pipeline.set_defaults(measure=_pipeline)
    text = "the classifier's training from a cache, beside training through the frozen network"
    train = benches.add_parser("train", help=text, description=text.capitalize() + ".")
    train.add_argument("--data", metavar="URI", help="a data set (generated scenes by default)")
    train.add_argument("--classes", default="idd", metavar="NAME|FILE", help="class table (idd)")
    train.add_argument(
        "--images",
        type=int,
        metavar="N",
        help=f"to train on, and {_VAL_SHARE} N to validate ({_TRAIN_IMAGES}; all of --data)",
    )
    _add_model(train, "small")
    train.set_defaults(image_size=512)
    train.add_argument("--epochs", type=int, default=20, metavar="N", help="cached (20)")
    train.add_argument("--uncached-epochs", type=int, default=2, metavar="N", help="(2)")
    train.add_argument("--batch-size", type=int, default=8, metavar="N", help="images a step (8)")
    train.set_defaults(measure=_train)
    add_model_bench(benches)
    add_dtypes_bench(benches)
    _add_scale(benches)
    _add_faults(benches)


def _add_scale(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "ten million rows: index, start, a long run's memory and speed, and many actors"
    scale = benches.add_parser("scale", help=text, description=text.capitalize() + ".")
    scale.add_argument(
        "--rows", type=int, default=10_000_000, metavar="N", help="indexed (10000000)"
    )
    scale.add_argument("--images", type=int, default=20_000, metavar="N", help="long run (20000)")
    scale.add_argument(
        "--actors", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N", help="(1 2 4 8)"
    )
    scale.add_argument(
        "--model-ms", type=float, default=15.0, metavar="MS", help="the stand-in's, an image (15)"
    )
    scale.add_argument("--json", action="store_true", help="print JSON")
    scale.set_defaults(measure=_scale)


def _add_faults(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "kills processes of a run at random moments: does it lose or double an image?"
    faults = benches.add_parser("faults", help=text, description=text.capitalize())
    faults.epilog = "exit status: 0 where every image has one row that is ok, 1 otherwise"
    for option, default, what in (
        ("--kills", 20, "of actors, tasks, drivers and nodes"),
        ("--images", 2_000, "generated, small"),
        ("--nodes", 3, "of the local cluster, beside its head"),
        ("--seed", 0, "of what is killed when"),
    ):
        faults.add_argument(
            option, type=int, default=default, metavar="N", help=f"{what} ({default})"
        )
    faults.add_argument("--json", action="store_true", help="print JSON")
    faults.set_defaults(measure=_faults)


def _add_model(parser: argparse.ArgumentParser, preset: str) -> None:
    """What both benches share."""
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", metavar="FILE", help="path or URL")
    model.add_argument("--preset", default=preset, help=f"random weights ({preset})")
    parser.add_argument("--image-size", type=int, metavar="N", help="pixels of the model's square")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of scenes and weights (0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    import contextlib
    import sys
    import tempfile

    from dinoidd.log import start_logging

    start_logging()
    stdout_for_figures = contextlib.redirect_stdout(sys.stderr)  # Ray's warnings go elsewhere
    with tempfile.TemporaryDirectory(prefix="dinoidd-bench-") as folder, stdout_for_figures:
        figures, table = args.measure(args, folder)
    print(json.dumps(figures, indent=1) if args.json else table)
    return 0 if figures.get("whole", True) else 1


def _pipeline(args: argparse.Namespace, folder: str) -> tuple[dict[str, object], str]:
    from dinoidd.bench.pipeline import format_speed, measure_pipeline
    from dinoidd.config import SegmentConfig
    from dinoidd.data.generate import generate_dataset
    from dinoidd.inference.device import pick_device

    device = "cpu" if args.model_ms else pick_device(args.device)
    threads = args.threads or (1 if device == "cuda" else max(1, (os.cpu_count() or 1) - 1))
    if args.input is None:
        generate_dataset(f"{folder}/scenes", images=args.images, seed=args.seed)
        args.input = [f"{folder}/scenes/leftImg8bit"]
    config = SegmentConfig(
        **inputs_of(args),
        output=f"{folder}/out",
        checkpoint=args.checkpoint,
        preset=None if args.checkpoint else args.preset,
        image_size=args.image_size,
        batch_size=args.batch_size,
        actors=1,
        dtype="bfloat16" if device == "cuda" else "float32",
        seed=args.seed,
        endpoint_url=args.endpoint_url,
    )
    source = _source(args, config)
    speed = measure_pipeline(config, source, device=device, threads=threads)
    return speed.to_dict(), format_speed(speed)


def _source(args: argparse.Namespace, config: "SegmentConfig") -> "ModelSource":
    from dataclasses import replace

    from dinoidd.bench.sleeping_source import ElsewhereSource
    from dinoidd.segment.job import source_of
    from dinoidd.storage import StorageOptions

    if args.model_ms:
        return ElsewhereSource(preset=args.preset, milliseconds=args.model_ms)
    source = source_of(config, StorageOptions(endpoint_url=config.endpoint_url))
    return replace(source, dtype=config.dtype)


def _scale(args: argparse.Namespace, folder: str) -> tuple[dict[str, object], str]:
    from dinoidd.bench.scale import ScaleConfig, format_scale, measure_scale

    config = ScaleConfig(
        rows=args.rows,
        images=args.images,
        actors=tuple(args.actors),
        seconds_per_image=args.model_ms / 1000,
    )
    scale = measure_scale(config, folder)
    return scale.to_dict(), format_scale(scale)


def _faults(args: argparse.Namespace, folder: str) -> tuple[dict[str, object], str]:
    from dinoidd.bench.faults import FaultConfig, format_faults, measure_faults

    config = FaultConfig(kills=args.kills, images=args.images, nodes=args.nodes, seed=args.seed)
    report = measure_faults(config, folder)
    return report.to_dict(), format_faults(report)


def _train(args: argparse.Namespace, folder: str) -> tuple[dict[str, object], str]:
    from dinoidd.bench.train import format_speed, measure_training
    from dinoidd.data.generate import generate_dataset

    config = training_config(args, folder)
    if args.data is None:
        counts = config.max_train_images or 1, config.max_val_images or 1
        splits = [(name, float(count)) for name, count in zip(_SPLITS, counts, strict=True)]
        generate_dataset(config.data, images=sum(counts), seed=args.seed, splits=splits)
    speed = measure_training(config, uncached_epochs=args.uncached_epochs)
    return speed.to_dict(), format_speed(speed)


def training_config(args: argparse.Namespace, folder: str) -> "TrainConfig":
    """Float32, so that both ways can be held against each other. Raises ConfigError."""
    from dinoidd.training.config import TrainConfig

    images = args.images or (_TRAIN_IMAGES if args.data is None else None)
    return TrainConfig(
        data=args.data or f"{folder}/scenes",
        output=f"{folder}/runs",
        checkpoint=args.checkpoint,
        preset=None if args.checkpoint else args.preset,
        classes=args.classes,
        image_size=args.image_size,
        max_train_images=images,
        max_val_images=None if images is None else max(1, round(_VAL_SHARE * images)),
        epochs=args.epochs,
        batch_size=args.batch_size,
        precision="float32",
        use_gpu=None if args.device == "auto" else args.device == "cuda",
        seed=args.seed,
        endpoint_url=args.endpoint_url,
    )
