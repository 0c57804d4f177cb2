"""Prune by whole residual blocks, the least valuable ones. See prune.py.

python layer_prune.py --weights weights/NAME/best.pt --data data/custom.data --percent 0.5
"""

import sys

from utils import errors
from utils.settings import load_pruning


def main(argv: list[str] | None = None) -> None:
    """Read the flags, then prune: what is heavy to import waits until they are right."""
    settings = load_pruning(argv, "layer")
    from pruning.pipeline import prune

    prune(settings)


if __name__ == "__main__":
    sys.exit(errors.run(main))
