"""Prune to a latency that is measured on the engine at hand. See prune.py and README.md.

python latency_prune.py --weights weights/NAME/best.pt --data data/custom.data --target_speedup 3
python latency_prune.py --weights weights/NAME/best.pt --engine openvino --target_ms 5
"""

import sys

from utils import errors
from utils.settings import load_pruning


def main(argv: list[str] | None = None) -> None:
    """Read the flags, then prune: what is heavy to import waits until they are right."""
    settings = load_pruning(argv, "latency")
    from pruning.pipeline import prune

    prune(settings)


if __name__ == "__main__":
    sys.exit(errors.run(main))
