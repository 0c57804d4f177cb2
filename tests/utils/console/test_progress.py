"""Does a wait show itself in a terminal, and does a log stay readable?"""

import io
import math
import re
import time
from contextlib import nullcontext, redirect_stderr

import pytest

from tests.waiting import wait_for
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


class Stderr(io.StringIO):
    """What is written to stderr, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)

    @property
    def text(self) -> str:
        return "".join(self.writes)

    @property
    def states(self) -> list[str]:
        """Of the line of a bar, one after the other."""
        return [state for state in re.split(r"[\r\n]|\x1b\[A", self.text) if state.strip()]

    def await_(self, text: str) -> None:
        """Until a thread has written it, which may take its time on a busy machine."""
        assert wait_for(lambda: text in self.text)


@pytest.mark.usefixtures("terminal")
def test_a_bar_is_seen_in_80_columns_whatever_its_words() -> None:
    with (
        redirect_stderr(Stderr()) as stderr,
        Wait("a title that is much too long for a terminal", 123456) as wait,
    ):
        for step in range(1, 11):
            wait.advance(10000, "a note that is too long, too")
            stderr.await_(f" {step}0000/123456")
    assert max(map(len, stderr.states)) <= 80
    assert max(len(re.findall("[█#]", state)) for state in stderr.states) >= 5


@pytest.mark.usefixtures("terminal")
def test_a_bar_goes_when_the_wait_is_over() -> None:
    with redirect_stderr(Stderr()) as stderr:
        for _ in track(range(3), "counting"):
            stderr.await_("counting")
    assert not stderr.text.split("\r")[-2].strip()


@pytest.mark.usefixtures("terminal")
def test_a_wait_of_unknown_length_shows_its_time() -> None:
    with redirect_stderr(Stderr()) as stderr, Wait("opening openvino"):
        stderr.await_("opening openvino … 00:")
    assert max(map(len, stderr.states)) <= 80


@pytest.mark.usefixtures("terminal")
def test_a_line_stands_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_stderr(Stderr()) as stderr, Wait("counting", 10):
        stderr.await_("counting")
        say("a line")
    assert capsys.readouterr().out == "a line\n"


@pytest.mark.parametrize("bar", [False, True])
@pytest.mark.usefixtures("terminal")
def test_a_line_is_one_write(bar: bool) -> None:
    """Else lines of processes that share a log would mix where PYTHONUNBUFFERED is set."""
    with redirect_stderr(Stderr()) as stderr, Wait("counting", 10) if bar else nullcontext():
        stderr.await_("counting" if bar else "")
        say("a line", stderr=True)
    assert "a line\n" in stderr.writes


def test_a_log_has_plain_lines_now_and_then() -> None:
    began = time.time()
    with redirect_stderr(Stderr()) as stderr, Wait("checking train photos", 40) as wait:
        wait.advance(20, "loss 1.2")
        assert wait_for(lambda: stderr.text.count("\n") == 3)
    waits = (time.time() - began) / progress.FIRST_LINE
    lines = stderr.text.splitlines()
    assert re.match(r"checking train photos: 20 of 40, 0:\d\d so far, loss 1.2, about ", lines[0])
    assert len(lines) <= 1 + math.log2(waits), "each takes twice as long as the one before"
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
def test_a_script_that_is_quiet_shows_that_it_works() -> None:
    with redirect_stderr(Stderr()) as stderr, Background():
        stderr.await_("working … 00:")
        with Wait("counting", 10):
            stderr.await_("counting")
            stderr.writes.clear()
            stderr.await_("counting")
            assert "working" not in stderr.text


@pytest.mark.parametrize("seconds", [0, 59.6, 3599, 3600 * 99.9, 3600 * 24 * 999])
def test_times_are_short(seconds: float) -> None:
    assert len(duration(seconds)) <= 10


@pytest.mark.usefixtures("terminal")
def test_an_error_leaves_no_bar_behind() -> None:
    steps = track(range(9), "counting")
    with redirect_stderr(Stderr()) as stderr:
        with pytest.raises(ValueError, match="wrong"), Background():
            for _ in steps:
                stderr.await_("counting")
                raise ValueError("wrong")
        assert "counting" not in stderr.text.split("\r")[-1]
        stderr.writes.clear()
        time.sleep(0.05)
        assert not stderr.text


def test_a_script_within_another_ends_its_own_waits_alone() -> None:
    with Background(), Wait("outer") as outer:
        with Background():
            Wait("left open").__enter__()
        assert not outer._over.is_set()
