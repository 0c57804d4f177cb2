"""Which Visdom server shows the curves? One that answers, or else our own on this machine.

`start` runs `python -m utils.monitoring.server PORT DATA STATIC [--owned]` in a process of
its own; it is not meant to be typed.
"""

import importlib.util
import inspect
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from utils.errors import InputError
from utils.files.writing import write_text
from utils.monitoring.compare import send_comparison
from utils.monitoring.page import fetch_page, static_folder

ROOT = Path(__file__).resolve().parents[2]
LOCAL = {"127.0.0.1", "localhost", "::1"}
PROBE_TIMEOUT = 2.0  # seconds a server may take to answer
START_TIMEOUT = 20.0  # seconds our own may take to start: it imports NumPy and SciPy
PORTS_TRIED = 20


@dataclass(frozen=True)
class Address:
    """Where a server is: http://host:port/base, the base empty or with a leading slash."""

    scheme: str
    host: str
    port: int
    base: str = ""

    @staticmethod
    def parse(text: str) -> "Address":
        """Read `host`, `host:port` or a full http(s) address; Visdom's port 8097 by default.

        Raises:
            InputError: `text` is none of these.
        """
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"visdom address {text!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not host or port == 0:
            raise InputError(f"visdom address {text!r}: expected something like http://host:8097")
        return Address(parts.scheme, host, port or 8097, parts.path.rstrip("/"))

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return self.host in LOCAL

    @property
    def server(self) -> str:
        """Scheme and host, without port, as Visdom's client wants them."""
        return f"{self.scheme}://" + (f"[{self.host}]" if ":" in self.host else self.host)

    def __str__(self) -> str:
        return f"{self.server}:{self.port}{self.base}"


@dataclass(frozen=True)
class Server:
    """A server of our own.

    Attributes:
        address: where it answers.
        process: the running server.
        log: the file that it prints into.
        page: the file in which it says how fetching the page's scripts went; see `page_news`.
        outlives_run: whether it goes on after this process.
    """

    address: Address
    process: subprocess.Popen[bytes]
    log: Path
    page: Path
    outlives_run: bool

    @property
    def end_command(self) -> str:
        """What ends the server, typed into a terminal."""
        pid = self.process.pid
        return f"taskkill /F /PID {pid}" if sys.platform == "win32" else f"kill {pid}"

    def stop(self) -> None:
        """End the server, by force after five seconds."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def page_news(self) -> str | None:
        """How fetching the page's scripts went.

        Returns:
            None while they are being fetched; "" when they are there; or the problem that left the
            page blank, in which case only the server's API works.
        """
        return self.page.read_text(encoding="utf-8").strip() if self.page.exists() else None


def answers(address: Address, timeout: float = PROBE_TIMEOUT) -> bool:
    """Whether a Visdom server answers a GET within `timeout` seconds. Never raises.

    The question is asked in a thread, since a socket's time-out bounds neither the look-up of a
    name nor a reply that trickles.
    """
    answer: list[bool] = []
    asking = threading.Thread(target=lambda: answer.append(_ask(address, timeout)), daemon=True)
    asking.start()
    asking.join(timeout)
    return answer == [True]


def _ask(address: Address, timeout: float) -> bool:
    # A proxy that the environment names cannot reach this machine's own ports.
    handlers = [urllib.request.ProxyHandler({})] if address.local else []
    try:
        opener = urllib.request.build_opener(*handlers)
        with opener.open(f"{address}/", timeout=timeout) as reply:
            return b"visdom" in reply.read(65536).lower()
    except (OSError, HTTPException, ValueError):  # refused, silent, or not HTTP at all
        return False


def start(address: Address, data: str | Path, keep: bool = True) -> Server:
    """Start a server on 127.0.0.1, on this port or the next free one, and wait until it answers.

    Args:
        address: whose port is tried first.
        data: the folder for its environments, log and, where the user's cache folder cannot be
            written, page.
        keep: the server goes on after this process, and ignores its Ctrl-C; else it ends with it,
            however this process ends.

    Raises:
        RuntimeError: no server could be started; the message is one line.
    """
    if importlib.util.find_spec("visdom") is None:
        raise RuntimeError("visdom is not installed")
    folder = Path(data).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    static = static_folder(folder)
    port = _free_port(address.port)
    page = folder / f"page-{port}.txt"
    page.unlink(missing_ok=True)
    log = folder / f"server-{port}.log"
    command = [
        sys.executable,
        "-m",
        "utils.monitoring.server",
        str(port),
        str(folder),
        str(static),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command if keep else [*command, "--owned"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL if keep else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the training.
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # Windows' own
            # Visdom asks for the user's name, which a container's user may lack.
            env={"LOGNAME": "user", **os.environ},
        )
    server = Server(Address("http", "127.0.0.1", port), process, log, page, keep)
    _await_start(server)
    return server


def _await_start(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not answers(server.address):
        if server.process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            lines = server.log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
            raise RuntimeError(f"the server on port {server.address.port} did not start: {last}")
        time.sleep(0.1)


def _free_port(first: int) -> int:
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with closing(socket.socket()) as probe:
            # Without this, the connections of a server just ended would block its port; on Windows,
            # with it, a port that another program uses would seem free.
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {first} to {first + PORTS_TRIED - 1}")


# What follows runs in the server's own process.


def serve(port: int, data: Path, static: Path, owned: bool) -> None:
    """Run Visdom's server in this process until it is ended.

    It answers this machine alone, and of what a browser asks for only what our own page does (see
    `is_own`): Visdom's handlers, websockets' among them, take whatever any page sends. Its address
    leads to the run that was last heard of.

    `visdom.server`'s own command first downloads the page's scripts, and crashes where it cannot;
    this one answers at once, while a thread completes the page.
    """
    from tornado.httputil import HTTPServerRequest
    from tornado.web import ErrorHandler, RedirectHandler
    from visdom.server import app, run_server
    from visdom.server.handlers import base_handlers, web_handlers

    class Application(app.Application):
        def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
            if not is_own(request.headers.get_list("Host"), request.headers.get_list("Origin")):
                return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
            if request.path == "/" and (run := newest_run(self.state, data)):
                there = {"url": f"/env/{quote(run)}", "permanent": False}
                return self.get_handler_delegate(request, RedirectHandler, there)
            return super().find_handler(request, **options)

    vars(run_server)["Application"] = Application
    _overlook_closed_pages(base_handlers.BaseWebSocketHandler)
    handlers = vars(web_handlers)
    handlers["compare_envs"] = send_comparison
    if "env_path" in inspect.signature(handlers["gather_envs"]).parameters:
        # Visdom 0.2 looks for the runs to compare in ~/.visdom, wherever it keeps them.
        handlers["gather_envs"] = partial(handlers["gather_envs"], env_path=str(data))
    # Without autoreload=False it would restart at every change of a file that it has imported.
    app.tornado_settings.update(static_path=static, template_path=static, autoreload=False)
    if owned:
        _in_background(_end_with_owner)
    page = data / f"page-{port}.txt"
    _in_background(lambda: write_text(page, fetch_page(static)))
    sys.argv = ["visdom", "-port", str(port), "-env_path", str(data), "-bind_local"]
    sys.argv += ["-logging_level", "WARNING"]
    run_server.main()


def _overlook_closed_pages(handler: Any) -> None:
    """Let a page that was closed while it opened not keep all others from being served.

    Visdom counts such a page among those that are open for as long as the server runs.
    """
    from tornado.websocket import WebSocketClosedError

    write_message = handler.write_message

    def write_if_open(self: Any, *message: Any, **options: Any) -> Any:
        with suppress(WebSocketClosedError):
            return write_message(self, *message, **options)

    handler.write_message = write_if_open


def newest_run(runs: Iterable[str], data: Path) -> str:
    """The run whose curves were kept last; "" where there is none but Visdom's own `main`."""
    kept = {run: data / f"{run}.json" for run in runs if run != "main"}
    times = {run: file.stat().st_mtime for run, file in kept.items() if file.exists()}
    return max(times, key=times.__getitem__, default="")


def is_own(hosts: Sequence[str], origins: Sequence[str]) -> bool:
    """Whether a request comes from our own page, or from a program on this machine.

    A browser says in `Origin` which page sends; one of another server is refused. A page whose name
    was made to mean 127.0.0.1 (DNS rebinding) has that name in `Host`, too. A tunnel may lead here
    from another port, so ports do not count, but those of host and origin are the same.

    >>> is_own(["localhost:8097"], ["http://localhost:8097"]), is_own(["127.0.0.1:8097"], [])
    (True, True)
    >>> is_own(["evil.com:8097"], []), is_own(["localhost:8097"], ["http://evil.com"])
    (False, False)
    """
    if len(hosts) != 1 or len(origins) > 1:
        return False
    try:
        local = urlsplit(f"http://{hosts[0]}").hostname in LOCAL
    except ValueError:
        return False
    return local and all(
        origin.lower() in (f"http://{hosts[0]}".lower(), f"https://{hosts[0]}".lower())
        for origin in origins
    )


def _end_with_owner() -> None:
    sys.stdin.buffer.read()  # returns when the process that holds the other end is gone
    os._exit(0)


def _in_background(work: Callable[[], object]) -> None:
    threading.Thread(target=work, daemon=True).start()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), "--owned" in sys.argv)
