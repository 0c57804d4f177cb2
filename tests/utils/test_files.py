"""Is a file written whole or not at all, and files that belong together at one time?"""

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from import_param import TrainSettings
from models.netdef import load, parse
from tests.conftest import ROOT, full_disk
from utils import files
from utils.checkpoint import Origin, read_checkpoint, save_checkpoint
from utils.errors import InputError
from utils.files import (
    LineFile,
    alone,
    atomic,
    atomic_folder,
    fill,
    guarded,
    output_folder,
    read_bytes,
    read_lines,
    read_start,
    read_text,
    remove_partial_files,
    same_file,
    scratch_folder,
    together,
    within,
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
        if not path.name.startswith(files.PARTIAL) and next(steps) == step:
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


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    write_text(tmp_path / "below/a.txt", "whole")
    (tmp_path / f"below/{files.PARTIAL}a-x1.txt").write_text("ha")
    (tmp_path / f"{files.PARTIAL}last-x2.pt").write_text("ha")
    remove_partial_files(tmp_path)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["a.txt"]


def test_what_another_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    """It holds a lock, which ends with it; so the process that comes next removes what it left."""
    script = (
        "import sys, time; from utils.files import atomic, atomic_folder\n"
        "with atomic('a.txt') as file, atomic_folder('b') as folder:\n"
        "    (folder / 'c').touch(); print('ready', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        write_text(tmp_path / "other.txt", "")
        remove_partial_files(tmp_path)
        assert len(list(tmp_path.glob(f"{files.PARTIAL}*"))) == 2
        process.kill()
    next_one = "from utils.files import write_text; write_text('other.txt', 'new')"
    subprocess.run([sys.executable, "-c", next_one], cwd=tmp_path, env=environment, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


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


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/below"):
        output_folder(str(tmp_path / "file" / "below"))
    assert output_folder(str(tmp_path / "new" / "folder")).is_dir()


def test_an_output_folder_has_a_name_that_every_library_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a name in UTF-8"):
        output_folder(f"{tmp_path}/\udc80")
    assert not list(tmp_path.iterdir())


def test_a_link_below_a_folder_leads_nobody_out_of_it(tmp_path: Path) -> None:
    for name in ("real/inside", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "real")  # where results go, a user may choose
    (tmp_path / "real" / "labels").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real" / "crops").symlink_to(tmp_path / "real" / "inside")
    out = tmp_path / "out"
    for name in ("a.txt", "new/a.txt", "crops/a.txt"):
        assert within(out, name) == out / name
    for name in ("labels/a.txt", "labels/new/a.txt", "../a.txt", "new/../../a.txt"):
        with pytest.raises(InputError, match=r"a link leads to .*: expected a place in"):
            within(out, name)


def test_a_file_is_known_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert same_file(tmp_path / "file", tmp_path / "link")
    assert not same_file(tmp_path / "file", tmp_path / "other")
    assert not same_file(tmp_path / "file", tmp_path / "missing")


def test_only_ordinary_files_are_read_and_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to(tmp_path / "none")
    for path, reason in [
        (tmp_path / "pipe", "is a named pipe: expected a file"),
        (tmp_path / "socket", "is a socket: expected a file"),
        (Path("/dev/zero"), "is a device: expected a file"),
        (tmp_path, "is a folder: expected a file"),
        (tmp_path / "link", "No such file"),
        (Path("a" * 5000), "File name too long"),
        (Path("a\0b"), "not the name of a file"),
    ]:
        for read in (read_bytes, read_text, read_lines):
            with pytest.raises(InputError, match=reason) as caught:
                read(path)
            assert "\n" not in str(caught.value)
    listener.close()


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.txt").open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(InputError, match=r"sparse\.txt: 8796093022208 bytes: expected at most"):
        read_lines(tmp_path / "sparse.txt")


def test_a_pipe_in_place_of_a_network_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.cfg")
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(InputError, match="is a named pipe"):
        load(tmp_path / "pipe.cfg")
    with pytest.raises(InputError, match="is a named pipe"):
        read_checkpoint(tmp_path / "pipe.pt")


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_is_read_in_the_encodings_that_can_be_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.names").write_bytes("猫\r\nHündin\r\n".encode(encoding))
    assert read_lines(tmp_path / "a.names") == ["猫", "Hündin"]
    assert read_start(tmp_path / "a.names").startswith("猫")


@pytest.mark.parametrize(("encoding", "told"), [("gbk", "GBK"), ("utf-16-le", "UTF-16LE")])
def test_a_text_in_another_encoding_is_refused_with_the_way_to_convert_it(
    tmp_path: Path, encoding: str, told: str
) -> None:
    (tmp_path / "a.names").write_bytes("dog\n电阻\n".encode(encoding))
    with pytest.raises(
        InputError, match=f"a.names: not a text file in UTF-8 .*in line 2.*-f {told} "
    ):
        read_text(tmp_path / "a.names")


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
