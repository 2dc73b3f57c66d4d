"""`dinoidd convert`: the published backbone and head, or what training left, into one file."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dinoidd.cli.model import add_decoder_options, decoder_sizes
from dinoidd.cli.options import add_base_option, add_storage_options, storage_options

if TYPE_CHECKING:
    from dinoidd.checkpoint.file import CheckpointInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "trained",
        nargs="?",
        metavar="TRAINED",
        help="best.safetensors or last.safetensors of `dinoidd train`: joined with its base; or give",
    )
    add_base_option(parser)
    parser.add_argument(
        "--backbone",
        metavar="URI",
        help="dinov3_*_pretrain_*.pth, or a Hugging Face directory (path or URL)",
    )
    parser.add_argument(
        "--head",
        metavar="URI",
        help="and dinov3_*_m2f_head-*.pth (path or URL); a NAME-linear preset needs none",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument(
        "--preset",
        default="vit7b16",
        metavar="NAME",
        help="the backbone's size (vit7b16); NAME-linear: with a linear head",
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
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="(bfloat16; of TRAINED: its base's)"
    )
    parser.add_argument(
        "--satellite",
        action="store_true",
        help="the backbone was trained on SAT-493M: use its mean and standard deviation",
    )
    add_decoder_options(parser)
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    from dinoidd.checkpoint.file import make_folder_of
    from dinoidd.errors import ConfigError
    from dinoidd.models import preset

    output = Path(args.output)
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output}: the file's name has to end in .safetensors")
    linear = preset(args.preset).head == "linear"
    missing = args.backbone is None or (args.head is None and not linear)
    if (args.trained is None) == missing or (args.trained and (args.backbone or args.head)):
        raise ConfigError(
            "give --backbone and --head, or one TRAINED file of `dinoidd train`; a NAME-linear preset "
            "needs the backbone alone"
        )
    if args.keep_classifier and args.trained is None and args.head is None:
        raise ConfigError(
            "--keep-classifier goes with --head: without it there is no classifier yet"
        )
    if args.base is not None and args.trained is None:
        raise ConfigError(f"--base {args.base} goes with a TRAINED file")
    make_folder_of(output)  # told now, not after minutes of loading
    return _convert_published(args, output) if args.trained is None else _join(args, output)


def _convert_published(args: argparse.Namespace, output: Path) -> int:
    from dinoidd.checkpoint.cache import local_checkpoint, local_model
    from dinoidd.checkpoint.file import save_checkpoint
    from dinoidd.checkpoint.load import load_published
    from dinoidd.classes import load_class_table
    from dinoidd.inference.dtype import DTYPES
    from dinoidd.models import preset
    from dinoidd.models.config import SAT_MEAN, SAT_STD, resized

    table = load_class_table(args.classes)
    config = resized(preset(args.preset), classes=len(table), decoder=decoder_sizes(args))
    if args.satellite:
        config = replace(config, mean=SAT_MEAN, std=SAT_STD)
    options = storage_options(args)
    model = load_published(
        config,
        local_model(args.backbone, options),
        None if args.head is None else local_checkpoint(args.head, options),
        dtype=DTYPES[args.dtype or "bfloat16"],
        new_classifier=not args.keep_classifier,
        seed=args.seed,
    )
    info = save_checkpoint(model, table, output, trained=args.keep_classifier)
    _tell(output, args.dtype or "bfloat16", info)
    if not args.keep_classifier:
        print("the classifier is new and untrained: until it is trained, masks mean nothing")
    return 0


def _join(args: argparse.Namespace, output: Path) -> int:
    from dinoidd.checkpoint.file import save_checkpoint
    from dinoidd.checkpoint.model import load_model
    from dinoidd.inference.dtype import DTYPES

    dtype = None if args.dtype is None else DTYPES[args.dtype]
    model, found = load_model(args.trained, storage_options(args), dtype, base=args.base)
    info = save_checkpoint(model, found.table, output)
    _tell(output, str(next(model.parameters()).dtype).removeprefix("torch."), info)
    return 0


def _tell(output: Path, dtype: str, info: "CheckpointInfo") -> None:
    size, table = output.stat().st_size, info.table
    print(f"{output}: {size:,} bytes, {dtype}, {len(table)} classes ({table.name})")
    print(f"weights sha256 {info.weights_sha256}")
