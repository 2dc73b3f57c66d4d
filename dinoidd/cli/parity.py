"""`dinoidd parity`: is this the same network as the reference?"""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="weights and recorded outputs")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="over each tensor's standard deviation (1e-4)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from dinoidd.inference.parity import measure_parity

    parity = measure_parity(args.folder)
    passed = parity.passes(args.tolerance)
    if args.json:
        stages = {s.stage: s.difference for s in parity.stages}
        result = {"stages": stages, "equal_pixels": parity.equal_pixels, "passed": passed}
        print(json.dumps(result, indent=1))
        return int(not passed)
    for stage in parity.stages:
        mark = "" if stage.within(args.tolerance) else "   outside"
        print(f"{stage.stage:32} {stage.difference:9.2e}{mark}")
    print(f"{'equal argmax pixels':32} {parity.equal_pixels:9.4%}")
    print(f"{'within' if passed else 'OUTSIDE'} tolerance {args.tolerance:g}")
    return int(not passed)
