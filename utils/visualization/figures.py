"""How does a figure become a file?"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import InputError
from utils.files.writing import write_bytes
from utils.fonts import use_fonts_

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Raises:
        InputError: the name does not end in .png, or the file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: expected a name that ends in .png")
    use_fonts_(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    write_bytes(path, data.getvalue())


LONGEST_NAME = 24  # characters beside an axis


def plain(name: str) -> str:
    """A name as matplotlib shows it: without formulas, and not longer than its place."""
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return short.replace("$", r"\$")


def short_count(count: float) -> str:
    """A number in three digits at most, as people say it.

    >>> [short_count(n) for n in (950, 1234, 48_000, 3e6, 2.5e9)]
    ['950', '1.2 k', '48 k', '3 M', '2.5 G']
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= 0.9995 * size:
            digits = count / size
            return f"{digits:.0f} {unit}" if digits >= 9.95 else f"{digits:.2g} {unit}"
    return f"{count:.3g}"


def count_ticks_(axis: Axis) -> None:
    """Have an axis say `3 M` for 3·10⁶."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda count, _: short_count(count)))


def whole_ticks_(axis: Axis) -> None:
    """Have an axis of epochs say no half ones."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=9))


def log_ticks_(axis: Axis, say: Callable[[float], str] = "{:g}".format) -> None:
    """Have a logarithmic axis say 1, 2, 5, 10 and so on, and not 10⁰."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: say(value)))
