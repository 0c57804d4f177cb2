"""How bad input is told: one line, exit code 2, no traceback."""

import contextlib
import io
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator

from utils.console.progress import Background
from utils.console.progress import say as say_line
from utils.processes import distributed


class InputError(Exception):
    """Something that a user gave is wrong: a file, a line of it, or a value.

    The message is one line that names the place, the value and what was wanted, such as
    ``config/my.cfg:41: filters='x': expected an integer``. Whatever a stranger's file put into it,
    it stays one line of a length that can be read, and sends no control codes to a terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


LONGEST_MESSAGE = 1000  # characters


def _one_line(text: str) -> str:
    """Its middle left out where it is long, and what cannot be printed written as Python does."""
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE * 3 // 4]} … {text[-LONGEST_MESSAGE // 5 :]}"
    if text.isprintable():
        return text
    # Wide and unbreakable spaces, which Python counts as unprintable, do no harm.
    fine = (c.isprintable() or unicodedata.category(c) == "Zs" for c in text)
    return "".join(c if is_fine else repr(c)[1:-1] for c, is_fine in zip(text, fine, strict=True))


@contextlib.contextmanager
def only_warn(say: Callable[[str], None] = say_line) -> Iterator[None]:
    """Tell bad input in a line and go on: for pictures, which are no reason to lose other work."""
    try:
        yield
    except InputError as error:
        say(f"warning: {error}")


def run(main: Callable[[], None], together: bool = False) -> int:
    """Run a script's `main`; its exit code.

    0; 2 for bad input and for what the system refuses; 130 for Ctrl-C, SIGTERM and SIGHUP; 1 where
    nobody reads what is printed any more.

    Args:
        main: what the script does.
        together: whether processes that torchrun starts work on it together; else several are
            refused.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be anything, in any encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable(), distributed.only_main_prints(), Background():
            if not together and distributed.launched() > 1:
                raise InputError(
                    f"torchrun: {distributed.launched()} processes: only train.py works with "
                    "several; start this script with python"
                )
            main()
            # Here, and not at Python's end, it is told what cannot be printed.
            print(end="", flush=True)
    except InputError as error:
        _tell(f"error: {error}")
        return 2
    except KeyboardInterrupt as stop:
        by_torchrun = distributed.world() > 1 and stop.args[:1] == (signal.SIGTERM,)
        if by_torchrun:
            _tell("stopped by torchrun: another process has ended")
        else:
            _tell("; ".join(["stopped", *(told for told in stop.args if isinstance(told, str))]))
        return 130
    except BrokenPipeError:
        _stop_printing()
        return 1
    except OSError as error:
        if error.errno is None:  # not the system's: a bug
            raise
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        _tell(f"error: {place}{error.strerror}")
        return 2
    except (MemoryError, RuntimeError) as error:
        if distributed.is_lost(error):
            _tell(
                "error: another process of this training has ended, killed or with its machine; "
                "--resume goes on from the last checkpoint, and so does torchrun --max-restarts"
            )
            return 2
        if _worker_ended(error):
            told = str(error).splitlines()[0]
            _tell(f"error: {told} Too little memory? Fewer workers need less")
            return 2
        if not is_out_of_memory(error):
            raise
        _tell(
            "error: not enough memory here; smaller images (img_size), batches (batch_size) or "
            f"networks need less. {str(error).splitlines()[0] if str(error) else ''}"
        )
        return 2
    return 0


def _tell(line: str) -> None:
    """Print a last line, where it can be printed; of processes together, one does."""
    if not distributed.first_to_tell():
        return
    try:
        print(end="", flush=True)
    except OSError:
        _stop_printing()
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _stop_printing() -> None:
    """Python prints what is left at its end, and tells a traceback where that fails."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_out_of_memory(error: Exception) -> bool:
    """MemoryError, and what torch raises: on the CPU a RuntimeError like any other."""
    told = (
        *("can't allocate memory", "DefaultCPUAllocator: not enough memory"),  # the latter: Windows
        *("out of memory", "Storage size calculation overflowed", "CUBLAS_STATUS_ALLOC_FAILED"),
    )
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


def _worker_ended(error: Exception) -> bool:
    """Whether the system ended a process that loads photos, which torch may raise anywhere."""
    return str(error).startswith(("DataLoader worker (pid", "Pin memory thread exited"))


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let other signals end the work as Ctrl-C does.

    SIGTERM comes from a service manager or `timeout`, SIGHUP from a terminal that is closed. One
    that is ignored, as SIGHUP is below `nohup`, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        # What is to be told still must not be cut short by torchrun, which ends all where one ends.
        ending = distributed.world() > 1
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ending else handler)
