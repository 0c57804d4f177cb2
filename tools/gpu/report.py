"""The report that a user sends: a page of Markdown, and the same as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tools.gpu.findings import Value, as_json
from tools.gpu.runner import NOT_STARTED, Result
from utils.files.writing import write_text
from utils.timing import cpu_name, version
from utils.version import VERSION

CARD = "card"  # the step that says which card it is
PACKAGES = ("torch", "torchvision", "numpy", "cv2")


@dataclass(frozen=True)
class Origin:
    """Where a report comes from.

    Attributes:
        command: that was given.
        date: when, with the time zone.
        machine: beside the card, in words.
        versions: of packages, by name.
        project: the project's version.
    """

    command: str
    date: str
    machine: str
    versions: dict[str, str]
    project: str = VERSION

    @staticmethod
    def here(command: str) -> Origin:
        """This machine, now."""
        machine = f"{cpu_name()}, {os.cpu_count()} cores; {platform.platform()}"
        versions = {"python": platform.python_version()} | {p: version(p) for p in PACKAGES}
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return Origin(command, now, machine, versions)


def write_report(folder: Path, origin: Origin, results: Sequence[Result]) -> None:
    """Write check_gpu.json and check_gpu.md."""
    steps = [asdict(result) for result in results]
    write_text(folder / "check_gpu.json", as_json({**asdict(origin), "steps": steps}))
    write_text(folder / "check_gpu.md", markdown(origin, results))


def markdown(origin: Origin, results: Sequence[Result]) -> str:
    """The page: whose machine, a line a step, and the tables and faults of steps that have some."""
    card = {r.name: r for r in results}.get(CARD, Result(CARD, "", NOT_STARTED)).figures
    what = ", ".join(f"{name} {value}" for name, value in origin.versions.items())
    lines = [
        f"# check_gpu: {card.get('name', 'unknown card')}",
        "",
        *(f"- {name}: {shown(value)}" for name, value in card.items() if name != "name"),
        f"- machine: {origin.machine}",
        f"- versions: this project {origin.project}, {what}",
        f"- date: {origin.date}",
        f"- command: `{origin.command}`",
        "",
        *table([_line(result) for result in results]),
    ]
    for result in results:
        if result.rows:
            lines += ["", f"## {result.name}: {result.title}", "", *table(result.rows)]
        if len(result.faults) > 1:
            lines += ["", f"## {result.name}: what is not as expected", ""]
            lines += [f"- {fault}" for fault in result.faults]
    return "\n".join(lines) + "\n"


def _line(result: Result) -> dict[str, Value]:
    figures = result.figures if result.name != CARD else {}
    told = [f"{name} {shown(value)}" for name, value in figures.items()]
    return {
        "step": result.name,
        "what": result.title,
        "outcome": f"**{result.outcome}**" if result.is_bad else result.outcome,
        "seconds": f"{result.seconds:.1f}" if result.outcome != NOT_STARTED else "",
        "figures": "; ".join(told),
        "error": result.error,
    }


def table(rows: Sequence[dict[str, Value]]) -> list[str]:
    """Rows as lines of Markdown; columns as they come, empty where a row has none."""
    head = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(shown(row[name])) if name in row else "" for name in head] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def shown(value: Value) -> str:
    """A figure as people read it: four digits.

    >>> shown(0.00012344), shown(31.24567), shown(12345.678), shown(7), shown(True)
    ('0.0001234', '31.25', '12346', '7', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)
