"""How fast are networks on engines, in each precision, on this machine? Measured beside each other.

What is timed is `engine(images)`: from images in memory to the raw maps, without reading photos,
resizing, decoding of boxes or NMS.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from matplotlib.figure import Figure
from terminaltables import AsciiTable
from torch import Tensor

from models.darknet import Darknet, count_operations, count_parameters
from models.weights import to_bytes
from utils.backends import open_engine
from utils.backends.base import Engine
from utils.backends.timing import interleaved, spread
from utils.errors import InputError
from utils.files import atomic

GEMM = 1024  # rows and columns
GEMM_ROUNDS = 20


@dataclass(frozen=True)
class Candidate:
    """A network and its input: size in pixels (width, height), photos to calibrate int8 on."""

    name: str
    model: Darknet
    size: tuple[int, int]
    calibration: Tensor | None = None


@dataclass(frozen=True)
class Row:
    """One network on one engine.

    ms, ms_low, ms_high: median and quartiles for the whole batch. images_per_s: at the median.
    speedup: against the first network on the same engine. of_peak: operations a second, as a share
    of what float32 matrices of 1024x1024 reach here. parameters, operations: for one image.
    file_mb: of a Darknet .weights, in 10^6 bytes.
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
    of_peak: float
    parameters: int
    operations: int
    file_mb: float


Key = tuple[str, str, str, int]  # network, engine, precision, batch


def open_all(
    candidates: Sequence[Candidate],
    engines: Sequence[str],
    precisions: Sequence[str],
    batches: Sequence[int],
    threads: int,
    tell: Callable[[str], None] = print,
) -> dict[Key, Engine]:
    """Every combination that can be; the others are told with their reason.

    Raises InputError where none can.
    """
    opened: dict[Key, Engine] = {}
    told: set[str] = set()
    for candidate in candidates:
        for engine in engines:
            for precision in precisions:
                for batch in batches:
                    key = (candidate.name, engine, precision, batch)
                    try:
                        opened[key] = _open(candidate, engine, precision, batch, threads)
                    except InputError as error:
                        if str(error) not in told:
                            tell(f"left out: {candidate.name}: {error}")
                        told.add(str(error))  # what no network can do is said once
                        break  # another batch changes nothing
    if not opened:
        raise InputError("no engine can run what was asked for, see above")
    return opened


def _open(candidate: Candidate, engine: str, precision: str, batch: int, threads: int) -> Engine:
    return open_engine(
        engine,
        candidate.model,
        candidate.size,
        precision=precision,
        batch=batch,
        threads=threads,
        calibration=None if candidate.calibration is None else [candidate.calibration],
    )


def measure(
    candidates: Sequence[Candidate], opened: Mapping[Key, Engine], rounds: int, seconds: float
) -> list[Row]:
    """Time everything in turns, for at most about `seconds`; at least one round is done."""
    sizes = {candidate.name: candidate.size for candidate in candidates}
    inputs = {key: torch.rand(key[3], 3, *reversed(sizes[key[0]])) for key in opened}
    runs = {key: lambda key=key: opened[key](inputs[key]) for key in opened}
    names = {str(key): key for key in runs}
    times = interleaved({name: runs[key] for name, key in names.items()}, rounds, seconds=seconds)
    return rows(candidates, {key: times[name] for name, key in names.items()}, measure_peak())


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
        first = medians.get((candidates[0].name, engine, precision, batch), float("nan"))
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
                of_peak=operations * batch / (ms / 1000) / peak,
                parameters=count_parameters(candidate.model),
                operations=operations,
                file_mb=len(to_bytes(candidate.model)) / 1e6,
            )
        )
    return result


def measure_peak() -> float:
    """Operations a second of float32 matrix products on the CPU, in the best of some rounds."""
    left, right = torch.rand(2, GEMM, GEMM)
    times = interleaved({"gemm": lambda: torch.mm(left, right)}, GEMM_ROUNDS)["gemm"]
    return 2 * GEMM**3 / (min(times) / 1000)


HEADS = (
    "network", "engine", "precision", "batch", "ms", "quartiles", "images/s", "speed-up", "of peak",
    "parameters", "operations", "MB",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """A row as text, in the order of HEADS."""
    return [
        row.network,
        row.engine,
        row.precision,
        str(row.batch),
        f"{row.ms:.2f}",
        f"{row.ms_low:.2f}-{row.ms_high:.2f}",
        f"{row.images_per_s:.1f}",
        f"{row.speedup:.2f}",
        f"{row.of_peak:.0%}",
        f"{row.parameters / 1e6:.2f} M",
        f"{row.operations / 1e9:.2f} G",
        f"{row.file_mb:.1f}",
    ]


def terminal_table(found: Sequence[Row]) -> str:
    table = AsciiTable([list(HEADS), *map(cells, found)])
    table.justify_columns = dict.fromkeys(range(3, len(HEADS)), "right")
    return table.table


def markdown_table(found: Sequence[Row], about: str) -> str:
    lines = ["|".join(["", *parts, ""]) for parts in (HEADS, ["---"] * len(HEADS))]
    lines += ["|".join(["", *cells(row), ""]) for row in found]
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
        engine, precision, batch = kind
        label = f"{engine} {precision}" + (f", {batch} at once" if batch > 1 else "")
        bars = axes.barh(
            places, widths, 0.9 / (len(kinds) + 1), xerr=ends, label=label,
            color=f"C{number % 10}", error_kw={"elinewidth": 0.7},
        )  # fmt: skip
        axes.bar_label(bars, [f"{width:.1f}" for width in widths], padding=3, fontsize=6)
    axes.set_yticks([n + 0.5 * (len(kinds) - 1) / (len(kinds) + 1) for n in range(len(networks))])
    axes.set_yticklabels(networks)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds an image: median, and quartiles as lines", xscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")
