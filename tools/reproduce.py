"""Rerun the reference experiment of pruning: how much can go, and what does it cost?

    python -m tools.reproduce --data bccd.data --weights yolov3-tiny.weights
    python -m tools.reproduce --data bccd.data --strategy slim my.py:mine --seed 0 1

The reference experiment, from the same pretrained weights: a dense network, trained for as many
epochs as all stages of the pruned ones together; sparse training; cuts of several sizes and by
several strategies; fine-tuning without and with the dense network as teacher; pruning while
training; and two controls that are trained from random weights for all those epochs: the network
that a cut left, and one that is as small but thinned alike in every layer. With `--strategy` or
`--importance`, which may be functions of your own, these alone are compared, each with each, with
the dense and the sparse network, for all seeds. `--weights ""` starts from random weights.

Each training is a run of train.py, each cut one of prune.py, in runs/ and weights/ of the folder
that this is started in. What is done is not done again, so it can be stopped at any time and goes
on where it was. `--launcher slurm` queues them all as jobs of a cluster that depend on each other;
`--dry_run` only prints them. It ends with table.md, table.csv and sizes.png in runs/<name>.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from import_param import TORCH, DataSet, TrainedNetwork
from tools.experiment import (
    Reproduce,
    Row,
    Step,
    expect_same_asked,
    in_order,
    plan_folds,
    planned,
    run_steps,
)
from tools.folds import fold_files, write_folds
from tools.slurm import WORKERS, Slurm, run_on_slurm
from utils import errors
from utils.console.progress import say
from utils.errors import InputError
from utils.settings.loader import load

if TYPE_CHECKING:
    from pruning.plots import NetworkPoint
    from pruning.report import Size

LATENCY_ROUNDS = 30


@dataclass(frozen=True)
class Result:
    """What a row came to."""

    label: str
    size: Size
    cut: dict[str, float]  # mAP@.5 before fine-tuning by stage, of the first seed
    trained: tuple[float, ...]  # mAP@.5 of the last epoch, by fold and seed
    taught: tuple[float, ...]  # the same with a teacher

    @property
    def place(self) -> NetworkPoint:
        """Where it stands in the plot of sizes."""
        from pruning.plots import NetworkPoint

        mean_ap = statistics.mean(self.trained)
        return NetworkPoint(self.size.parameters / 1e6, self.size.latency, mean_ap, bool(self.cut))


@dataclass(frozen=True)
class ReproduceSettings:
    """Rerun the reference experiment of pruning; see README.md."""

    reproduce: Reproduce = Reproduce()
    slurm: Slurm = Slurm()


def main(argv: list[str] | None = None) -> None:
    """Read the flags, plan the rows, run their steps, measure what they left, and write tables."""
    both = load(ReproduceSettings, argv, about=__doc__)
    settings, slurm = both.reproduce, both.slurm
    # Imported after the flags are read, so that --help and a mistyped flag need no torch.
    from models import netdef as cfg_files
    from pruning.plots import plot_sizes
    from utils.data.splits import open_definition
    from utils.files.reading import require_file
    from utils.files.writing import write_text

    folder = Path("runs") / settings.run_name
    folds = fold_files(folder / "folds", settings.folds)
    netdef = cfg_files.load(settings.cfg)
    rows = select_rows(plan_folds(settings, netdef, folds), settings.only)
    if settings.weights:
        require_file(settings.weights)
    steps, scripts = in_order(rows), Path(__file__).parents[1]
    on_slurm = settings.launcher == "slurm"
    if settings.dry_run:
        expect_same_asked(steps, folder / "logs")
        plan = (
            planned(steps, scripts, WORKERS, slurm.sbatch_line)
            if on_slurm
            else planned(steps, scripts)
        )
        say(plan)
        return
    # A demo set is made now, not by two runs at once.
    definition = open_definition(
        DataSet(settings.data), ("train",) if folds else ("train", "valid")
    )
    if folds:
        write_folds(definition, folds)
    if on_slurm:
        run_on_slurm(steps, scripts, folder / "slurm", folder / "logs", slurm)
    else:
        run_steps(steps, scripts, folder / "logs", settings.jobs)

    results, method = measure(rows)
    table = markdown(results, settings.folds)
    write_text(folder / "table.md", f"{table}\n\n{method}\n")
    write_text(folder / "table.csv", comma_separated(results, settings.seed, settings.folds))
    plot_sizes(
        {result.label: result.place for result in results},
        f"{settings.run_name}: mAP@.5 of the last epoch",
        folder / "sizes.png",
    )
    say(f"{table}\n{method}\n{folder}: table.md, table.csv, sizes.png")


def select_rows(rows: Sequence[Row], words: Sequence[str]) -> list[Row]:
    """The first row, which all are compared with, and those whose label has one of the words.

    Raises:
        InputError: no row has one.
    """

    def is_wanted(row: Row) -> bool:
        return not words or any(word in row.label for word in words)

    selected = [row for row in rows[1:] if is_wanted(row)]
    if not selected and not is_wanted(rows[0]):
        labels = "; ".join(row.label for row in rows)
        raise InputError(f"only={' '.join(words)}: expected a word of one of these rows: {labels}")
    return [rows[0], *selected]


def measure(rows: Sequence[Row]) -> tuple[list[Result], str]:
    """What each row came to, and how latency was measured: all networks taking turns."""
    from pruning.latency.meter import open_meter
    from pruning.report import measure_latencies, size_of
    from utils.checkpoint.network import load_network

    networks = [
        load_network(TrainedNetwork(weights=str(row.trained[0].result), device="cpu"))
        for row in rows
    ]
    models, size = [n.model for n in networks], networks[0].size
    meter = open_meter(models[0], size, TORCH)
    latencies, method = measure_latencies(models, size, LATENCY_ROUNDS, meter)
    results = [
        Result(
            row.label,
            size_of(network.model, size, latency),
            stages(row.cut[0]) if row.cut else {},
            tuple(map(last_map, row.trained)),
            tuple(map(last_map, row.taught)),
        )
        for row, network, latency in zip(rows, networks, latencies, strict=True)
    ]
    return results, method


def stages(cut: Step) -> dict[str, float]:
    """mAP@.5 before and after a cut, and with batch normalisation re-estimated."""
    report = json.loads((cut.run.folder / "report.json").read_text(encoding="utf-8"))
    return {stage: quality["mean_ap"] for stage, quality in report["found"].items()}


def last_map(step: Step) -> float:
    """mAP@.5 of a training's last epoch."""
    from utils.monitoring.history import CSV_NAME, read_history

    history = read_history(step.run.folder / CSV_NAME)
    return history[max(history)]["mAP/mAP@.5"]


def markdown(results: Sequence[Result], folds: int = 0) -> str:
    """The table, in Markdown. folds: into which the photos were split; 0 for none."""
    dense = results[0].size
    lines = [
        "| network | parameters | operations | ms | cut, not tuned: before → cut → BN | mAP@.5 | "
        "with teacher |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        cells = [
            r.label,
            f"{r.size.parameters / 1e6:.3f} M ({share(r.size.parameters, dense.parameters)})",
            f"{r.size.operations / 1e9:.3f} G ({share(r.size.operations, dense.operations)})",
            f"{r.size.latency:.2f} ({dense.latency / r.size.latency:.1f}×)",
            " → ".join(f"{value:.3f}" for value in r.cut.values()),
            spread(r.trained, folds) if folds else seeds(r.trained),
            spread(r.taught, folds) if folds else seeds(r.taught),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(now: int, whole: int) -> str:
    """By how much a number changed, such as −85.0%."""
    return "all" if now == whole else f"{now / whole - 1:+.1%}".replace("-", "−")


def seeds(values: Sequence[float]) -> str:
    """The mean, and beside it each seed's value where there are several."""
    if not values:
        return ""
    text = f"{statistics.mean(values):.3f}"
    each = ", ".join(f"{value:.3f}" for value in values)
    return text if len(values) == 1 else f"{text} ({each})"


def spread(values: Sequence[float], folds: int) -> str:
    """The mean over folds, how far they spread (the standard deviation), and each one's mean.

    >>> spread([0.5, 0.7, 0.4, 0.6], folds=2)
    '0.550 ± 0.071 (0.600, 0.500)'
    """
    if not values:
        return ""
    each = len(values) // folds  # of its seeds
    means = [statistics.mean(values[start : start + each]) for start in range(0, len(values), each)]
    text = ", ".join(f"{mean:.3f}" for mean in means)
    return f"{statistics.mean(means):.3f} ± {statistics.stdev(means):.3f} ({text})"


def comma_separated(results: Sequence[Result], seeds: Sequence[int], folds: int = 0) -> str:
    """The same, a line a trained network. seeds: of each result's trainings, in order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fold = ["fold"] if folds else []
    head = ["network", "parameters", "operations", "ms", "teacher", *fold, "seed", "mAP@.5"]
    writer.writerow(head)
    for r in results:
        size = [r.size.parameters, r.size.operations, f"{r.size.latency:.3f}"]
        for teacher, values in (("no", r.trained), ("yes", r.taught)):
            each = len(values) // max(folds, 1)  # of a fold
            for number, value in enumerate(values):
                own = [number // each + 1] if folds else []
                row = [r.label, *size, teacher, *own, seeds[number % each], f"{value:.4f}"]
                writer.writerow(row)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(errors.run(main))
