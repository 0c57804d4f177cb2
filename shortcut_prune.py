"""Prune by one threshold for all channels; in a chain of shortcuts the first layer decides.

See prune.py.

python shortcut_prune.py --weights weights/NAME/best.pt --data data/custom.data --percent 0.5
"""

import sys

from pruning.pipeline import prune
from utils import errors
from utils.settings import load_pruning


def main(argv: list[str] | None = None) -> None:
    prune(load_pruning(argv, "shortcut"))


if __name__ == "__main__":
    sys.exit(errors.run(main))
