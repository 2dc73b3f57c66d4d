"""`dinoidd convert`: the published backbone and head into one file."""

import argparse
from dataclasses import replace
from pathlib import Path

from dinoidd.cli.model import add_decoder_options, decoder_sizes
from dinoidd.cli.options import add_storage_options, storage_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backbone",
        required=True,
        metavar="URI",
        help="dinov3_*_pretrain_*.pth, or a Hugging Face directory (path or URL)",
    )
    parser.add_argument(
        "--head", required=True, metavar="URI", help="dinov3_*_m2f_head-*.pth (path or URL)"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument(
        "--preset", default="vit7b16", metavar="NAME", help="the backbone's size (vit7b16)"
    )
    parser.add_argument("--classes", default="idd", help="class table (idd)")
    parser.add_argument(
        "--keep-classifier",
        action="store_true",
        help="keep the head's classes, which the class table has to fit; otherwise the classifier "
        "is new and untrained, and only the no-object row is kept",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the new classifier (0)"
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument(
        "--satellite",
        action="store_true",
        help="the backbone was trained on SAT-493M: use its mean and standard deviation",
    )
    add_decoder_options(parser)
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    from dinoidd.checkpoint.cache import local_checkpoint, local_model
    from dinoidd.checkpoint.file import make_folder_of, save_checkpoint
    from dinoidd.checkpoint.load import load_published
    from dinoidd.classes import load_class_table
    from dinoidd.errors import ConfigError
    from dinoidd.inference.source import DTYPES
    from dinoidd.models import preset
    from dinoidd.models.config import SAT_MEAN, SAT_STD, resized

    output = Path(args.output)
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output}: the file's name has to end in .safetensors")
    make_folder_of(output)  # told now, not after minutes of loading
    table = load_class_table(args.classes)
    config = resized(preset(args.preset), classes=len(table), decoder=decoder_sizes(args))
    if args.satellite:
        config = replace(config, mean=SAT_MEAN, std=SAT_STD)
    options = storage_options(args)
    model = load_published(
        config,
        local_model(args.backbone, options),
        local_checkpoint(args.head, options),
        dtype=DTYPES[args.dtype],
        new_classifier=not args.keep_classifier,
        seed=args.seed,
    )
    info = save_checkpoint(model, table, output, trained=args.keep_classifier)
    size = output.stat().st_size
    print(f"{output}: {size:,} bytes, {args.dtype}, {len(table)} classes ({table.name})")
    print(f"weights sha256 {info.weights_sha256}")
    if not args.keep_classifier:
        print("the classifier is new and untrained: until it is trained, masks mean nothing")
    return 0
