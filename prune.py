"""Make a trained network smaller and faster: cut channels, layers, or down to a time.

    python prune.py --weights weights/NAME/best.pt --data my_photos --percent 0.7 --name cut
    python prune.py --weights weights/NAME/best.pt --data my_photos --pruned_id layer --percent 0.3
    python prune.py --weights weights/NAME/best.pt --data my_photos --target_speedup 2

Prints the layers before and after, sizes, measured latency and mAP, and leaves
weights/<name>/pruned.cfg with pruned.weights (for Darknet and OpenCV) and pruned.pt, which train.py
fine-tunes: `python train.py --cfg weights/<name>/pruned.cfg --pretrained --weights
weights/<name>/pruned.pt`. normal_prune.py, layer_prune.py, slim_prune.py, shortcut_prune.py and
layer_channel_prune.py do the same with `pruned_id` fixed.
"""

import sys

from utils import errors
from utils.settings.loader import load_pruning


def main(argv: list[str] | None = None) -> None:
    """Read the flags, then prune: what is heavy to import waits until they are right."""
    settings = load_pruning(argv, about=__doc__)
    from pruning.pipeline import prune

    prune(settings)


if __name__ == "__main__":
    sys.exit(errors.run(main))
