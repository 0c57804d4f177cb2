"""What has a run measured so far? Its record: a table, curves as PNG files, a page to watch."""

import atexit
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from utils.console.progress import say
from utils.errors import only_warn
from utils.monitoring.history import CSV_NAME, History, read_history, write_history
from utils.monitoring.tensorboard import TensorBoardFiles
from utils.monitoring.visdom_page import VisdomPage
from utils.structures import Image
from utils.visualization.curves import plot_curves
from utils.visualization.draw import grid, within

SERVER_DATA = Path("runs/visdom")
PLOT_SHARE = 0.05  # of a run's time at most goes into drawing PNG files
CELL = 320  # pixels, the longer side of one picture in a grid
GRID_COLUMNS = 4


class Monitor:
    """The record of one run, kept in `run_folder` and shown in Visdom or TensorBoard.

    ``metrics.csv`` always holds every figure; ``curves_*.png`` are redrawn now and then and
    when the run ends. Neither depends on Visdom or waits for it, see `VisdomPage`.

    Args:
        run_folder: made where it does not exist.
        visdom: a server's address, "" for none; see `VisdomPage`.
        name: of the environment on the page, one for each run; the run folder's name by default.
        resume_before: None starts a new record, in place of one that may be there. A number keeps
            the rows of earlier epochs and drops those from it on, which will be run again.
        history: the rows of earlier epochs, instead of those in metrics.csv.
        keep: a server that we started stays when the run is over, so that its curves can be looked
            at, and the next run finds it; its process id is printed. False ends it in `close`, or
            with this process if that comes first: for tests and CI. A server that was running
            before stays anyway.
        server_data: where a server of our own keeps its pages, log and, in need, scripts.
        say: prints one line; the default does not tear progress bars.
        retry: seconds between attempts to reach a server that is away.
        tensorboard: write files for TensorBoard, where Visdom is not used.

    Raises:
        InputError: the address is none, TensorBoard is not installed, or on resume metrics.csv is
            damaged.
    """

    def __init__(
        self,
        run_folder: str | Path,
        visdom: str = "",
        name: str = "",
        resume_before: float | None = None,
        keep: bool = True,
        server_data: str | Path = SERVER_DATA,
        say: Callable[[str], None] = say,
        retry: float = 10.0,
        history: History | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.folder = Path(run_folder)
        self._say = say
        self._closed = False
        self._plot_after = 0.0  # on the clock of time.monotonic
        self.page: VisdomPage | TensorBoardFiles | None = None
        self.history: History = {}
        if resume_before is not None:
            if history is None:
                history = read_history(self.folder / CSV_NAME, resume_before)
            self.history = history
        write_history(self.folder / CSV_NAME, self.history)
        if visdom:
            self.page = VisdomPage(
                visdom,
                name or self.folder.resolve().name,
                self.history,
                clear=resume_before is None,
                keep=keep,
                server_data=Path(server_data),
                say=say,
                retry=retry,
            )
        elif tensorboard:
            self.page = TensorBoardFiles(self.folder, self.history, say)
        atexit.register(self.close)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, step: float, values: Mapping[str, float]) -> None:
        """Record figures at `step`, in epochs, and show them; see `add`."""
        self.add(step, values)
        self.show(values)

    def add(self, step: float, values: Mapping[str, float]) -> None:
        """Add figures at `step`, in epochs, to the history; a second call adds to the first.

        Names are "plot/curve", such as "loss/box" or "AP/cat".
        """
        row = self.history.setdefault(round(float(step), 6), {})
        row.update((name, float(value)) for name, value in values.items())

    def show(self, values: Iterable[str]) -> None:
        """Write the history to metrics.csv, and show the curves that `values` belong to."""
        with only_warn(self._say):  # the next epoch writes it whole again
            write_history(self.folder / CSV_NAME, self.history)
        if self.page:
            self.page.show(self.history, {name.partition("/")[0] for name in values})
        if time.monotonic() >= self._plot_after:
            self._plot()

    def images(self, step: float, title: str, images: Sequence[Image]) -> None:
        """Show pictures, uint8 [H, W, 3] of any sizes, as a grid in place of `title`'s last one."""
        if self.page and len(images):
            cells = [within(image, CELL) for image in images]
            self.page.picture(step, title, grid(cells, GRID_COLUMNS))

    def close(self) -> None:
        """Draw the last curves and give the page some seconds to catch up. May be called twice."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        try:
            self._plot()
        finally:
            if self.page:
                self.page.close()

    def _plot(self) -> None:
        started = time.monotonic()
        with only_warn(self._say):
            plot_curves(self.history, self.folder)
        now = time.monotonic()
        self._plot_after = now + (now - started) / PLOT_SHARE


class NoMonitor(Monitor):
    """What processes have that only take part in a run: the main one keeps its record."""

    def __init__(self) -> None:
        self.history = {}
        self.page = None

    def show(self, values: Iterable[str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
