"""Ray job: segment a bucket. `dinoidd jobs submit segment --input ...` sends it, or by hand
`ray job submit --working-dir . -- python jobs/segment.py --input ...`"""

import sys

from dinoidd.cli import main
from dinoidd.log import quieten_ray

if __name__ == "__main__":
    quieten_ray()
    sys.exit(main(["segment", *sys.argv[1:]]))
