"""Compare runs with each other: settings that differ, mAP, parameters, operations, milliseconds.

    python compare.py dense small
    python compare.py "small-s*" weights/cut --measure

Runs are named as in runs/, or by their folders there or in weights/; globs stand in quotes. Those
that differ by their seed alone are one row, with mean and standard deviation. Prints two tables,
and leaves compare.csv (a row a run) and compare.png (mAP over epochs, and against size and time) in
the output folder. Milliseconds are those in the reports of cuts; `--measure` times all networks
now.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from import_param import CompareSettings
from utils.errors import InputError, run
from utils.settings.loader import load

if TYPE_CHECKING:
    from utils.comparison.runs import Result

WIDEST = 100  # columns of a table


def main(argv: list[str] | None = None) -> None:
    """Read the flags, find the runs, print the tables, and write a table and a picture."""
    settings = load(
        CompareSettings,
        with_flag(sys.argv[1:] if argv is None else argv),
        about=__doc__,
        first=("runs", "measure", "output"),
    )
    if not settings.comparison.runs:
        raise InputError("runs=(): expected names of runs, such as python compare.py dense small")
    # Imported after the flags are read, so that --help and a mistyped flag need no numpy.
    from utils.comparison.groups import differences, grouped, notes
    from utils.comparison.plots import plot_comparison
    from utils.comparison.runs import find_runs, result_of
    from utils.comparison.tables import csv_table, result_table, setting_table
    from utils.console.progress import say
    from utils.files.paths import output_folder
    from utils.files.writing import write_text

    results = [result_of(run) for run in find_runs(settings.comparison.runs)]
    if settings.comparison.measure:
        results = measured(results, settings)
    folder = output_folder(settings.comparison.output)
    groups = grouped(results)
    ordered = [result for group in groups for result in group.results]
    differing = differences(ordered)
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    say(result_table(groups, width))
    if differing:
        say(setting_table(groups, differing, width))
    for note in [*notes(ordered), *sorted({result.timed_by for result in ordered} - {""})]:
        say(f"note: {note}")
    write_text(folder / "compare.csv", csv_table(groups, differing))
    plot_comparison(groups, folder / "compare.png")
    say(f"compare.csv and compare.png are in {folder}")


def with_flag(argv: Sequence[str]) -> list[str]:
    """Flags in which the runs that stand first have one, too.

    >>> with_flag(["dense", "small", "--measure"])
    ['--runs', 'dense', 'small', '--measure']
    """
    return ["--runs", *argv] if argv and not argv[0].startswith("-") else list(argv)


def measured(results: Sequence[Result], settings: CompareSettings) -> list[Result]:
    """The results with milliseconds of now: all networks take turns, each at its own size.

    Raises:
        InputError: a run has left no network, or the engine cannot run it.
    """
    from dataclasses import replace

    from import_param import TrainedNetwork
    from pruning.latency.meter import open_meter
    from utils.checkpoint.network import load_network
    from utils.comparison.runs import network_of
    from utils.console.progress import Wait
    from utils.timing import interleaved, machine, spread, to_its_end

    calls, rounds = {}, settings.comparison.rounds
    with Wait("timing the networks"):
        for place, result in enumerate(results):
            weights = str(network_of(result.run))
            network = load_network(TrainedNetwork(weights=weights, device="cpu"))
            meter = open_meter(network.model, network.size, settings.runtime)
            opened = meter.open(network.model, network.size)
            calls[str(place)] = to_its_end(opened, meter.images(network.size))
        times = interleaved(calls, rounds)
    how = (
        f"latency: the networks alone, one image of their own size, {meter.name}, {machine()}; "
        f"lower quartile of {rounds} rounds in which they took turns"
    )
    return [
        replace(result, ms=spread(times[str(place)])[1], timed_by=how)
        for place, result in enumerate(results)
    ]


if __name__ == "__main__":
    sys.exit(run(main))
