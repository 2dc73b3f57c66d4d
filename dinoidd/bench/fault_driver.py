"""The driver that `dinoidd bench faults` kills: `python -m dinoidd.bench.fault_driver IN OUT ADDRESS MS`.

The whole job as `dinoidd segment` runs it, with a model that sleeps.
"""

import sys

from dinoidd.bench.sleeping_source import SleepingSource
from dinoidd.config import SegmentConfig
from dinoidd.errors import DinoiddError
from dinoidd.log import start_logging
from dinoidd.segment.job import segment

ACTORS = 2
BATCH = 4
ROWS_PER_CHUNK = 8
ROWS_PER_FILE = 64
IMAGE_SIZE = 64


def main(source: str, output: str, address: str, milliseconds: str) -> int:
    """Run the job to its end; the exit status is that of a command."""
    start_logging()
    config = SegmentConfig(
        input=source,
        output=output,
        preset="tiny",
        image_size=IMAGE_SIZE,
        batch_size=BATCH,
        actors=ACTORS,
        threads=2,
        rows_per_chunk=ROWS_PER_CHUNK,
        rows_per_file=ROWS_PER_FILE,
    )
    model = SleepingSource(preset="tiny", milliseconds=float(milliseconds))
    try:
        segment(config, device="cpu", address=address, source=model)
    except DinoiddError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
