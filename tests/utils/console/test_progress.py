"""Does a wait show itself in a terminal, and does a log stay readable?"""

import io
import re
import sys
import time
from contextlib import nullcontext

import pytest

from utils.console import progress
from utils.console.progress import Background, Wait, duration, say, silent, track


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are shown at once."""
    monkeypatch.setattr(progress, "DELAY", 0.01)
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    monkeypatch.setattr(progress, "FIRST_LINE", 0.02)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setattr(progress, "in_terminal", lambda: True)


def drawn(text: str) -> list[str]:
    """The states of the line of a bar, one after the other."""
    return [state for state in re.split(r"[\r\n]|\x1b\[A", text) if state.strip()]


@pytest.mark.usefixtures("terminal")
def test_a_bar_is_seen_in_80_columns_whatever_its_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Wait("a title that is much too long for a terminal", 123456) as wait:
        for _ in range(10):
            wait.advance(10000, "a note that is too long, too")
            time.sleep(0.02)
    states = drawn(capsys.readouterr().err)
    assert max(map(len, states)) <= 80
    assert max(len(re.findall("[█#]", state)) for state in states) >= 5


@pytest.mark.usefixtures("terminal")
def test_a_bar_goes_when_the_wait_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in track(range(3), "counting"):
        time.sleep(0.03)
    written = capsys.readouterr().err
    assert "counting" in written
    assert not written.split("\r")[-2].strip()


@pytest.mark.usefixtures("terminal")
def test_a_wait_of_unknown_length_shows_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Wait("opening openvino"):
        time.sleep(0.1)
    states = drawn(capsys.readouterr().err)
    assert states[0].startswith("opening openvino … 00:00")
    assert max(map(len, states)) <= 80


@pytest.mark.usefixtures("terminal")
def test_a_line_stands_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Wait("counting", 10):
        time.sleep(0.05)
        say("a line")
    assert capsys.readouterr().out == "a line\n"


class Unbuffered(io.StringIO):
    """A stream that notes what it is given, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


@pytest.mark.parametrize("bar", [False, True])
@pytest.mark.usefixtures("terminal")
def test_a_line_is_one_write(bar: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else lines of processes that share a log would mix where PYTHONUNBUFFERED is set."""
    stream = Unbuffered()
    monkeypatch.setattr(sys, "stderr", stream)
    with Wait("counting", 10) if bar else nullcontext():
        time.sleep(0.05)
        drawn_before = len(stream.writes)
        say("a line", stderr=True)
    assert "a line\n" in stream.writes[drawn_before:]


def test_a_log_has_plain_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Wait("checking train photos", 40) as wait:
        wait.advance(20, "loss 1.2")
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("checking train photos: 20 of 40, 0:00 so far, loss 1.2, about ")
    assert len(lines) < 6, "each takes twice as long as the one before"
    assert not any("\r" in line or "|" in line for line in lines)


def test_a_short_wait_leaves_no_line_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 60.0)
    assert list(track(iter("abc"), "letters", unit="letters")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("terminal")
def test_what_is_silent_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with silent(), Wait("counting", 10):
        say("a line")
        time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("terminal")
def test_a_script_that_is_quiet_shows_that_it_works(capsys: pytest.CaptureFixture[str]) -> None:
    with Background():
        time.sleep(0.1)
        assert "working … 00:00" in capsys.readouterr().err
        with Wait("counting", 10):
            time.sleep(0.1)
            capsys.readouterr()
            time.sleep(0.1)
            assert "working" not in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0, 59.6, 3599, 3600 * 99.9, 3600 * 24 * 999])
def test_times_are_short(seconds: float) -> None:
    assert len(duration(seconds)) <= 10


@pytest.mark.usefixtures("terminal")
def test_an_error_leaves_no_bar_behind(capsys: pytest.CaptureFixture[str]) -> None:
    steps = track(range(9), "counting")
    with pytest.raises(ValueError, match="wrong"), Background():
        for _ in steps:
            time.sleep(0.05)
            raise ValueError("wrong")
    assert "counting" not in capsys.readouterr().err.split("\r")[-1]
    time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


def test_a_script_within_another_ends_its_own_waits_alone() -> None:
    with Background(), Wait("outer") as outer:
        with Background():
            Wait("left open").__enter__()
        assert not outer._over.is_set()
