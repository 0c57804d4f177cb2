"""Which Visdom server shows the curves? One that answers, or else our own on this machine.

`start` runs `python -m utils.monitoring.visdom_server PORT DATA STATIC [--owned]` in a process of
its own; it is not meant to be typed.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from utils.errors import InputError
from utils.files import write_bytes, write_text

ROOT = Path(__file__).resolve().parents[2]
LOCAL = {"127.0.0.1", "localhost", "::1"}
PROBE_TIMEOUT = 2.0  # seconds a server may take to answer
START_TIMEOUT = 20.0  # seconds our own may take to start: it imports NumPy and SciPy
DOWNLOAD_TIMEOUT = 10.0  # seconds without a byte
NPM_TIMEOUT = 90.0  # seconds in all
PORTS_TRIED = 20

CDN = "https://unpkg.com/"  # serves the files of npm packages by their path

# What Visdom's page loads but its package lacks: npm package, file in it, place in static/.
# MathJax, which only texts with formulas need, is left out: it is five times all the rest.
PAGE_FILES = (
    ("jquery@3.1.1", "dist/jquery.min.js", "js/jquery.min.js"),
    ("bootstrap@3.3.7", "dist/js/bootstrap.min.js", "js/bootstrap.min.js"),
    ("bootstrap@3.3.7", "dist/css/bootstrap.min.css", "css/bootstrap.min.css"),
    *(
        ("bootstrap@3.3.7", f"dist/fonts/{font}", f"fonts/{font}")
        for font in (
            "glyphicons-halflings-regular.eot",
            "glyphicons-halflings-regular.svg",
            "glyphicons-halflings-regular.ttf",
            "glyphicons-halflings-regular.woff",
            "glyphicons-halflings-regular.woff2",
        )
    ),
    ("react@16.2.0", "umd/react.production.min.js", "js/react-react.min.js"),
    ("react-dom@16.2.0", "umd/react-dom.production.min.js", "js/react-dom.min.js"),
    ("layout-bin-packer@1.4.0", "dist/layout-bin-packer.js", "js/layout_bin_packer.js"),
    ("plotly.js-dist-min@2.11.1", "plotly.min.js", "js/plotly-plotly.min.js"),
    ("d3@3.5.17", "d3.min.js", "js/d3.v3.min.js"),
    ("d3-selection-multi@1.0.1", "build/d3-selection-multi.js", "js/d3-selection-multi.v1.js"),
    ("save-svg-as-png@1.4.17", "lib/saveSvgAsPng.js", "js/saveSvgAsPng.js"),
    ("sjcl@1.0.7", "sjcl.js", "js/sjcl.js"),
)
PAGE_FILES_OF_0_2 = (
    ("react-resizable@1.4.6", "css/styles.css", "css/react-resizable-styles.css"),
    ("react-grid-layout@0.16.3", "css/styles.css", "css/react-grid-layout-styles.css"),
)
PAGE_FILES_SINCE_0_3 = (
    ("react-resizable@3.1.3", "css/styles.css", "css/react-resizable-styles.css"),
    ("react-grid-layout@2.2.3", "css/styles.css", "css/react-grid-layout-styles.css"),
)
PageFile = tuple[str, str, str]
DOWNLOAD_PROBLEMS = (  # no network, a cut-off reply, not what it should be, no or broken npm
    InputError,  # of a folder that cannot be written
    OSError,
    HTTPException,
    ValueError,
    KeyError,
    tarfile.TarError,
    subprocess.SubprocessError,
)


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

        Raises InputError where `text` is none of these.
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

    process: the running server. log: what it prints.
    page: the file in which it says how fetching the page's scripts went; see `page_news`.
    kept: whether it goes on after this process.
    """

    address: Address
    process: subprocess.Popen[bytes]
    log: Path
    page: Path
    kept: bool

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
        """None while the page's scripts are being fetched; "" when they are there; or the problem
        that left the page blank, in which case only the server's API works."""
        return self.page.read_text(encoding="utf-8").strip() if self.page.exists() else None


def answers(address: Address, timeout: float = PROBE_TIMEOUT) -> bool:
    """Whether a Visdom server answers a GET within `timeout` seconds. Never raises.

    The question is asked in a thread, since a socket's time-out bounds neither the look-up of a
    name nor a reply that trickles.
    """
    found: list[bool] = []
    asking = threading.Thread(target=lambda: found.append(_ask(address, timeout)), daemon=True)
    asking.start()
    asking.join(timeout)
    return found == [True]


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

    data: the folder for its environments, log and, where the user's cache folder cannot be
        written, page.
    keep: the server goes on after this process, and ignores its Ctrl-C; else it ends with it,
        however this process ends.
    Raises RuntimeError, in one line, where no server could be started.
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
        "utils.monitoring.visdom_server",
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
            start_new_session=True,  # Ctrl-C is for the training
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
            # Without this, the connections of a server just ended would block its port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {first} to {first + PORTS_TRIED - 1}")


# The page ------------------------------------------------------------------------------------


def static_folder(data: Path) -> Path:
    """The folder that a server serves its page from, made complete but for `PAGE_FILES`.

    It is Visdom's own where someone has completed that already, else a copy in the user's cache
    folder, else one in `data`: the environment's own packages stay as they were installed.
    """
    package = _package_folder() / "static"
    if not missing_page_files(package):
        return package
    name = f"visdom-{importlib.metadata.version('visdom')}"
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (base / "yolov3-pruning" / name, data / name):
        try:
            for source in package.rglob("*"):
                target = folder / source.relative_to(package)
                if source.is_file() and not target.exists():
                    write_bytes(target, source.read_bytes())
        except (InputError, OSError):  # it cannot be written to, or the package cannot be read
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise RuntimeError(f"neither {base} nor {data} can be written")


def _package_folder() -> Path:
    spec = importlib.util.find_spec("visdom")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def missing_page_files(static: Path) -> list[PageFile]:
    old = importlib.metadata.version("visdom").startswith("0.2.")
    files = PAGE_FILES + (PAGE_FILES_OF_0_2 if old else PAGE_FILES_SINCE_0_3)
    return [file for file in files if not (static / file[2]).exists()]


def fetch_page(static: Path) -> str:
    """Complete `static` from the CDN or from npm packages; return "" or what was in the way.

    Bounded by its time-outs: about two minutes where everything hangs.
    """
    problems = []
    for source in (_from_cdn, _from_npm):
        missing = missing_page_files(static)
        if not missing:
            return ""
        try:
            for target, content in source(missing):
                write_bytes(static / target, content)
        except DOWNLOAD_PROBLEMS as problem:
            problems.append(str(problem) or type(problem).__name__)
    return "" if not missing_page_files(static) else "; ".join(problems)


def _from_cdn(files: list[PageFile]) -> Iterator[tuple[str, bytes]]:
    for package, path, target in files:
        url = f"{CDN}{package}/{path}"
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as reply:
            if "html" in reply.headers.get("Content-Type", ""):  # a hotel's log-in page, say
                raise ValueError(f"{url} is not what it should be")
            yield target, reply.read()


def _from_npm(files: list[PageFile]) -> Iterator[tuple[str, bytes]]:
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError("no npm client")
    packages = sorted({package for package, _, _ in files})
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--fetch-retries=1", "--fetch-timeout=10000", *packages]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=NPM_TIMEOUT
        )
        if done.returncode:
            raise ValueError(f"npm pack ended with {done.returncode}")
        for package, path, target in files:
            with tarfile.open(Path(folder) / f"{package.replace('@', '-')}.tgz") as archive:
                member = archive.extractfile(f"package/{path}")
                assert member is not None
                yield target, member.read()


# The process ---------------------------------------------------------------------------------


def serve(port: int, data: Path, static: Path, owned: bool) -> None:
    """Run Visdom's server in this process until it is ended.

    `visdom.server`'s own command first downloads the page's scripts, and crashes where it cannot;
    this one answers at once, while a thread completes the page.
    """
    from visdom.server import app, run_server

    # Without autoreload=False it would restart at every change of a file that it has imported.
    app.tornado_settings.update(static_path=static, template_path=static, autoreload=False)
    if owned:
        _in_background(_end_with_owner)
    page = data / f"page-{port}.txt"
    _in_background(lambda: write_text(page, fetch_page(static)))
    sys.argv = ["visdom", "-port", str(port), "-env_path", str(data), "-bind_local"]
    sys.argv += ["-logging_level", "WARNING"]
    run_server.main()


def _end_with_owner() -> None:
    sys.stdin.buffer.read()  # returns when the process that holds the other end is gone
    os._exit(0)


def _in_background(work: Callable[[], object]) -> None:
    threading.Thread(target=work, daemon=True).start()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), "--owned" in sys.argv)
