"""Are cuts to a time met on the card: of one image, where launches bind, and of several?"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

import prune
from import_param import TrainSettings
from models.netdef import parse
from tools.gpu.findings import Findings, Value
from tools.gpu.networks import config, settled
from tools.gpu.task import Task
from tools.gpu.training import demo_data
from utils.checkpoint.checkpoint import Origin, save_checkpoint
from utils.errors import InputError
from utils.files.reading import read_text
from utils.training.runs import Run

NETWORK = "yolov3"  # which has blocks to go where narrower layers are no faster
SPEEDUPS, SMALL_SPEEDUPS = (2.0, 3.0), (1.5,)
BATCHES, SMALL_BATCHES = (1, 16), (4,)
TOLERANCE = 0.05  # of the time that was asked for
CLASSES = 10  # of the demo set
LAYER = "[convolutional]\nbatch_normalize=1\nfilters=32\nsize=3\npad=1\nactivation=leaky\n"
SMALL_CFG = (
    "[net]\nwidth=64\nheight=64\nchannels=3\n"
    f"{LAYER}stride=4\n{LAYER}stride=2\n{LAYER}[shortcut]\nfrom=-2\nactivation=linear\n"
    "[convolutional]\nfilters=45\nsize=1\nactivation=linear\n"
    "[yolo]\nmask=0,1,2\nanchors=8,8, 16,16, 32,32\nclasses=10\nnum=3\n"
)


def pruning(task: Task, findings: Findings) -> None:
    """Ask for 2 and 3 times; the whole network has random weights, which change no time."""
    weights = unequal_network(task)
    findings.figure("network", task.of(NETWORK, "a few layers"))
    for batch in task.of(BATCHES, SMALL_BATCHES):
        for speedup in task.of(SPEEDUPS, SMALL_SPEEDUPS):
            row: dict[str, Value] = {"images at once": batch, "times faster, asked": speedup}
            try:
                row |= cut(task, weights, batch, speedup)
            except InputError as error:
                row["refused"] = str(error)
                findings.fault(f"{speedup:g} times at batch {batch}: {error}")
            findings.row(row)
            missed = float(row.get("off", 0.0))
            findings.expect(
                task.small or abs(missed) <= TOLERANCE,
                f"{speedup:g} times at batch {batch}: the time is off by {missed:+.1%}",
            )


def unequal_network(task: Task) -> Path:
    """A checkpoint of a network whose channels are not all worth the same."""
    netdef = parse(SMALL_CFG) if task.small else config(NETWORK, task.side).with_classes(CLASSES)
    model = settled(netdef)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.1, 1.0)
    path = Path("unequal.pt").resolve()
    names = tuple(map(str, range(CLASSES)))
    save_checkpoint(path, netdef, names, model.state_dict(), TrainSettings(), Origin())
    return path


def cut(task: Task, weights: Path, batch: int, speedup: float) -> dict[str, Value]:
    """Cut to a time by prune.py; what it came to."""
    run = Run(f"cut-{batch}-{speedup:g}")
    prune.main(
        [
            *("--weights", str(weights), "--data", demo_data(task), "--device", task.check.device),
            *("--pruned_id", "latency", "--target_speedup", f"{speedup:g}", "--name", run.name),
            *("--latency_batch_size", str(batch), "--engine", "torch", "--workers", "0"),
            *("--importance_batches", "2", "--bn_batches", "2", "--batch_size", "8"),
        ]
    )
    report = json.loads(read_text(run.folder / "report.json"))
    timing, shares = report["timing"], report["shares"]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {
        "times faster, measured": timing["before"] / timing["measured"],
        "off": timing["measured"] / timing["asked"] - 1,
        "ms an image before": timing["before"],
        "asked ms": timing["asked"],
        "predicted ms": timing["predicted"] or "",
        "measured ms": timing["measured"],
        "blocks gone": shares["blocks"],
        "channels gone": shares["channels"],
        "attempts": timing["attempts"],
    }
