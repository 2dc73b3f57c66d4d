"""Options that several commands share, spelled and explained once."""

import argparse
from typing import TYPE_CHECKING, Any

from dinoidd.config import DTYPES

if TYPE_CHECKING:
    from dinoidd.storage import StorageOptions


def add_base_option(parser: argparse._ActionsContainer) -> None:
    """`--base`, of commands that take the checkpoint of a training."""
    parser.add_argument(
        "--base",
        metavar="FILE",
        help="what a checkpoint of `dinoidd train` was trained on, where that has moved",
    )


def add_dtype_option(parser: argparse._ActionsContainer) -> None:
    """`--dtype`, of commands that run a model."""
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="(auto: bfloat16 where it is fast)",
    )


def add_compile_option(parser: argparse._ActionsContainer) -> None:
    """`--compile`, of commands that run a model."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the model: a minute or more at the first image, faster after it",
    )


def add_accelerator_option(parser: argparse._ActionsContainer) -> None:
    """`--accelerator-type`, of commands that place a model on a cluster."""
    parser.add_argument(
        "--accelerator-type",
        metavar="NAME",
        help="take nodes with such an accelerator, as Ray names it, like A100 (any)",
    )


def add_input_options(parser: argparse._ActionsContainer, *, required: bool = True) -> None:
    """`--input` and what picks from it; read them with `inputs_of`."""
    parser.add_argument(
        "--input",
        required=required,
        nargs="+",
        metavar="URI",
        help="a folder, a bucket prefix, a quoted glob (* ** ? [...]), an image, or a list of URIs "
        "(.txt, .csv, .parquet); several are taken one after the other",
    )
    parser.add_argument(
        "--where",
        metavar="SQL",
        help="take only images that a condition in DuckDB's SQL fits, over uri, name, suffix, folder, "
        "size and etag: \"suffix = '.jpg' AND size < 5e6\"",
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="take only N of them, each as likely as any other"
    )
    parser.add_argument(
        "--sample-seed", type=int, default=0, metavar="N", help="another one, another sample (0)"
    )


def inputs_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_input_options` by their names in SegmentConfig."""
    first, *others = args.input
    picked = {name: getattr(args, name) for name in ("where", "sample", "sample_seed")}
    return {"input": first, "more_inputs": tuple(others)} | picked


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    """`--endpoint-url`; read it with `storage_options`."""
    parser.add_argument(
        "--endpoint-url",
        metavar="URL",
        help="an S3 server other than AWS; credentials and region come from the AWS environment "
        "variables or profile (default: AWS_ENDPOINT_URL, or AWS itself)",
    )


def storage_options(args: argparse.Namespace) -> "StorageOptions":
    """Where object storage is, from the parsed arguments."""
    from dinoidd.storage import StorageOptions

    return StorageOptions(endpoint_url=args.endpoint_url)
