"""`python -m segzoo` is the command `segzoo`."""

import sys

from segzoo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
