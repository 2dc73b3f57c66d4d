"""Ray job: evaluate predictions. `dinoidd jobs submit evaluate --data ...` sends it, or by hand
`ray job submit --working-dir . -- python jobs/evaluate.py --data ...`"""

import sys

from dinoidd.cli import main
from dinoidd.log import quieten_ray

if __name__ == "__main__":
    quieten_ray()
    sys.exit(main(["evaluate", "--ray", *sys.argv[1:]]))
