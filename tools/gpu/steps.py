"""Which steps are there, and in which order? What matters most comes first."""

from __future__ import annotations

from collections.abc import Sequence

from tools.gpu.card import card
from tools.gpu.cutting import cutting
from tools.gpu.detection import detection
from tools.gpu.parity import parity
from tools.gpu.pruning import pruning
from tools.gpu.runner import Step
from tools.gpu.steady import memory, speed, waits
from tools.gpu.table import table
from tools.gpu.timing import timing
from tools.gpu.training import demo_training, fp16, own_training, resume
from utils.errors import InputError

STEPS = (
    Step("card", "which card it is", 60, card),
    Step("parity", "networks and NMS compute what they compute on the CPU", 120, parity),
    Step("timing", "a time is over when the card is done", 60, timing),
    Step("table", "milliseconds of networks, precisions and ways to run them", 180, table),
    Step("training", "a short training of the demo set", 150, demo_training),
    Step("own_data", "a training of --data, as on a CPU", 180, own_training),
    Step("fp16", "training in fp16, with the loss scaled", 60, fp16),
    Step("waits", "a step of training does not wait for the card", 60, waits),
    Step("speed", "how fast training is, and how idle the card", 90, speed),
    Step("resume", "a training goes on to the same bits", 90, resume),
    Step("detection", "detect_img.py finds what it finds on the CPU", 60, detection),
    Step("cutting", "prune.py cuts what it cuts on the CPU", 60, cutting),
    Step("memory", "epochs leave nothing in memory", 90, memory),
    Step("pruning", "cuts to a time are met", 600, pruning),  # last: it may take all that is left
)


def chosen_steps(names: Sequence[str]) -> list[Step]:
    """The steps of these names, and the first, which says what card it is; all without names.

    Raises:
        InputError: there is no step of a name.
    """
    known = {step.name: step for step in STEPS}
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"steps={unknown[0]!r}: expected some of {', '.join(known)}")
    return [step for step in STEPS if not names or step is STEPS[0] or step.name in names]
