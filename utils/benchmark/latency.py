"""How fast are networks on engines, in each precision, on this machine? Measured beside each other.

What is timed is `engine(images)`: from images in memory to the raw maps, without reading photos,
resizing, decoding of boxes or NMS. Other projects' networks (`utils.benchmark.peers`) decode as well.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from terminaltables import AsciiTable
from torch import Tensor

from models.costs import count_operations, count_parameters
from models.darknet import Darknet
from models.weights import to_bytes
from utils.backends import EngineOptions, open_engine
from utils.benchmark.peers import PEERS, PeerNetwork, open_peer
from utils.errors import InputError
from utils.files import atomic
from utils.timing import interleaved, spread

# What stands for the peak: a 3x3 convolution, as many channels in as out, on a square map.
PEAK_CHANNELS, PEAK_SIDE = 256, 64
PEAK_OPERATIONS = 2 * 9 * PEAK_CHANNELS**2 * PEAK_SIDE**2


@dataclass(frozen=True)
class Candidate:
    """A network and its input: size in pixels (width, height), photos to calibrate int8 on, whether
    photos keep their aspect. trained: or else its weights are random."""

    name: str
    model: Darknet
    size: tuple[int, int]
    calibration: Tensor | None = None
    letterbox: bool = False
    trained: bool = True


@dataclass(frozen=True)
class Row:
    """One network on one engine.

    ms, ms_low, ms_high: median and quartiles for the whole batch. images_per_s: at the median.
    speedup: against the first network on the same engine. upstream: against the same network and
    batch in UPSTREAM. of_peak: operations a second, as a share of what `peak_run` reaches here in
    float32. parameters, operations: for one image. file_mb: of a Darknet .weights, in
    10^6 bytes. memory_mb: resident memory that it adds, as `utils.benchmark.memory` measures it, in 10^6
    bytes. mean_ap: mAP@.5, by `utils.benchmark.accuracy`. What was not measured is nan.
    """

    network: str
    engine: str
    precision: str
    batch: int
    ms: float
    ms_low: float
    ms_high: float
    images_per_s: float
    speedup: float
    upstream: float
    of_peak: float
    parameters: int
    operations: int
    file_mb: float
    memory_mb: float = math.nan
    mean_ap: float = math.nan


Key = tuple[str, str, str, int]  # network, engine or peer, precision, batch
Run = Callable[[Tensor], object]  # an engine, or a peer's network
UPSTREAM = "pytorchyolo"  # the peer that others are compared with


def open_all(
    candidates: Sequence[Candidate],
    engines: Sequence[str],
    precisions: Sequence[str],
    batches: Sequence[int],
    threads: int,
    tell: Callable[[str], None] = print,
) -> dict[Key, Run]:
    """Every combination that can be; the others are told with their reason.

    engines: of `utils.backends.ENGINES`, and peers, which compute in fp32 only. Raises InputError
    where none can.
    """
    opened: dict[Key, Run] = {}
    told: set[str] = set()
    for candidate in candidates:
        for engine in engines:
            for precision in ["fp32"] if engine in PEERS else precisions:
                for batch in batches:
                    key = (candidate.name, engine, precision, batch)
                    try:
                        opened[key] = open_one(candidate, key, threads)
                    except InputError as error:
                        if str(error) not in told:
                            tell(f"left out: {candidate.name}: {error}")
                        told.add(str(error))  # what no network can do is said once
                        break  # another batch changes nothing
    if not opened:
        raise InputError("no engine can run what was asked for, see above")
    return opened


def open_one(candidate: Candidate, key: Key, threads: int) -> Run:
    """A network on an engine, or as a peer has it."""
    network, engine, precision, batch = key
    if engine in PEERS:
        return open_peer(engine, candidate.model, network, candidate.size)
    calibration = None if candidate.calibration is None else [candidate.calibration]
    options = EngineOptions(candidate.size, precision, batch, threads, calibration)
    return open_engine(engine, candidate.model, options)


def measure(
    candidates: Sequence[Candidate], opened: Mapping[Key, Run], rounds: int, seconds: float
) -> list[Row]:
    """Time everything in turns, for at most about `seconds`; at least one round is done."""
    sizes = {candidate.name: candidate.size for candidate in candidates}
    inputs = {key: torch.rand(key[3], 3, *reversed(sizes[key[0]])) for key in opened}
    runs = {key: lambda key=key: opened[key](inputs[key]) for key in opened}
    names = {str(key): key for key in runs}
    times = interleaved(
        {"peak": peak_run()} | {name: runs[key] for name, key in names.items()},
        rounds,
        seconds=seconds,
    )
    peak = PEAK_OPERATIONS / (min(times["peak"]) / 1000)
    found = rows(candidates, {key: times[name] for name, key in names.items()}, peak)
    return [as_peer(row, opened[key_of(row)]) for row in found]


def peak_run() -> Callable[[], Tensor]:
    """What reaches the machine's peak. Not a product of matrices: on an AMD EPYC torch's reaches
    99 GFLOP/s a core, this 238."""
    images = torch.rand(1, PEAK_CHANNELS, PEAK_SIDE, PEAK_SIDE)
    images = images.contiguous(memory_format=torch.channels_last)
    kernel = torch.rand(PEAK_CHANNELS, PEAK_CHANNELS, 3, 3)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return lambda: F.conv2d(images, kernel, padding=1)


def key_of(row: Row) -> Key:
    return row.network, row.engine, row.precision, row.batch


def as_peer(row: Row, run: Run) -> Row:
    """A peer's row counts the operations and parameters of its own network."""
    if not isinstance(run, PeerNetwork):
        return row
    return replace(
        row,
        of_peak=row.of_peak * run.operations / row.operations,
        parameters=run.parameters,
        operations=run.operations,
        file_mb=math.nan,
    )


def rows(
    candidates: Sequence[Candidate], times: Mapping[Key, list[float]], peak: float
) -> list[Row]:
    """Milliseconds by round → the table's rows. peak: operations a second."""
    by_name = {candidate.name: candidate for candidate in candidates}
    medians = {key: spread(found)[0] for key, found in times.items()}
    result = []
    for key, found in times.items():
        name, engine, precision, batch = key
        candidate = by_name[name]
        ms, low, high = spread(found)
        operations = count_operations(candidate.model.netdef, candidate.size)
        first = medians.get((candidates[0].name, engine, precision, batch), math.nan)
        upstream = medians.get((name, UPSTREAM, "fp32", batch), math.nan)
        result.append(
            Row(
                network=name,
                engine=engine,
                precision=precision,
                batch=batch,
                ms=ms,
                ms_low=low,
                ms_high=high,
                images_per_s=1000 * batch / ms,
                speedup=first / ms,
                upstream=upstream / ms,
                of_peak=operations * batch / (ms / 1000) / peak,
                parameters=count_parameters(candidate.model),
                operations=operations,
                file_mb=len(to_bytes(candidate.model)) / 1e6,
            )
        )
    return result


COLUMNS: dict[str, Callable[[Row], str]] = {
    "network": lambda row: row.network,
    "engine": lambda row: row.engine,
    "precision": lambda row: row.precision,
    "batch": lambda row: str(row.batch),
    "ms": lambda row: f"{row.ms:.2f}",
    "quartiles": lambda row: f"{row.ms_low:.2f}-{row.ms_high:.2f}",
    "images/s": lambda row: f"{row.images_per_s:.1f}",
    "speed-up": lambda row: _known(row.speedup, ".2f"),
    f"vs {UPSTREAM}": lambda row: _known(row.upstream, ".2f"),
    "of peak": lambda row: f"{row.of_peak:.0%}",
    "parameters": lambda row: f"{row.parameters / 1e6:.2f} M",
    "operations": lambda row: f"{row.operations / 1e9:.2f} G",
    "file MB": lambda row: _known(row.file_mb, ".1f"),
    "memory MB": lambda row: _known(row.memory_mb, ".0f"),
    "mAP@.5": lambda row: _known(row.mean_ap, ".3f"),
}


def _known(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def cells(found: Sequence[Row]) -> list[list[str]]:
    """A line of heads and a line for each row, as text; columns of which nothing is known are
    left out."""
    columns = {head: [cell(row) for row in found] for head, cell in COLUMNS.items()}
    shown = {head: column for head, column in columns.items() if any(column)}
    return [list(shown), *map(list, zip(*shown.values(), strict=True))]


def terminal_table(found: Sequence[Row]) -> str:
    lines = cells(found)
    table = AsciiTable(lines)
    table.justify_columns = dict.fromkeys(range(3, len(lines[0])), "right")
    return table.table


def markdown_table(found: Sequence[Row], about: str) -> str:
    heads, *rest = cells(found)
    lines = ["|".join(["", *parts, ""]) for parts in (heads, ["---"] * len(heads), *rest)]
    return "\n".join([*lines, "", about, ""])


def csv_table(found: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    writer.writerows(map(astuple, found))
    return text.getvalue()


def plot(found: Sequence[Row], path: Path) -> None:
    """Milliseconds an image, a group of bars a network, as a PNG file."""
    networks = list(dict.fromkeys(row.network for row in found))
    kinds = list(dict.fromkeys((row.engine, row.precision, row.batch) for row in found))
    height = 1.5 + 0.16 * len(networks) * (len(kinds) + 1)
    figure = Figure(figsize=(9, max(3.0, height)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, kind in enumerate(kinds):
        mine = [row for row in found if (row.engine, row.precision, row.batch) == kind]
        places = [networks.index(row.network) + number / (len(kinds) + 1) for row in mine]
        widths = [row.ms / row.batch for row in mine]
        ends = [
            [(row.ms - row.ms_low) / row.batch for row in mine],
            [(row.ms_high - row.ms) / row.batch for row in mine],
        ]
        bars = axes.barh(
            places, widths, 0.9 / (len(kinds) + 1), xerr=ends, label=_kind_name(*kind),
            color=f"C{number % 10}", error_kw={"elinewidth": 0.7},
        )  # fmt: skip
        axes.bar_label(bars, [f"{width:.1f}" for width in widths], padding=3, fontsize=6)
    axes.set_yticks([n + 0.5 * (len(kinds) - 1) / (len(kinds) + 1) for n in range(len(networks))])
    axes.set_yticklabels(networks)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds an image: median, and quartiles as lines")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


MARKERS = "os^Dv<>pPX"  # of engines and precisions


def plot_accuracy(found: Sequence[Row], path: Path) -> None:
    """mAP@.5 against milliseconds an image, as a PNG file. Colours: networks; shapes: engines."""
    known = [row for row in found if not math.isnan(row.mean_ap)]
    networks = list(dict.fromkeys(row.network for row in known))
    kinds = list(dict.fromkeys((row.engine, row.precision, row.batch) for row in known))
    figure = Figure(figsize=(9, 5.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for row in known:
        number = kinds.index((row.engine, row.precision, row.batch))
        axes.scatter(
            row.ms / row.batch, row.mean_ap, s=45, marker=MARKERS[number % len(MARKERS)],
            color=f"C{networks.index(row.network) % 10}",
        )  # fmt: skip
    for number, network in enumerate(networks):
        axes.scatter([], [], color=f"C{number % 10}", label=network)
    for number, kind in enumerate(kinds):
        shape = MARKERS[number % len(MARKERS)]
        axes.scatter([], [], color="0.5", marker=shape, label=_kind_name(*kind))
    axes.set(xlabel="milliseconds an image, median", ylabel="mAP@.5", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.grid(color="0.9", linewidth=0.6, which="both")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


def _kind_name(engine: str, precision: str, batch: int) -> str:
    return f"{engine} {precision}" + (f", {batch} at once" if batch > 1 else "")


def _save(figure: Figure, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")
