"""Our own server: it starts where others are, without a network, and it ends."""

import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from utils.monitoring.server import Address, answers, start


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
        with urllib.request.urlopen(f"{server.address}/static/js/main.js", timeout=5) as reply:
            assert reply.status == 200
        while (problem := server.page_news()) is None:
            pass
        assert "no npm client" in problem and "\n" not in problem
        assert (tmp_path / "data" / "main.json").exists()
        assert [path.name[:10] for path in (no_network / "yolov3").iterdir()] == [
            "visdom-0.2" if sys.version_info < (3, 12) else "visdom-0.3"
        ]
    finally:
        server.stop()
    assert server.process.poll() is not None
    assert not answers(server.address, timeout=0.5)


def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start: it said nothing"):
        start(Address("http", "127.0.0.1", 8097), tmp_path, keep=False)
