"""Prune by residual blocks, and channels as slim does. See prune.py.

python layer_channel_prune.py --weights weights/NAME/best.pt --data data/custom.data --percent 0.5
"""

import sys

from import_param import prune_arguments
from pruning.steps import prune
from utils import errors


def main(argv: list[str] | None = None) -> None:
    prune(**prune_arguments(argv, strategy="layer_channel"))


if __name__ == "__main__":
    sys.exit(errors.run(main))
