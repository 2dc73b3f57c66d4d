"""Ray job: evaluate predictions. `ray job submit --working-dir . -- python jobs/evaluate.py ...`"""

import sys

from dinoidd.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", "--ray", *sys.argv[1:]]))
