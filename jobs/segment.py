"""Ray job: segment a bucket. `dinoidd jobs submit segment --input ...` sends it, or by hand
`ray job submit --working-dir . -- python jobs/segment.py --input ...`"""

import os
import sys

from dinoidd.cli import main

if __name__ == "__main__":
    # Ray Data's actors make the core print an error of its own at every start (ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    sys.exit(main(["segment", *sys.argv[1:]]))
