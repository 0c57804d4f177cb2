"""What does pruning do to a training, epoch by epoch, and what does it leave at the end?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from import_param import TrainSettings
from models import netdef as cfg_files
from models.costs import count_operations, layer_parameters
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.iterative.schedule import (
    CutSchedule,
    check_cut_epochs,
    cut_trainer,
    last_cut,
    read_state,
)
from pruning.iterative.state import PruningState
from pruning.iterative.targets import BudgetTarget, PruningTarget, ShareTarget
from pruning.latency.meter import open_meter
from pruning.plots import plot_scales, plot_sweep
from pruning.report import write_layers
from pruning.sparsity import SparsityPenalty, equalise_, near_zero
from pruning.strategies import LATENCY
from pruning.surgeon import Plan
from pruning.sweep import (
    milliseconds_beside,
    safe_point,
    safe_ratio_line,
    sweep,
    sweep_csv,
    sweep_table,
)
from utils.checkpoint.checkpoint import Checkpoint
from utils.checkpoint.network import reopen
from utils.console.progress import say
from utils.devices import choose_device
from utils.errors import InputError, only_warn
from utils.files.writing import write_text
from utils.monitoring.history import CSV_NAME, read_history
from utils.processes import distributed
from utils.training.batches import TrainingBatches, ValidationBatches
from utils.training.build import describe
from utils.training.loop import Trainer, TrainerFactory
from utils.training.lr_schedule import scale_lr
from utils.training.runs import Run


class PruningWhileTraining(Protocol):
    """After an epoch, is it still the same trainer?"""

    def start(self, model: Darknet, make_trainer: TrainerFactory) -> Trainer:
        """The trainer of a network, with the penalty that it needs now."""
        ...

    def after_epoch(
        self, trainer: Trainer, epoch: int, make_trainer: TrainerFactory
    ) -> tuple[Trainer, dict[str, float]]:
        """What trains on after `epoch` epochs, and the epoch's figures, by plot and curve."""
        ...

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint needs beside the settings: plain values and tensors."""
        ...

    def report(
        self, run: Run, training: TrainingBatches, validation: ValidationBatches
    ) -> float | None:
        """Leave in the run's folder what the pruning has come to.

        Returns:
            The share that can be cut safely, where that was asked and found.
        """
        ...


def pruning_while_training(
    settings: TrainSettings, model: Darknet, checkpoint: Checkpoint | None
) -> PruningWhileTraining:
    """What the settings ask for, from its start or as far as a checkpoint has come.

    Args:
        settings: of the penalty and of what is to be cut.
        model: to train; the scales of one that is to be sparse are equalised.
        checkpoint: of the run that goes on.

    Raises:
        InputError: the settings contradict each other, or the network cannot be cut so.
    """
    sparsity = settings.sparsity
    if not sparsity.prune_while_training:
        _expect_no_budget(
            settings, "prune_while_training=True, or latency_prune.py after the training"
        )
    if not sparsity.is_pruned:
        return NoPruning()
    if not checkpoint:
        equalise_(model)
        make_penalty(settings, model, steps=1)  # refuses what cannot be shrunk
    if not sparsity.prune_while_training:
        return SparseTraining(settings)
    schedule = distributed.on_main(lambda: _schedule(settings, model.netdef, checkpoint))
    start = distributed.from_main(lambda: schedule and (schedule.state.original, schedule.reached))
    assert start
    return IterativePruning(settings, schedule, *start)


class NoPruning:
    """A dense training: the trainer stays."""

    def start(self, model: Darknet, make_trainer: TrainerFactory) -> Trainer:
        """A trainer without a penalty."""
        return make_trainer(model)

    def after_epoch(
        self, trainer: Trainer, epoch: int, make_trainer: TrainerFactory
    ) -> tuple[Trainer, dict[str, float]]:
        """The same trainer."""
        return trainer, {}

    def state(self) -> None:
        """Nothing."""

    def report(self, run: Run, training: TrainingBatches, validation: ValidationBatches) -> None:
        """Nothing."""


@dataclass
class SparseTraining:
    """A penalty shrinks BN scales, so that a cut after the training takes whole channels."""

    settings: TrainSettings
    penalty: SparsityPenalty | None = field(default=None, init=False)

    def start(self, model: Darknet, make_trainer: TrainerFactory) -> Trainer:
        """A trainer with the penalty."""
        epochs, epoch_steps = self.settings.training.epochs, make_trainer.epoch_steps
        self.penalty = make_penalty(self.settings, model, epochs * epoch_steps)
        lr = scale_lr(self.settings.training, epoch_steps, epochs * epoch_steps)
        return make_trainer(model, self.penalty, lr)

    def after_epoch(
        self, trainer: Trainer, epoch: int, make_trainer: TrainerFactory
    ) -> tuple[Trainer, dict[str, float]]:
        """The same trainer, the scales of its layers brought back to one size."""
        assert self.penalty
        self.penalty.settle_(trainer.averaged)
        return trainer, self.penalty.figures()

    def state(self) -> None:
        """Nothing: the penalty depends on the step alone."""

    def report(
        self, run: Run, training: TrainingBatches, validation: ValidationBatches
    ) -> float | None:
        """Draw the scales, and how much of the network could be cut."""
        draw_scales(run)
        return report_sweep(run, self.settings, training, validation)


@dataclass
class IterativePruning:
    """A penalty shrinks BN scales until the cuts on the way have met their target.

    Attributes:
        settings: of the penalty and the target.
        schedule: of the cuts; only the main process measures and plans, and others have none.
        original: the network before all cuts.
        reached: whether nothing more is to be cut.
    """

    settings: TrainSettings
    schedule: CutSchedule | None
    original: NetDef
    reached: bool
    penalty: SparsityPenalty | None = field(default=None, init=False)

    def start(self, model: Darknet, make_trainer: TrainerFactory) -> Trainer:
        """A trainer with the penalty, or without one once the target is met."""
        training, epoch_steps = self.settings.training, make_trainer.epoch_steps
        shrinking = last_cut(training.epochs, self.settings.sparsity.cut_epochs)
        lr = scale_lr(training, epoch_steps, shrinking * epoch_steps)
        steps = training.epochs * epoch_steps
        self.penalty = None if self.reached else make_penalty(self.settings, model, steps)
        return make_trainer(model, self.penalty, lr)

    def after_epoch(
        self, trainer: Trainer, epoch: int, make_trainer: TrainerFactory
    ) -> tuple[Trainer, dict[str, float]]:
        """The training of what is left, where the end of this epoch is a time to cut."""
        if not self.penalty:
            return trainer, self._left(trainer)
        self.penalty.settle_(trainer.averaged)
        figures = self.penalty.figures() | self._left(trainer)
        dead = self.penalty.dead
        cut = distributed.from_main(lambda: self._next_cut(epoch, trainer.averaged, dead))
        if cut is None:
            return trainer, figures
        plan, self.reached, done = cut
        trainer = cut_trainer(trainer, plan, partial(self.start, make_trainer=make_trainer))
        say(f"cut after epoch {epoch}: {done}; left are {describe(trainer.model)}")
        return trainer, figures | self._left(trainer)

    def _left(self, trainer: Trainer) -> dict[str, float]:
        """What is left of the original network, as shares."""
        both = trainer.model.netdef, self.original
        parameters = [sum(layer_parameters(netdef).values()) for netdef in both]
        operations = [count_operations(netdef) for netdef in both]
        return {
            "left/parameters": parameters[0] / parameters[1],
            "left/operations": operations[0] / operations[1],
        }

    def _next_cut(self, epoch: int, model: Darknet, dead: float) -> tuple[Plan, bool, str] | None:
        """The plan, whether it reaches the target, and how far it comes, in words."""
        assert self.schedule
        plan = self.schedule.plan(epoch, model, dead)
        return (plan, self.schedule.reached, self.schedule.describe()) if plan else None

    def state(self) -> dict[str, Any]:
        """The cuts so far."""
        return self.schedule.as_state() if self.schedule else {}

    def report(self, run: Run, training: TrainingBatches, validation: ValidationBatches) -> None:
        """Draw the scales, and time the network where a time was asked for."""
        assert self.schedule
        draw_scales(run)
        with only_warn():
            write_layers(self.schedule.state.plan, run.folder)
        best = reopen(run.weights / "best.pt", "cpu")
        if text := self.schedule.target.latencies(best.model):
            write_text(run.folder / "latency.txt", text + "\n")
            say(text)


def make_penalty(settings: TrainSettings, model: Darknet, steps: int) -> SparsityPenalty:
    """The penalty on what the strategy may cut. steps: of the whole training."""
    return SparsityPenalty.of(model, settings.sparsity, settings.pruning.strategy, steps)


def _schedule(
    settings: TrainSettings, netdef: NetDef, checkpoint: Checkpoint | None
) -> CutSchedule:
    """When and to what to cut, as far as the cuts have come."""
    if settings.training.freeze:
        raise InputError(
            f"freeze={settings.training.freeze}: expected 0 with prune_while_training=True"
        )
    epochs, cut_epochs = settings.training.epochs, settings.sparsity.cut_epochs
    check_cut_epochs(cut_epochs, epochs)
    state = _stored(checkpoint) if checkpoint else None
    original = cfg_files.parse(state["original_cfg"], netdef.net.path) if state else netdef
    target = _target(settings, original, state["target"] if state else None)
    schedule = CutSchedule(target, epochs, cut_epochs, PruningState.uncut(original))
    if state:
        schedule.load_state_(state)
    return schedule


def _stored(checkpoint: Checkpoint) -> dict[str, Any]:
    assert checkpoint.training
    place = f"{checkpoint.path}: training.pruning"
    return read_state(checkpoint.training.pruning, checkpoint.netdef, place)


def _target(
    settings: TrainSettings, original: NetDef, state: Mapping[str, Any] | None
) -> PruningTarget[Any]:
    """What the network is to come to: a latency budget, or a share of the original cut."""
    if settings.pruning.strategy != LATENCY:
        _expect_no_budget(settings, "pruned_id=latency")
        return ShareTarget(settings.pruning)
    network = Darknet(original).eval().to(choose_device(settings.model.device))
    batch = settings.pruning.latency_batch_size
    meter = open_meter(network, original.size, settings.runtime, settings.data, batch)
    return BudgetTarget.fitted(original, settings.pruning, meter, say, state)


def _expect_no_budget(settings: TrainSettings, wanted: str) -> None:
    budget = settings.pruning
    for name, value in (
        ("target_ms", budget.target_ms),
        ("target_speedup", budget.target_speedup),
    ):
        if value:
            raise InputError(f"{name}={value:g}: expected 0, or {wanted}")


def draw_scales(run: Run) -> None:
    """Draw how the scales came to zero."""
    network = reopen(run.weights / "best.pt", "cpu")
    dead = near_zero(network.model)
    with only_warn():
        plot_scales(read_history(run.folder / CSV_NAME), dead, run.folder / "scales.png")


def report_sweep(
    run: Run, settings: TrainSettings, training: TrainingBatches, validation: ValidationBatches
) -> float | None:
    """Say how much of the sparse network could be cut; the safe share, where there is one."""
    network = reopen(run.weights / "best.pt", settings.model.device)
    pruning = settings.pruning
    # A latency is no share of a network; slim cuts the same channels by shares.
    strategy = "slim" if pruning.strategy == LATENCY else pruning.strategy
    points = sweep(
        network.model,
        strategy,
        pruning,
        lambda model: validation.evaluate(model)[0].mean_ap,
        training.without_augmentation(),
        milliseconds=milliseconds_beside(
            network.model, network.size, settings.runtime, pruning.latency_batch_size
        ),
    )
    write_text(run.folder / "percent.csv", sweep_csv(points))
    with only_warn():
        plot_sweep(points, strategy, run.folder / "percent.png")
    text = (
        f"{sweep_table(points)}\nmAP on the validation photos after a cut by {strategy} of "
        f"that share of {pruning.percent_of}, without and with new BN statistics, not "
        f"fine-tuned.\n{safe_ratio_line(points)}"
    )
    write_text(run.folder / "percent.txt", text + "\n")
    say(text)
    safe = safe_point(points)
    return safe.percent if safe else None
