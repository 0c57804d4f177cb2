"""How bad input is told: one line, exit code 2, no traceback."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something that a user gave is wrong: a file, a line of it, or a value.

    The message is one line that names the place, the value and what was wanted, such as
    ``config/my.cfg:41: filters='x': expected an integer``.
    """


def run(main: Callable[[], None]) -> int:
    """Run a script's `main` and return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
