"""What do sparse training and its cuts look like? PNG files, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.sweep import SweepPoint, safe_point
from utils.visualization.colours import GRID, INK, PALE, as_hex, series_colour
from utils.visualization.figures import log_ticks_, short_count, whole_ticks_, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Mapping[float, Mapping[str, float]]  # epoch → {"plot/curve": value}

DECILES = [f"scales/{n}0 %" for n in range(1, 10)]


def plot_scales(history: History, dead: Mapping[int, float], path: str | Path) -> None:
    """The distribution of scales over time, and what has become of each layer.

    Args:
        history: of the monitor, with `SparsityPenalty.figures`.
        dead: by layer, the share of its scales that are near zero.
        path: of the picture.
    """
    rows = {epoch: row for epoch, row in sorted(history.items()) if DECILES[0] in row}
    figure = _figure(figsize=(14, 4.5), dpi=110)
    over_time, shares, layers = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    epochs = list(rows)
    deciles = np.array([[row[n] for n in DECILES] for row in rows.values()])
    deciles = deciles.reshape(-1, len(DECILES))  # a moved run may have lost its rows
    _draw_deciles(over_time, epochs, deciles)
    for name in ("sparsity/below 0.01", "sparsity/below 0.1", "mAP/mAP@.5"):
        curve = {epoch: row[name] for epoch, row in rows.items() if name in row}
        shares.plot(list(curve), list(curve.values()), label=name.partition("/")[2], marker=".")
    shares.set(title="Share of small scales, and mAP", xlabel="epoch", ylabel="share, mAP")
    shares.set_ylim(-0.02, 1.02)
    shares.grid(color=GRID, linewidth=0.6)
    shares.legend(frameon=False)
    places = range(len(dead))
    layers.bar(places, dead.values(), color="C0")
    step = max(1, -(-len(dead) // 12))
    layers.set_xticks(places[::step], [str(n) for n in list(dead)[::step]])
    layers.set(title="Share near zero at the end", xlabel="layer", ylabel="share of the layer")
    layers.set_ylim(0, 1.02)
    for axes in (over_time, shares):
        whole_ticks_(axes.xaxis)
    write_figure(figure, path)


def _draw_deciles(axes: Axes, epochs: Sequence[float], deciles: np.ndarray) -> None:
    """A fan: the middle 20, 40, 60 and 80 % of the scales, and the median."""
    for inner in range(4):
        axes.fill_between(
            epochs, deciles[:, inner], deciles[:, 8 - inner], color="C0", alpha=0.2, linewidth=0
        )
    axes.plot(epochs, deciles[:, 4], color=INK, label="median")
    axes.plot(epochs, deciles[:, 8], color="C0", linewidth=0.8, label="80 % lie between")
    axes.plot(epochs, deciles[:, 0], color="C0", linewidth=0.8)
    axes.set(title="Size of the penalized scales", xlabel="epoch", ylabel="|γ|")
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.legend(frameon=False)


def plot_sweep(points: Sequence[SweepPoint], strategy: str, path: str | Path) -> None:
    """Draw mAP against the share that is cut, with what is left of parameters and operations."""
    figure = _figure(figsize=(7.5, 4.5), dpi=110)
    axes = figure.subplots()
    percents = [point.percent for point in points]
    new = [point.reestimated for point in points]
    axes.plot(percents, new, marker="o", color=INK, label="mAP@.5, BN re-estimated")
    axes.plot(percents, [point.as_cut for point in points], color=PALE, label="mAP@.5 as cut")
    whole = points[0]
    for label, left in (
        ("parameters left", [point.parameters / whole.parameters for point in points]),
        ("operations left", [point.operations / whole.operations for point in points]),
    ):
        axes.plot(percents, left, linestyle="--", linewidth=1, label=label)
    if safe := safe_point(points):
        axes.axvline(safe.percent, color=PALE, linestyle=":", label="safe ratio")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set(
        ylim=(0, 1.02),
        xlabel="percent: the share that is cut",
        ylabel="mAP@.5; share left",
        title=f"{strategy}: cut, not fine-tuned",
    )
    axes.grid(color=GRID, linewidth=0.6)
    axes.legend(frameon=False)
    write_figure(figure, path)


def plot_channels(counts: Mapping[int, tuple[int, int]], path: str | Path) -> None:
    """By convolution, its channels before and after a cut."""
    figure = _figure(figsize=(max(7.0, 0.16 * len(counts) + 2), 4.2), dpi=120)
    axes = figure.subplots()
    places = range(len(counts))
    axes.bar(places, [before for before, _ in counts.values()], color=PALE, label="before")
    axes.bar(places, [kept for _, kept in counts.values()], color="C0", label="kept")
    step = max(1, len(counts) // 40)
    axes.set_xticks(places[::step], [str(layer) for layer in list(counts)[::step]], fontsize=7)
    axes.set(xlabel="layer", ylabel="channels", xlim=(-0.8, len(counts) - 0.2))
    axes.set_yscale("symlog", base=2, linthresh=1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    whole, left = (sum(column) for column in zip(*counts.values(), strict=True))
    axes.set_title(f"{left} of {whole} channels kept", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    write_figure(figure, path)


@dataclass(frozen=True)
class NetworkPoint:
    """A network among others.

    Attributes:
        parameters: millions.
        latency: milliseconds an image.
        mean_ap: mAP@.5, 0 to 1.
        was_cut: whether it was cut; others are references.
    """

    parameters: float
    latency: float
    mean_ap: float
    was_cut: bool


def plot_sizes(networks: Mapping[str, NetworkPoint], title: str, path: str | Path) -> None:
    """Draw mAP against parameters and against latency, by network."""
    figure = _figure(figsize=(13, 5.5), dpi=110)
    axes = figure.subplots(1, 2, sharey=True)
    for number, (label, network) in enumerate(networks.items()):
        marker = "o" if network.was_cut else "s"
        colour = as_hex(series_colour(number))
        for plot, x in zip(axes, (network.parameters, network.latency), strict=True):
            plot.scatter(x, network.mean_ap, marker=marker, color=colour, label=label, s=45)
    axes[0].set(xlabel="parameters", ylabel="mAP@.5", xscale="log")
    axes[1].set(xlabel="milliseconds an image", xscale="log")
    log_ticks_(axes[0].xaxis, lambda millions: short_count(1e6 * millions))
    log_ticks_(axes[1].xaxis)
    for plot in axes:
        plot.grid(color=GRID, linewidth=0.6, which="both")
        plot.set_axisbelow(True)
    figure.suptitle(title)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    write_figure(figure, path)


def _figure(**options: Any) -> Figure:
    from matplotlib.figure import Figure  # slow to import, and not needed by most runs

    return Figure(layout="constrained", **options)
