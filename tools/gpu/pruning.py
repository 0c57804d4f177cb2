"""Are cuts to a time met on the card: of one image, where launches bind, and of several?"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from import_param import TORCH, Pruning
from models.darknet import Darknet
from models.netdef import parse
from pruning.importance import gamma
from pruning.latency.meter import LatencyMeter, open_meter
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import LatencyPredictor, fit_predictor
from pruning.latency.search import LatencySearch, LatencyTarget, PruningProblem
from pruning.surgeon import cut
from pruning.targets import cut_shares
from tools.gpu.findings import Findings, Value
from tools.gpu.networks import config, settled
from tools.gpu.task import Task
from utils.errors import InputError

NETWORK = "yolov3"  # which has blocks to go where narrower layers are no faster
SPEEDUPS, SMALL_SPEEDUPS = (2.0, 3.0), (1.5,)
BATCHES, SMALL_BATCHES = (1, 16), (4,)
TOLERANCE = 0.05  # of the time that was asked for
ROUNDS = 20  # in which the network and its cut take turns in the end
# Fewer than a cut needs that is to be kept: each network that is opened takes the card seconds.
OPTIONS = SearchOptions(sampled_cuts=10, least_seconds=0.02)
ROUND_TO, SMALL_ROUND_TO = 32, 8  # widths are multiples: the fewer, the fewer layers to measure
LAYER = "[convolutional]\nbatch_normalize=1\nfilters=32\nsize=3\npad=1\nactivation=leaky\n"
SMALL_CFG = (
    "[net]\nwidth=64\nheight=64\nchannels=3\n"
    f"{LAYER}stride=4\n{LAYER}stride=2\n{LAYER}[shortcut]\nfrom=-2\nactivation=linear\n"
    "[convolutional]\nfilters=45\nsize=1\nactivation=linear\n"
    "[yolo]\nmask=0,1,2\nanchors=8,8, 16,16, 32,32\nclasses=10\nnum=3\n"
)


def pruning(task: Task, findings: Findings) -> None:
    """Ask for 2 and 3 times; the whole network has random weights, which change no time.

    As latency_prune.py, but by one of its ways to a time only, and with one fit for all times.
    """
    model = unequal_network(task)
    settings = Pruning(pruned_id="latency", round_to=task.of(ROUND_TO, SMALL_ROUND_TO))
    findings.figure("network", task.of(NETWORK, "a few layers"))
    for batch in task.of(BATCHES, SMALL_BATCHES):
        begun = time.monotonic()
        meter = open_meter(model, model.netdef.size, TORCH, batch=batch)
        predictor = fit_predictor(
            *(model, model.netdef.size, meter, Path(f"latency-{batch}.csv")),
            round_to=settings.round_to,
            options=OPTIONS,
        )
        findings.figure(f"s to measure layers at batch {batch}", time.monotonic() - begun)
        for speedup in task.of(SPEEDUPS, SMALL_SPEEDUPS):
            row: dict[str, Value] = {"images at once": batch, "times faster, asked": speedup}
            try:
                row |= cut_to(speedup, settings, model, predictor, meter)
            except InputError as error:
                row["refused"] = str(error)
                findings.fault(f"{speedup:g} times at batch {batch}: {error}")
            findings.row(row)
            missed = float(row.get("off", 0.0))
            findings.expect(
                task.small or abs(missed) <= TOLERANCE,
                f"{speedup:g} times at batch {batch}: the time is off by {missed:+.1%}",
            )


def unequal_network(task: Task) -> Darknet:
    """A network whose channels are not all as important, on the device."""
    model = settled(parse(SMALL_CFG) if task.small else config(NETWORK, task.side))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.1, 1.0)
    return model.to(task.device).to(memory_format=torch.channels_last)


def cut_to(
    speedup: float,
    settings: Pruning,
    model: Darknet,
    predictor: LatencyPredictor,
    meter: LatencyMeter,
) -> dict[str, Value]:
    """Cut to a time; what it came to.

    Raises:
        InputError: even the fastest cut takes more.
    """
    begun, size, target = time.monotonic(), model.netdef.size, LatencyTarget(0.0, speedup)
    problem = PruningProblem.of(model.netdef, gamma(model), predictor, settings)
    plan, result = LatencySearch(model, size, target, meter, OPTIONS).prune(problem)
    before, after = meter.time_networks((model, cut(model, plan)), size, ROUNDS).tolist()
    shares = cut_shares(plan, "latency")
    return {
        "times faster, measured": before / after,
        "off": after / target.ms(before) - 1,
        "ms an image before": before,
        "asked ms": target.ms(before),
        "predicted ms": result.predicted or "",
        "measured ms": after,
        "blocks gone": shares.blocks,
        "channels gone": shares.channels,
        "attempts": result.attempts,
        "s": time.monotonic() - begun,
    }
