"""`dinoidd model`: what a preset has and costs, without making it; and a model as one file for others."""

import argparse
import json

from dinoidd.cli import model_export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = model_export.EXAMPLES
    parser.add_argument(
        "what",
        metavar="PRESET|export",
        help="tiny, small, vits16, ..., vit7b16, or with a linear head vits16-linear; or export",
    )
    parser.add_argument("--classes", default="idd", help="class table (idd)")
    parser.add_argument("--image-size", type=int, metavar="N", help="pixels (the model's own)")
    add_decoder_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    model_export.add_arguments(parser)


def add_decoder_options(parser: argparse.ArgumentParser) -> None:
    """Sizes of the decoder that differ from the preset's."""
    group = parser.add_argument_group("decoder (the preset's own sizes by default)")
    group.add_argument("--decoder-width", type=int, metavar="N", help="channels")
    group.add_argument("--pixel-layers", type=int, metavar="N", help="layers of the pixel decoder")
    group.add_argument("--query-layers", type=int, metavar="N", help="layers of the query decoder")
    group.add_argument("--queries", type=int, metavar="N", help="object queries")


def decoder_sizes(args: argparse.Namespace) -> dict[str, int]:
    """The sizes that were given, by the names of DecoderConfig."""
    names = {
        "width": args.decoder_width,
        "pixel_layers": args.pixel_layers,
        "query_layers": args.query_layers,
        "queries": args.queries,
    }
    return {name: value for name, value in names.items() if value is not None}


def run(args: argparse.Namespace) -> int:
    if args.what == "export":
        return model_export.run(args, decoder_sizes(args))
    model_export.refuse_options(args)
    return _describe(args)


def _describe(args: argparse.Namespace) -> int:
    from dinoidd.classes import load_class_table
    from dinoidd.models import preset
    from dinoidd.models.config import resized
    from dinoidd.models.cost import measure_cost

    table = load_class_table(args.classes)
    config = resized(preset(args.what), classes=len(table), decoder=decoder_sizes(args))
    cost = measure_cost(config, args.image_size)
    if args.json:
        print(json.dumps(cost.to_dict(), indent=1))
        return 0
    size = cost.image_size
    print(f"{cost.preset}, {cost.classes} classes ({table.name})")
    print(f"  frozen      {cost.frozen_parameters:>14,} parameters")
    print(f"  trainable   {cost.trainable_parameters:>14,} (the classifier)")
    print(f"  no object   {cost.no_object_parameters:>14,} (kept from pretraining)")
    print(f"  weights     {_scaled(cost.bf16_bytes, 'B'):>17} in bfloat16")
    print(f"  one image   {_scaled(cost.flops_per_image, 'FLOP'):>20} at {size}x{size}")
    for part, flops in cost.flops_by_part.items():
        parameters = f"{cost.parameters_by_part[part]:,} parameters"
        print(f"    {part:14} {_scaled(flops, 'FLOP'):>16}, {parameters}")
    return 0


def _scaled(value: float, unit: str) -> str:
    """`15.29 GB`, `20.16 TFLOP`, `1.06 GFLOP`."""
    for prefix in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.2f} {prefix}{unit}"
        value /= 1000
    return f"{value:.2f} T{unit}"
