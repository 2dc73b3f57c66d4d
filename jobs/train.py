"""Ray job: train a model. `dinoidd jobs submit train --data ...` sends it, or by hand
`ray job submit --working-dir . -- python jobs/train.py --data ...`"""

import sys

from dinoidd.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
