"""``python -m keras_deepnets.cli``."""

import sys

from keras_deepnets.cli import main

if __name__ == "__main__":
    sys.exit(main())
