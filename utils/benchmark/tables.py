"""What was measured, as tables (terminal, Markdown, CSV) and as plots."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path

from matplotlib.figure import Figure
from terminaltables import AsciiTable

from utils.benchmark.latency import UPSTREAM, Row
from utils.console.progress import say
from utils.errors import InputError
from utils.files.writing import write_text
from utils.visualization.colours import as_hex, series_colour
from utils.visualization.figures import log_ticks_, write_figure

COLUMNS: dict[str, Callable[[Row], str]] = {
    "network": lambda row: row.network,
    "device": lambda row: row.device,
    "engine": lambda row: row.engine,
    "precision": lambda row: row.precision,
    "batch": lambda row: str(row.batch),
    "ms": lambda row: f"{row.ms:.2f}",
    "quartiles": lambda row: f"{row.ms_low:.2f}-{row.ms_high:.2f}",
    "images/s": lambda row: f"{row.images_per_s:.1f}",
    "speed-up": lambda row: _or_blank(row.speedup, ".2f"),
    f"vs {UPSTREAM}": lambda row: _or_blank(row.upstream, ".2f"),
    "of peak": lambda row: f"{row.of_peak:.0%}",
    "parameters": lambda row: f"{row.parameters / 1e6:.2f} M",
    "operations": lambda row: f"{row.operations / 1e9:.2f} G",
    "file MB": lambda row: _or_blank(row.file_mb, ".1f"),
    "memory MB": lambda row: _or_blank(row.memory_mb, ".0f"),
    "mAP@.5": lambda row: _or_blank(row.mean_ap, ".3f"),
}


def _or_blank(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """A header and a line for each row, as text, without columns that tell nothing.

    Such is one of which nothing is known, and the device where it is the CPU in all rows.
    """
    columns = {head: [cell(row) for row in rows] for head, cell in COLUMNS.items()}
    if set(columns["device"]) == {"cpu"}:
        del columns["device"]
    shown = {head: column for head, column in columns.items() if any(column)}
    return [list(shown), *map(list, zip(*shown.values(), strict=True))]


def terminal_table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    lines = cells(rows)
    table = AsciiTable(lines)
    table.justify_columns = dict.fromkeys(range(lines[0].index("batch"), len(lines[0])), "right")
    return str(table.table)


def markdown_table(rows: Sequence[Row], method: str) -> str:
    """The rows in Markdown, and below them how they were measured."""
    header, *body = cells(rows)
    lines = ["|".join(["", *parts, ""]) for parts in (header, ["---"] * len(header), *body)]
    return "\n".join([*lines, "", method, ""])


def csv_table(rows: Sequence[Row]) -> str:
    """The rows as a .csv file, a column for each field of `Row`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    writer.writerows(map(astuple, rows))
    return text.getvalue()


@contextmanager
def unfinished(path: Path) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Yield what writes the rows so far to `path`, a .csv that goes once the work is done.

    So what was measured is there whenever the work is stopped. A disk that is full for a moment
    does not end it.
    """
    written: set[str] = set()

    def keep(rows: Sequence[Row]) -> None:
        try:
            write_text(path, csv_table(rows))
            written.add("rows")
        except InputError as error:
            if "note" not in written:
                say(f"note: {error}; the work goes on")
            written.add("note")

    try:
        yield keep
    except BaseException:
        if "rows" in written:
            say(f"not finished: what was measured is in {path}")
        raise
    path.unlink(missing_ok=True)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Milliseconds an image, a group of bars a network, as a PNG file."""
    networks = list(dict.fromkeys(row.network for row in rows))
    kinds = list(dict.fromkeys(_kind(row) for row in rows))
    height = 1.5 + 0.16 * len(networks) * (len(kinds) + 1)
    figure = Figure(figsize=(9, max(3.0, height)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, kind in enumerate(kinds):
        bar_rows = [row for row in rows if _kind(row) == kind]
        positions = [networks.index(row.network) + number / (len(kinds) + 1) for row in bar_rows]
        widths = [row.ms / row.batch for row in bar_rows]
        ends = [
            [(row.ms - row.ms_low) / row.batch for row in bar_rows],
            [(row.ms_high - row.ms) / row.batch for row in bar_rows],
        ]
        bars = axes.barh(
            positions, widths, 0.9 / (len(kinds) + 1), xerr=ends, label=_kind_name(*kind),
            color=as_hex(series_colour(number)), error_kw={"elinewidth": 0.7},
        )  # fmt: skip
        axes.bar_label(bars, [f"{width:.1f}" for width in widths], padding=3, fontsize=6)
    axes.set_yticks([n + 0.5 * (len(kinds) - 1) / (len(kinds) + 1) for n in range(len(networks))])
    axes.set_yticklabels(networks)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds an image: median, and quartiles as lines")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    write_figure(figure, path)


MARKERS = "os^Dv<>pPX"  # of engines and precisions


def plot_accuracy(rows: Sequence[Row], path: Path) -> None:
    """mAP@.5 against milliseconds an image, as a PNG file. Colours: networks; shapes: engines."""
    measured = [row for row in rows if not math.isnan(row.mean_ap)]
    networks = list(dict.fromkeys(row.network for row in measured))
    kinds = list(dict.fromkeys(_kind(row) for row in measured))
    figure = Figure(figsize=(9, 5.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for row in measured:
        number = kinds.index(_kind(row))
        axes.scatter(
            row.ms / row.batch, row.mean_ap, s=45, marker=MARKERS[number % len(MARKERS)],
            color=as_hex(series_colour(networks.index(row.network))),
        )  # fmt: skip
    for number, network in enumerate(networks):
        axes.scatter([], [], color=as_hex(series_colour(number)), label=network)
    for number, kind in enumerate(kinds):
        shape = MARKERS[number % len(MARKERS)]
        axes.scatter([], [], color="0.5", marker=shape, label=_kind_name(*kind))
    axes.set(xlabel="milliseconds an image, median", ylabel="mAP@.5", xscale="log")
    log_ticks_(axes.xaxis)
    axes.grid(color="0.9", linewidth=0.6, which="both")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    write_figure(figure, path)


Kind = tuple[str, str, int, str]


def _kind(row: Row) -> Kind:
    """What is drawn alike: engine, precision, batch and device."""
    return row.engine, row.precision, row.batch, row.device


def _kind_name(engine: str, precision: str, batch: int, device: str) -> str:
    where = "" if device == "cpu" else f" on {device}"
    return f"{engine} {precision}{where}" + (f", {batch} at once" if batch > 1 else "")
