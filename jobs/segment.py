"""Ray job: segment a bucket. `ray job submit --working-dir . -- python jobs/segment.py --input ...`"""

import sys

from dinoidd.cli import main

if __name__ == "__main__":
    sys.exit(main(["segment", *sys.argv[1:]]))
