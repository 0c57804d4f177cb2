"""Cut channels below one threshold; those that a shortcut adds up all stay.

    python normal_prune.py --weights weights/NAME/best.pt --data my_photos --percent 0.5
    python normal_prune.py --weights weights/NAME/best.pt --data my_photos --target_speedup 2

prune.py does the same with any strategy, and says what is left where.
"""

import sys

from utils import errors
from utils.settings.loader import load_pruning


def main(argv: list[str] | None = None) -> None:
    """Read the flags, then prune: what is heavy to import waits until they are right."""
    settings = load_pruning(argv, "normal", __doc__)
    from pruning.pipeline import prune

    prune(settings)


if __name__ == "__main__":
    sys.exit(errors.run(main))
