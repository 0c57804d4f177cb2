"""What does one line tell of an epoch of training?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from import_param import TrainSettings
from utils.console.progress import duration
from utils.training.progress import Progress

HEADER_EVERY = 20  # epochs, fewer than a terminal has lines
NOTHING = "-"  # for what this epoch does not have


@dataclass(frozen=True)
class Column:
    """A figure of each epoch.

    Attributes:
        name: its head.
        width: in characters.
        figure: its name, or how it begins, among the figures of an epoch.
        form: how it is written.
    """

    name: str
    width: int
    figure: str
    form: str = "loss"


LOSSES = (
    Column("box", 6, "loss/box"),
    Column("object", 6, "loss/objectness"),
    Column("class", 6, "loss/classes"),
)
TEACHER = Column("teach", 6, "loss/teacher")
QUALITY = (
    Column("P", 5, "metrics/precision", ".3f"),
    Column("R", 5, "metrics/recall", ".3f"),
    Column("mAP@.5", 6, "mAP/mAP@.5", ".4f"),
    Column("@.5:.95", 7, "mAP/mAP@.5:.95", ".4f"),
)
DEAD = Column("dead", 4, "sparsity/below", ".0%")  # channels whose scale is near zero


class EpochLines:
    """The lines of a training, in columns that fit 100 characters; it takes each epoch's time.

    Example::

        epoch    box object  class     P     R mAP@.5 @.5:.95    best    time     left
         1/40 0.0612 1.2345 0.0450 0.812 0.734 0.7812  0.4512 0.7812*    0:12     7:48

    A star stands beside a new best; `left` is what the epochs to come will take.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self.epochs = settings.training.epochs
        teacher = (TEACHER,) if settings.distillation.teacher else ()
        dead = (DEAD,) if settings.sparsity.is_pruned else ()
        self.columns = (*LOSSES, *teacher, *QUALITY, *dead)
        self._began = self._last = time.monotonic()
        self._count = 0

    def header(self) -> str:
        """The names of the columns."""
        names = [f"{column.name:>{column.width}}" for column in self.columns]
        return f"{'epoch':>{self._width}} {' '.join(names)} {'best':>7} {'time':>7} {'left':>8}"

    def of(self, progress: Progress, figures: Mapping[str, float], better: bool) -> str:
        """The line of the epoch that is done, now and then below the header."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        self._count += 1
        left = (now - self._began) / self._count * (self.epochs - progress.epoch)
        values = [_written(column, figures) for column in self.columns]
        best = f"{progress.best:.4f}" if progress.best >= 0 else NOTHING
        line = (
            f"{f'{progress.epoch}/{self.epochs}':>{self._width}} {' '.join(values)} "
            f"{best + ('*' if better else ' '):>7} {duration(seconds):>7} {duration(left):>8}"
        )
        is_headed = self._count % HEADER_EVERY == 1
        return f"{self.header()}\n{line}" if is_headed else line

    @property
    def _width(self) -> int:
        return max(5, 2 * len(str(self.epochs)) + 1)


def _written(column: Column, figures: Mapping[str, float]) -> str:
    names = [name for name in figures if name.startswith(column.figure)]
    value = figures[min(names, key=len)] if names else None  # @.5, not @.5:.95
    if value is None or math.isnan(value):
        return f"{NOTHING:>{column.width}}"
    text = _loss(value) if column.form == "loss" else f"{value:{column.form}}"
    return f"{text:>{column.width}}"


def _loss(value: float) -> str:
    """In 6 characters, however large.

    >>> [_loss(value) for value in (0.03124, 12.345678, 12345.6, 123456789.0)]
    ['0.0312', '12.346', '12346', '1.2e8']
    """
    if abs(value) >= 99999.5:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    digits = max(0, 4 - max(0, len(str(int(abs(value)))) - 1))
    return f"{value:.{digits}f}"[:6].rstrip(".")
