"""`dinoidd bench`: speed as ratios of one run."""

import argparse
import json
import os

from dinoidd.cli.options import add_storage_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    benches = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    text = "the whole job, beside the model alone and a plain loop over the same images"
    pipeline = benches.add_parser("pipeline", help=text, description=text.capitalize() + ".")
    pipeline.add_argument("--input", metavar="URI", help="images (generated scenes by default)")
    pipeline.add_argument("--images", type=int, default=400, help="generated scenes (400)")
    model = pipeline.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", metavar="FILE", help="path or URL")
    model.add_argument("--preset", default="tiny", help="random weights (tiny)")
    pipeline.add_argument("--image-size", type=int, metavar="N", help="(the model's own)")
    pipeline.add_argument("--batch-size", type=int, default=8, metavar="N", help="(8)")
    pipeline.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    pipeline.add_argument("--seed", type=int, default=0, help="of scenes and weights (0)")
    pipeline.add_argument("--json", action="store_true", help="print JSON")
    add_storage_options(pipeline)


def run(args: argparse.Namespace) -> int:
    import tempfile
    from pathlib import Path

    from dinoidd.bench.pipeline import format_speed, measure_pipeline
    from dinoidd.config import SegmentConfig
    from dinoidd.data.generate import generate_dataset
    from dinoidd.inference.predictor import pick_device
    from dinoidd.log import start_logging

    start_logging()
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory(prefix="dinoidd-bench-") as folder:
        images = args.input or str(Path(folder) / "scenes" / "leftImg8bit")
        if args.input is None:
            generate_dataset(Path(folder) / "scenes", images=args.images, seed=args.seed)
        config = SegmentConfig(
            input=images,
            output=str(Path(folder) / "out"),
            checkpoint=args.checkpoint,
            preset=None if args.checkpoint else args.preset,
            image_size=args.image_size,
            batch_size=args.batch_size,
            actors=1,
            dtype="bfloat16" if device == "cuda" else "float32",
            seed=args.seed,
            endpoint_url=args.endpoint_url,
        )
        speed = measure_pipeline(config, device=device, threads=os.cpu_count() or 1)
    print(json.dumps(speed.to_dict(), indent=1) if args.json else format_speed(speed))
    return 0
