"""Our own server: it starts where others are, without a network, and it ends."""

import io
import socket
import sys
import tarfile
import urllib.request
from pathlib import Path

import pytest

from utils.monitoring import visdom_server
from utils.monitoring.visdom_server import Address, answers, fetch_page, missing_page_files, start

NPM = """#!/bin/sh
# Packs what the test has put beside it; its arguments are options, then packages.
cp {packs}/*.tgz .
"""


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither CDN nor npm, and an empty cache folder, which is returned."""
    monkeypatch.setattr(visdom_server, "CDN", "http://127.0.0.1:9/")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # also for the server's process
    return tmp_path / "cache"


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
        assert [path.name[:10] for path in (no_network / "yolov3-pruning").iterdir()] == [
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


def test_without_a_cache_folder_the_page_is_kept_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = visdom_server.static_folder(tmp_path / "data")
    assert folder.parent == tmp_path / "data" and (folder / "index.html").exists()


def test_the_page_comes_from_npm_where_the_cdn_is_out_of_reach(
    tmp_path: Path, no_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs, tools = tmp_path / "packs", tmp_path / "tools"
    packs.mkdir()
    tools.mkdir()
    files = missing_page_files(tmp_path / "static")
    for package in {package for package, _, _ in files}:
        with tarfile.open(packs / f"{package.replace('@', '-')}.tgz", "w:gz") as archive:
            for path in (path for name, path, _ in files if name == package):
                entry = tarfile.TarInfo(f"package/{path}")
                entry.size = len(path)
                archive.addfile(entry, io.BytesIO(path.encode()))
    (tools / "npm").write_text(NPM.format(packs=packs))
    (tools / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    assert fetch_page(tmp_path / "static") == ""
    for _, path, target in files:
        assert (tmp_path / "static" / target).read_text() == path


def test_the_page_comes_from_the_cdn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, path, _ in missing_page_files(tmp_path / "static"):
        file = tmp_path / "cdn" / package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    monkeypatch.setattr(visdom_server, "CDN", f"file://{tmp_path}/cdn/")
    assert fetch_page(tmp_path / "static") == ""
    assert not missing_page_files(tmp_path / "static")


def test_a_log_in_page_in_place_of_a_script_is_not_kept(
    tmp_path: Path, no_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visdom_server, "CDN", "data:text/html,welcome to the hotel#")
    assert "not what it should be" in fetch_page(tmp_path / "static")
    assert len(missing_page_files(tmp_path / "static")) == len(missing_page_files(tmp_path))
