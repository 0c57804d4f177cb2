"""A run's curves in TensorBoard's event files, which `tensorboard --logdir runs` shows."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.monitoring.history import History
from utils.structures import Image
from utils.visualization.curves import PLOTS

EVENTS = "events.out.tfevents"  # begins the names of files that TensorBoard looks for


def expect_tensorboard() -> None:
    """Refuse to go without the package.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("monitor='tensorboard': not installed; pip install tensorboard")


class TensorBoardFiles:
    """The event file of one run, beside its other files, so that it has the run's name there.

    It is written anew from the history where a run goes on. torch's `SummaryWriter` would write
    from a thread, which a data loader's workers inherit and which tells of a full disk by itself.

    Args:
        folder: the run's.
        history: what was measured before.
        say: prints one line.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, history: History, say: Callable[[str], None]) -> None:
        expect_tensorboard()
        self._folder, self._say = folder, say
        self._file = folder / f"{EVENTS}.{time.time():.0f}.{platform.node() or 'here'}"
        self._written: set[tuple[float, str]] = set()
        self._gave_up = False
        self._begin()
        self.show(history)

    def show(self, history: History, plots: Container[str] | None = None) -> None:
        """Write the figures that are new."""
        from torch.utils.tensorboard import summary

        new = [
            (step, name, value)
            for step, row in history.items()
            for name, value in row.items()
            if (step, name) not in self._written
        ]
        self._written.update((step, name) for step, name, _ in new)
        self._append(
            *({"step": round(s), "summary": summary.scalar(name, v)} for s, name, v in new)
        )

    def picture(self, step: float, title: str, image: Image) -> None:
        """Write a picture, uint8 [H, W, 3]."""
        from torch.utils.tensorboard import summary

        shown = summary.image(title, image, dataformats="HWC")
        self._append({"step": round(step), "summary": shown})

    def close(self) -> None:
        """All is written already."""

    def _begin(self) -> None:
        """An empty file, with the windows of curves that Visdom has, instead of an earlier one."""
        from torch.utils.tensorboard import summary

        for file in self._folder.glob(f"{EVENTS}.*"):
            file.unlink(missing_ok=True)
        windows = {title: ["Multiline", [f"^{plot}/"]] for plot, (title, *_) in PLOTS.items()}
        layout = summary.custom_scalars({"Curves": windows})
        self._append({"file_version": "brain.Event:2"}, {"summary": layout})
        self._say(f"TensorBoard: `tensorboard --logdir {self._folder.parent}` shows the curves")

    def _append(self, *events: dict[str, Any]) -> None:
        """Add to the file, or give up on it: the figures are in metrics.csv in any case."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._gave_up:
            return
        try:
            with self._file.open("ab") as file:
                writer = RecordWriter(file)
                for event in events:
                    writer.write(Event(wall_time=time.time(), **event).SerializeToString())
        except OSError as error:
            self._gave_up = True
            reason = error.strerror or error
            self._say(f"TensorBoard: {self._file}: cannot be written: {reason}; going on without")
