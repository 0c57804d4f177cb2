"""A comparison as a picture: mAP over epochs, and against what networks cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.comparison.groups import Group
from utils.comparison.runs import Result
from utils.visualization.colours import GRID, as_hex, series_colour
from utils.visualization.figures import write_figure

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes

LONGEST_NAME = 40  # characters in the legend


def plot_comparison(groups: Sequence[Group], path: Path) -> None:
    """Draw runs as a PNG file: a colour a group, whose mean is a large mark in each panel.

    Raises:
        InputError: it cannot be written.
    """
    from matplotlib.figure import Figure

    panels: list[tuple[str, Callable[[Result], float]]] = [
        ("parameters", lambda result: result.parameters),
        ("milliseconds an image", lambda result: result.ms),
    ]
    panels = [(label, of) for label, of in panels if any(group.values(of) for group in groups)]
    width = 6 + 4 * len(panels)
    figure = Figure(figsize=(width, 4.8), dpi=110, layout="constrained")
    ratios = [1.4, *[1] * len(panels)]
    axes = figure.subplots(1, 1 + len(panels), width_ratios=ratios, squeeze=False)[0]
    _draw_epochs(axes[0], groups)
    for panel, (label, of) in zip(axes[1:], panels, strict=True):
        _draw_costs(panel, groups, label, of)
    for panel in axes:
        panel.grid(color=GRID, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    columns = max(1, min(4, len(groups)))
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    write_figure(figure, path)


def _colour(place: int) -> str:
    return as_hex(series_colour(place))


def _draw_epochs(axes: Axes, groups: Sequence[Group]) -> None:
    """A line a run, dotted where it was stopped; a cut has none, and is in the legend."""
    for place, group in enumerate(groups):
        name = group.name if len(group.name) <= LONGEST_NAME else group.name[:39] + "…"
        label = name.replace("$", r"\$").lstrip("_")
        for result in group.results:
            steps, values = result.run.curve("mAP/mAP@.5")
            style = "-" if result.finished else ":"
            axes.plot(steps, values, style, color=_colour(place), linewidth=1.4, alpha=0.8)
        axes.plot([], [], color=_colour(place), marker="o", label=label)
    axes.set(xlabel="epoch", ylabel="mAP@.5", ylim=(0, 1.02), title="mAP over epochs")


def _draw_costs(
    axes: Axes, groups: Sequence[Group], label: str, of: Callable[[Result], float]
) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    for place, group in enumerate(groups):
        pairs = [(of(r), r.best) for r in group.results if math.isfinite(of(r) + r.best)]
        if not pairs:
            continue
        xs, ys = zip(*pairs, strict=True)
        axes.scatter(xs, ys, s=14, color=_colour(place), alpha=0.6)
        axes.scatter(sum(xs) / len(xs), sum(ys) / len(ys), s=60, color=_colour(place))
    axes.set(xlabel=label, ylim=(0, 1.02), title=f"best mAP@.5 against {label.split()[0]}")
    if label != "parameters":
        axes.set_xlim(left=0)
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())
