"""A comparison as text for a terminal, and as a .csv file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from terminaltables import AsciiTable

from utils.comparison.groups import Group
from utils.comparison.runs import Result, kind_of
from utils.run_page.charts import number

LONGEST_NAME = 30  # characters of a run's name in a table
LONGEST_VALUE = 22  # of a setting's value
BORDERS = 3  # characters around a cell


def result_table(groups: Sequence[Group], width: int) -> str:
    """A row a group: mAP, and what the network costs."""
    head = ["run", "kind", "runs", "epochs", "mAP@.5 best", "last", "mAP@.5:.95", "parameters",
            "operations", "ms"]  # fmt: skip
    rows = [
        [
            _cut(group.name, LONGEST_NAME),
            kind_of(group.first.run),
            str(len(group.results)),
            _epochs(group.first),
            _spread(group, lambda result: result.best),
            _spread(group, lambda result: result.last),
            _spread(group, lambda result: result.best_50_95),
            _mean(group, lambda result: result.parameters),
            _mean(group, lambda result: result.operations),
            _mean(group, lambda result: result.ms),
        ]
        for group in groups
    ]
    shown = [n for n in range(len(head)) if n == 0 or any(row[n] not in ("", "-") for row in rows)]
    if all(len(group.results) == 1 for group in groups):
        shown.remove(2)
    return _folded([head[n] for n in shown], [[row[n] for n in shown] for row in rows], width)


def setting_table(groups: Sequence[Group], settings: Mapping[str, list[Any]], width: int) -> str:
    """A row a setting that is not the same in all runs, a column a group.

    settings: values of the runs in the order of the groups.
    """
    head = ["setting", *(_cut(group.name, LONGEST_NAME) for group in groups)]
    rows = []
    for name, values in settings.items():
        rest = iter(values)
        of_groups = [[_text(next(rest)) for _ in group.results] for group in groups]
        cells = [", ".join(dict.fromkeys(texts)) for texts in of_groups]
        rows.append([name, *(_cut(cell, LONGEST_VALUE) for cell in cells)])
    return _folded(head, rows, width, numbers=False)


def _folded(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int, numbers: bool = True
) -> str:
    """A table; where it is too wide, several below each other, each with the first column."""
    widths = [max(map(len, column)) + BORDERS for column in zip(head, *rows, strict=True)]
    blocks: list[list[int]] = [[]]
    for column in range(1, len(head)):
        taken = widths[0] + 1 + sum(widths[n] for n in blocks[-1])
        if blocks[-1] and taken + widths[column] > width:
            blocks.append([])
        blocks[-1].append(column)
    tables = []
    for block in blocks:
        lines = [[line[0], *(line[n] for n in block)] for line in (head, *rows)]
        table = AsciiTable(lines)
        if numbers:
            table.justify_columns = dict.fromkeys(range(1, len(lines[0])), "right")
        tables.append(str(table.table))
    return "\n".join(tables)


def csv_table(groups: Sequence[Group], settings: Mapping[str, list[Any]]) -> str:
    """A row a run, in the order of the groups; settings that differ are columns, too.

    settings: values of the runs in the same order.
    """
    head = ["run", "group", "kind", "epochs", "asked", "finished", "best_epoch", "mAP@.5",
            "mAP@.5:.95", "last_mAP@.5", "last_mAP@.5:.95", "parameters", "operations", "ms",
            "timed_by", "folder"]  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, *settings])
    results = [(group.name, result) for group in groups for result in group.results]
    for place, (group, result) in enumerate(results):
        best = result.run.best_epoch
        figures = (result.best, result.best_50_95, result.last, result.last_50_95,
                   result.parameters, result.operations, result.ms)  # fmt: skip
        writer.writerow([
            result.run.name, group, kind_of(result.run), result.epochs, result.asked,
            result.finished, "" if best is None else f"{best:g}",
            *("" if math.isnan(figure) else f"{figure:.6g}" if figure < 1e4 else f"{figure:.0f}"
              for figure in figures),
            result.timed_by, result.run.folder.as_posix(),
            *("" if values[place] is None else _text(values[place])
              for values in settings.values()),
        ])  # fmt: skip
    return text.getvalue()


def _spread(group: Group, of: Callable[[Result], float]) -> str:
    mean, deviation = group.mean(of), group.deviation(of)
    if math.isnan(mean):
        return "-"
    return f"{mean:.3f}" + ("" if math.isnan(deviation) else f" ± {deviation:.3f}")


def _mean(group: Group, of: Callable[[Result], float]) -> str:
    return number(group.mean(of))


def _epochs(result: Result) -> str:
    if not result.asked:
        return "-"
    done = result.epochs >= result.asked
    return str(result.epochs) if done else f"{result.epochs}/{result.asked}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
    return text or "none"


def _cut(text: str, most: int) -> str:
    """The text, what is left out where it is long: the beginning of a path, else the middle."""
    if len(text) <= most:
        return text
    end = most - 1 if "/" in text else (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[-end:]}"
