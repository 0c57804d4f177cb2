"""Prune by residual blocks, and channels as slim does. See prune.py.

python layer_channel_prune.py --weights weights/NAME/best.pt --data data/custom.data --percent 0.5
"""

import sys

from utils import errors
from utils.settings import load_pruning


def main(argv: list[str] | None = None) -> None:
    """Read the flags, then prune: what is heavy to import waits until they are right."""
    settings = load_pruning(argv, "layer_channel")
    from pruning.pipeline import prune

    prune(settings)


if __name__ == "__main__":
    sys.exit(errors.run(main))
