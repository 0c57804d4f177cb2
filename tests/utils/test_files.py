"""Is a file written whole or not at all, and bad input told in one line?"""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from import_param import TrainSettings
from models.netdef import parse
from utils.checkpoint import save_checkpoint
from utils.errors import InputError, run, stoppable
from utils.files import atomic, output_folder, same_file, write_bytes, write_text


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


def test_a_folder_that_cannot_be_is_bad_input(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(InputError, match=r"file/a.txt: cannot be written: "):
        write_text(tmp_path / "file" / "a.txt", "")


@contextmanager
def full_disk(size: int = 10_000) -> Iterator[None]:
    """Files may take no more bytes than these: what is nearest to a full disk without one."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with full_disk(), pytest.raises(InputError, match=r"a.bin: cannot be written: "):
        write_bytes(path, bytes(20_000))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_of_checkpoints(tmp_path: Path) -> None:
    netdef = parse("[net]\nwidth=32\nheight=32\n[convolutional]\nfilters=8\n", "a.cfg")
    with full_disk(), pytest.raises(InputError, match=r"a.pt: cannot be written; is the disk"):
        save_checkpoint(
            tmp_path / "a.pt", netdef, (), {"x": torch.zeros(20_000)}, TrainSettings(), {}
        )
    assert not list(tmp_path.iterdir())


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("x.cfg:1: no"), 2, "error: x.cfg:1: no\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_bad_input_and_ctrl_c_have_their_codes(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: fail(error)) == code
    assert capsys.readouterr().err == line


def test_success_is_zero_and_a_bug_is_not_hidden() -> None:
    assert run(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        run(lambda: fail(ZeroDivisionError()))


def test_a_service_that_is_stopped_ends_as_by_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/below"):
        output_folder(str(tmp_path / "file" / "below"))
    assert output_folder(str(tmp_path / "new" / "folder")).is_dir()


def test_a_file_is_known_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert same_file(tmp_path / "file", tmp_path / "link")
    assert not same_file(tmp_path / "file", tmp_path / "other")
    assert not same_file(tmp_path / "file", tmp_path / "missing")
