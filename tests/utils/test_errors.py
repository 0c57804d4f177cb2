"""Does a script end with one line and its exit code, whatever went wrong?"""

import errno
import io
import os
import signal
import subprocess
import sys

import pytest
import torch

from utils.errors import InputError, run, stoppable

OF_WINDOWS = "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("x.cfg:1: no"), 2, "error: x.cfg:1: no\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (OSError(errno.EIO, "Input/output error", "a.jpg"), 2, "error: a.jpg: Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), 2, "error: Stale file handle"),
        (MemoryError(), 2, "error: not enough memory here; smaller images (img_size)"),
        (RuntimeError("CUDA out of memory. Tried"), 2, "error: not enough memory here"),
        (RuntimeError(f"[…] {OF_WINDOWS}"), 2, "error: not enough memory here"),
    ],
)
def test_what_is_told_in_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: raising(error)) == code
    told = capsys.readouterr().err
    assert told.startswith(line) and told.count("\n") == 1


def test_a_tensor_larger_than_memory_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(lambda: print(torch.empty(10**17).sum())) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: not enough memory here") and told.count("\n") == 1


def test_faults_of_our_own_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        run(lambda: raising(RuntimeError("shapes differ")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_service_that_is_stopped_ends_as_by_ctrl_c(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stoppable():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("redirected", ["stdout", "stderr"])
def test_a_full_disk_below_what_is_printed_is_told_in_one_line(redirected: str) -> None:
    script = (
        "import sys; from utils.errors import run, InputError\n"
        f"sys.exit(run(lambda: print('x', file=sys.{redirected}, flush=True)))"
    )
    with open("/dev/full", "w") as full:  # noqa: PTH123
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, redirected: full}
        done = subprocess.run([sys.executable, "-c", script], check=False, text=True, **streams)  # type: ignore[call-overload]
    assert done.returncode == 2
    assert (done.stdout or "") == ""
    assert done.stderr in (None, "error: No space left on device\n")


def test_what_is_still_to_be_printed_is_told_where_it_cannot() -> None:
    script = "import sys; from utils.errors import run; sys.exit(run(lambda: print('x')))"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", script], check=False, stdout=full, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (2, b"error: No space left on device\n")


def test_a_reader_that_goes_away_ends_the_work_quietly() -> None:
    script = (
        "import sys; from utils.errors import run; sys.exit(run(lambda: print('x\\n' * 10**6)))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 1)


def test_names_that_the_terminal_has_no_letters_for_are_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii"))
    assert run(lambda: print("photo \udcff é")) == 0
    assert printed.getvalue() == b"photo \\udcff \\xe9\n"


def test_a_message_is_one_line_of_a_length_that_can_be_read() -> None:
    assert str(InputError("a\nb\x1b[31m\udcff")) == r"a\nb\x1b[31m\udcff"
    assert str(InputError("größe\u3000\u00a0😀")) == "größe\u3000\u00a0😀"
    long = str(InputError(f"a.cfg:1: x={'9' * 5000}: expected a number"))
    assert len(long) < 1010 and long.startswith("a.cfg:1: x=9")
    assert long.endswith("9: expected a number")
