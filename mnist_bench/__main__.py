"""``python -m mnist_bench``: the same program as ``mnist-bench``."""

import sys

from mnist_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
