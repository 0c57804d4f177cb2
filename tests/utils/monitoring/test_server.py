"""Our own server: it starts where others are, without a network, and it ends."""

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.processes import free_port
from tests.waiting import wait_for
from utils.monitoring.server import Address, answers, is_own, start


def test_it_starts_beside_another_program_without_a_network_and_ends(
    tmp_path: Path, no_network: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = start(Address("http", "127.0.0.1", port), tmp_path / "data", keep=False)
    try:
        assert port < server.address.port < port + 20
        assert answers(server.address)
        with urllib.request.urlopen(f"{server.address}/static/js/main.js", timeout=60) as reply:
            assert reply.status == 200
        assert wait_for(lambda: server.page_news() is not None)
        problem = server.page_news() or ""
        assert "no npm client" in problem and "\n" not in problem
        assert (tmp_path / "data" / "main.json").exists()
        assert [path.name[:10] for path in (no_network / "yolov3").iterdir()] == [
            "visdom-0.2" if sys.version_info < (3, 12) else "visdom-0.3"
        ]
    finally:
        server.stop()
    assert server.process.poll() is not None
    assert not answers(server.address, timeout=0.5)


WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def status(address: Address, method: str, path: str, body: str = "", **headers: str) -> int:
    connection = HTTPConnection(address.host, address.port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    address = Address("http", "127.0.0.1", free_port())
    server = start(address, tmp_path_factory.mktemp("data"), keep=False)
    yield server.address
    server.stop()


@pytest.mark.parametrize(
    ("host", "origin", "welcome"),
    [
        ("127.0.0.1:{port}", None, True),  # a program
        ("localhost:{port}", "http://localhost:{port}", True),  # our own page
        ("localhost:9000", "http://localhost:9000", True),  # through a tunnel
        ("[::1]:{port}", "http://[::1]:{port}", True),
        ("127.0.0.1:{port}", "http://evil.example", False),  # a page in the user's browser
        ("127.0.0.1:{port}", "http://localhost:3000", False),  # one of another server here
        ("127.0.0.1:{port}", "null", False),  # a sandboxed frame
        ("127.0.0.1:{port}", "", False),
        ("evil.example:{port}", None, False),  # a name that was made to mean 127.0.0.1
        ("evil.example:{port}", "http://evil.example:{port}", False),
        ("127.0.0.1.evil.example", None, False),
        ("[::1", None, False),
        ("", None, False),
    ],
)
def test_only_our_page_and_programs_here_are_served(
    host: str, origin: str | None, welcome: bool, served: Address
) -> None:
    headers = {"Host": host.format(port=served.port)}
    if origin is not None:
        headers["Origin"] = origin.format(port=served.port)
    window = json.dumps({"eid": "main", "data": [{"type": "text", "content": "x"}]})
    static = "/static/js/main.js"
    assert status(served, "GET", static, **headers) == (200 if welcome else 403)
    assert status(served, "POST", "/events", window, **headers) == (200 if welcome else 403)
    for path in ("/socket", "/vis_socket"):
        assert status(served, "GET", path, **headers, **WEBSOCKET) == (101 if welcome else 403)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """A server of a user who never used Visdom."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    server = start(Address("http", "127.0.0.1", free_port()), tmp_path / "data", keep=False)
    yield server.address
    server.stop()


def post(address: Address, path: str, **message: object) -> None:
    body = json.dumps(message).encode()
    with urllib.request.urlopen(f"{address}/{path}", body, timeout=60) as reply:
        assert reply.status == 200


def landed(address: Address, path: str = "/") -> str:
    with urllib.request.urlopen(f"{address}{path}", timeout=60) as reply:
        assert b"<title>visdom</title>" in reply.read()
        return str(reply.url).removeprefix(str(address))


def test_its_address_leads_to_the_run_that_was_last_heard_of(fresh: Address) -> None:
    assert landed(fresh) == "/"
    for run in ("a", "b", "网络", "a"):
        post(fresh, "events", eid=run, data=[{"type": "text", "content": "x"}])
        post(fresh, "save", data=[run])
        assert landed(fresh) == f"/env/{quote(run)}"
        time.sleep(0.02)
    assert landed(fresh, "/env/b") == "/env/b"
    assert status(fresh, "GET", "/", Host="evil.example") == 403


def test_runs_are_compared_without_what_visdom_itself_would_keep(fresh: Address) -> None:
    for run in ("a", "b"):
        post(fresh, "events", eid=run, data=[{"type": "text", "content": "x"}])
    assert landed(fresh, "/compare/b+a") == "/compare/b+a"


def test_pages_that_were_closed_while_they_opened_keep_no_other_from_opening(
    fresh: Address,
) -> None:
    for _ in range(5):
        assert status(fresh, "GET", "/socket", Host="localhost", **WEBSOCKET) == 101
    post(fresh, "events", eid="a", data=[{"type": "text", "content": "x"}])


def test_a_second_host_or_origin_is_refused() -> None:
    assert not is_own([], [])
    assert not is_own(["localhost", "evil.example"], [])
    assert not is_own(["localhost"], ["http://localhost", "http://evil.example"])


def test_it_listens_on_this_machine_alone(served: Address) -> None:
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = [row.split()[1] for row in table.splitlines() if " 0A " in row]
    places = {
        address
        for address, port in (row.split(":") for row in listening)
        if int(port, 16) == served.port
    }
    assert places == {"0100007F"}


def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start: it said nothing"):
        start(Address("http", "127.0.0.1", 8097), tmp_path, keep=False)
