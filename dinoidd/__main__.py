import sys

from dinoidd.cli import main

sys.exit(main())
