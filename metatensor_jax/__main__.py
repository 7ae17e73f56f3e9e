"""``python -m metatensor_jax``: look at files, compare them, check an installation."""

import sys

from ._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
