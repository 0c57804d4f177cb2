"""From a trained network to a smaller one on disk: what all the pruning scripts do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from models.darknet import Darknet
from models.loss import Loss
from pruning.calibrate import SHORTEST, mean_loss, reestimate_bn_, settle_bn_
from pruning.costs import Timer, timer
from pruning.latency import Goal, Timing
from pruning.report import Quality, Report, layer_rows, measure_latencies, size_of
from pruning.scores import SCORES, Scores
from pruning.strategies import LATENCY, STRATEGIES, Target, missed, shares
from pruning.surgeon import Plan, cut
from pruning.ways import CutsToTime, least_loss
from utils.augment import Augmentation
from utils.checkpoint import (
    Network,
    load_network,
    newest_weights,
    save_checkpoint,
    write_pair,
)
from utils.data_check import expect_objects, load_split
from utils.data_file import check_classes, read_data
from utils.datasets import (
    DetectionDataset,
    EpochSampler,
    ValidationDataset,
    training_loader,
    validation_loader,
)
from utils.demo_data import make_if_demo
from utils.engine import evaluate
from utils.files import write_text
from utils.runs import Run, new_run
from utils.types import Batch


@dataclass(frozen=True)
class Photos:
    """training: batches of training photos, unchanged, in any order. valid, batches: what the
    network is measured on."""

    training: Iterable[Batch]
    valid: ValidationDataset
    batches: Iterable[Batch]


def prune(
    *,
    network: Mapping[str, Any],
    strategy: str,
    target: Target,
    runtime: Mapping[str, Any],
    latency: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    settings: Mapping[str, Any],
    data: str,
    name: str,
    score: str,
    score_batches: int,
    bn_batches: int,
    latency_rounds: int,
    batch_size: int,
    workers: int,
) -> Report:
    """Load, score, plan, cut, re-estimate batch normalisation, measure and save.

    network: what `utils.checkpoint.load_network` takes. runtime: what
    `utils.backends.runtime.open_runtime` takes beside a network: on it all is timed. latency:
    the fields of import_param.Latency, for the strategy of that name. evaluation: what
    `utils.engine.evaluate` takes beside the network and the photos. settings: all of them, to be
    saved. The rest is explained in import_param.py.

    Writes weights/<name>/pruned.cfg, .weights, .names and .pt, and into runs/<name>/ settings.json,
    report.txt, report.json and channels.png. Raises InputError where the strategy finds nothing
    to cut.
    """
    goal = _goal(strategy, latency)
    opened = load_network(**network)
    photos = _photos(opened, data, batch_size, workers)
    model = opened.model
    loss = Loss(model.heads)
    scores = _scores(score, model, loss, islice(photos.training, score_batches))
    engine = timer(model, opened.size, runtime)
    if goal:

        def judge(plan: Plan) -> float:
            small = cut(model, plan).to(memory_format=torch.channels_last)
            reestimate_bn_(small, photos.training, bn_batches)
            return mean_loss(small, photos.training, score_batches)

        cuts = CutsToTime(model, opened.size, scores, target, goal, engine, latency_rounds)
        if strategy == LATENCY:
            table = Path(latency["cost_table"] or engine.table)
            plan, timing = least_loss(cuts.every_way(table), judge)
        else:
            plan, timing = cuts.by_share(strategy)
        amount = goal.name
    else:
        plan, timing = STRATEGIES[strategy](model.netdef, scores, target), None
        amount = f"{round(100 * target.percent)}"

    run = new_run(name, f"{_name(network['weights'])}-{strategy}-{amount}")
    found = {"before": _measure(opened, model, photos, evaluation)}
    small = cut(model, plan).to(memory_format=torch.channels_last)
    found["after the cut"] = _measure(opened, small, photos, evaluation)
    if bn_batches:
        if why_not := settle_bn_(small, photos.training, bn_batches, score_batches):
            print(f"note: BN is not re-estimated: {why_not}")
        else:
            found["after BN re-estimation"] = _measure(opened, small, photos, evaluation)

    report = _report(opened, small, strategy, target, plan, found, latency_rounds, engine, timing)
    _save(run, opened, small, report, settings)
    print(report.text())
    if note := timing.note() if timing else missed(strategy, target, report.shares):
        print(f"note: {note}")
    print(f"{run.weights / 'pruned.cfg'} and .weights, .pt; the report is in {run.folder}")
    return report


def _name(weights: str) -> str:
    """What a network is called: its run's name, or its file's."""
    path = Path(weights) if weights else newest_weights()
    run = path.parent.name if path.suffix == ".pt" else ""  # none in the current folder
    return run or path.stem


def _photos(network: Network, data: str, batch_size: int, workers: int) -> Photos:
    """The data set's two splits, checked; what is wrong with them is printed."""
    make_if_demo(data)
    definition = read_data(data)
    check_classes(definition, len(network.names))
    splits = {split: load_split(definition, split) for split in ("train", "valid")}
    for photos in splits.values():
        print(photos.report.text())
    expect_objects(splits["valid"], data)
    training = DetectionDataset(
        splits["train"], network.size, network.letterbox, Augmentation.off(), seed=0
    )
    sampler = EpochSampler(len(training), seed=0)
    valid = ValidationDataset(splits["valid"], network.size, network.letterbox)
    return Photos(
        training_loader(training, sampler, max(SHORTEST, batch_size), workers),
        valid,
        validation_loader(valid, batch_size, workers),
    )


def _scores(name: str, model: Darknet, loss: Loss, batches: Iterable[Batch]) -> Scores:
    score, needs_batches = SCORES[name]
    return score(model, loss, batches) if needs_batches else score(model)


def _goal(strategy: str, latency: Mapping[str, Any]) -> Goal | None:
    """The time that is asked for; None where a share is."""
    wanted = (latency["target_ms"], latency["target_speedup"])
    return Goal(*wanted) if strategy == LATENCY or any(wanted) else None


def _measure(
    network: Network, model: Darknet, photos: Photos, evaluation: Mapping[str, Any]
) -> Quality:
    metrics, _ = evaluate(
        model, photos.batches, photos.valid.targets, letterbox=network.letterbox, **evaluation
    )
    return Quality(float(metrics.mean_ap), float(metrics.mean_ap_50_95))


def _report(
    network: Network,
    small: Darknet,
    strategy: str,
    target: Target,
    plan: Plan,
    found: Mapping[str, Quality],
    rounds: int,
    engine: Timer,
    timing: Timing | None,
) -> Report:
    model = network.model
    (before, after), method = measure_latencies((model, small), network.size, rounds, engine)
    return Report(
        strategy,
        target.percent,
        target.percent_of,
        shares(model.netdef, plan, strategy),
        size_of(model, network.size, before),
        size_of(small, network.size, after),
        found,
        method,
        layer_rows(model.netdef, small.netdef, plan, network.size),
        timing,
    )


def _save(
    run: Run, network: Network, small: Darknet, report: Report, settings: Mapping[str, Any]
) -> None:
    """The cut network, for Darknet and for train.py, and the report."""
    width, height = network.size
    netdef = small.netdef.with_net_options(
        width=width, height=height, letter_box=int(network.letterbox)
    )
    write_pair(run.weights / "pruned", small, netdef, network.names)
    save_checkpoint(
        run.weights / "pruned.pt",
        netdef,
        network.names,
        small.state_dict(),
        settings,
        {"pruned": {"strategy": report.strategy, "shares": asdict(report.shares)}},
    )
    write_text(run.folder / "settings.json", json.dumps(settings, indent=2) + "\n")
    report.write(run.folder)
