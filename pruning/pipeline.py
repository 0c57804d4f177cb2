"""From a trained network to a smaller one on disk: what all the pruning scripts do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from import_param import Data, Loss, PruneSettings, Pruning, Training
from models.darknet import Darknet
from models.loss import DetectionLoss
from pruning.batch_norm import SHORTEST, mean_loss, reestimate_bn_, settle_bn_
from pruning.importance import IMPORTANCE, Importance
from pruning.latency.candidates import LatencyCandidates, choose_candidate
from pruning.latency.meter import LatencyMeter, open_meter
from pruning.latency.options import SearchOptions
from pruning.latency.search import LatencyResult, LatencySearch, LatencyTarget
from pruning.report import Quality, Report, layer_rows, measure_latencies, size_of
from pruning.strategies import LATENCY, STRATEGIES
from pruning.surgeon import Plan, cut
from pruning.targets import cut_shares, deviation_note
from utils.checkpoint import (
    Network,
    load_network,
    newest_weights,
    save_checkpoint,
    write_pair,
)
from utils.data.augment import NO_AUGMENTATION
from utils.data.datasets import (
    DetectionDataset,
    EpochSampler,
    ValidationDataset,
    training_loader,
    validation_loader,
)
from utils.data.splits import open_split
from utils.evaluation.evaluate import evaluate
from utils.settings import save as save_settings
from utils.structures import Batch
from utils.training.runs import Run, new_run


@dataclass(frozen=True)
class Photos:
    """training: batches of training photos, unchanged, in any order. valid, batches: what the
    network is measured on."""

    training: Iterable[Batch]
    valid: ValidationDataset
    batches: Iterable[Batch]


def prune(settings: PruneSettings) -> Report:
    """Load, score, plan, cut, re-estimate batch normalisation, measure and save.

    Writes weights/<name>/pruned.cfg, .weights, .names and .pt, and into runs/<name>/ settings.json,
    report.txt, report.json and channels.png. Raises InputError where the strategy finds nothing
    to cut.
    """
    strategy, target = settings.pruning.strategy, settings.pruning
    run_settings = settings.run
    score_batches, bn_batches = run_settings.importance_batches, run_settings.bn_batches
    latency_rounds = run_settings.latency_rounds
    latency_target = _latency_target(settings.pruning)
    opened = load_network(settings.network)
    photos = _photos(opened, settings.data)
    model = opened.model
    loss = DetectionLoss(model.heads, Loss())
    batches = islice(photos.training, score_batches)
    importance = _importance(run_settings.importance, model, loss, batches)
    meter = open_meter(model, opened.size, settings.runtime)
    if latency_target:

        def judge(plan: Plan) -> float:
            small = cut(model, plan).to(memory_format=torch.channels_last)
            reestimate_bn_(small, photos.training, bn_batches)
            return mean_loss(small, photos.training, score_batches)

        options = SearchOptions(timing_rounds=latency_rounds)
        search = LatencySearch(model, opened.size, latency_target, meter, options)
        candidates = LatencyCandidates(search, importance, target)
        if strategy == LATENCY:
            table = Path(settings.pruning.latency_table or meter.table_path)
            plan, timing = choose_candidate(candidates.all(table), judge)
        else:
            plan, timing = candidates.by_share(strategy)
        amount = latency_target.name
    else:
        plan, timing = STRATEGIES[strategy](model.netdef, importance, target), None
        amount = f"{round(100 * target.percent)}"

    run = new_run(run_settings.name, f"{_name(settings.network.weights)}-{strategy}-{amount}")
    found = {"before": _measure(opened, model, photos, settings)}
    small = cut(model, plan).to(memory_format=torch.channels_last)
    found["after the cut"] = _measure(opened, small, photos, settings)
    if bn_batches:
        if why_not := settle_bn_(small, photos.training, bn_batches, score_batches):
            print(f"note: BN is not re-estimated: {why_not}")
        else:
            found["after BN re-estimation"] = _measure(opened, small, photos, settings)

    report = _report(opened, small, strategy, target, plan, found, latency_rounds, meter, timing)
    _save(run, opened, small, report, settings)
    print(report.text())
    if note := timing.note() if timing else deviation_note(strategy, target, report.shares):
        print(f"note: {note}")
    print(f"{run.weights / 'pruned.cfg'} and .weights, .pt; the report is in {run.folder}")
    return report


def _name(weights: str) -> str:
    """What a network is called: its run's name, or its file's."""
    path = Path(weights) if weights else newest_weights()
    run = path.parent.name if path.suffix == ".pt" else ""  # none in the current folder
    return run or path.stem


def _photos(network: Network, settings: Data) -> Photos:
    """The data set's two splits, checked; what is wrong with them is printed."""
    half, classes = replace(settings, cache_mb=settings.cache_mb // 2), [len(network.names)]
    train_photos = open_split(half, "train", classes)
    valid_photos = open_split(half, "valid", classes, expect_objects=True)
    training = DetectionDataset(
        train_photos, network.size, network.letterbox, NO_AUGMENTATION, Training()
    )
    sampler = EpochSampler(len(training), seed=0)
    long_enough = replace(settings, batch_size=max(SHORTEST, settings.batch_size))
    valid = ValidationDataset(valid_photos, network.size, network.letterbox)
    return Photos(
        training_loader(training, sampler, long_enough),
        valid,
        validation_loader(valid, settings),
    )


def _importance(
    name: str, model: Darknet, loss: DetectionLoss, batches: Iterable[Batch]
) -> Importance:
    score, needs_batches = IMPORTANCE[name]
    return score(model, loss, batches) if needs_batches else score(model)


def _latency_target(pruning: Pruning) -> LatencyTarget | None:
    """The time that is asked for; None where a share is."""
    wanted = (pruning.target_ms, pruning.target_speedup)
    return LatencyTarget(*wanted) if pruning.strategy == LATENCY or any(wanted) else None


def _measure(network: Network, model: Darknet, photos: Photos, settings: PruneSettings) -> Quality:
    metrics, _ = evaluate(
        model,
        photos.batches,
        photos.valid.targets,
        settings.evaluation,
        settings.nms,
        letterbox=network.letterbox,
    )
    return Quality(float(metrics.mean_ap), float(metrics.mean_ap_50_95))


def _report(
    network: Network,
    small: Darknet,
    strategy: str,
    target: Pruning,
    plan: Plan,
    found: Mapping[str, Quality],
    rounds: int,
    meter: LatencyMeter,
    timing: LatencyResult | None,
) -> Report:
    model = network.model
    (before, after), method = measure_latencies((model, small), network.size, rounds, meter)
    return Report(
        strategy,
        target.percent,
        target.percent_of,
        cut_shares(model.netdef, plan, strategy),
        size_of(model, network.size, before),
        size_of(small, network.size, after),
        found,
        method,
        layer_rows(model.netdef, small.netdef, plan, network.size),
        timing,
    )


def _save(
    run: Run, network: Network, small: Darknet, report: Report, settings: PruneSettings
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
    save_settings(settings, run.folder / "settings.json")
    report.write(run.folder)
