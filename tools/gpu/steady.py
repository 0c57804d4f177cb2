"""How well does training use the card: its speed, idle time, waits and memory?"""

from __future__ import annotations

import gc
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import psutil
import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from import_param import TrainSettings
from models.darknet import Darknet
from tools.gpu.findings import Findings, NotPossible, Value
from tools.gpu.task import ROOT, Task
from tools.gpu.training import demo_flags
from utils.data.splits import open_splits
from utils.devices import choose_algorithms, wait_for
from utils.settings.loader import load
from utils.structures import Batch
from utils.training.batches import TrainingBatches, ValidationBatches, photo_views
from utils.training.build import build_network, read_netdef
from utils.training.loop import Trainer, TrainerFactory, train_one_epoch

WARM_UP = 10  # steps
WAITED = "called a synchronizing CUDA operation"  # torch's words
WAITS_A_STEP = 0.25  # at most; losses may be read every so many steps
BATCH = 32
GROWTH_MB = 2.0  # of the card's memory that may be added after the second epoch, and
PROCESS_GROWTH_MB = 10.0  # an epoch of the process's, by the straight line through its second half


@dataclass(frozen=True)
class OpenTraining:
    """What train.py trains with."""

    trainer: Trainer
    batches: TrainingBatches
    validation: ValidationBatches

    def endless(self) -> Iterator[Batch]:
        """Batches of epoch after epoch."""
        return chain.from_iterable(map(self.batches.epoch, count()))

    def train(self, batches: Iterable[Batch], steps: int) -> float:
        """So many steps; images a second."""
        figures = train_one_epoch(self.trainer, islice(batches, steps), steps, "training")
        wait_for(self.trainer.device)
        return figures["images_per_second"]


def network_of(task: Task) -> str:
    """The network that is trained."""
    return task.of("yolov3-tiny", "yolov3-lite")


def open_training(task: Task, workers: int, batch: int = BATCH) -> OpenTraining:
    """A training on the demo set, as train.py opens it."""
    size, cfg = str(task.side), network_of(task)
    more = ("--workers", str(workers), "--batch_size", str(batch), "--img_size", size)
    settings = load(TrainSettings, demo_flags(task, "", 100, *more, cfg=cfg))
    choose_algorithms(settings.training.deterministic)  # as train.py does
    netdef = read_netdef(settings, None)
    views = photo_views(settings.augmentation, netdef)
    photos, valid = open_splits(settings.data, {}, views)
    model: Darknet = build_network(settings, netdef, photos, None).to(task.device)
    batches = TrainingBatches(settings, photos, model.netdef)
    trainer = TrainerFactory(settings, batches.optimizer_steps, Path())(model)
    return OpenTraining(trainer, batches, ValidationBatches(settings, valid, model.netdef))


def speed(task: Task, findings: Findings) -> None:
    """Images a second, and the share of the time in which the card does nothing."""
    steps = task.of(60, 2)
    findings.figure("batch", task.of(BATCH, 8))
    findings.figure("how idle", "1 - the time in which a kernel or copy runs, by torch.profiler")
    for workers in task.of((0, -1), (0,)):
        opened = open_training(task, workers, task.of(BATCH, 8))
        batches = opened.endless()
        opened.train(batches, task.of(WARM_UP, 1))
        row: dict[str, Value] = {
            "network": network_of(task),
            "workers": opened.batches.loader.num_workers,
            "images a second": opened.train(batches, steps),
        }
        if task.device.type == "cuda":
            row["idle"] = idle_share(opened, batches, steps)
        findings.row(row)
        del batches  # ends its workers


def idle_share(opened: OpenTraining, batches: Iterator[Batch], steps: int) -> Value:
    """Of so many steps, the share of the time in which nothing runs on the card."""
    with profile(activities=[ProfilerActivity.CUDA]):  # the first one takes long to begin
        opened.train(batches, 2)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        begun = time.perf_counter()
        opened.train(batches, steps)
        seconds = time.perf_counter() - begun
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    if not spans:
        return "not measured: the profiler saw no kernels"
    return 1 - covered(spans) / 1e6 / seconds


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much of a line spans cover together.

    >>> covered([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def waits(task: Task, findings: Findings) -> None:
    """How often the program waits for the card in a step, and where."""
    if task.device.type != "cuda":
        raise NotPossible("there is no card to wait for")
    opened = open_training(task, 0, 8)
    batches = opened.endless()
    opened.train(batches, WARM_UP)
    few, many = 20, 80
    before, after = waiting_places(opened, batches, few), waiting_places(opened, batches, many)
    a_step = (after.total() - before.total()) / (many - few)  # what an epoch waits once aside
    findings.figure("waits a step", a_step)
    findings.figure(f"waits in {many} steps", after.total())
    for place, times in after.most_common(5):
        findings.row({"where": place, f"times in {many} steps": times})
    findings.expect(
        a_step <= WAITS_A_STEP,
        f"{a_step:.2f} waits a step, most at {next(iter(after), '')}: expected {WAITS_A_STEP:g}",
    )


def waiting_places(opened: OpenTraining, batches: Iterator[Batch], steps: int) -> Counter[str]:
    """Where torch waited for the card in so many steps, most often first."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_one_epoch(opened.trainer, islice(batches, steps), steps, "training")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{each.filename.replace(str(ROOT), '').lstrip('/')}:{each.lineno}"
        for each in told
        if WAITED in str(each.message)
    )
    return Counter(dict(places.most_common()))


def memory(task: Task, findings: Findings) -> None:
    """What an epoch leaves in memory, of the card and of the process."""
    opened = open_training(task, 0, task.of(BATCH, 8))
    process, on_card = psutil.Process(), task.device.type == "cuda"
    card, resident = [], []
    for epoch in range(task.of(8, 4)):
        opened.train(opened.batches.epoch(epoch), len(opened.batches))
        opened.validation.evaluate(opened.trainer.averaged)
        gc.collect()
        resident.append(process.memory_info().rss / 1e6)
        row: dict[str, Value] = {"epoch": epoch + 1, "process, MB": resident[-1]}
        if on_card:
            card.append(torch.cuda.memory_allocated(task.device) / 1e6)
            row |= {
                "card, MB": card[-1],
                "card, at most, MB": torch.cuda.max_memory_allocated(task.device) / 1e6,
            }
        findings.row(row)
    if on_card:
        grown = max(card[1:]) - card[1]
        findings.figure("card, MB more than after epoch 2", grown)
        findings.expect(grown <= GROWTH_MB, f"the card holds {grown:.1f} MB more after each epoch")
    second_half = resident[len(resident) // 2 :]
    growth = (second_half[-1] - second_half[0]) / (len(second_half) - 1)
    findings.figure("process, MB more an epoch", growth)
    findings.expect(growth <= PROCESS_GROWTH_MB, f"the process grows by {growth:.1f} MB an epoch")
