"""`dinoidd model export`: a model as a torch.export program or as ONNX, compared with the original."""

import argparse
import json
from pathlib import Path

from dinoidd.cli.options import add_base_option, add_storage_options, storage_options
from dinoidd.errors import ConfigError

EXAMPLES = """\
An exported file takes uint8 RGB pixels [B, S, S, 3] and gives class scores [B, K, S, S], float32: the
class of a pixel is where its score is largest. It runs without dinoidd. It is read back and compared.
exit status of export: 0; 1 where the file's scores are further from the model's than --tolerance

examples:
  dinoidd model vit7b16 --image-size 512
  dinoidd model export --checkpoint model.safetensors --output model.pt2
  dinoidd model export --preset tiny --format onnx --output tiny.onnx
"""
_FORMATS = {"torch": ".pt2", "onnx": ".onnx"}
_DEFAULTS = {
    **dict.fromkeys(("checkpoint", "preset", "base", "output", "endpoint_url")),
    "format": "torch",
    "batch_size": 1,
    "tolerance": 1e-3,
    "seed": 0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of export")
    add = group.add_argument
    add("--checkpoint", metavar="FILE", help="path or URL of what `convert` or `train` wrote")
    add("--preset", metavar="NAME", help="or a preset with random weights, for a trial")
    add_base_option(group)
    add("--seed", type=int, default=0, metavar="N", help="of a preset's random weights (0)")
    add("--format", choices=_FORMATS, default="torch", help="torch.export or ONNX (torch)")
    add("--output", metavar="FILE", help="a .pt2 or .onnx file")
    add("--batch-size", type=int, default=1, metavar="N", help="images that it takes (1)")
    add("--tolerance", type=float, default=1e-3, help="of a score, which is 0 to 1 (0.001)")
    add_storage_options(parser)


def refuse_options(args: argparse.Namespace) -> None:
    """Raise a ConfigError where a preset is to be described, with options of export."""
    for name, default in _DEFAULTS.items():
        if (value := getattr(args, name)) != default:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} {value} goes with `dinoidd model export`")


def run(args: argparse.Namespace, decoder_sizes: dict[str, int]) -> int:
    """Write the file, and say how far its answer is from the model's."""
    output = _output(args, decoder_sizes)
    from dinoidd.inference.export import export_model
    from dinoidd.inference.source import ModelSource

    source = ModelSource(
        checkpoint=args.checkpoint,
        base=args.base,
        preset=args.preset,
        classes=args.classes,
        seed=args.seed,
        storage=storage_options(args),
    )
    config = source.describe().config
    size = args.image_size or config.image_size
    check = export_model(
        source.load(), output, form=args.format, image_size=size, batch_size=args.batch_size
    )
    passed = check.passes(args.tolerance)
    if args.json:
        told = vars(check) | {"tolerance": args.tolerance, "passed": passed, "file": str(output)}
        print(json.dumps(told, indent=1))
        return int(not passed)
    written = [output, *output.parent.glob(f"{output.name}.data")]
    print(f"{output}: {sum(f.stat().st_size for f in written):,} bytes, {args.format}")
    print(f"takes pixels [{args.batch_size}, {size}, {size}, 3] uint8, RGB, resized to that square")
    print(f"gives scores [{args.batch_size}, {config.classes}, {size}, {size}] float32, 0 to 1")
    print(f"largest difference of a score  {check.difference:.2e}")
    print(f"pixels of the same class       {check.equal_pixels:.4%} (of {check.classes} classes)")
    print(f"{'within' if passed else 'OUTSIDE'} tolerance {args.tolerance:g}")
    return int(not passed)


def _output(args: argparse.Namespace, decoder_sizes: dict[str, int]) -> Path:
    """Where to write. Raises ConfigError for options that cannot be."""
    from dinoidd.checkpoint.file import make_folder_of

    if decoder_sizes:
        raise ConfigError("the decoder's sizes are the model's: leave out what changes them")
    if args.output is None or "://" in args.output:
        raise ConfigError(f"--output {args.output}: a local file is needed")
    output = Path(args.output).expanduser()
    if output.suffix != (suffix := _FORMATS[args.format]):
        raise ConfigError(f"--output {output}: the name of this format ends in {suffix}")
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size {args.batch_size}: at least 1 is needed")
    if args.image_size is not None and (args.image_size < 32 or args.image_size % 32):
        raise ConfigError(f"--image-size {args.image_size}: a positive multiple of 32 is needed")
    make_folder_of(output)
    return output
