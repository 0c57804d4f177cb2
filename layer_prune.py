"""Prune by whole residual blocks, the least valuable ones. See prune.py.

python layer_prune.py --weights weights/NAME/best.pt --data data/custom.data --percent 0.5
"""

import sys

from import_param import prune_arguments
from pruning.steps import prune
from utils import errors


def main(argv: list[str] | None = None) -> None:
    prune(**prune_arguments(argv, strategy="layer"))


if __name__ == "__main__":
    sys.exit(errors.run(main))
