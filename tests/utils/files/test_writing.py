"""Is a file written whole or not at all, and files that belong together at one time?"""

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from import_param import TrainSettings
from models.netdef import parse
from tests.conftest import full_disk
from utils.checkpoint.checkpoint import Origin, save_checkpoint
from utils.errors import InputError
from utils.files.temporary import PARTIAL
from utils.files.writing import (
    LineFile,
    alone,
    atomic,
    atomic_folder,
    fill,
    guarded,
    scratch_folder,
    together,
    write_bytes,
    write_text,
)


def test_what_is_written_is_there(tmp_path: Path) -> None:
    write_text(tmp_path / "new/deep/a.txt", "grün\n")
    write_bytes(tmp_path / "b.bin", b"\0\1")
    assert (tmp_path / "new/deep/a.txt").read_text(encoding="utf-8") == "grün\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\0\1"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.tar.png") as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path


class Killed(BaseException):
    """The process ends here, as by `kill -9`."""


@pytest.mark.parametrize("step", range(6))
def test_files_of_a_kill_are_of_one_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Killed before each step of putting new files in place; the seventh would be after the end."""
    paths = [tmp_path / name for name in ("best.pt", "best.names", "best.weights")]
    for path in paths:
        path.write_text("old")
    steps = iter(range(6))

    def may_be_killed(path: Path) -> None:
        if not path.name.startswith(PARTIAL) and next(steps) == step:
            raise Killed

    unlink, replace = Path.unlink, Path.replace

    def killed_unlink(path: Path, missing_ok: bool = False) -> None:
        may_be_killed(path)
        unlink(path, missing_ok)

    def killed_replace(path: Path, target: Path) -> None:
        may_be_killed(target)
        replace(path, target)

    monkeypatch.setattr(Path, "unlink", killed_unlink)
    monkeypatch.setattr(Path, "replace", killed_replace)
    killed = pytest.raises(Killed) if step < 5 else contextlib.nullcontext()
    with killed, together(*paths) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    there = [path for path in paths if path.exists()]
    assert paths[0] in there and len({path.read_text() for path in there}) == 1
    assert not paths[2].exists() or len(there) == 3


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOSPC])
def test_whatever_the_system_refuses_is_told_in_one_line(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(InputError, match=r"a.txt: cannot be written: "), atomic(path):
        raise OSError(code, os.strerror(code))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_of_another_file_is_not_blamed_on_the_one_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a.txt"):
        (tmp_path / "missing").read_bytes()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with atomic_folder(target) as made:
        write_text(made / "below/a.txt", "old")
        assert not target.exists()
    with full_disk(), pytest.raises(InputError, match=r"/set/b.bin: cannot be written: "):  # noqa: SIM117
        with atomic_folder(target) as made:
            write_bytes(made / "b.bin", bytes(20_000))
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "below", "a.txt"]
    with atomic_folder(target):
        pass
    assert not list(target.iterdir())


def test_names_as_long_as_the_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'写' * 83}.txt"  # 253 bytes of 255
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_a_library_that_writes_to_a_full_disk_is_stopped(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(InputError, match=r"a.pt: cannot be written: "):  # noqa: SIM117
        with atomic(tmp_path / "a.pt") as temporary, guarded(temporary) as file:
            torch.save(torch.zeros(20_000), file)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_a_library_writes_comes_at_the_end_of_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(handle: object, data: bytes) -> None:
        raise KeyboardInterrupt

    ended = False
    with pytest.raises(KeyboardInterrupt), guarded(tmp_path / "a") as file:
        monkeypatch.setattr(file, "_file", type("File", (), {"write": interrupted})())
        torch.save(torch.zeros(9), file)
        ended = True
    assert ended and (tmp_path / "a").read_bytes() == b""


def test_scratch_files_on_a_full_disk_are_told(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(InputError, match=r"cannot be written: "):  # noqa: SIM117
        with scratch_folder() as folder:
            fill(folder / "net.bin", bytes(20_000))
    assert not folder.exists()


def test_a_folder_that_cannot_be_is_bad_input(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(InputError, match=r"file/a.txt: cannot be written: "):
        write_text(tmp_path / "file" / "a.txt", "")


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with full_disk(), pytest.raises(InputError, match=r"a.bin: cannot be written: "):
        write_bytes(path, bytes(20_000))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_of_checkpoints(tmp_path: Path) -> None:
    netdef = parse("[net]\nwidth=32\nheight=32\n[convolutional]\nfilters=8\n", "a.cfg")
    with full_disk(), pytest.raises(InputError, match=r"a.pt: cannot be written: "):
        save_checkpoint(
            tmp_path / "a.pt", netdef, (), {"x": torch.zeros(20_000)}, TrainSettings(), Origin()
        )
    assert not list(tmp_path.iterdir())


def test_of_processes_that_work_on_a_file_one_does_at_a_time(tmp_path: Path) -> None:
    """And what a kill left is removed."""
    path = tmp_path / "a[1].csv"
    left = tmp_path / ".partial-a[1]-abcd_123.csv"
    left.touch()
    order: list[str] = []
    inside, waiting = threading.Event(), threading.Event()

    def second() -> None:
        inside.wait(30)
        with alone(path, waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with alone(path, lambda: order.append("waited")):
        assert not left.exists()
        inside.set()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_lines_go_on_behind_whole_lines_or_replace_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    with LineFile(path, append=True) as file:
        assert not path.exists()  # until there is a line
        file.write("猫 \udc80")
        assert path.read_bytes() == "猫 \\udc80\n".encode()  # at once, and JSON all the same
    path.write_bytes(b"1\nhalf a li")
    with LineFile(path, append=True) as file:
        file.write("2")
    assert path.read_text().splitlines() == ["1", "half a li", "2"]
    with LineFile(path, append=False) as file:
        file.write("3")
    assert path.read_text() == "3\n"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    with LineFile(tmp_path / "a.jsonl", append=False) as file:
        file.write("x" * 50)
        with full_disk(80), pytest.raises(InputError, match=r"a\.jsonl: cannot be written: "):
            file.write("y" * 50)
    assert (tmp_path / "a.jsonl").read_text() == "x" * 50 + "\n"
    with pytest.raises(InputError, match="cannot be written"):
        LineFile(tmp_path / "a.jsonl" / "b.jsonl", append=False).write("z")
