"""What is saved of a training after each epoch, and how does it go on from there?

A run that was interrupted ends as if it had not been: the same figures, to the bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from import_param import TrainSettings, is_own
from models.darknet import Darknet
from utils.checkpoint.checkpoint import (
    Checkpoint,
    Origin,
    TrainingState,
    read_checkpoint,
    save_checkpoint,
    save_with_pair,
)
from utils.checkpoint.darknet_files import DARKNET_SUFFIXES, write_pair
from utils.checkpoint.published import with_pretrained
from utils.console.next_steps import how_to_resume
from utils.console.progress import say
from utils.errors import InputError
from utils.monitoring.history import CSV_NAME, History, history_text, parse_history, read_history
from utils.processes import distributed
from utils.settings.loader import restore as restore_settings
from utils.training.batches import TrainingBatches, ValidationBatches
from utils.training.fit import load_
from utils.training.loop import Trainer
from utils.training.lr_schedule import set_step_
from utils.training.progress import Progress
from utils.training.runs import RUN, SAVED, Run, expect_free, expect_unused

CHECKPOINTS = ("last.pt", "best.pt")  # of a training, in its weights folder


def begin(settings: TrainSettings, flags: Set[str]) -> tuple[TrainSettings, Checkpoint | None]:
    """The settings and the checkpoint of a run that goes on; None for one that begins.

    One goes on where `resume` asks for it, and where torchrun has started its processes anew after
    one of them had ended.

    Raises:
        InputError: see `resume`; or the name of a run that begins is taken.
    """
    begun = distributed.recall(RUN)
    last = Run(begun).weights / "last.pt"
    if distributed.recall(SAVED) and not last.exists():
        raise InputError(
            f"{last}: not on this machine: expected it where the first of the processes is that "
            "torchrun starts anew; keep weights/ in a folder that all machines share"
        )
    if begun and last.exists():
        training = replace(settings.training, resume=str(last))
        settings = replace(settings, training=training)
    settings, checkpoint = resume(settings, flags)
    if not checkpoint:
        expect_free(settings.training.name)
        settings = with_pretrained(settings)
    return settings, checkpoint


def resume(settings: TrainSettings, flags: Set[str]) -> tuple[TrainSettings, Checkpoint | None]:
    """With `resume`, the settings of the run that goes on and its checkpoint; else None.

    Args:
        settings: of today.
        flags: the names of the settings that flags gave, see `utils.settings.loader.given`.

    Raises:
        InputError: the file is no checkpoint of a training, a flag asks for what a run that goes
            on does not use, another process writes to the run, or its folder holds another run.
    """
    path = settings.training.resume
    if not path:
        return settings, None
    checkpoint = read_checkpoint(path)
    training = checkpoint.training
    if not training:
        raise InputError(
            f"resume={path!r}: expected the last.pt of a training; best.pt and pruned.pt hold the "
            "network alone, to be used, or given as weights, with pretrained"
        )
    stored = restore_settings(TrainSettings, checkpoint.settings)
    used = _on_this_machine(stored, settings)
    if not settings.data.batch_size:  # what the run chose stays
        flags = flags - {"batch_size"}
    if "batch_size" in flags and (training.processes or 1) != distributed.world():
        # So that a step may stay one of as many photos.
        used = replace(used, data=replace(used.data, batch_size=settings.data.batch_size))
    _expect_used(settings, used, flags)
    _expect_own_function_named(used, flags)
    run = Run(training.run)
    _expect_own(run, checkpoint, used)
    expect_unused(run)
    say(f"resume {path} after epoch {training.epoch}, its settings used")
    threads = torch.get_num_threads()
    if training.threads not in (0, threads):
        say(
            f"note: {threads} threads, {training.threads} before: sums may differ in their last "
            "bits, and so will the weights"
        )
    return used, checkpoint


def _on_this_machine(stored: TrainSettings, today: TrainSettings) -> TrainSettings:
    """The stored settings but for what belongs to the machine and not to the run: today's."""
    table = today.pruning.latency_table or stored.pruning.latency_table
    return replace(
        stored,
        model=replace(stored.model, device=today.model.device),
        data=replace(stored.data, workers=today.data.workers, cache_mb=today.data.cache_mb),
        training=replace(stored.training, resume=today.training.resume),
        pruning=replace(stored.pruning, latency_table=table),
        monitoring=today.monitoring,
    )


def _expect_used(today: TrainSettings, used: TrainSettings, flags: Set[str]) -> None:
    """Raise InputError where a flag asks for what a run that goes on does not use."""
    asked, stored = asdict(today), asdict(used)
    for group, values in asked.items():
        for name, value in values.items():
            if name in flags and value != stored[group][name]:
                raise InputError(
                    f"{name}={value!r}: a run that goes on keeps its own settings, such as "
                    f"{name}={stored[group][name]!r}; to train {today.training.resume} with "
                    "others, give it as weights, with pretrained"
                )


def _expect_own_function_named(used: TrainSettings, flags: Set[str]) -> None:
    """Run a file of the user's where the user names it, not because a checkpoint does."""
    strategy = used.pruning.pruned_id
    if is_own(strategy) and "pruned_id" not in flags:
        raise InputError(
            f"pruned_id={strategy!r}: this checkpoint names a function to be run; if that file is "
            f"yours, give --pruned_id {strategy} as well"
        )


def _expect_own(run: Run, checkpoint: Checkpoint, settings: TrainSettings) -> None:
    """Refuse to go on in the folder of another run of the same name.

    settings: those that the checkpoint's run goes on with.
    """
    given = Path(checkpoint.path)
    known = run.weights.exists() and given.parent.samefile(run.weights)
    for path in (run.weights / name for name in CHECKPOINTS):
        if not path.exists() or path.samefile(given):
            continue
        try:
            other = read_checkpoint(path)
        except InputError:
            continue  # it is of use to nobody, and will be written anew
        if not _same_run(checkpoint, other, settings):
            raise InputError(
                f"resume={str(given)!r}: {path} is of another run of the name {run.name!r}; move "
                "it away, or train from this file's weights, with pretrained"
            )
        known = True
        if other.origin.epoch > checkpoint.origin.epoch:
            say(
                f"note: {path} has {other.origin.epoch} epochs, {given} has "
                f"{checkpoint.origin.epoch}: those after it are trained again"
            )
    if not known and run.holds_work and not _has_its_figures(run, checkpoint):
        raise InputError(
            f"resume={str(given)!r}: {run.folder} or {run.weights} is there already, and nothing "
            f"says that it is of this run {run.name!r}; move it away"
        )


def _same_run(one: Checkpoint, other: Checkpoint, settings: TrainSettings) -> bool:
    """Whether two checkpoints are of one run, which goes on with `settings`.

    Before 0.3.0 they had no identity; then of two runs with the same settings.
    """
    if one.origin.identity and other.origin.identity:
        return one.origin.identity == other.origin.identity
    if not other.training:
        return False
    stored = restore_settings(TrainSettings, other.settings)
    return _on_this_machine(stored, settings) == settings


def _has_its_figures(run: Run, checkpoint: Checkpoint) -> bool:
    """Whether metrics.csv has what the checkpoint says of its epochs."""
    history = history_of(checkpoint) or {}
    try:
        there = read_history(run.folder / CSV_NAME, max(history, default=0) + 1)
    except InputError:
        return False
    shared = {epoch: history[epoch] for epoch in there if epoch in history}
    return bool(shared) and history_text(shared) == history_text(there)


@dataclass(frozen=True)
class RunRecord:
    """What stays the same for all checkpoints that a process writes of a run.

    Attributes:
        run: whose weights folder takes the files.
        settings: of the run.
        names: of the classes.
        identity: other than that of any other run.
        photos: to train on, a number.
        validation_photos: to validate on, a number.
        epoch_steps: steps of the optimizer in an epoch.
    """

    run: Run
    settings: TrainSettings
    names: Sequence[str]
    identity: str
    photos: int
    validation_photos: int
    epoch_steps: int

    @staticmethod
    def of(
        run: Run,
        settings: TrainSettings,
        training: TrainingBatches,
        validation: ValidationBatches,
        checkpoint: Checkpoint | None,
    ) -> RunRecord:
        """The record of a run that begins, or goes on from a checkpoint."""
        state = checkpoint.training if checkpoint else None
        return RunRecord(
            run,
            settings,
            training.photos.names,
            (state.identity if state else "") or uuid4().hex,
            len(training.photos),
            len(validation.dataset),
            training.optimizer_steps,
        )


@contextlib.contextmanager
def stoppable(run: Run, settings: TrainSettings) -> Iterator[None]:
    """Where the work is stopped, say how it goes on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(*stop.args, how_to_resume(settings, run.weights)) from None


def save(
    record: RunRecord,
    trainer: Trainer,
    progress: Progress,
    pruning: Mapping[str, Any] | None,
    history: History,
    better: bool,
) -> None:
    """Write, where this epoch is the best so far, best.pt with Darknet's pair; then last.pt.

    Of processes that train together, the main one does.

    In this order: where the work is killed between them, the run goes on from the epoch before and
    writes them all again.

    Args:
        record: of the run.
        trainer: whose averaged network is the one to use.
        progress: the epochs done.
        pruning: the state of pruning while training, plain values and tensors.
        history: the figures of all epochs so far.
        better: whether this epoch is the best so far.
    """
    if not distributed.is_main():
        return
    netdef = trainer.model.netdef
    state = TrainingState(
        **asdict(progress),
        run=record.run.name,
        model=trainer.model.state_dict(),
        optimizer=trainer.optimizer.state_dict(),
        schedule=trainer.schedule.state_dict(),
        averaged=int(trainer.mean.n_averaged),
        pruning=None if pruning is None else dict(pruning),
        history=history_text(history),
        identity=record.identity,
        photos=record.photos,
        validation_photos=record.validation_photos,
        epoch_steps=record.epoch_steps,
        threads=torch.get_num_threads(),
        processes=distributed.world(),
        scaler=trainer.scaler.state_dict() or None,
    )
    folder, model = record.run.weights, trainer.averaged
    names, settings = record.names, record.settings
    if better:
        origin = _origin(state)
        save_with_pair(folder / "best", netdef, names, model, settings, origin)
    save_checkpoint(folder / "last.pt", netdef, names, model.state_dict(), settings, state)
    distributed.remember(SAVED, str(state.epoch))


def _origin(state: TrainingState) -> Origin:
    return Origin(state.run, state.identity, state.epoch, state.best)


def restore_(trainer: Trainer, checkpoint: Checkpoint | None, record: RunRecord) -> Progress:
    """Put a checkpoint's state into the trainer; how far it had come.

    Where the data set has grown or shrunk, the learning rate goes on at the same share of the
    training, so that it comes to its end with the last epoch. Where best.pt is not beside the run's
    other files, the network of the checkpoint stands in for it until an epoch is evaluated.

    Raises:
        InputError: it is not of this network and these settings.
    """
    if not checkpoint:
        return Progress()
    training = checkpoint.training
    assert training
    load_(trainer, checkpoint.model, training, checkpoint.path)
    processes = training.processes or 1
    if processes != distributed.world():
        photos = distributed.world() * record.settings.data.batch_size
        say(f"note: {_processes(distributed.world())}, {processes} before: {photos} photos a batch")
    if training.epoch_steps not in (0, record.epoch_steps):
        say(
            f"note: {record.photos} photos to train on, {training.photos} before: the learning "
            f"rate goes on where epoch {training.epoch + 1} of {record.settings.training.epochs} is"
        )
        set_step_(trainer.schedule, training.epoch * record.epoch_steps)
    elif training.photos not in (0, record.photos):
        say(f"note: {record.photos} photos to train on, {training.photos} before")
    if training.validation_photos not in (0, record.validation_photos):
        say(
            f"note: {record.validation_photos} photos to validate on, "
            f"{training.validation_photos} before: mAP before and from now on are of other photos"
        )
    progress = Progress(training.epoch, training.best, training.stale)
    if progress.best >= 0:
        distributed.on_main(lambda: _complete_best(record, trainer, checkpoint, progress))
    return distributed.from_main(lambda: progress)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _complete_best(
    record: RunRecord, trainer: Trainer, checkpoint: Checkpoint, progress: Progress
) -> None:
    """Make what is missing or damaged of best.pt and Darknet's pair.

    trainer: restored from the checkpoint, whose network stands in for a best.pt that is no more.
    """
    folder = record.run.weights
    path, training = folder / "best.pt", checkpoint.training
    assert training
    problem = "" if path.exists() else f"{folder} has no best.pt"
    if not problem:
        try:
            best = read_checkpoint(path)
        except InputError as error:
            problem = str(error)
    if problem:
        say(
            f"note: {problem}: the network after epoch {training.epoch} stands in for the best "
            "one, and the best of the epochs to come takes its place"
        )
        progress.forget_best()
        save_with_pair(
            folder / "best",
            checkpoint.netdef,
            record.names,
            trainer.averaged,
            record.settings,
            _origin(training),
        )
    elif not all((folder / f"best.{suffix}").exists() for suffix in DARKNET_SUFFIXES):
        model = Darknet(best.netdef)
        model.load_state_dict(best.model)
        write_pair(folder / "best", model, best.netdef, best.names)


def history_of(checkpoint: Checkpoint | None) -> History | None:
    """The figures of the epochs that a checkpoint has done; None where it does not hold them."""
    if not checkpoint or not checkpoint.training or not checkpoint.training.history:
        return None
    return parse_history(checkpoint.training.history, f"{checkpoint.path}: training.history")
