"""Is what was computed kept, and computed anew where the file is not what was written?"""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from utils.files.cache import MAX_FILES, cached, keep, recall
from utils.files.paths import cache_folder


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The results that had to be computed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return []


def ask(calls: list[object], key: object = "a", result: bytes = b"result") -> bytes:
    def compute() -> bytes:
        calls.append(result)
        return result

    return cached("things", key, compute)


def files() -> list[Path]:
    return sorted((cache_folder() / "things").iterdir())


def test_it_is_computed_once(calls: list[object]) -> None:
    assert ask(calls) == ask(calls) == b"result" and len(calls) == 1
    assert ask(calls, "b", b"") == ask(calls, "b") == b"" and len(calls) == 2


def test_a_result_is_for_its_key_alone(calls: list[object]) -> None:
    keys: list[object] = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("c", "ab"),
        (1, 2),
        (1, 2.0),
        "ab",
        b"ab",
        ["ab"],
    ]
    keys += [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), "f4"), [np.zeros(2), np.zeros(3)]]
    for key in keys:
        ask(calls, key)
    assert len(calls) == len(keys)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:5], lambda b: b"?" + b[1:], lambda b: b[:-1] + b"?"]
)
def test_a_damaged_file_is_told_in_a_line_and_computed_anew(
    calls: list[object],
    damage: Callable[[bytes], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask(calls, result=bytes(range(256)) * 100)
    (path,) = files()
    path.write_bytes(damage(path.read_bytes()))
    ask(calls)
    message = capsys.readouterr().err
    assert message.startswith(f"note: {path}: damaged") and message.count("\n") == 1
    assert ask(calls) == b"result" and len(calls) == 2
    assert not capsys.readouterr().err


def test_nothing_of_a_file_is_run(calls: list[object], tmp_path: Path) -> None:
    """Whoever can write there must not be able to give orders: the file of before was a pickle."""

    class Order:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.write_text, (tmp_path / "obeyed", "")

    ask(calls)
    (path,) = files()
    path.write_bytes(pickle.dumps(Order()))
    assert ask(calls) == b"result" and not (tmp_path / "obeyed").exists()


def test_where_nothing_can_be_kept_it_is_told(
    calls: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    cache_folder().parent.mkdir(exist_ok=True)
    cache_folder().write_text("a file where the folder should be")
    assert ask(calls) == b"result"
    message = capsys.readouterr().err
    assert message.startswith("note: not kept for the next time") and message.count("\n") == 1


def test_the_longest_unused_goes(calls: list[object]) -> None:
    made: list[Path] = []
    for number in range(MAX_FILES):
        ask(calls, number)
        (path,) = set(files()) - set(made)
        os.utime(path, (number, number))
        made.append(path)
    ask(calls, 0)  # used again
    ask(calls, "new")
    assert len(files()) == MAX_FILES
    assert set(made) - set(files()) == {made[1]}


def test_a_user_without_a_home_has_a_cache_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user the system does not know."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert cache_folder().name == "yolov3" and cache_folder().parent.is_dir()


def test_a_sound_file_that_may_only_be_read_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def utime(path: Path) -> None:
        raise PermissionError(1, "not yours")

    keep("mine", "read only", b"result")
    monkeypatch.setattr("utils.files.cache.os.utime", utime)
    assert recall("mine", "read only") == b"result"
    assert capsys.readouterr().err == ""
