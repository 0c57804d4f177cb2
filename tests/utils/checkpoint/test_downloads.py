"""What comes from the network is whole and right, whatever the server does, or is not there."""

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from utils.checkpoint import downloads
from utils.checkpoint.downloads import Unreachable, fetch
from utils.errors import InputError
from utils.files.writing import part_of

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FileServer:
    """Serves CONTENT, at each address in its own way, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []  # path, Range
        self.cuts = 10**9  # how often it still breaks off in the middle
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                server.asked.append((self.path, wanted))
                assert not self.headers["User-Agent"].startswith("Python")
                getattr(server, self.path[1:])(self, int(wanted[6:-1] or 0) if wanted else 0)

            def log_message(self, *_: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # a client that hung up
                pass

        self.http = Http(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=[0.02], daemon=True).start()

    def address(self, way: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/{way}"

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, content: bytes, start: int = 0, **more: str) -> None:
        handler.send_response(206 if start else 200)
        if start:
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.send_header("Content-Range", place)
        handler.send_header("Content-Length", str(len(content) - start))
        for name, value in more.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content[start:])

    def good(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        self.send(handler, CONTENT, start)

    def without_ranges(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        self.cut_off(handler, 0)

    def cut_off(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        if not self.cuts:
            return self.send(handler, CONTENT, start)
        self.cuts -= 1
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Range", f"bytes {start}-")
        handler.send_header("Content-Length", str(len(CONTENT) - start))
        handler.end_headers()
        handler.wfile.write(CONTENT[start : start + 300_000])
        handler.close_connection = True
        return None

    def slow(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        for place in range(0, len(CONTENT), 2**18):
            handler.wfile.write(CONTENT[place : place + 2**18])
            time.sleep(0.3)

    def silent(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])
        time.sleep(3)

    def other(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        self.send(handler, bytes(len(CONTENT)), start)

    def shorter(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        self.send(handler, CONTENT[:-1])

    def longer(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT + b"!")

    def missing(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        handler.send_error(404)

    def page(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        self.send(handler, b"<html>welcome to the hotel", Content_Type="text/html")

    def moved(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        handler.send_response(301)
        handler.send_header("Location", "/good")
        handler.end_headers()

    def in_circles(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        handler.send_response(301)
        handler.send_header("Location", "/in_circles?")
        handler.end_headers()

    def nonsense(self, handler: BaseHTTPRequestHandler, start: int) -> None:
        handler.wfile.write(b"220 mail.example ready\r\n")


@pytest.fixture
def server() -> Iterator[FileServer]:
    served = FileServer()
    yield served
    served.http.shutdown()
    served.http.server_close()


def leftovers(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir() if not file.name.startswith(".")}


@pytest.mark.parametrize("way", ["good", "moved", "slow"])
@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_a_file_comes_whole(
    way: str, sha256: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 1.0)  # less than the slow one takes in all
    path = tmp_path / "new" / "a.weights"
    fetch([server.address(way)], path, len(CONTENT), sha256)
    assert path.read_bytes() == CONTENT
    assert leftovers(path) == {"a.weights"}
    fetch([server.address("missing")], path, len(CONTENT), sha256)  # it is there


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("missing", "404 Not Found"),
        ("page", "a web page instead of the file"),
        ("shorter", f"of {len(CONTENT) - 1} bytes instead of {len(CONTENT)}"),
        ("longer", f"of more than {len(CONTENT)} bytes"),
        ("other", "another file, with SHA-256"),
        ("silent", f"cut off after 1000 of {len(CONTENT)} bytes (timed out)"),
        ("cut_off", f"cut off after 900000 of {len(CONTENT)} bytes"),
        ("in_circles", "301"),
        ("nonsense", "220 mail.example"),
    ],
)
def test_what_is_not_the_file_is_told_and_not_kept(
    way: str, told: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 1.0)
    path = tmp_path / "a.weights"
    with pytest.raises(Unreachable) as error:
        fetch([server.address(way)], path, len(CONTENT), SHA256)
    assert told in str(error.value) and "127.0.0.1:" in str(error.value)
    assert leftovers(path) == ({"a.weights.part"} if way in ("silent", "cut_off") else set())


def test_without_a_network_it_is_one_line_a_server(tmp_path: Path) -> None:
    addresses = ["http://127.0.0.1:9/a", "http://no.such.host.invalid/a", "http://[::1/a"]
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9: Connection refused; no\.such\.host"):
        fetch(addresses[:2], tmp_path / "a", 10)
    with pytest.raises(ValueError, match="IPv6"):
        fetch(addresses[2:], tmp_path / "a", 10)
    assert not leftovers(tmp_path / "a")


def test_a_second_address_is_tried_where_the_first_fails(
    server: FileServer, tmp_path: Path
) -> None:
    path = tmp_path / "a.weights"
    ways = ["missing", "other", "good"]
    fetch([server.address(way) for way in ways], path, len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT
    assert [asked for asked, _ in server.asked] == [f"/{way}" for way in ways]


def test_a_cut_off_download_goes_on_at_once_and_in_a_later_run(
    server: FileServer, tmp_path: Path
) -> None:
    path = tmp_path / "a.weights"
    with pytest.raises(Unreachable):
        fetch([server.address("cut_off")], path, len(CONTENT), SHA256)
    assert not path.exists()
    fetch([server.address("good")], path, len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT
    ranges = [wanted for _, wanted in server.asked]
    assert ranges == ["", "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize("part", [b"\0" * 300_000, CONTENT[:1000], CONTENT + b"more", b""])
def test_a_part_of_anything_is_never_half_used(
    part: bytes, server: FileServer, tmp_path: Path
) -> None:
    path = tmp_path / "a.weights"
    part_of(path).write_bytes(part)
    try:
        fetch([server.address("good")], path, len(CONTENT), SHA256)
    except Unreachable:  # what it went on with was of another file: the next attempt starts anew
        fetch([server.address("good")], path, len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_anew(server: FileServer, tmp_path: Path) -> None:
    path, server.cuts = tmp_path / "a.weights", 2
    fetch([server.address("without_ranges")], path, len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT


def test_where_no_sum_can_tell_nothing_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    path, server.cuts = tmp_path / "a.weights", 2
    part_of(path).write_bytes(b"\0" * 1000)
    fetch([server.address("cut_off")], path, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert {wanted for _, wanted in server.asked} == {""}


def test_two_that_fetch_at_once_fetch_it_once(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    arguments = ([server.address("slow")], path, len(CONTENT), SHA256)
    threads = [threading.Thread(target=fetch, args=arguments) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT and len(server.asked) == 1


def test_a_folder_that_cannot_be_written_is_told(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        fetch([server.address("good")], tmp_path / "file" / "a", len(CONTENT), SHA256)
