"""How bad input is told: one line, exit code 2, no traceback."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator


class InputError(Exception):
    """Something that a user gave is wrong: a file, a line of it, or a value.

    The message is one line that names the place, the value and what was wanted, such as
    ``config/my.cfg:41: filters='x': expected an integer``.
    """


def run(main: Callable[[], None]) -> int:
    """Run a script's `main`; its exit code: 0, 2 for bad input, 130 for Ctrl-C or SIGTERM."""
    try:
        with stoppable():
            main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        print(
            "error: not enough memory here; smaller images (img_size), batches (batch_size) or "
            f"networks need less. {str(error).splitlines()[0] if str(error) else ''}",
            file=sys.stderr,
        )
        return 2
    return 0


def _out_of_memory(error: Exception) -> bool:
    """MemoryError, and what torch raises: on the CPU a RuntimeError like any other."""
    told = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM (a service that is stopped, `timeout`) end the work as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
