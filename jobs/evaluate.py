"""Ray job: evaluate predictions. `dinoidd jobs submit evaluate --data ...` sends it.

It prints the plain `ray job submit` that it stands for. With `--working-dir .` alone, that would send
everything here that git does not ignore.
"""

import sys

from dinoidd.cli import main
from dinoidd.log import quieten_ray

if __name__ == "__main__":
    quieten_ray()
    sys.exit(main(["evaluate", "--ray", *sys.argv[1:]]))
