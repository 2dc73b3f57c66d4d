"""Ray job: train a model. `dinoidd jobs submit train --data ...` sends it.

It prints the plain `ray job submit` that it stands for. With `--working-dir .` alone, that would send
everything here that git does not ignore.
"""

import sys

from dinoidd.cli import main
from dinoidd.log import quieten_ray

if __name__ == "__main__":
    quieten_ray()
    sys.exit(main(["train", *sys.argv[1:]]))
