"""Options that several commands share, spelled and explained once."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinoidd.storage import StorageOptions


def add_base_option(parser: argparse._ActionsContainer) -> None:
    """`--base`, of commands that take the checkpoint of a training."""
    parser.add_argument(
        "--base",
        metavar="FILE",
        help="what a checkpoint of `dinoidd train` was trained on, where that has moved",
    )


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
