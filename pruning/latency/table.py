"""How long does a layer take, in any width? Stored measurements, and what lies between them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.netdef import KEYS, NetDef
from utils.errors import InputError
from utils.files.numbers import to_float, to_int
from utils.files.reading import read_lines
from utils.files.writing import atomic
from utils.version import VERSION

if TYPE_CHECKING:
    from scipy.interpolate import RegularGridInterpolator

Floats = NDArray[np.float64]
N = TypeVar("N", int, float)

FORMAT = 1  # of a table's file; another number where a row comes to mean something else
UNCHECKED = "interrupted"  # the line of a table's file that says that it is unchecked
MEASURED = (
    "convolutional",
    "maxpool",
    "local_avgpool",
    "upsample",
)  # layers with rows of their own
WIDTHS = tuple(2**n for n in range(2, 14))  # channels to measure at, beside a layer's own
WIDEST = 2**16  # channels or pixels that a table's row may speak of
COLUMNS = ("layer", "group_inputs", "group_outputs", "height", "width", "inputs", "outputs", "ms")


@dataclass(frozen=True)
class Conditions:
    """What measured times hold for: another engine, version or machine has other ones."""

    engine: str
    precision: str
    versions: str  # of the engine's packages
    machine: str  # what computes: a CPU, or a graphics card with its driver
    threads: int  # of a CPU; 0 for a card
    batch: int = 1  # images at once; milliseconds are those of one of them

    def as_text(self) -> dict[str, str]:
        """For a file, and to compare with one."""
        return {name: str(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, order=True)
class LayerSpec:
    """A layer but for its widths: layers of one spec and equal widths take the same time.

    Attributes:
        text: the section's name and what it says of the arithmetic.
        group_inputs: the channels that one group of a grouped convolution reads; its width is its
            number of groups. 0 for all other layers.
        group_outputs: the channels that one such group writes; 0 for all other layers.
        height: of the map that it reads, in pixels.
        width: of the map that it reads, in pixels.
    """

    text: str
    group_inputs: int
    group_outputs: int
    height: int
    width: int

    @property
    def tied(self) -> bool:
        """Whether inputs and outputs rise and fall together."""
        return self.group_inputs > 0 or not self.text.startswith("convolutional")

    @property
    def family(self) -> str:
        """The layers that share a factor of the predictor."""
        name, *options = self.text.split()
        if name != "convolutional":
            return "pooling"
        if self.group_inputs:
            return "grouped"
        return "1x1" if "size=1" in options else "kxk"


def layer_spec(netdef: NetDef, index: int, read: tuple[int, int, int]) -> LayerSpec | None:
    """The spec of a layer; None where it only hands maps on or combines them.

    Args:
        netdef: the network.
        index: the layer.
        read: (channels, height, width) of the map that it reads.
    """
    section = netdef.layers[index]
    if section.kind not in MEASURED:
        return None
    without_time = {"filters", "groups", "batch_normalize"}
    keys = sorted((KEYS[section.kind] - without_time) & set(section.options))
    text = " ".join([section.kind, *(f"{key}={section.options[key]}" for key in keys)])
    groups = section.integer("groups", 1)
    grouped = groups > 1
    filters = section.integer("filters", 1)
    return LayerSpec(
        text,
        read[0] // groups if grouped else 0,
        filters // groups if grouped else 0,
        read[1],
        read[2],
    )


@dataclass(frozen=True)
class WidthRange:
    """The widths that a layer may come to: least and most channels, in and out."""

    spec: LayerSpec
    inputs: tuple[int, int]
    outputs: tuple[int, int]

    def grid(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The widths to measure at: powers of two from below the least on, and the most."""
        if self.spec.group_inputs:
            per_in, per_out = self.spec.group_inputs, self.spec.group_outputs
            counts = _widths(self.outputs[0] // per_out, self.outputs[1] // per_out)
            return tuple(n * per_in for n in counts), tuple(n * per_out for n in counts)
        if self.spec.tied:
            return _widths(*self.inputs), _widths(*self.inputs)
        return _widths(*self.inputs), _widths(*self.outputs)


def _widths(least: int, most: int) -> tuple[int, ...]:
    if least == most:
        return (most,)
    start = max((w for w in WIDTHS if w <= least), default=least)
    return tuple(sorted({start, most, *(w for w in WIDTHS if start < w < most)}))


@dataclass(eq=False)
class LatencyTable:
    """Measured milliseconds of single layers.

    Attributes:
        conditions: what they were measured with; a table fits where all of it is the same.
        channel_step: the channels in which the latency of a convolution rises.
        unchecked: whether layers were measured that were not yet compared with their neighbours,
            as it is until a measurement comes to its end.
        points: by layer spec, (inputs, outputs) → milliseconds.
    """

    conditions: Conditions
    channel_step: int = 1
    unchecked: bool = False
    points: dict[LayerSpec, dict[tuple[int, int], float]] = field(default_factory=dict)
    _interpolators: dict[LayerSpec, RegularGridInterpolator] = field(
        default_factory=dict, repr=False
    )

    def query(self, spec: LayerSpec, inputs: Floats, outputs: Floats) -> Floats:
        """Milliseconds of a layer, by numbers of channels of any one shape.

        Between measured widths it is linear in each; a width counts as the next multiple of
        `channel_step`.

        Raises:
            ValueError: a width is outside of what was measured.
        """
        interpolator = self._interpolator(spec)
        by_axis = zip((inputs, outputs), interpolator.grid, strict=False)  # tied widths: one axis
        rounded = [self._round_up(widths, measured[-1]) for widths, measured in by_axis]
        return np.asarray(interpolator(np.stack(rounded, -1)))

    def missing(self, ranges: Iterable[WidthRange]) -> list[tuple[LayerSpec, int, int]]:
        """What must be measured for layers of these widths: (spec, inputs, outputs)."""
        grids: dict[LayerSpec, tuple[set[int], set[int]]] = {}
        pairs: dict[tuple[LayerSpec, int, int], None] = {}
        for widths in ranges:
            ins, outs = widths.grid()
            if widths.spec.tied:
                pairs |= {(widths.spec, i, o): None for i, o in zip(ins, outs, strict=True)}
                continue
            measured = self.points.get(widths.spec, {})
            known = ({i for i, _ in measured}, {o for _, o in measured})
            all_ins, all_outs = grids.setdefault(widths.spec, known)
            all_ins.update(ins)
            all_outs.update(outs)
        for spec, (all_ins, all_outs) in grids.items():
            pairs |= {(spec, i, o): None for i in sorted(all_ins) for o in sorted(all_outs)}
        return [key for key in pairs if key[1:] not in self.points.get(key[0], {})]

    def keys(self) -> list[tuple[LayerSpec, int, int]]:
        """What was measured: (spec, inputs, outputs)."""
        return [(spec, *widths) for spec, points in self.points.items() for widths in points]

    def add(self, spec: LayerSpec, inputs: int, outputs: int, ms: float) -> None:
        """Store a measurement, instead of an earlier one of the same layer."""
        # As it is written, so that a table predicts the same once it is read again.
        self.points.setdefault(spec, {})[inputs, outputs] = float(f"{ms:.6g}")
        self._interpolators.pop(spec, None)

    def _round_up(self, widths: Floats, most: float) -> Floats:
        """Up to the step, or to the largest width that was measured where that is less."""
        widths = np.round(widths, 6)  # a tied width is a product, such as 48 · (1 / 3)
        stepped = np.ceil(widths / self.channel_step) * self.channel_step
        stepped = np.where(widths < self.channel_step, widths, stepped)
        return np.asarray(np.minimum(stepped, np.maximum(widths, most)))

    def _interpolator(self, spec: LayerSpec) -> RegularGridInterpolator:
        """Over inputs and outputs, or over inputs alone where these say the outputs."""
        if spec not in self._interpolators:
            from scipy.interpolate import RegularGridInterpolator

            points = self.points[spec]
            axes = [sorted({i for i, _ in points}), sorted({o for _, o in points})]
            if spec.tied:
                values, axes = np.array([ms for _, ms in sorted(points.items())]), axes[:1]
            else:
                values = np.array([[points[i, o] for o in axes[1]] for i in axes[0]])
            for number, axis in enumerate(axes):
                if len(axis) == 1:  # it takes two at least
                    axes[number], values = [*axis, axis[0] + 1], values.repeat(2, number)
            self._interpolators[spec] = RegularGridInterpolator(axes, values)
        return self._interpolators[spec]

    def write(self, path: Path) -> None:
        """As a .csv: lines `# key: value`, then a row a measurement.

        The conditions and the format must match to read it again; the version of the project that
        wrote it is for people.
        """
        header = {
            **self.conditions.as_text(),
            "step": self.channel_step,
            "format": FORMAT,
            "written by": VERSION,
            **({UNCHECKED: "yes"} if self.unchecked else {}),
        }
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            file.writelines(f"# {key}: {value}\n" for key, value in header.items())
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for spec in sorted(self.points):
                for (inputs, outputs), ms in sorted(self.points[spec].items()):
                    shape = (spec.group_inputs, spec.group_outputs, spec.height, spec.width)
                    writer.writerow([spec.text, *shape, inputs, outputs, f"{ms:.6g}"])


def read_table(path: Path, conditions: Conditions) -> LatencyTable:
    """A table that was written before, by any version of the project that wrote this format.

    Raises:
        InputError: it was measured under other conditions than these, is damaged, or is no table.
    """
    lines = read_lines(path)
    notes = [line[2:].partition(": ") for line in lines if line.startswith("# ")]
    header = {key: value for key, _, value in notes}
    header.setdefault("format", "1")  # versions before 0.2 wrote none
    header.setdefault("batch", "1")  # those before 0.5 timed one image
    for key, value in {**conditions.as_text(), "format": str(FORMAT)}.items():
        if header.get(key) != value:
            raise InputError(
                f"{path}: {key}={header.get(key, '')!r}: expected {value!r}, to which it is to "
                "apply; name another file, or delete it to measure anew"
            )
    table = LatencyTable(conditions, _number(path, 1, header.get("step", ""), int, 1, WIDEST))
    table.unchecked = UNCHECKED in header
    first = len(notes) + 1
    if lines[len(notes) : first] != [",".join(COLUMNS)]:
        raise InputError(f"{path}:{first}: expected the columns {','.join(COLUMNS)}")
    try:
        for line, row in enumerate(csv.reader(lines[first:]), first + 1):
            table.add(*_measurement(path, line, row))
    except csv.Error as error:
        raise InputError(f"{path}: expected rows of values between commas ({error})") from error
    return table


def _measurement(path: Path, line: int, row: list[str]) -> tuple[LayerSpec, int, int, float]:
    """A row of a table's file: layer spec, inputs, outputs, milliseconds."""
    if len(row) != len(COLUMNS):
        raise InputError(f"{path}:{line}: {len(row)} values: expected {len(COLUMNS)}")
    kind, *options = row[0].split() or [""]
    if kind not in MEASURED or not {o.partition("=")[0] for o in options} <= KEYS[kind]:
        raise InputError(
            f"{path}:{line}: {row[0]!r}: expected a layer, one of {', '.join(MEASURED)}, and its "
            "options"
        )
    groups = [_number(path, line, cell, int, 0, WIDEST) for cell in row[1:3]]
    shape = [_number(path, line, cell, int, 1, WIDEST) for cell in row[3:-1]]
    spec = LayerSpec(row[0], groups[0], groups[1], shape[0], shape[1])
    inputs, outputs = shape[2:]
    if spec.tied and inputs * (spec.group_outputs or 1) != outputs * (spec.group_inputs or 1):
        raise InputError(f"{path}:{line}: {outputs} outputs: expected as many groups as of inputs")
    return spec, inputs, outputs, _number(path, line, row[-1], float, 0, 1e12)


def _number(path: Path, line: int, text: str, kind: type[N], least: float, most: float) -> N:
    try:
        value = kind(to_int(text) if kind is int else to_float(text))
    except ValueError:
        value = kind(-1)
    if not least <= value <= most:
        raise InputError(f"{path}:{line}: {text!r}: expected a number from {least:g} to {most:g}")
    return value
