"""Ray job: train a model. `ray job submit --working-dir . -- python jobs/train.py --data ...`"""

import sys

from dinoidd.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
