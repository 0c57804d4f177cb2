"""What has a run measured so far? Its record: a table, curves as PNG files, a Visdom page."""

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from utils.errors import only_warn
from utils.monitoring.client import Picture, Sender
from utils.monitoring.history import CSV_NAME, History, read_history, replay, write_history
from utils.monitoring.server import Address, Server, answers, start
from utils.progress import say
from utils.structures import Image
from utils.visualization.curves import plot_curves
from utils.visualization.draw import grid, within

SERVER_DATA = Path("runs/visdom")
CLOSE_TIMEOUT = 15.0  # seconds that a run's end may wait for the page
PLOT_SHARE = 0.05  # of a run's time at most goes into drawing PNG files
CELL = 320  # pixels, the longer side of one picture in a grid
GRID_COLUMNS = 4


class Monitor:
    """The record of one run, kept in `run_folder` and shown in Visdom.

    ``metrics.csv`` always holds every figure; ``curves_*.png`` are redrawn now and then and
    when the run ends. Neither depends on Visdom, and nothing here waits for Visdom but `close`
    (for `CLOSE_TIMEOUT` at most) and the constructor: for two seconds, or up to `START_TIMEOUT`
    where a server of our own starts slowly.

    Args:
        run_folder: made where it does not exist.
        visdom: a server's address, "" for none. Where nothing answers there and it is this
            machine's, a server is started that listens on 127.0.0.1 only, on that port or, where
            another program has it, the next free one. Elsewhere, one line says so and the run goes
            on; a server that appears later is given the whole history.
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

    Raises:
        InputError: the address is none, or on resume metrics.csv is damaged.
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
    ) -> None:
        self.folder = Path(run_folder)
        self._say = say
        self._closed = False
        self._plot_after = 0.0  # on the clock of time.monotonic
        self._server: Server | None = None
        self._sender: Sender | None = None
        self.history: History = {}
        if resume_before is not None:
            if history is None:
                history = read_history(self.folder / CSV_NAME, resume_before)
            self.history = history
        write_history(self.folder / CSV_NAME, self.history)
        if visdom:
            address, answering = self._find_server(Address.parse(visdom), Path(server_data), keep)
            name = name or self.folder.resolve().name
            self._open_page(address, answering, name, resume_before is None, retry)
        atexit.register(self.close)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The page of this run, "" where Visdom is not used."""
        return f"{self._sender.address}/env/{self._sender.env}" if self._sender else ""

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
        if self._sender:
            replay(self.history, self._sender, {name.partition("/")[0] for name in values})
        if time.monotonic() >= self._plot_after:
            self._plot()

    def images(self, step: float, title: str, images: Sequence[Image]) -> None:
        """Show pictures, uint8 [H, W, 3] of any sizes, as a grid in place of `title`'s last one."""
        if self._sender and len(images):
            shown = f"{title}, epoch {float(step):g}"
            self._sender.show(
                f"images-{title}",
                Picture(shown, grid([within(image, CELL) for image in images], GRID_COLUMNS)),
            )

    def close(self) -> None:
        """Draw the last curves and give the page some seconds to catch up. May be called twice."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        try:
            self._plot()
        finally:
            self._close_page()

    def _plot(self) -> None:
        started = time.monotonic()
        with only_warn(self._say):
            plot_curves(self.history, self.folder)
        now = time.monotonic()
        self._plot_after = now + (now - started) / PLOT_SHARE

    def _find_server(self, address: Address, data: Path, keep: bool) -> tuple[Address, bool]:
        """A server to use, the one asked for or one that we start, and whether it answers."""
        if answers(address):
            return address, True
        if not address.local:
            self._say(f"Visdom: nothing answers at {address}; going on without")
            return address, False
        try:
            self._server = start(address, data, keep)
        except (RuntimeError, OSError) as problem:
            self._say(f"Visdom: {problem}; going on without")
            return address, False
        if self._server.address.port != address.port:
            self._say(f"Visdom: port {address.port} is taken by something else")
        if keep:
            self._say(
                "Visdom: started a server, which stays after the run; "
                f"`kill {self._server.process.pid}` ends it"
            )
        threading.Thread(target=self._report_page, args=[self._server], daemon=True).start()
        return self._server.address, True

    def _report_page(self, server: Server) -> None:
        """Say once how fetching the page's scripts went, where that was necessary and not quick."""
        started = time.monotonic()
        while (problem := server.page_news()) is None and server.process.poll() is None:
            time.sleep(0.2)
        if problem:
            self._say(
                f"Visdom: its page stays blank, since its scripts cannot be fetched ({problem}); "
                "the server takes the curves all the same"
            )
        elif time.monotonic() - started > 1:
            self._say("Visdom: the page's scripts have come; reload a page that is blank")

    def _open_page(
        self, address: Address, answering: bool, name: str, clear: bool, retry: float
    ) -> None:
        try:
            self._sender = Sender(address, name, clear, not answering, self._say, retry)
        except ImportError as problem:
            self._say(f"Visdom: {problem}; going on without")
            return
        if answering:
            self._say(f"Visdom: {self.address}")
        replay(self.history, self._sender)

    def _close_page(self) -> None:
        if self._sender and not self._sender.close(CLOSE_TIMEOUT):
            self._say("Visdom: the server did not take the last curves; they are in the files")
        if self._server and not self._server.outlives_run:
            self._server.stop()
