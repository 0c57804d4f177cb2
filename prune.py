"""Make a trained network smaller: `python prune.py`, with the settings of import_param.py.

    python prune.py --weights weights/NAME/best.pt --data data/custom.data --percent 0.7
    python prune.py --pruned_id layer --percent 0.3
    python prune.py --percent 0.8 --percent_of operations --round_to 8 --importance taylor

Prints the layers before and after, sizes, measured latency and mAP, and leaves
weights/<name>/pruned.cfg with pruned.weights (for Darknet and OpenCV) and pruned.pt, which train.py
fine-tunes: `python train.py --cfg weights/<name>/pruned.cfg --pretrained --weights
weights/<name>/pruned.pt`. normal_prune.py, layer_prune.py, slim_prune.py, shortcut_prune.py and
layer_channel_prune.py do the same with `pruned_id` fixed.
"""

import sys

from utils import errors
from utils.settings import load_pruning


def main(argv: list[str] | None = None) -> None:
    """Read the flags, then prune: what is heavy to import waits until they are right."""
    settings = load_pruning(argv)
    from pruning.pipeline import prune

    prune(settings)


if __name__ == "__main__":
    sys.exit(errors.run(main))
