"""The files of Visdom's page: from the CDN, from npm, or not at all."""

import io
import tarfile
from pathlib import Path

import pytest

from utils.monitoring.page import fetch_page, missing_page_files, static_folder

NPM = """#!/bin/sh
# Packs what the test has put beside it; its arguments are options, then packages.
cp {packs}/*.tgz .
"""


def test_without_a_cache_folder_the_page_is_kept_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = static_folder(tmp_path / "data")
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
    monkeypatch.setattr("utils.monitoring.page.CDN", f"file://{tmp_path}/cdn/")
    assert fetch_page(tmp_path / "static") == ""
    assert not missing_page_files(tmp_path / "static")


def test_a_log_in_page_in_place_of_a_script_is_not_kept(
    tmp_path: Path, no_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.monitoring.page.CDN", "data:text/html,welcome to the hotel#")
    assert "not what it should be" in fetch_page(tmp_path / "static")
    assert len(missing_page_files(tmp_path / "static")) == len(missing_page_files(tmp_path))
