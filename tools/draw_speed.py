"""What does the README's picture show? mAP against milliseconds, from figures that were measured.

    python -m tools.draw_speed --figures docs/figures/speed.csv --output docs/figures/speed.png

A row of the table is a network: its series, drawn as one line, its name in that, milliseconds, mAP,
and where they stand with their commands.
"""

import csv
import io
import sys
from dataclasses import dataclass

from utils import errors
from utils.errors import InputError
from utils.files.reading import read_text
from utils.settings.loader import load

COLUMNS = ["series", "network", "milliseconds", "map", "source"]


@dataclass(frozen=True)
class Drawing:
    """A table of measured figures, and its picture."""

    figures: str = "docs/figures/speed.csv"  # the table
    output: str = "docs/figures/speed.png"  # the picture


@dataclass(frozen=True)
class DrawingSettings:
    """Draw mAP against milliseconds, from a table."""

    drawing: Drawing = Drawing()


@dataclass(frozen=True)
class Point:
    """A network, its time and its mAP."""

    network: str
    milliseconds: float
    mean_ap: float


def read_series(path: str) -> dict[str, list[Point]]:
    """The networks of a table, by series.

    Raises:
        InputError: the table cannot be read, or lacks a column or a number.
    """
    rows = csv.DictReader(io.StringIO(read_text(path)))
    if rows.fieldnames != COLUMNS:
        raise InputError(f"{path}:1: expected the columns {','.join(COLUMNS)}")
    series: dict[str, list[Point]] = {}
    for row in rows:
        try:
            point = Point(row["network"], float(row["milliseconds"]), float(row["map"]))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}:{rows.line_num}: {error}") from None
        series.setdefault(row["series"], []).append(point)
    return series


def main(argv: list[str] | None = None) -> None:
    """Read the table, draw it."""
    settings = load(DrawingSettings, argv, about=__doc__).drawing
    draw(read_series(settings.figures), settings.output)
    print(settings.output)


def draw(series: dict[str, list[Point]], path: str) -> None:
    """One line a series, its networks named beside their marks; as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    from utils.visualization.figures import write_figure

    figure = Figure(figsize=(8, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    for name, points in series.items():
        (line,) = axes.plot(
            [point.milliseconds for point in points],
            [point.mean_ap for point in points],
            marker="o" if len(points) > 1 else "s",
            linestyle="-" if len(points) > 1 else "none",
            label=name,
        )
        for point in points:
            axes.annotate(
                point.network,
                (point.milliseconds, point.mean_ap),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                color=line.get_color(),
            )
    axes.xaxis.set_major_locator(FixedLocator([2, 5, 10, 20, 30, 40, 50, 100, 200, 400]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("milliseconds for a photo of 320×320 on one core of an AMD EPYC, torch, fp32")
    axes.set_ylabel("mAP@.5 on BCCD (72 photos)")
    axes.grid(alpha=0.3)
    axes.margins(y=0.15)
    axes.legend(loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    write_figure(figure, path)


if __name__ == "__main__":
    sys.exit(errors.run(main))
