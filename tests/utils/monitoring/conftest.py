"""Tests of the page and its server run without a network."""

from pathlib import Path

import pytest


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither CDN nor npm, and an empty cache folder, which is returned."""
    monkeypatch.setattr("utils.monitoring.page.CDN", "http://127.0.0.1:9/")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # also for the server's process
    return tmp_path / "cache"
