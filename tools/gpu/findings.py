"""What has a step found so far? Each line is in a file at once, whatever becomes of its process."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from utils.files.reading import read_text
from utils.files.writing import write_text

Value = float | int | str | bool


class NotPossible(Exception):
    """A step makes no sense on this machine; the message says why."""


@dataclass
class Findings:
    """The figures and faults of a step, as it goes on.

    Attributes:
        file: where they are kept.
        figures: by name.
        rows: of a table, each with its cells by column.
        faults: what is not as it should be, a line each.
        note: why the step was not possible, where it was not.
        finished: whether the step came to its end.
    """

    file: Path
    figures: dict[str, Value] = field(default_factory=dict)
    rows: list[dict[str, Value]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    note: str = ""
    finished: bool = False

    def figure(self, name: str, value: Value) -> None:
        """A figure, such as "images a second"."""
        self.figures[name] = value
        self.keep()

    def row(self, cells: dict[str, Value]) -> None:
        """A row of the step's table."""
        self.rows.append(cells)
        self.keep()

    def expect(self, is_so: bool, fault: str) -> None:
        """Note a fault unless something is so; the step goes on."""
        if not is_so:
            self.fault(fault)

    def fault(self, fault: str) -> None:
        """Note a fault, in one line."""
        self.faults.append(" ".join(fault.split()))
        self.keep()

    def keep(self) -> None:
        """Write all of it to the file."""
        write_text(self.file, as_json({**asdict(self), "file": ""}))

    @staticmethod
    def read(file: Path) -> Findings:
        """What a process has left; nothing where it left nothing."""
        if not file.is_file():
            return Findings(file)
        return Findings(**{**json.loads(read_text(file)), "file": file})


def as_json(values: Any) -> str:
    """JSON as every program reads it: there, nan and inf are texts."""
    return json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
