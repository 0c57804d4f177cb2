"""How do curves and pictures reach a Visdom page without making the training wait?"""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.monitoring.server import Address, answers
from utils.structures import Image
from utils.visualization.curves import DOTTED_UNTIL, Curve, curve_colour, describe_plot, place

RETRY = 10.0  # seconds between attempts to reach a server that is away, and between looks at it
CONNECT_TIMEOUT = 2.0  # seconds for a connection
REPLY_TIMEOUT = 10.0  # seconds without a byte of the reply
PAUSE = 1.0  # seconds between one update of the page and the next
MAX_POINTS = 2000  # of one curve on the page; a longer one is thinned, its last point kept


@dataclass(frozen=True)
class Curves:
    """A window of lines: name → (epochs, values)."""

    plot: str
    curves: Mapping[str, Curve]

    def draw(self, client: Any, window: str, env: str) -> None:
        """Send it to the page."""
        title, label, unit = describe_plot(self.plot)
        points = max(len(epochs) for epochs, _ in self.curves.values())
        x, y = (np.full((points, len(self.curves)), np.nan) for _ in range(2))
        for column, (epochs, values) in enumerate(self.curves.values()):
            x[: len(epochs), column], y[: len(values), column] = epochs, values
        y[~np.isfinite(y)] = np.nan  # JSON has neither infinity nor NaN: Visdom writes null
        picked = np.unique(np.linspace(0, points - 1, min(points, MAX_POINTS)).round().astype(int))
        colours = np.array([curve_colour(self.plot, i) for i in range(len(self.curves))])
        options = {
            "title": title,
            "xlabel": "epoch",
            "ylabel": label,
            "legend": list(self.curves),
            "showlegend": True,
            "linecolor": colours,
            "markercolor": colours,
            "markers": points < DOTTED_UNTIL,
            "markersize": 4,
            "width": 520,
            "height": 360,
        }
        layout: dict[str, Any] = {"title": {"text": title, "x": 0.02, "xanchor": "left"}}
        if unit:
            layout["yaxis"] = {"title": label, "range": [0, 1.02]}
        options["layoutopts"] = {"plotly": layout}  # at the left, the tool bar spares the title
        client.line(X=x[picked], Y=y[picked], win=window, env=env, opts=options)


@dataclass(frozen=True)
class Picture:
    """A window with one picture, uint8 [H, W, 3]."""

    title: str
    image: Image

    def draw(self, client: Any, window: str, env: str) -> None:
        """Send it to the page."""
        height, width = self.image.shape[:2]
        shown = min(max(width, 360), 1060)  # as wide as two windows of curves, at most
        options = {
            "title": self.title,
            "jpgquality": 90,
            "width": shown,
            "height": round(shown * height / width) + 30,
        }
        client.image(self.image.transpose(2, 0, 1), win=window, env=env, opts=options)


class Sender:
    """Keeps what each window shows, and a thread that brings the server up to it.

    Only the latest content of each window is held: `show` replaces it and returns at once,
    however the server is. A window is always sent whole, so a server that was away, or that comes
    back empty, gets the whole history by the same path. Every request has a time-out.

    Windows stand in the order of `PLOTS`, pictures last. The page puts what is new at its end, so
    all are sent again where one comes late, such as mAP after some epochs.

    Args:
        address: of the server.
        env: the environment on the page.
        clear: remove what an earlier run of this name has left in the environment.
        away: the server is known not to answer: a line is said only when it does.
        say: prints a line about the server; called from the thread.
        retry: seconds between attempts to reach a server that is away.
    """

    def __init__(
        self,
        address: Address,
        env: str,
        clear: bool,
        away: bool,
        say: Callable[[str], None],
        retry: float = RETRY,
    ) -> None:
        _load()
        self.address = address
        self.env = re.sub(r"[^\w.-]", "_", env) or "main"
        self._clear = clear
        self._say = say
        self._retry = retry
        self._windows: dict[str, Curves | Picture] = {}
        self._waiting: set[str] = set()
        self._on_page: set[str] = set()
        self._state = threading.Condition()
        self._closing = False
        self._client: Any = None
        self._away = away
        self._thread = threading.Thread(target=self._run, name="visdom", daemon=True)
        self._thread.start()

    def show(self, window: str, content: Curves | Picture) -> None:
        """Have a window show `content`, in place of what it shows. Returns at once."""
        with self._state:
            self._windows[window] = content
            self._waiting.add(window)
            self._state.notify()

    def close(self, timeout: float) -> bool:
        """Send what is waiting, for at most `timeout` seconds.

        Returns False where some of it could not be sent and no line has told so already.
        """
        with self._state:
            self._closing = True
            self._state.notify()
        self._thread.join(timeout)
        return self._away or not (self._thread.is_alive() or self._waiting)

    def _run(self) -> None:
        while True:
            self._update()
            with self._state:
                if self._closing:
                    return
                if self._client is None:
                    self._state.wait_for(self._is_closing, self._retry)
                else:
                    self._state.wait_for(self._is_closing, min(PAUSE, self._retry))
                    self._state.wait_for(self._has_work, self._retry)

    def _is_closing(self) -> bool:
        return self._closing

    def _has_work(self) -> bool:
        return self._closing or bool(self._waiting)

    def _update(self) -> None:
        """One attempt to show everything that waits."""
        try:
            if self._client is None:
                self._connect()
            elif self.env not in self._client.get_env_list():  # restarted, and empty
                self._replay_windows()
            self._send()
        except Exception as problem:
            # Anything at all: a server that answers nonsense must not end the training's curves.
            self._client = None
            if not self._away:
                self._away = True
                reason = str(problem).partition("\n")[0] or type(problem).__name__
                self._say(
                    f"Visdom at {self.address} does not take the curves ({reason}); "
                    "the run goes on, and they will be there when the server answers again"
                )
        else:
            if self._away:
                self._away = False
                self._say(f"Visdom at {self.address} answers now")

    def _connect(self) -> None:
        if not answers(self.address):
            raise ConnectionError("no answer")
        self._client = connect(self.address, self.env)
        if self._clear:  # windows of an earlier run of this name
            self._client.close(win=None, env=self.env)
            self._clear = False
        self._replay_windows()

    def _replay_windows(self) -> None:
        """Have every window sent again, whole: the server is new, or lost what it had."""
        self._on_page.clear()
        with self._state:
            self._waiting = set(self._windows)

    def _send(self) -> None:
        sent = False
        while True:
            with self._state:
                if not self._waiting:
                    break
                window = min(self._waiting, key=lambda name: (place(name), name))
                content = self._windows[window]
            behind = [name for name in self._on_page if place(name) > place(window)]
            if behind and window not in self._on_page:
                self._client.close(win=None, env=self.env)
                self._replay_windows()
                continue
            content.draw(self._client, window, self.env)
            self._on_page.add(window)
            sent = True
            with self._state:
                if self._windows[window] is content:  # else it changed meanwhile: again
                    self._waiting.discard(window)
        if sent:
            self._client.save([self.env])  # so that a server started later still has it


def _load() -> None:
    """Import, before there is a thread, what the thread uses.

    A data loader's worker forked during an import in another thread would inherit its lock.
    """
    import visdom  # noqa: F401
    from PIL import Image as PillowImage

    PillowImage.preinit()


def connect(address: Address, env: str) -> Any:
    """A Visdom client every one of whose requests has a time-out and raises where it fails."""
    import visdom

    logging.getLogger("visdom").setLevel(logging.ERROR)  # it warns of what we ask for

    class Client(visdom.Visdom):
        session: Any  # requests.Session, which Visdom's own stubs leave out

        def _handle_post(self, url: str, data: Any = None) -> str:
            self.session.trust_env = not address.local  # a proxy cannot reach this machine
            reply = self.session.post(
                url, data=data or {}, timeout=(CONNECT_TIMEOUT, REPLY_TIMEOUT)
            )
            reply.raise_for_status()
            return str(reply.text)

    return Client(
        server=address.server,
        port=address.port,
        base_url=address.base or "/",
        env=env,
        raise_exceptions=True,
        use_incoming_socket=False,
    )
