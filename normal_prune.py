"""Prune by one threshold for all channels, but those that a shortcut adds all stay. See prune.py.

python normal_prune.py --weights weights/NAME/best.pt --data data/custom.data --percent 0.5
"""

import sys

from import_param import prune_arguments
from pruning.steps import prune
from utils import errors


def main(argv: list[str] | None = None) -> None:
    prune(**prune_arguments(argv, strategy="normal"))


if __name__ == "__main__":
    sys.exit(errors.run(main))
