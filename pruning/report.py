"""What did a cut change? Tables, a picture, and how fast the network is before and after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terminaltables import AsciiTable

from models.costs import count_operations, count_parameters, layer_operations, layer_parameters
from models.darknet import Darknet, shapes
from models.netdef import NetDef
from pruning.latency.meter import LatencyMeter
from pruning.latency.search import LatencyResult
from pruning.latency.search_space import find_search_space
from pruning.plots import plot_channels
from pruning.surgeon import Plan, cut_netdef, trim
from pruning.targets import CutShares, target_measure
from utils.errors import only_warn
from utils.files.writing import write_text
from utils.run_page.pruning import CHANNELS
from utils.timing import machine, ms_in_words

HEADER_BYTES = 20  # of a .weights file


@dataclass(frozen=True)
class Size:
    """What a network costs.

    Attributes:
        parameters: how many.
        operations: for one image.
        weights_bytes: of its .weights file.
        latency: milliseconds an image, see `measure_latencies`.
        layers: that take time at any width.
    """

    parameters: int
    operations: int
    weights_bytes: int
    latency: float
    layers: int = 0


@dataclass(frozen=True)
class Quality:
    """How well a network detects on the validation photos: mAP@.5 and mAP@.5:.95, 0 to 1."""

    mean_ap: float
    mean_ap_50_95: float


@dataclass(frozen=True)
class Report:
    """A cut in figures.

    Attributes:
        strategy: its name.
        percent: the share that was asked for.
        percent_of: of what.
        shares: what the plan takes away.
        before: the whole network.
        after: the cut one.
        quality: by stage: before, after the cut, after BN re-estimation.
        method: how the latency was measured.
        layers: a row a convolution.
        timing: of a cut to a time, in the times of `before` and `after`; None for other cuts.
        batch_norm: what was measured with its statistics as they were, and re-estimated; empty
            where that was not asked for.
    """

    strategy: str
    percent: float
    percent_of: str
    shares: CutShares
    before: Size
    after: Size
    quality: Mapping[str, Quality]
    method: str
    layers: tuple[LayerRow, ...]
    timing: LatencyResult | None = None
    batch_norm: str = ""

    @property
    def reached(self) -> float:
        """The share of what `percent` asks for."""
        return self.shares.of(target_measure(self.strategy, self.percent_of))

    def text(self) -> str:
        """The tables, how the latency was measured, and how a time was met."""
        parts = [self._layer_table(), self._share_table(), self._table(), self.batch_norm]
        parts += [self.method, self.timing.line() if self.timing else ""]
        return "\n".join(filter(None, parts))

    def write(self, folder: Path) -> None:
        """report.txt, report.json and channels.png."""
        write_text(folder / "report.txt", self.text() + "\n")
        figures = {**dataclasses.asdict(self), "reached": self.reached}
        figures["found"] = figures.pop("quality")  # the name that reports have always had
        write_text(folder / "report.json", json.dumps(figures, indent=2) + "\n")
        counts = {row.layer: (row.channels, row.channels_now) for row in self.layers}
        with only_warn():
            plot_channels(counts, folder / "channels.png")

    def _layer_table(self) -> str:
        head = ["layer", "now", "kernel", "channels", "now", "kept", "parameters", "now", "MOPs",
                "now"]  # fmt: skip
        return _table([head, *(row.cells() for row in self.layers)], "the layers")

    def _share_table(self) -> str:
        measure = target_measure(self.strategy, self.percent_of)
        asked = [f"asked: {self.strategy}, of {measure}", f"{self.percent:.1%}"]
        if self.timing:
            asked = [f"asked: {self.strategy}, of milliseconds", f"{self.timing.share:.1%}"]
        rows = [
            ["", "gone"],
            asked,
            ["channels that it may cut", f"{self.shares.channels:.1%}"],
            ["parameters", f"{self.shares.parameters:.1%}"],
            ["operations", f"{self.shares.operations:.1%}"],
            ["residual blocks", f"{self.shares.blocks:.1%}"],
        ]
        return _table(rows, "the cut")

    def _table(self) -> str:
        a, b = self.before, self.after
        rows = [
            ["", "before", "after", "after / before"],
            ["layers", f"{a.layers}", f"{b.layers}", _ratio(a, b, "layers")],
            ["parameters", f"{a.parameters:,}", f"{b.parameters:,}", _ratio(a, b, "parameters")],
            ["operations", _giga(a.operations), _giga(b.operations), _ratio(a, b, "operations")],
            [".weights", _mega(a.weights_bytes), _mega(b.weights_bytes),
             _ratio(a, b, "weights_bytes")],
            ["latency", ms_in_words(a.latency), ms_in_words(b.latency), _ratio(a, b, "latency")],
        ]  # fmt: skip
        quality = [["", "mAP@.5", "mAP@.5:.95"]] + [
            [stage, f"{q.mean_ap:.4f}", f"{q.mean_ap_50_95:.4f}"]
            for stage, q in self.quality.items()
        ]
        return f"{_table(rows, 'the network')}\n{_table(quality, 'on the validation photos')}"


@dataclass(frozen=True)
class LayerRow:
    """A convolution before and after (`_now`) the cut; what comes after is 0 where it is gone.

    Attributes:
        layer: its number before.
        new: its number after.
        kernel: size, stride and groups.
        channels, channels_now: of its output.
        parameters, parameters_now: with those of batch normalisation.
        operations, operations_now: for one image.
    """

    layer: int
    new: int
    kernel: str
    channels: int
    channels_now: int
    parameters: int
    parameters_now: int
    operations: int
    operations_now: int

    def cells(self) -> list[str]:
        """The row as text, in the order of the table's head."""
        removed = not self.channels_now
        return [
            str(self.layer),
            "-" if removed else str(self.new),
            self.kernel,
            str(self.channels),
            "gone" if removed else str(self.channels_now),
            f"{self.channels_now / self.channels:.0%}",
            f"{self.parameters:,}",
            f"{self.parameters_now:,}",
            f"{self.operations / 1e6:.1f}",
            f"{self.operations_now / 1e6:.1f}",
        ]


def layer_rows(plan: Plan, after: NetDef, size: tuple[int, int]) -> tuple[LayerRow, ...]:
    """Every convolution of a network beside what the plan has left of it.

    Args:
        plan: of the whole network.
        after: the network that was cut by it.
        size: (width, height) of the input in pixels, which operations depend on.
    """
    moved = trim(plan.netdef, plan.blocks).moved
    old, new = _costs(plan.netdef, size), _costs(after, size)
    return tuple(
        LayerRow(layer, moved.get(layer, 0), _kernel(plan.netdef, layer), *pairs)
        for layer, costs in old.items()
        for left in [new[moved[layer]] if layer in moved else (0, 0, 0)]
        for pairs in [[n for pair in zip(costs, left, strict=True) for n in pair]]
    )


def write_layers(plan: Plan, folder: Path) -> None:
    """channels.json and channels.png of all cuts of a training, as one plan of its first network.

    Raises:
        InputError: they cannot be written.
    """
    rows = layer_rows(plan, cut_netdef(plan), plan.netdef.size)
    layers = [dataclasses.asdict(row) for row in rows]
    write_text(folder / CHANNELS, json.dumps({"layers": layers}, indent=2) + "\n")
    plot_channels({row.layer: (row.channels, row.channels_now) for row in rows},
                  folder / "channels.png")  # fmt: skip


def _kernel(netdef: NetDef, layer: int) -> str:
    section = netdef.layers[layer]
    size, step = section.integer("size", 1), section.integer("stride", 1)
    text = f"{size}x{size}" + (f"/{step}" if step > 1 else "")
    groups = section.integer("groups", 1)
    if groups == 1:
        return text
    return text + (" depthwise" if groups == section.integer("filters") else f" {groups} groups")


def _costs(netdef: NetDef, size: tuple[int, int]) -> dict[int, tuple[int, int, int]]:
    """By convolution: channels, parameters, operations."""
    outputs, parameters = shapes(netdef, size), layer_parameters(netdef)
    operations = layer_operations(netdef, size)
    return {n: (outputs[n][0], parameters[n], count) for n, count in operations.items()}


def size_of(model: Darknet, size: tuple[int, int], latency: float) -> Size:
    """What a network costs for an input of (width, height) `size`, in pixels.

    Args:
        model: the network.
        size: of its input.
        latency: milliseconds that were measured.
    """
    floats = sum(t.numel() for t in model.state_dict().values() if t.is_floating_point())
    return Size(
        count_parameters(model),
        count_operations(model.netdef, size),
        HEADER_BYTES + 4 * floats,
        latency,
        len(find_search_space(model.netdef).terms),
    )


def measure_latencies(
    models: Sequence[Darknet], size: tuple[int, int], rounds: int, meter: LatencyMeter
) -> tuple[list[float], str]:
    """Milliseconds an image that each network takes, and how they were measured, as a line.

    The networks take turns, so whatever else the machine does meets them alike. The networks
    alone: no decoding, no NMS.
    """
    times, batch = meter.time_networks(models, size, rounds), meter.conditions.batch
    images, at_once = ("one image", "") if batch == 1 else (f"{batch} images", " at once")
    method = (
        f"latency: the network alone, {images} of {size[0]}x{size[1]}{at_once}, {meter.name}, "
        f"{machine(meter.device)}; lower quartile of {rounds} rounds in which the networks took "
        f"turns{'' if batch == 1 else '; milliseconds an image'}"
    )
    return times.tolist(), method


def _table(rows: list[list[str]], title: str) -> str:
    table = AsciiTable(rows, title)
    table.justify_columns = dict.fromkeys(range(1, len(rows[0])), "right")
    return str(table.table)


def _ratio(before: Size, after: Size, field: str) -> str:
    values: tuple[Any, Any] = (getattr(before, field), getattr(after, field))
    return f"{values[1] / values[0]:.3f}"


def _giga(value: float) -> str:
    return f"{value / 1e9:.3f} G"


def _mega(value: float) -> str:
    return f"{value / 2**20:.2f} MiB"
