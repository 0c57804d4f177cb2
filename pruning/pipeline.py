"""From a trained network to a smaller one on disk: what all the pruning scripts do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from import_param import Data, Loss, PruneSettings, Pruning, PruningRun, Training
from models.darknet import Darknet
from models.loss import DetectionLoss
from pruning.batch_norm import SHORTEST, first_batches, mean_loss, reestimate_bn_, settle_bn_
from pruning.importance import Importance, checked, importance_named, uniform
from pruning.latency.candidates import LatencyCandidates, choose_candidate
from pruning.latency.meter import LatencyMeter, open_meter
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import expect_table_fits
from pruning.latency.search import LatencyResult, LatencySearch, LatencyTarget
from pruning.latency.search_space import expect_search_space
from pruning.layer_shares import expect_layer_shares
from pruning.report import Quality, Report, layer_rows, measure_latencies, size_of
from pruning.strategies import LATENCY, strategy_named
from pruning.surgeon import Plan, cut
from pruning.targets import cut_shares, deviation_note
from utils.checkpoint.checkpoint import Origin, save_with_pair
from utils.checkpoint.network import Network, load_network, newest_weights
from utils.console.next_steps import after_pruning
from utils.console.progress import say
from utils.data.augment import NO_AUGMENTATION
from utils.data.datasets import (
    DetectionDataset,
    EpochSampler,
    ValidationDataset,
    training_loader,
    validation_loader,
)
from utils.data.definition import DataDefinition
from utils.data.splits import open_definition, open_split
from utils.data.views import InputView, TrainingView
from utils.devices import choose_algorithms
from utils.errors import only_warn
from utils.evaluation.evaluate import evaluate
from utils.run_page.folder import record_start
from utils.run_page.page import write_page
from utils.settings.loader import save as save_settings
from utils.structures import Batch
from utils.training.runs import Run, expect_free, new_run


@dataclass(frozen=True)
class Photos:
    """The data set, as a cut needs it.

    Attributes:
        training: batches of training photos, unchanged, in any order.
        valid: the photos that networks are measured on.
        batches: these in batches.
    """

    training: Iterable[Batch]
    valid: ValidationDataset
    batches: Iterable[Batch]


def prune(settings: PruneSettings) -> Report:
    """Judge the channels, plan, cut, re-estimate batch normalisation, measure and save.

    Writes weights/<name>/pruned.cfg, .weights, .names and .pt, and into runs/<name>/ settings.json,
    report.txt, report.json and channels.png.

    Raises:
        InputError: the strategy finds nothing to cut, or no cut takes the time that is asked for.
    """
    expect_free(settings.run.name)
    choose_algorithms(deterministic=True)  # for what channels are judged by
    target = _latency_target(settings.pruning)
    definition = open_definition(settings.data, ("train", "valid"))
    network = _named(load_network(settings.network), definition.names)
    say(network.origin)
    network.model.netdef = network.model.netdef.with_protected(settings.pruning.protected)
    _expect_cuttable(network, settings)
    photos = _photos(network, settings.data, definition)
    batch = settings.pruning.latency_batch_size
    meter = open_meter(network.model, network.size, settings.runtime, settings.data, batch)
    if settings.pruning.strategy == LATENCY:
        expect_table_fits(_table(settings.pruning, meter), meter)

    with new_run(settings.run.name, _run_name(settings, target)) as run:
        importance = _importance(network, photos, settings.run)
        if target:
            options = SearchOptions(timing_rounds=settings.run.latency_rounds)
            search = LatencySearch(network.model, network.size, target, meter, options)
            plan, timing = _plan_to_a_time(search, importance, photos, settings)
        else:
            strategy = strategy_named(settings.pruning.strategy)
            plan, timing = strategy(network.model.netdef, importance, settings.pruning), None

        small, quality, batch_norm = _cut(network, plan, photos, settings)
        report = _report(network, small, plan, quality, meter, settings)
        if target and timing:
            timing = _timing_of(report, target, timing)
        report = replace(report, timing=timing, batch_norm=batch_norm)
        _save(run, network, small, report, settings)
        with only_warn():
            data = {"photos for validation": photos.valid.photos.describe()}
            record_start(run.folder, False, data, network.model.device)
            write_page(run.folder, run.weights)
        _tell(report, run, settings)
    return report


def _expect_cuttable(network: Network, settings: PruneSettings) -> None:
    """Refuse a network that the strategy cannot cut, before channels are judged and timed."""
    netdef, pruning = network.model.netdef, settings.pruning
    importance_named(settings.run.importance)  # a user's file is read now
    expect_layer_shares(netdef, pruning.shares_by_layer, pruning.strategy)
    if pruning.strategy == LATENCY:
        expect_search_space(netdef)
    else:
        strategy = strategy_named(pruning.strategy)
        strategy(netdef, uniform(network.model), replace(pruning, percent=0.0))


def _table(pruning: Pruning, meter: LatencyMeter) -> Path:
    return Path(pruning.latency_table or meter.table_path)


def _named(network: Network, names: tuple[str, ...]) -> Network:
    """The network, its classes called as the data set's where it only numbers as many."""
    numbers = tuple(str(number) for number in range(len(names)))
    return replace(network, names=names) if network.names == numbers else network


def _plan_to_a_time(
    search: LatencySearch, importance: Importance, photos: Photos, settings: PruneSettings
) -> tuple[Plan, LatencyResult]:
    """By the share that takes the time; for `latency`, by the way to it that loses least."""
    candidates = LatencyCandidates(search, importance, settings.pruning)
    if settings.pruning.strategy != LATENCY:
        return candidates.by_share(settings.pruning.strategy)

    def loss_after(plan: Plan) -> float:
        small = cut(search.model, plan).to(memory_format=torch.channels_last)
        reestimate_bn_(small, photos.training, settings.run.bn_batches)
        return mean_loss(small, photos.training, settings.run.importance_batches)

    table = _table(settings.pruning, search.meter)
    return choose_candidate(candidates.all(table), loss_after)


def _cut(
    network: Network, plan: Plan, photos: Photos, settings: PruneSettings
) -> tuple[Darknet, dict[str, Quality], str]:
    """The cut network, by stage what it detects on the validation photos, and a line on BN."""
    run = settings.run
    quality = {"before": _measure(network, network.model, photos, settings)}
    small = cut(network.model, plan).to(memory_format=torch.channels_last)
    as_cut = quality["after the cut"] = _measure(network, small, photos, settings)
    if not run.bn_batches:
        return small, quality, ""
    reestimated = Quality(math.nan, math.nan)

    def mean_ap(model: Darknet) -> float:
        nonlocal reestimated
        reestimated = _measure(network, model, photos, settings)
        return reestimated.mean_ap

    kept, line = settle_bn_(
        small, photos.training, run.bn_batches, run.importance_batches, as_cut.mean_ap, mean_ap
    )
    if kept:
        quality["after BN re-estimation"] = reestimated
    return small, quality, line


def _tell(report: Report, run: Run, settings: PruneSettings) -> None:
    say(report.text())
    timing = report.timing
    note = (
        timing.note()
        if timing
        else deviation_note(report.strategy, settings.pruning, report.shares)
    )
    if note:
        say(f"note: {note}")
    say(f"{run.weights / 'pruned.cfg'} and .weights, .pt; the report is in {run.folder}")
    after_pruning(settings, run.weights / "pruned")


def _run_name(settings: PruneSettings, latency_target: LatencyTarget | None) -> str:
    """Of the network, the strategy, and how much is asked for."""
    percent = f"{round(100 * settings.pruning.percent)}"
    amount = latency_target.name if latency_target else percent
    strategy = settings.pruning.strategy.rpartition(":")[2]  # of a user's file, the function
    return f"{_name(settings.network.weights)}-{strategy}-{amount}"


def _name(weights: str) -> str:
    """What a network is called: its run's name, or its file's."""
    path = Path(weights) if weights else newest_weights()
    run = path.parent.name if path.suffix == ".pt" else ""  # none in the current folder
    return run or path.stem


def _photos(network: Network, settings: Data, definition: DataDefinition) -> Photos:
    """The data set's two splits, checked; what is wrong with them is printed."""
    half = replace(settings, cache_mb=settings.cache_mb // 2)
    networks = {"the network": network.names}
    seen = TrainingView.of(network.size, network.letterbox, NO_AUGMENTATION)
    evaluated = InputView(network.size, network.letterbox)
    train_photos = open_split(half, "train", networks, definition=definition, view=seen)
    valid_photos = open_split(
        half, "valid", expect_objects=True, definition=definition, view=evaluated
    )
    training = DetectionDataset(
        train_photos, network.size, network.letterbox, NO_AUGMENTATION, Training()
    )
    sampler = EpochSampler(len(training), seed=0)
    long_enough = replace(settings, batch_size=max(SHORTEST, settings.photos_at_once))
    valid = ValidationDataset(valid_photos, network.size, network.letterbox)
    return Photos(
        training_loader(training, sampler, long_enough),
        valid,
        validation_loader(valid, settings),
    )


def _importance(network: Network, photos: Photos, run: PruningRun) -> Importance:
    measure, needs_batches = importance_named(run.importance)
    if not needs_batches:
        return checked(measure(network.model))
    loss = DetectionLoss(network.model.heads, Loss())
    batches = first_batches(
        photos.training, run.importance_batches, f"importance: {run.importance}"
    )
    # A function of a user's reads `batch.images` as they are.
    floats = (batch.to(network.model.device) for batch in batches)
    return checked(measure(network.model, loss, floats))


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
    plan: Plan,
    quality: Mapping[str, Quality],
    meter: LatencyMeter,
    settings: PruneSettings,
) -> Report:
    target, size = settings.pruning, network.size
    (before, after), method = measure_latencies(
        (network.model, small), size, settings.run.latency_rounds, meter
    )
    return Report(
        target.strategy,
        target.percent,
        target.percent_of,
        cut_shares(plan, target.strategy),
        size_of(network.model, size, before),
        size_of(small, size, after),
        quality,
        method,
        layer_rows(plan, small.netdef, size),
    )


def _timing_of(report: Report, target: LatencyTarget, searched: LatencyResult) -> LatencyResult:
    """How a time was met, in the milliseconds of the report: the network that is saved has one."""
    before = report.before.latency
    asked = target.ms(before)
    return replace(searched, before=before, asked=asked, measured=report.after.latency)


def _save(
    run: Run, network: Network, small: Darknet, report: Report, settings: PruneSettings
) -> None:
    """The cut network, for Darknet and for train.py, and the report."""
    width, height = network.size
    netdef = small.netdef.with_net_options(
        width=width, height=height, letter_box=int(network.letterbox)
    )
    save_settings(settings, run.folder / "settings.json")
    report.write(run.folder)
    save_with_pair(  # last: with it the run is there, and its name taken
        run.weights / "pruned",
        netdef,
        network.names,
        small,
        settings,
        Origin(run.name),
        checkpoint_last=True,
    )
