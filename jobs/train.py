"""Ray job: train a model. `dinoidd jobs submit train --data ...` sends it, or by hand
`ray job submit --working-dir . -- python jobs/train.py --data ...`"""

import sys

from dinoidd.cli import main
from dinoidd.log import quieten_ray

if __name__ == "__main__":
    quieten_ray()
    sys.exit(main(["train", *sys.argv[1:]]))
