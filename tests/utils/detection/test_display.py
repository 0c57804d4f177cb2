"""The window, on a display that exists only in memory."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

from tests.waiting import wait_for
from utils.detection.display import Display, open_display

FRAME = np.full((48, 64, 3), 200, np.uint8)


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A virtual display, as DISPLAY."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    ready, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "320x240x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(ready) as answer:
        monkeypatch.setenv("DISPLAY", f":{answer.readline().strip()}")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    yield server
    server.kill()
    server.wait()


def show_until_it_ends(window: Display) -> bool:
    """Show frames until the window's process has ended; what the last `show` said."""

    def has_ended() -> bool:
        return not window.show(FRAME) or window._process.poll() is not None

    assert wait_for(has_ended)
    return window.show(FRAME)


def test_without_a_display_there_is_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert open_display("test", pytest.fail) is None
    monkeypatch.setenv("DISPLAY", ":987")  # OpenCV would abort this process
    assert open_display("test", pytest.fail) is None


def test_frames_are_shown(display: subprocess.Popen[bytes]) -> None:
    window = open_display("test", pytest.fail)
    assert window is not None
    with window:
        assert all(window.show(FRAME) for _ in range(20))
    assert window._process.returncode == 0


def test_a_window_that_the_user_closes_says_so(display: subprocess.Popen[bytes]) -> None:
    if shutil.which("xdotool") is None:
        pytest.skip("xdotool is not installed (apt-get install xdotool)")
    window = open_display("detect_test", pytest.fail)
    assert window is not None
    with window:
        window.show(FRAME)
        find = ["xdotool", "search", "--sync", "--name", "detect_test"]
        subprocess.run(find, check=True, capture_output=True, timeout=60)
        # Without a window manager, keys go to the window below the pointer; and a key that comes
        # before the window has been drawn goes nowhere, so it is pressed until it works.
        press = ["xdotool", "mousemove", "20", "20", "key", "q"]

        def has_ended() -> bool:
            subprocess.run(press, check=True, timeout=60)
            return window._process.poll() is not None

        assert wait_for(has_ended)
        assert window.show(FRAME) is False


def test_losing_the_display_costs_nothing_but_the_window(display: subprocess.Popen[bytes]) -> None:
    said: list[str] = []
    window = open_display("test", said.append)
    assert window is not None
    with window:
        assert window.show(FRAME)
        display.kill()
        assert show_until_it_ends(window) is True
        assert window.show(FRAME) is True
    assert len(said) == 1
    assert "lost" in said[0]
