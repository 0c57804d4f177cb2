"""Does prune.py cut on the card what it cuts on the CPU?"""

from __future__ import annotations

import math

from pruning.pipeline import prune
from tools.gpu.findings import Findings, Value
from tools.gpu.parity import exact_float32
from tools.gpu.task import Task
from tools.gpu.training import demo_data, trained
from utils.files.reading import read_text
from utils.settings.loader import load_pruning
from utils.training.runs import Run

STRATEGIES = ("normal", "slim")
DIFFERENCE = 0.02  # of mAP@.5, by rounding


def cutting(task: Task, findings: Findings) -> None:
    """The network of the demo set, a third of its channels cut, by two strategies."""
    exact_float32()
    for strategy in STRATEGIES:
        on_cpu = cut(task, strategy, "cpu", Run(f"{strategy}-cpu"))
        on_card = cut(task, strategy, task.check.device, Run(f"{strategy}-card"))
        same = on_cpu.pop("cfg") == on_card.pop("cfg")
        findings.row({"strategy": strategy, "the same .cfg": same, **on_card})
        findings.expect(same, f"{strategy}: other channels were cut than on the CPU")
        for stage, mean_ap in on_card.items():
            difference = abs(float(mean_ap) - float(on_cpu.get(stage, math.nan)))
            findings.expect(
                difference <= DIFFERENCE, f"{strategy}, {stage}: mAP differs by {difference:.3f}"
            )


def cut(task: Task, strategy: str, device: str, run: Run) -> dict[str, Value]:
    """Cut as prune.py does: the .cfg that it leaves, and mAP@.5 by stage."""
    settings = load_pruning(
        [
            *("--weights", str(trained(task)), "--data", demo_data(task), "--device", device),
            *("--pruned_id", strategy, "--percent", "0.3", "--name", run.name),
            *("--bn_batches", "4", "--latency_rounds", "3", "--engine", "torch", "--workers", "0"),
        ]
    )
    quality = prune(settings).quality
    mean_ap: dict[str, Value] = {stage: each.mean_ap for stage, each in quality.items()}
    return {"cfg": read_text(run.weights / "pruned.cfg"), **mean_ap}
