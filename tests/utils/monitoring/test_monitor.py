"""The run's record: the table, the pictures, and the page, whatever the server does."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.processes import free_port
from tests.waiting import wait_for
from utils.errors import InputError
from utils.monitoring import client, visdom_page
from utils.monitoring.client import Curves, Sender
from utils.monitoring.history import History, read_history, write_history
from utils.monitoring.monitor import Monitor
from utils.monitoring.server import Address, answers
from utils.monitoring.visdom_page import VisdomPage

ROOT = Path(__file__).resolve().parents[3]
HANG = 60.0  # seconds that a server may be silent; who waits for it waits longer than QUICK
QUICK = 20.0  # seconds, on a machine that others use


class FakeVisdom:
    """As much of Visdom's server as the client speaks to, and what it was sent."""

    def __init__(self, port: int = 0) -> None:
        self.windows: dict[str, dict[str, Any]] = {}
        self.envs: set[str] = {"main"}
        self.hang = threading.Event()
        self.saved = 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply("<title>visdom</title>")

            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if fake.hang.is_set():
                    time.sleep(HANG)
                    return
                self.reply(fake.receive(self.path, message))

            def reply(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # a client that hung up
                pass

        self.http = Server(("127.0.0.1", port), Handler)
        self.port = self.http.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=[0.02], daemon=True).start()

    def receive(self, path: str, message: dict[str, Any]) -> str:
        if path != "/env_state":  # all others make an environment that is not there
            self.envs.add(message.get("eid") or "main")
        if path == "/events":
            self.windows[message["win"]] = message
        elif path == "/close":
            self.windows.clear()
        elif path == "/env_state":
            return json.dumps(sorted(self.envs))
        elif path == "/save":
            self.saved += 1
        return "ok"

    def points(self, window: str) -> dict[str, list[Any]]:
        data = self.windows.get(window, {}).get("data", [])
        return {trace["name"]: list(zip(trace["x"], trace["y"], strict=True)) for trace in data}

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def fake() -> Iterator[FakeVisdom]:
    server = FakeVisdom()
    yield server
    server.stop()


# The table -----------------------------------------------------------------------------------


def test_calls_for_one_step_share_a_row_and_columns_may_come_late(tmp_path: Path) -> None:
    with Monitor(tmp_path) as monitor:
        monitor.log(1, {"loss/box": 0.5})
        monitor.log(2, {"loss/box": 0.25})
        monitor.log(2, {"AP/cat, black": 0.75})
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == ['epoch,loss/box,"AP/cat, black"', "1,0.5,", "2,0.25,0.75"]


NAMES = st.text("abc/,\" \n'é", min_size=1, max_size=6)
ROWS = st.dictionaries(NAMES, st.floats(allow_nan=False), min_size=1, max_size=4)
HISTORIES = st.dictionaries(st.integers(0, 9999).map(lambda n: n / 8), ROWS, max_size=6)


@given(history=HISTORIES)
def test_a_table_reads_back_as_written(
    history: History, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("history") / "metrics.csv"
    write_history(file, history)
    assert read_history(file) == history


def test_resuming_drops_what_will_run_again_and_keeps_the_rest(tmp_path: Path) -> None:
    with Monitor(tmp_path) as monitor:
        for epoch in range(1, 6):
            monitor.log(epoch, {"loss/box": 1 / epoch})
    with Monitor(tmp_path, resume_before=4) as monitor:
        assert list(monitor.history) == [1, 2, 3]
        monitor.log(4, {"loss/box": 9})
    assert read_history(tmp_path / "metrics.csv") == {
        1: {"loss/box": 1},
        2: {"loss/box": 1 / 2},
        3: {"loss/box": 1 / 3},
        4: {"loss/box": 9},
    }


def test_a_new_run_starts_an_empty_record(tmp_path: Path) -> None:
    write_history(tmp_path / "metrics.csv", {1: {"lr": 1}})
    with Monitor(tmp_path) as monitor:
        assert monitor.history == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: ''"),
        ("step,lr\n1,2\n", ":1: 'step,lr'"),
        ("epoch,lr\n1,0.1\n2,0.\x00", "metrics.csv"),
        ("epoch,lr\n1,0.1\n2\n", ":3: 1 fields: expected 2"),
        ("epoch,lr\n1,much\n", ":2: 'much': expected a number"),
        ("epoch,lr\nnan,1\n", ":2: 'nan': expected an epoch"),
        ("epoch,lr\n,1\n", ":2: '': expected an epoch"),
        ('epoch,lr\n1,"0.1', "not a CSV file of ours"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_a_damaged_table_is_one_clear_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = tmp_path / "metrics.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        Monitor(tmp_path, resume_before=1)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_curves_are_drawn_when_a_run_ends(tmp_path: Path) -> None:
    with Monitor(tmp_path) as monitor:
        monitor.log(1, {"loss/box": 1, "lr": 0.1, "metrics/recall": 0, "mAP/.5": 0, "AP/cat": 0})
    names = {file.name for file in tmp_path.glob("*.png")}
    assert names == {f"curves_{plot}.png" for plot in ("loss", "lr", "metrics", "mAP", "AP")}


# The page ------------------------------------------------------------------------------------


def test_curves_and_pictures_arrive_with_axes_and_legends(tmp_path: Path, fake: FakeVisdom) -> None:
    lines: list[str] = []
    with Monitor(tmp_path, fake.address, name="my run/1", say=lines.append) as monitor:
        monitor.log(0.5, {"loss/box": 3, "loss/class": 4})
        monitor.log(1, {"loss/box": 2, "AP/cat": float("nan"), "AP/dog": 0.5, "lr": 0.1})
        monitor.images(1, "validation", [np.zeros((20, 30, 3), np.uint8)] * 3)
    assert fake.points("loss") == {"box": [(0.5, 3), (1, 2)], "class": [(0.5, 4), (None, None)]}
    assert fake.points("AP") == {"cat": [(1, None)], "dog": [(1, 0.5)]}
    assert fake.points("lr") == {"lr": [(1, 0.1)]}
    loss = fake.windows["loss"]
    assert loss["layout"]["xaxis"]["title"] == "epoch" and loss["layout"]["showlegend"]
    assert loss["opts"]["title"] == "Loss"
    assert loss["eid"] == "my_run_1" and lines == [f"Visdom: {fake.address}/env/my_run_1"]
    assert "base64" in json.dumps(fake.windows["images-validation"])
    assert fake.saved


def test_a_resumed_run_shows_its_earlier_epochs(tmp_path: Path, fake: FakeVisdom) -> None:
    with Monitor(tmp_path) as monitor:
        monitor.log(1, {"loss/box": 3})
        monitor.log(2, {"loss/box": 2})
    Monitor(tmp_path, fake.address, resume_before=2, say=lambda _: None).close()
    assert fake.points("loss") == {"box": [(1, 3)]}


def test_windows_of_an_earlier_run_of_the_name_go(tmp_path: Path, fake: FakeVisdom) -> None:
    fake.windows["AP"] = {}
    with Monitor(tmp_path, fake.address, say=lambda _: None) as monitor:
        monitor.log(1, {"loss/box": 3})
    assert set(fake.windows) == {"loss"}


def test_a_server_that_dies_and_comes_back_gets_the_whole_history(tmp_path: Path) -> None:
    first = FakeVisdom()
    lines: list[str] = []
    monitor = Monitor(tmp_path, first.address, say=lines.append, retry=2.0)
    monitor.log(1, {"loss/box": 3, "lr": 1})
    monitor.images(1, "validation", [np.zeros((20, 30, 3), np.uint8)])
    assert wait_for(lambda: len(first.windows) == 3)
    first.stop()

    started = time.monotonic()
    for epoch in range(2, 30):
        monitor.log(epoch, {"loss/box": 3 / epoch})
    assert time.monotonic() - started < QUICK
    assert wait_for(lambda: any("the run goes on" in line for line in lines))

    second = FakeVisdom(first.port)
    assert wait_for(lambda: len(second.points("loss").get("box", [])) == 29)
    assert wait_for(lambda: set(second.windows) == {"loss", "lr", "images-validation"})
    assert wait_for(lambda: any("answers now" in line for line in lines))
    monitor.close()
    second.stop()
    assert len(lines) == 3  # its address, that it went, that it came back
    assert len(read_history(tmp_path / "metrics.csv")) == 29


def test_a_server_restarted_between_two_epochs_gets_all_windows(
    tmp_path: Path, fake: FakeVisdom
) -> None:
    monitor = Monitor(tmp_path, fake.address, say=lambda _: None, retry=0.1)
    monitor.log(1, {"loss/box": 3, "lr": 1})
    assert wait_for(lambda: len(fake.windows) == 2)
    fake.windows.clear()
    fake.envs.clear()
    assert wait_for(lambda: len(fake.windows) == 2)  # although nothing new was logged
    monitor.close()


def test_plots_stand_in_their_order_however_late_they_come(
    tmp_path: Path, fake: FakeVisdom
) -> None:
    monitor = Monitor(tmp_path, fake.address, say=lambda _: None, retry=0.05)
    monitor.log(1, {"lr": 1, "scales/10%": 1, "loss/box": 3})
    assert wait_for(lambda: list(fake.windows) == ["loss", "lr", "scales"])
    monitor.log(2, {"AP/cat": 0.5, "mAP/.5": 0.5})
    monitor.images(2, "validation", [np.zeros((20, 30, 3), np.uint8)])
    order = ["mAP", "loss", "AP", "lr", "images-validation", "scales"]
    assert wait_for(lambda: sorted(fake.windows) == sorted(order))
    monitor.close()
    assert list(fake.windows)[:4] == order[:4]
    assert fake.points("loss")["box"] == [(1, 3)]


def test_a_server_that_stops_answering_holds_up_neither_run_nor_end(
    tmp_path: Path, fake: FakeVisdom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visdom_page, "CLOSE_TIMEOUT", 0.5)
    monkeypatch.setattr(client, "REPLY_TIMEOUT", HANG)
    lines: list[str] = []
    monitor = Monitor(tmp_path, fake.address, say=lines.append)
    fake.hang.set()
    started = time.monotonic()
    for epoch in range(50):
        monitor.log(epoch, {"loss/box": 3})
    monitor.close()
    assert time.monotonic() - started < QUICK
    assert "did not take the last curves" in lines[-1]
    assert len(read_history(tmp_path / "metrics.csv")) == 50


def test_runs_that_begin_at_once_start_one_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[FakeVisdom] = []

    def start(address: Address, *_: object) -> SimpleNamespace:
        time.sleep(0.5)  # as long as the others look for one
        started.append(FakeVisdom(address.port))
        return SimpleNamespace(address=address, outlives_run=True, end_command="", page_news=str)

    monkeypatch.setattr(visdom_page, "start", start)
    address = f"127.0.0.1:{free_port()}"
    lines: list[str] = []

    def run(number: int) -> None:
        Monitor(tmp_path / str(number), address, server_data=tmp_path, say=lines.append).close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    assert sum("started a server" in line for line in lines) == 1
    assert sum(f"http://{address}/env/" in line for line in lines) == 3
    started[0].stop()


def test_a_silent_port_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        assert not answers(Address("http", "127.0.0.1", silent.getsockname()[1]), timeout=0.3)
        assert time.monotonic() - started < QUICK


def test_a_page_of_something_else_is_no_server(tmp_path: Path) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n<title>notebook</title>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as http:
        threading.Thread(target=http.serve_forever, args=[0.02], daemon=True).start()
        assert not answers(Address("http", "127.0.0.1", http.server_address[1]))
        http.shutdown()


def test_a_remote_server_that_is_away_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.monitoring.server.LOCAL", set())
    monkeypatch.setattr(visdom_page, "start", lambda *_: pytest.fail("started one"))
    lines: list[str] = []
    address = f"http://127.0.0.1:{free_port()}"
    with Monitor(tmp_path, address, say=lines.append, retry=0.05) as monitor:
        monitor.log(1, {"lr": 1})
        assert wait_for(lambda: lines)
        time.sleep(0.3)  # it asks again meanwhile
    assert len(lines) == 1 and "nothing answers" in lines[0]


def test_without_a_server_that_can_be_started_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no free port from 1 to 20")

    monkeypatch.setattr(visdom_page, "start", fail)
    lines: list[str] = []
    with Monitor(tmp_path, f"http://127.0.0.1:{free_port()}", say=lines.append) as monitor:
        monitor.log(1, {"lr": 1})
    assert lines == ["Visdom: no free port from 1 to 20; going on without"]
    assert (tmp_path / "curves_lr.png").exists()


def test_the_sender_keeps_only_the_latest_of_each_window(fake: FakeVisdom) -> None:
    sender = Sender(Address.parse(fake.address), "run", clear=False, away=False, say=print)
    for last in range(2000):
        sender.show("loss", Curves("loss", {"box": ([1.0], [float(last)])}))
    assert sender.close(5)
    assert fake.points("loss") == {"box": [(1, 1999)]}


def test_long_curves_are_thinned_but_keep_their_end(fake: FakeVisdom) -> None:
    sender = Sender(Address.parse(fake.address), "run", clear=False, away=False, say=print)
    epochs = [index / 100 for index in range(50_000)]
    sender.show("loss", Curves("loss", {"box": (epochs, epochs), "class": (epochs[:9], [0.0] * 9)}))
    assert sender.close(5)
    box = fake.points("loss")["box"]
    assert len(box) <= 2000 and box[0] == (0, 0) and box[-1] == (499.99, 499.99)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8097"),
        ("http://localhost:9000/", "http://localhost:9000"),
        ("https://curves.example/visdom/", "https://curves.example:8097/visdom"),
        ("http://[::1]:8097", "http://[::1]:8097"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert str(Address.parse(text)) == address


@pytest.mark.parametrize("text", ["http://", "ftp://host:1", "http://host:x", "http://host:99999"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="visdom address"):
        Address.parse(text)


# A real browser ------------------------------------------------------------------------------

BROWSER = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1400,1600",
    "--virtual-time-budget=10000",
)


def browse(browser: str, address: str, profile: Path, *what: str) -> str:
    command = [browser, *FLAGS, f"--user-data-dir={profile}", *what, address]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=300)
    return done.stdout.decode(errors="replace")


@pytest.fixture
def browser() -> str:
    found = next((path for name in BROWSER if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


@pytest.fixture
def two_runs(tmp_path: Path) -> Iterator[VisdomPage]:
    """The page of the second of two runs, on a server of ours, all for real."""
    address, data = f"http://127.0.0.1:{free_port()}", tmp_path / "visdom"
    with Monitor(tmp_path / "first-run", address, keep=False, server_data=data) as first:
        assert isinstance(first.page, VisdomPage) and first.page.server
        server = first.page.server
        assert wait_for(lambda: server.page_news() is not None, 120)
        if problem := server.page_news():
            pytest.skip(f"the page's scripts cannot be fetched: {problem}")
        for epoch in range(1, 6):
            first.log(epoch, {"loss/box": 1 / epoch, "mAP/mAP@.5": epoch / 7})
        with Monitor(tmp_path / "second-run", str(server.address)) as second:
            for epoch in range(1, 6):
                second.log(epoch, {"loss/box": 1 / epoch, "loss/class": 2 / epoch})
                second.log(epoch, {"mAP/mAP@.5": epoch / 6, "lr": 0.1 / epoch})
                second.log(epoch, {"AP/first class": epoch / 6, "AP/second class": epoch / 8})
            second.images(5, "validation", [np.full((48, 64, 3), 99, np.uint8)])
            page = second.page
            assert isinstance(page, VisdomPage)
            assert wait_for(lambda: page.sender is not None and not page.sender._waiting)
            assert wait_for(lambda: (data / "second-run.json").exists())
            yield page
    assert server.process.poll() is not None


def plots_at(browser: str, address: str, profile: Path) -> str:
    """The page once it shows plots; on a busy machine a first look may come before them."""
    for _ in range(3):
        dom = browse(browser, address, profile, "--dump-dom")
        if 'class="trace scatter' in dom:
            break
    return dom


def positions(dom: str, *texts: str) -> list[int]:
    """Where texts of the page's pictures stand in it."""
    places = [dom.find(f">{text}</text>") for text in texts]
    assert -1 not in places, texts
    return places


@pytest.mark.slow
def test_the_address_of_the_server_opens_on_the_run_with_mean_ap_first(
    browser: str, two_runs: VisdomPage, tmp_path: Path
) -> None:
    assert two_runs.sender is not None
    address, profile = f"{two_runs.sender.address}/", tmp_path / "profile"
    dom = plots_at(browser, address, profile)
    assert dom.count('class="trace scatter') == 6
    texts = ("mAP@.5", "box", "class", "first class", "second class", "Learning rate", "epoch")
    positions(dom, *texts)
    titles = ("Mean average precision", "Loss", "Average precision of each class")
    assert positions(dom, *titles) == sorted(positions(dom, *titles))
    assert "data:image/jpg;base64" in dom or "data:image/jpeg;base64" in dom
    shot = tmp_path / "page.png"
    browse(browser, address, profile, f"--screenshot={shot}")
    # plotly's first colour, of lines that are two pixels wide
    pixels = cv2.imread(str(shot))
    assert pixels is not None
    blue = np.abs(pixels.astype(int) - (180, 119, 31)).max(axis=-1) < 8  # BGR
    assert blue.sum() > 500
    if keep_at := os.environ.get("KEEP_SCREENSHOT"):
        shutil.copy(shot, keep_at)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first-run+second-run", "second-run+first-run"])
def test_two_runs_are_compared(
    browser: str, two_runs: VisdomPage, tmp_path: Path, order: str
) -> None:
    assert two_runs.sender is not None
    address = f"{two_runs.sender.address}/compare/{order}"
    dom = plots_at(browser, address, tmp_path / "profile")
    assert dom.count('class="trace scatter') == 5  # mAP and box of both, class of one
    positions(dom, "first-run", "second-run", "first-run box", "second-run box")
    titles = ("Mean average precision", "Loss")
    assert positions(dom, *titles) == sorted(positions(dom, *titles))
    assert ">Learning rate</text>" not in dom  # only one run has it


@pytest.mark.slow
def test_an_owned_server_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    port = free_port()
    script = (
        "import os; from utils.monitoring.monitor import Monitor; "
        f"m = Monitor({str(tmp_path / 'run')!r}, 'http://127.0.0.1:{port}', keep=False, "
        f"server_data={str(tmp_path / 'visdom')!r}); assert m.page.server; os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=300)
    assert wait_for(lambda: not answers(Address("http", "127.0.0.1", port)))
