"""Prune by whole residual blocks, the least valuable ones. See prune.py.

python layer_prune.py --weights weights/NAME/best.pt --data data/custom.data --percent 0.5
"""

import sys

from pruning.pipeline import prune
from utils import errors
from utils.settings import load_pruning


def main(argv: list[str] | None = None) -> None:
    prune(load_pruning(argv, "layer"))


if __name__ == "__main__":
    sys.exit(errors.run(main))
