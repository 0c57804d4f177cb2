"""Which runs differ by their seed alone, what do they come to together, and what sets others apart?

A run's seed goes into all that is made of it. So of three chains sparse-s0 → cut-s0 → small-s0,
sparse-s1 → cut-s1 → small-s1, …, the three last ones are a group, although each starts from other
weights: these are of a group themselves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from import_param import TrainSettings
from utils.comparison.runs import Result, parent_of
from utils.errors import InputError
from utils.run_page.folder import SETTINGS, Settings, flat, read_json, settings_of

# What is not of the experiment: names, places, the machine.
INCIDENTAL = {
    "training.name", "training.resume", "training.seed", "run.name", "model.device",
    "network.device", "data.workers", "data.cache_mb",
}  # fmt: skip
INCIDENTAL_GROUPS = ("monitoring.",)
SOURCES = {
    "model.weights", "model.cfg", "network.weights", "network.cfg", "distillation.teacher",
    "distillation.teacher_cfg",
}  # fmt: skip
LONGEST_CHAIN = 20  # runs, each made of the one before
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Group:
    """Runs that are the same but for their seeds.

    Attributes:
        name: of the one run, or what the names have in common, then a star.
        results: of the runs.
    """

    name: str
    results: Sequence[Result]

    @property
    def first(self) -> Result:
        """The run that stands for all of them where they are the same."""
        return self.results[0]

    def values(self, of: Callable[[Result], float]) -> list[float]:
        """A figure of each run that has it."""
        return [value for result in self.results if math.isfinite(value := of(result))]

    def mean(self, of: Callable[[Result], float]) -> float:
        """The mean of a figure; NaN where no run has it."""
        values = self.values(of)
        return statistics.fmean(values) if values else math.nan

    def deviation(self, of: Callable[[Result], float]) -> float:
        """The standard deviation (n - 1) of a figure; NaN of fewer than two runs."""
        values = self.values(of)
        return statistics.stdev(values) if len(values) > 1 else math.nan


def grouped(results: Sequence[Result]) -> list[Group]:
    """Groups of runs, in the order of their first runs."""
    groups: dict[Key, list[Result]] = {}
    for result in results:
        key = (result.finished or result.epochs, *_key(result.run.settings))
        groups.setdefault(key, []).append(result)
    return [Group(_name([r.run.name for r in members]), members) for members in groups.values()]


def _name(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    common = "".join(letters[0] for letters in alike)
    return f"{common}*" if common else f"{names[0]}, …"


def used(settings: Settings) -> dict[str, Any]:
    """The settings that a run has used, by "group.name"; a strategy by its name."""
    own = flat(settings) | {"pruning.pruned_id": settings.pruning.strategy}
    if isinstance(settings, TrainSettings) and not settings.sparsity.is_pruned:
        idle = ("pruning.", "runtime.", "sparsity.")
        own = {
            name: value
            for name, value in own.items()
            if not name.startswith(idle) or name == "sparsity.is_pruned"
        }
    return own


def experiment(settings: Settings) -> dict[str, Any]:
    """The settings that make a run another experiment, by "group.name"."""
    return {
        name: value
        for name, value in used(settings).items()
        if name not in INCIDENTAL and not name.startswith(INCIDENTAL_GROUPS)
    }


def _key(settings: Settings, chain: int = 0) -> Key:
    """The same for runs that differ by their seed alone."""
    own = experiment(settings)
    for name in SOURCES & own.keys():
        if own[name]:
            own[name] = _source(own[name], chain)
    return isinstance(settings, TrainSettings), *sorted(own.items())


def _source(path: str, chain: int) -> Any:
    """A file, or how the run was made that left it."""
    folder = parent_of(path)
    if folder is None or chain >= LONGEST_CHAIN or not (folder / SETTINGS).is_file():
        return path
    try:
        settings = settings_of(read_json(folder / SETTINGS), str(folder / SETTINGS))
    except InputError:  # it is not compared, only named
        return path
    return Path(path).name, _key(settings, chain + 1)


def differences(results: Sequence[Result]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs: name → a value for each run.

    A run that does not use a setting, as a cut has no number of epochs, has None.
    """
    hidden = INCIDENTAL - {"training.seed"}
    all_own = [
        {
            name.partition(".")[2]: value  # which is its own in all groups of a script
            for name, value in used(result.run.settings).items()
            if name not in hidden and not name.startswith(INCIDENTAL_GROUPS)
        }
        for result in results
    ]
    names = dict.fromkeys(name for own in all_own for name in own)
    columns = {name: [own.get(name) for own in all_own] for name in names}
    there = {name: [own[name] for own in all_own if name in own] for name in names}
    return {
        name: values
        for name, values in columns.items()
        if any(value != there[name][0] for value in there[name])
    }


def notes(results: Sequence[Result]) -> list[str]:
    """What is to be known before figures are compared, a line each."""
    lines = []
    for what, names in (("photos", ("data.data",)), ("rules", ("evaluation.", "nms."))):
        kinds: dict[Key, list[str]] = {}
        for result in results:
            own = flat(result.run.settings)
            key = tuple((name, own[name]) for name in own if name.startswith(names))
            kinds.setdefault(key, []).append(result.run.name)
        if len(kinds) > 1:
            parts = "; ".join(
                f"{_of(key, kinds)} in {', '.join(runs)}" for key, runs in kinds.items()
            )
            lines.append(f"mAP is of other {what}, and does not compare: {parts}")
    photos = {
        words: result.run.name
        for result in results
        for start in result.run.starts[-1:]
        for name, words in start.photos.items()
        if name == "photos for validation"
    }
    if len(photos) > 1 and not lines:
        parts = "; ".join(f"{words} in {run}" for words, run in photos.items())
        lines.append(f"mAP is of other validation photos: {parts}")
    sizes = {result.run.costs.size for result in results if result.run.costs}
    if len(sizes) > 1:
        lines.append("operations are each of the network's own input size")
    lines += [
        f"{result.run.name} stopped after {result.epochs} of {result.asked} epochs"
        for result in results
        if not result.finished
    ]
    return lines


def _of(key: Key, kinds: Mapping[Key, object]) -> str:
    """What of a key is not the same in all kinds."""
    parts = [
        f"{name.partition('.')[2]}={value}"
        for name, value in key
        if any((name, value) not in other for other in kinds)
    ]
    return " ".join(parts) or "the others"
