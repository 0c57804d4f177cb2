"""Cut a network down to a time that is measured on this machine and engine.

    python latency_prune.py --weights weights/NAME/best.pt --data my_photos --target_speedup 3
    python latency_prune.py --data my_photos --engine openvino --precision bf16 --target_ms 5

The layers are timed once, which takes a minute or two, and kept; docs/latency.md says how.
"""

import sys

from utils import errors
from utils.settings.loader import load_pruning


def main(argv: list[str] | None = None) -> None:
    """Read the flags, then prune: what is heavy to import waits until they are right."""
    settings = load_pruning(argv, "latency", __doc__)
    from pruning.pipeline import prune

    prune(settings)


if __name__ == "__main__":
    sys.exit(errors.run(main))
