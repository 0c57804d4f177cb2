"""A run's figures as curves: PNG files, drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from utils.fonts import class_label
from utils.visualization.colours import Colour, as_hex, colour, series_colour
from utils.visualization.figures import plain, whole_ticks_, write_figure

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes

History = Mapping[float, Mapping[str, float]]  # epoch → {"plot/curve": value}
Curve = tuple[list[float], list[float]]  # epochs, values

# plot: its title, its y axis, whether that axis is 0 to 1; in the order in which they are looked at
PLOTS = {
    "mAP": ("Mean average precision", "mAP", True),
    "loss": ("Loss", "loss", False),
    "AP": ("Average precision of each class", "AP", True),
    "metrics": ("Precision and recall", "precision, recall", True),
    "training": ("Training, cell by cell", "precision, recall", True),
    "lr": ("Learning rate", "learning rate", False),
    "speed": ("Training speed", "images per second", False),
}
OF_CLASSES = "AP"  # the plot that has a curve a class, in the order of the classes
DOTTED_UNTIL = 40  # of fewer points each is marked: one point makes no line
LEGEND_ROWS = 20


def describe_plot(plot: str) -> tuple[str, str, bool]:
    """Title, y label and whether the y axis is 0 to 1; a plot that we do not know names itself."""
    return PLOTS.get(plot, (plot, "", False))


def curve_colour(plot: str, number: int) -> Colour:
    """The colour of a curve of a plot, by its place there: that of its class where it is of one."""
    return colour(number) if plot == OF_CLASSES else series_colour(number)


def place(plot: str) -> int:
    """Where a plot stands among others; what we do not know is last."""
    return list(PLOTS).index(plot) if plot in PLOTS else len(PLOTS)


def curves_by_plot(history: History) -> dict[str, dict[str, Curve]]:
    """Sort figures by plot and curve: plot → curve → (epochs, values), in order of epoch.

    The plots are in the order of `PLOTS`. The part of a name before the first "/" is the plot, the
    rest the curve (so a class name may hold a "/"); a name without one is both.
    """
    plots: dict[str, dict[str, Curve]] = {}
    for epoch in sorted(history):
        for name, value in history[epoch].items():
            plot, _, curve = name.partition("/")
            epochs, values = plots.setdefault(plot, {}).setdefault(curve or plot, ([], []))
            epochs.append(epoch)
            values.append(value)
    return dict(sorted(plots.items(), key=lambda item: place(item[0])))


def plot_curves(history: History, folder: str | Path) -> list[Path]:
    """Draw one `curves_<plot>.png` for each plot in `history` into `folder`; return the files.

    Values that are not finite leave a gap. Safe in a thread: nothing global of pyplot is used.
    """
    from matplotlib.figure import Figure

    files = []
    for plot, curves in curves_by_plot(history).items():
        columns = math.ceil(len(curves) / LEGEND_ROWS)
        figure = Figure(figsize=(8 + 2 * (columns - 1), 4.5), dpi=110, layout="constrained")
        _draw_curves(figure.add_subplot(), plot, curves, columns)
        file = Path(folder) / f"curves_{plot}.png"
        write_figure(figure, file)
        files.append(file)
    return files


def _draw_curves(axes: Axes, plot: str, curves: Mapping[str, Curve], columns: int) -> None:
    title, label, unit = describe_plot(plot)
    names = list(curves)
    finite = [i for i, n in enumerate(names) if any(map(math.isfinite, curves[n][1]))]
    for index in finite or range(len(names)):
        epochs, values = curves[names[index]]
        name = class_label(index, names) if plot == OF_CLASSES else names[index]
        axes.plot(
            epochs,
            values,
            label=plain(name),
            marker="o" if len(epochs) < DOTTED_UNTIL else "",
            markersize=3,
            color=as_hex(curve_colour(plot, index)),
        )
    axes.set(title=title, xlabel="epoch", ylabel=label)
    whole_ticks_(axes.xaxis)
    if unit:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    if list(curves) != [plot]:  # such as `lr`, of which the title says all
        _draw_legend(axes, columns)


def _draw_legend(axes: Axes, columns: int) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=columns, fontsize="small")
