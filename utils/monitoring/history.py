"""The figures of a run by epoch: written to metrics.csv, read back, replayed to a Visdom page."""

import csv
import io
import math
from collections.abc import Container
from pathlib import Path

from utils.errors import InputError
from utils.files.numbers import to_float
from utils.files.reading import read_text
from utils.files.writing import write_text
from utils.monitoring.client import Curves, Sender
from utils.visualization.curves import curves_by_plot

History = dict[float, dict[str, float]]  # epoch → {"plot/curve": value}

CSV_NAME = "metrics.csv"


def write_history(path: str | Path, history: History) -> None:
    """Write `history` as a CSV file, see `history_text`.

    The file is written whole each time, since a new name changes its header and since a row must
    never be there by half: some 20 ms for a thousand rows of twenty.
    """
    write_text(path, history_text(history))


def history_text(history: History) -> str:
    """CSV: the epoch, then a column for each name, empty where there is no value."""
    names = list(dict.fromkeys(name for row in history.values() for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *names])
    for step in sorted(history):
        writer.writerow([f"{step:.10g}", *(history[step].get(name, "") for name in names)])
    return text.getvalue()


def read_history(path: str | Path, before: float = math.inf) -> History:
    """Read what `write_history` wrote, without the epochs from `before` on; empty without a file.

    Raises:
        InputError: the file is damaged; the message names the line.
    """
    if not Path(path).exists():
        return {}
    history = parse_history(read_text(path), str(path))
    return {step: row for step, row in history.items() if step < before}


def parse_history(text: str, place: str) -> History:
    """Read what `history_text` made.

    Args:
        text: the CSV.
        place: where it stands, for messages.

    Raises:
        InputError: it is damaged; the message names the line.
    """
    history: History = {}
    try:
        rows = csv.reader(io.StringIO(text), strict=True)
        header = next(rows, [])
        if header[:1] != ["epoch"]:
            raise InputError(f"{place}:1: {','.join(header)[:60]!r}: expected epoch,…")
        for row in rows:
            line = f"{place}:{rows.line_num}"
            if len(row) != len(header):
                raise InputError(f"{line}: {len(row)} fields: expected {len(header)}")
            step, *values = (_number(field, line) for field in row)
            if step is None or not math.isfinite(step):
                raise InputError(f"{line}: {row[0]!r}: expected an epoch")
            pairs = zip(header[1:], values, strict=True)
            history[step] = {name: value for name, value in pairs if value is not None}
    except csv.Error as problem:
        raise InputError(f"{place}: not a CSV file of ours: {problem}") from None
    return history


def replay(history: History, sender: Sender, plots: Container[str] | None = None) -> None:
    """Show the curves of a run's whole history in Visdom, from its first epoch on.

    A window is always sent whole, so this is all that a resumed run, or a new figure, needs. A
    server that was away or comes back empty gets every window again, see
    `utils.monitoring.client.Sender`.

    Args:
        history: what was measured so far.
        sender: brings the curves to the page.
        plots: the windows to send; None for all.
    """
    for plot, curves in curves_by_plot(history).items():
        if plots is None or plot in plots:
            sender.show(plot, Curves(plot, curves))


def _number(field: str, place: str) -> float | None:
    try:
        return to_float(field) if field else None
    except ValueError:
        raise InputError(f"{place}: {field[:60]!r}: expected a number") from None
