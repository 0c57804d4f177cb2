"""How long does a layer take, in any width, on this machine's engine? A table of measurements."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from import_param import DataSet
from models.darknet import Darknet, shapes
from models.netdef import KEYS, NetDef, parse
from utils.backends import ENGINES, open_engine
from utils.backends.base import Engine
from utils.backends.sensitivity import PHOTOS
from utils.data.calibration import sample_images
from utils.errors import InputError
from utils.files import atomic
from utils.timing import cpu_name, interleaved, spread, version

Floats = NDArray[np.float64]
N = TypeVar("N", int, float)
Run = Callable[[Tensor], object]
Open = Callable[[Darknet, tuple[int, int]], Run]  # what makes a network run; (width, height)

COPIES = 3  # of a layer that are timed together: their weights are not in the cache from just now
LEAST_RUNS, SECONDS = 7, 0.05  # a network is run at least so often, and for so long
ATTEMPTS, DOUBTFUL = 4, 1.1  # to measure a layer that takes so much more time than a wider one
TIMED = ("convolutional", "maxpool", "local_avgpool", "upsample")  # what gets rows of its own
WIDTHS = tuple(2**n for n in range(2, 14))  # channels to measure at, beside a layer's own
STEPS = (32, 16, 8, 4)  # that a latency may move in, largest first
ROUNDING = 0.5  # of the time that wider layers should take more, which a step at most takes more
PROBE = 20  # width and height of the map on which the step is looked for
COLUMNS = ("layer", "group_inputs", "group_outputs", "height", "width", "inputs", "outputs", "ms")


@dataclass(frozen=True, order=True)
class Kind:
    """A layer but for its widths: layers of one kind and equal widths take the same time.

    text: the section's name and what it says of the arithmetic. group_inputs, group_outputs: the
    channels of one group of a convolution with groups, whose width is its number of groups; 0 for
    all other layers. height, width: of the map that it reads.
    """

    text: str
    group_inputs: int
    group_outputs: int
    height: int
    width: int

    @property
    def narrow(self) -> bool:
        """Whether inputs and outputs rise and fall together."""
        return self.group_inputs > 0 or not self.text.startswith("convolutional")

    @property
    def family(self) -> str:
        """What layers are calibrated together with."""
        name, *options = self.text.split()
        if name != "convolutional":
            return "pooling"
        if self.group_inputs:
            return "grouped"
        return "1x1" if "size=1" in options else "kxk"


def kind_of(netdef: NetDef, index: int, read: tuple[int, int, int]) -> Kind | None:
    """The kind of a layer that reads a map of `read` (channels, height, width); None where it only
    hands maps on or combines them."""
    section = netdef.layers[index]
    if section.kind not in TIMED:
        return None
    left_out = {"filters", "groups", "batch_normalize"}
    keys = sorted((KEYS[section.kind] - left_out) & set(section.options))
    text = " ".join([section.kind, *(f"{key}={section.options[key]}" for key in keys)])
    groups = section.integer("groups", 1)
    grouped = groups > 1
    filters = section.integer("filters", 1)
    return Kind(
        text,
        read[0] // groups if grouped else 0,
        filters // groups if grouped else 0,
        read[1],
        read[2],
    )


@dataclass(frozen=True)
class Span:
    """The widths in which a layer may come: least and most channels, in and out."""

    kind: Kind
    inputs: tuple[int, int]
    outputs: tuple[int, int]

    def grid(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The widths to measure at: powers of two from below the least on, and the most."""
        each_in, each_out = max(1, self.kind.group_inputs), max(1, self.kind.group_outputs)
        groups = (self.outputs[0] // each_out, self.outputs[1] // each_out)
        if self.kind.group_inputs:
            counts = _widths(*groups)
            return tuple(n * each_in for n in counts), tuple(n * each_out for n in counts)
        if self.kind.narrow:
            return _widths(*self.inputs), _widths(*self.inputs)
        return _widths(*self.inputs), _widths(*self.outputs)


def _widths(least: int, most: int) -> tuple[int, ...]:
    if least == most:
        return (most,)
    start = max((w for w in WIDTHS if w <= least), default=least)
    return tuple(sorted({start, most, *(w for w in WIDTHS if start < w < most)}))


@dataclass(eq=False)
class CostTable:
    """Measured milliseconds of single layers.

    about: what they were measured with; a table fits where all of it is the same. step: the
    channels in which the latency of a convolution steps.
    points: by kind, (inputs, outputs) → milliseconds.
    """

    about: Mapping[str, str]
    step: int = 1
    points: dict[Kind, dict[tuple[int, int], float]] = field(default_factory=dict)
    _grids: dict[Kind, tuple[Floats, Floats, Floats]] = field(default_factory=dict, repr=False)

    def ms(self, kind: Kind, inputs: Floats, outputs: Floats) -> Floats:
        """Milliseconds of a layer, by numbers of channels of any one shape.

        Between measured widths it is linear in each; a width counts as the next multiple of `step`.
        """
        ins, outs, values = self._grid(kind)
        at_in = _place(ins, self._up(inputs, ins[-2]))
        if kind.narrow:
            return _line(values, at_in)
        at_out = _place(outs, self._up(outputs, outs[-2]))
        (i, x), (o, y) = at_in, at_out
        low = (1 - x) * values[i, o] + x * values[i + 1, o]
        high = (1 - x) * values[i, o + 1] + x * values[i + 1, o + 1]
        return np.asarray((1 - y) * low + y * high)

    def missing(self, spans: Iterable[Span]) -> list[tuple[Kind, int, int]]:
        """What must be measured for layers of these spans: (kind, inputs, outputs)."""
        grids: dict[Kind, tuple[set[int], set[int]]] = {}
        pairs: dict[tuple[Kind, int, int], None] = {}
        for span in spans:
            ins, outs = span.grid()
            if span.kind.narrow:
                pairs |= {(span.kind, i, o): None for i, o in zip(ins, outs, strict=True)}
                continue
            measured = self.points.get(span.kind, {})
            found = grids.setdefault(
                span.kind, ({i for i, _ in measured}, {o for _, o in measured})
            )
            found[0].update(ins)
            found[1].update(outs)
        for kind, (all_ins, all_outs) in grids.items():
            pairs |= {(kind, i, o): None for i in sorted(all_ins) for o in sorted(all_outs)}
        return [key for key in pairs if key[1:] not in self.points.get(key[0], {})]

    def add(self, kind: Kind, inputs: int, outputs: int, ms: float) -> None:
        # As it is written, so that a table predicts the same once it is read again.
        self.points.setdefault(kind, {})[inputs, outputs] = float(f"{ms:.6g}")
        self._grids.pop(kind, None)

    def _up(self, widths: Floats, most: float) -> Floats:
        stepped = np.where(widths < self.step, widths, np.ceil(widths / self.step) * self.step)
        return np.minimum(stepped, np.maximum(widths, most))

    def _grid(self, kind: Kind) -> tuple[Floats, Floats, Floats]:
        """Widths in and out, ascending, and their milliseconds: [ins, outs], or [ins] where both
        are one. The last of each is there twice, so that every width has a next."""
        if kind not in self._grids:
            points = self.points[kind]
            ins, outs = sorted({i for i, _ in points}), sorted({o for _, o in points})
            if kind.narrow:
                values = np.array([ms for _, ms in sorted(points.items())])
            else:
                values = np.array([[points[i, o] for o in outs] for i in ins])
            edge = [(0, 1)] * values.ndim
            self._grids[kind] = (_twice(ins), _twice(outs), np.pad(values, edge, mode="edge"))
        return self._grids[kind]

    def write(self, path: Path) -> None:
        """As a .csv: lines `# key: value`, then a row a measurement."""
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            for key, value in {**self.about, "step": self.step}.items():
                file.write(f"# {key}: {value}\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for kind in sorted(self.points):
                for (inputs, outputs), ms in sorted(self.points[kind].items()):
                    shape = (kind.group_inputs, kind.group_outputs, kind.height, kind.width)
                    writer.writerow([kind.text, *shape, inputs, outputs, f"{ms:.6g}"])


def read_table(path: Path, about: Mapping[str, str]) -> CostTable:
    """A table that was written before. Raises InputError where it was measured with something else
    than `about` says, or is no table."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    notes = [line[2:].partition(": ") for line in lines if line.startswith("# ")]
    found = {key: value for key, _, value in notes}
    for key, value in about.items():
        if found.get(key) != value:
            raise InputError(
                f"{path}: {key}={found.get(key, '')!r}: expected {value!r}, to which it is to "
                "apply; name another file, or delete it to measure anew"
            )
    table = CostTable(dict(about), _number(path, 1, found.get("step", ""), int))
    first = len(notes) + 1
    if lines[len(notes) : first] != [",".join(COLUMNS)]:
        raise InputError(f"{path}:{first}: expected the columns {','.join(COLUMNS)}")
    for line, row in enumerate(csv.reader(lines[first:]), first + 1):
        if len(row) != len(COLUMNS):
            raise InputError(f"{path}:{line}: {len(row)} values: expected {len(COLUMNS)}")
        *shape, inputs, outputs = [_number(path, line, cell, int) for cell in row[1:-1]]
        table.add(Kind(row[0], *shape), inputs, outputs, _number(path, line, row[-1], float))
    return table


def _number(path: Path, line: int, text: str, kind: type[N]) -> N:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not 0 <= value < 1e12:
        raise InputError(f"{path}:{line}: {text!r}: expected a number of at least 0")
    return value


def _twice(widths: Sequence[int]) -> Floats:
    return np.array([*widths, widths[-1] + 1], np.float64)


def _place(grid: Floats, widths: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Between which measured widths each lies: the lower one's place, and how far above it."""
    if widths.min() < grid[0] - 1e-9 or widths.max() >= grid[-1]:
        raise ValueError(f"measured at {grid[:-1]}, asked for {widths.min()} to {widths.max()}")
    place = np.clip(np.searchsorted(grid, widths, "right") - 1, 0, len(grid) - 2)
    return place, (widths - grid[place]) / (grid[place + 1] - grid[place])


def _line(values: Floats, at: tuple[NDArray[np.int64], Floats]) -> Floats:
    place, share = at
    return np.asarray((1 - share) * values[place] + share * values[place + 1])


def measure_table_(
    table: CostTable, spans: Iterable[Span], open_: Open, tell: Callable[[str], None]
) -> int:
    """Measure what a table lacks for these spans; how many layers were measured.

    Alone, a layer is over before a clock can tell, and a network's ends cost more than it. So
    `COPIES` of it, each with weights of its own, read one map, and only a pixel of what they write
    is read; what the network takes without them is subtracted. Where a wider layer seems to take
    less time than a narrower one, something else ran meanwhile: both are measured again.
    """
    missing = table.missing(spans)
    waiting, stopwatch = missing, _Stopwatch(open_)
    said = time.monotonic()
    for attempt in range(ATTEMPTS):
        for count, (kind, inputs, outputs) in enumerate(waiting):
            table.add(kind, inputs, outputs, stopwatch.layer(kind, inputs, outputs, attempt))
            if time.monotonic() > said + 15:
                said = time.monotonic()
                tell(f"{'again: ' if attempt else ''}{count + 1} of {len(waiting)} layers measured")
        new = set(missing)
        waiting = [key for key in doubtful(table, {key[0] for key in missing}) if key in new]
    return len(missing)


class _Stopwatch:
    """Measures layers; the shortest time so far of each network counts."""

    def __init__(self, open_: Open) -> None:
        self._open = open_
        self._found: dict[object, tuple[int, float]] = {}  # network → last attempt, milliseconds

    def layer(self, kind: Kind, inputs: int, outputs: int, attempt: int) -> float:
        shape = (inputs, kind.height, kind.width)
        base = self._shortest((None, shape, 0), attempt)
        whole = self._shortest((kind, shape, outputs), attempt)
        return max(0.0, whole - base) / COPIES

    def _shortest(self, what: tuple[Kind | None, tuple[int, int, int], int], attempt: int) -> float:
        before, least = self._found.get(what, (-1, np.inf))
        if before < attempt:
            least = min(least, shortest(*_opened(layer_net(*what), self._open)))
            self._found[what] = (attempt, least)
        return least


def doubtful(table: CostTable, kinds: Iterable[Kind]) -> list[tuple[Kind, int, int]]:
    """Pairs of neighbours in the table of which the narrower layer takes clearly more time."""
    found: dict[tuple[Kind, int, int], None] = {}
    for kind in sorted(kinds):
        points = table.points[kind]
        for (i, o), ms in points.items():
            wider = [key for key in points if key != (i, o) and key[0] >= i and key[1] >= o]
            if kind.narrow:
                near = [min(wider)] if wider else []
            else:
                near = [min(key for key in wider if key[axis] == (i, o)[axis]) for axis in (0, 1)
                        if any(key[axis] == (i, o)[axis] for key in wider)]  # fmt: skip
            for key in near:
                if ms > DOUBTFUL * points[key]:
                    found |= {(kind, i, o): None, (kind, *key): None}
    return list(found)


def measure_step(open_: Open) -> int:
    """In how many channels latency steps: the largest step to which a 3x3 convolution's inputs and
    outputs can be rounded up at hardly any cost."""
    kind = Kind("convolutional activation=leaky pad=1 size=3 stride=1", 0, 0, PROBE, PROBE)
    stopwatch = _Stopwatch(open_)
    times = {width: stopwatch.layer(kind, width, width, 0) for width in range(68, 129, 4)}
    for step in STEPS:
        wider = {width: -(-width // step) * step for width in times if width % step}
        longer = sum(np.log(max(times[up], 1e-9) / max(times[w], 1e-9)) for w, up in wider.items())
        if longer <= ROUNDING * sum(2 * np.log(up / w) for w, up in wider.items()):
            return step
    return min(STEPS)


def layer_net(kind: Kind | None, shape: tuple[int, int, int], outputs: int) -> NetDef:
    """A network of copies of one layer that read one map of `shape`, or only of what is around."""
    channels, height, width = shape
    lines = [f"[net]\nwidth={width}\nheight={height}\nchannels=3"]
    lines.append(f"[convolutional]\nfilters={channels}\nsize=1\nactivation=linear")
    lines.append(_pixel(height, width))
    means = [1]
    if kind is not None:
        name, *options = kind.text.split()
        own = [f"[{name}]", *options]
        scale = 64 if name == "upsample" else 2  # more than any window makes of a map
        around = 2 * sum(int(o.partition("=")[2]) for o in options if o.startswith("padding="))
        end = _pixel(scale * height + around, scale * width + around)
        if name == "convolutional":
            own.append(f"filters={outputs}")
            own.append(f"groups={channels // kind.group_inputs if kind.group_inputs else 1}")
        for _ in range(COPIES):
            lines += ["[route]\nlayers=0", *own, end]
            means.append(means[-1] + 3)
    lines.append(f"[route]\nlayers={','.join(map(str, means))}")
    lines.append("[convolutional]\nfilters=6\nsize=1\nactivation=linear")
    lines.append("[yolo]\nmask=0\nanchors=8,8\nclasses=1\nnum=1")
    return parse("\n".join(lines))


def _pixel(height: int, width: int) -> str:
    return f"[maxpool]\nsize=1\nstride={max(height, width)}"


def _opened(netdef: NetDef, open_: Open) -> tuple[Run, Tensor]:
    return open_(Darknet(netdef).eval(), netdef.size), picture(netdef.size)


def picture(size: tuple[int, int], channels: int = 3) -> Tensor:
    """Any image of (width, height) `size`, as networks get it."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, channels, size[1], size[0], generator=generator)


def shortest(run: Run, image: Tensor) -> float:
    """The least milliseconds that a network took: whatever else goes on can only add to them."""
    found: list[float] = []
    run(image)
    end = time.perf_counter() + SECONDS
    while len(found) < LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        run(image)
        found.append(1000 * (time.perf_counter() - start))
    return min(found)


def take_turns(runs: Sequence[Run], image: Tensor, rounds: int) -> Floats:
    """The milliseconds of some networks that take turns, [runs]: the lower quartile of the rounds,
    the median of their better half, which a machine that is busy with other things disturbs least.
    """
    calls = {str(n): partial(run, image) for n, run in enumerate(runs)}
    times = interleaved(calls, rounds)
    return np.array([spread(times[str(n)])[1] for n in range(len(runs))])


def _about(backend: str, precision: str, threads: int) -> dict[str, str]:
    """What a table of costs holds for: an engine, the versions of its packages, and a machine."""
    packages = ENGINES[backend].needs(precision)
    return {
        "engine": backend,
        "precision": precision,
        "versions": " ".join(f"{name}-{version(name)}" for name in packages),
        "machine": cpu_name(),
        "threads": str(threads or torch.get_num_threads()),
    }


@dataclass(frozen=True)
class Timer:
    """How networks are run to be timed. name: the engine and its precision, in words. about: the
    same and the machine, for a table of costs."""

    name: str
    open: Open
    about: Mapping[str, str]

    @property
    def table(self) -> Path:
        """Where a table of costs is kept that has no name of its own."""
        names = (self.about[key] for key in ("engine", "precision", "threads"))
        return Path("runs/latency") / f"{'-'.join(names)}.csv"


def timer(model: Darknet, size: tuple[int, int], runtime: Mapping[str, Any]) -> Timer:
    """The engine that a user asked for; "auto" is the fastest for the uncut network.

    In int8, networks of this size are calibrated on a few of the user's photos, which also decide
    which layers stay in float; single layers on noise, since their times do not depend on it.
    """
    backend, precision, threads = (runtime[key] for key in ("backend", "precision", "threads"))
    photos = None
    if precision == "int8":
        photos = [sample_images(DataSet(data=runtime["calibration"]), size, False, PHOTOS)]

    def open_as(name: str, model: Darknet, inputs: tuple[int, int]) -> Engine:
        return open_engine(
            name,
            model,
            inputs,
            precision=precision,
            threads=threads,
            calibration=photos if photos is None or inputs == size else [picture(inputs)],
            keep=False,
        )

    if backend == "auto":
        backend = open_as(backend, model, size).name
    words = f"{backend} {precision}" + (f", threads: {threads}" if threads else "")
    return Timer(words, partial(open_as, backend), _about(backend, precision, threads))


def read_shapes(netdef: NetDef, size: tuple[int, int]) -> list[list[tuple[int, int, int]]]:
    """By layer, the shapes (channels, height, width) of the maps that it reads."""
    outputs = shapes(netdef, size)
    image = (netdef.channels, size[1], size[0])
    return [
        [outputs[source] if source >= 0 else image for source in netdef.sources(index)]
        for index in range(len(netdef.layers))
    ]
