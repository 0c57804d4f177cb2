"""Which steps are there, and in which order? What matters most comes first."""

from __future__ import annotations

from collections.abc import Sequence

from tools.gpu.card import card
from tools.gpu.parity import parity
from tools.gpu.runner import Step
from tools.gpu.timing import timing
from utils.errors import InputError

STEPS = (
    Step("card", "which card it is", 60, card),
    Step("parity", "the card computes what the CPU computes", 120, parity),
    Step("timing", "a time is over when the card is done", 60, timing),
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
