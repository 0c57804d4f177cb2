"""A run's page in Visdom: on which server is it, and how does it follow the run?"""

import threading
import time
from collections.abc import Callable, Container
from pathlib import Path

from utils.console.progress import Wait
from utils.errors import InputError
from utils.files.writing import alone
from utils.monitoring.client import Picture, Sender
from utils.monitoring.history import History, replay
from utils.monitoring.server import Address, Server, answers, start
from utils.structures import Image

CLOSE_TIMEOUT = 15.0  # seconds that a run's end may wait for the page


class VisdomPage:
    """One run's environment on a server: one that answers, or else our own on this machine.

    Nothing here waits for Visdom but `close` (for `CLOSE_TIMEOUT` at most) and the constructor: for
    two seconds, or up to `START_TIMEOUT` where a server of our own starts slowly.

    Args:
        address: the server's. Where nothing answers there and it is this machine's, a server is
            started that listens on 127.0.0.1 only, on that port or, where another program has it,
            the next free one. Elsewhere, one line says so and the run goes on; a server that
            appears later is given the whole history.
        name: of the environment.
        history: what was measured before.
        clear: remove what an earlier run of this name has left.
        keep: a server that we started stays when the run is over.
        server_data: where a server of our own keeps its pages, log and, in need, scripts.
        say: prints one line.
        retry: seconds between attempts to reach a server that is away.

    Raises:
        InputError: the address is none.
    """

    def __init__(
        self,
        address: str,
        name: str,
        history: History,
        clear: bool,
        keep: bool,
        server_data: Path,
        say: Callable[[str], None],
        retry: float,
    ) -> None:
        self._say = say
        self.server: Server | None = None
        self.sender: Sender | None = None
        used, answering = self._find_server(Address.parse(address), server_data, keep)
        self._open_page(used, answering, name, clear, retry)
        self.show(history)

    @property
    def address(self) -> str:
        """The page of this run, "" where Visdom cannot be used."""
        return f"{self.sender.address}/env/{self.sender.env}" if self.sender else ""

    def show(self, history: History, plots: Container[str] | None = None) -> None:
        """Show the curves of `plots`, or all, from the first epoch on."""
        if self.sender:
            replay(history, self.sender, plots)

    def picture(self, step: float, title: str, image: Image) -> None:
        """Show a picture in place of `title`'s last one."""
        if self.sender:
            shown = f"{title}, epoch {step:g}"
            self.sender.show(f"images-{title}", Picture(shown, image))

    def close(self) -> None:
        """Give the page some seconds to catch up."""
        if self.sender and not self.sender.close(CLOSE_TIMEOUT):
            self._say("Visdom: the server did not take the last curves; they are in the files")
        if self.server and not self.server.outlives_run:
            self.server.stop()

    def _find_server(self, address: Address, data: Path, keep: bool) -> tuple[Address, bool]:
        """A server to use, the one asked for or one that we start, and whether it answers."""
        if answers(address):
            return address, True
        if not address.local:
            self._say(f"Visdom: nothing answers at {address}; going on without")
            return address, False
        try:
            with Wait("starting Visdom"), alone(data / "starting", lambda: None):
                if answers(address):  # another run has started it meanwhile
                    return address, True
                self.server = start(address, data, keep)
        except (InputError, RuntimeError, OSError) as problem:
            self._say(f"Visdom: {problem}; going on without")
            return address, False
        if self.server.address.port != address.port:
            self._say(f"Visdom: port {address.port} is taken by something else")
        if keep:
            self._say(
                "Visdom: started a server, which stays after the run; "
                f"`{self.server.end_command}` ends it"
            )
        threading.Thread(target=self._report_page, args=[self.server], daemon=True).start()
        return self.server.address, True

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
            self.sender = Sender(address, name, clear, not answering, self._say, retry)
        except ImportError as problem:
            self._say(f"Visdom: {problem}; going on without")
            return
        if answering:
            self._say(f"Visdom: {self.address}")
