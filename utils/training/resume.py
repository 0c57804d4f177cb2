"""What is saved of a training after each epoch, and how does it go on from there?

A run that was interrupted ends as if it had not been: the same figures, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, replace
from typing import Any

from import_param import TrainSettings
from utils.checkpoint import (
    Checkpoint,
    TrainingState,
    read_checkpoint,
    save_checkpoint,
    write_pair,
)
from utils.errors import InputError
from utils.settings import restore as restore_settings
from utils.training.fit import load_
from utils.training.loop import Trainer
from utils.training.progress import Progress
from utils.training.runs import Run


def resume(settings: TrainSettings, flags: Set[str]) -> tuple[TrainSettings, Checkpoint | None]:
    """With `resume`, the settings of the run that goes on and its checkpoint; else None.

    Args:
        settings: of today.
        flags: the names of the settings that flags gave, see `utils.settings.given`.

    Raises:
        InputError: the file is no checkpoint of a training, or a flag asks for what a run that goes
            on does not use.
    """
    path = settings.training.resume
    if not path:
        return settings, None
    checkpoint = read_checkpoint(path)
    if not checkpoint.training:
        raise InputError(f"resume={path!r}: expected a last.pt or best.pt of a training")
    stored = restore_settings(TrainSettings, checkpoint.settings)
    used = _on_this_machine(stored, settings)
    _expect_used(settings, used, flags)
    print(f"resume {path} after epoch {checkpoint.training.epoch}, its settings used")
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


def save(
    run: Run,
    settings: TrainSettings,
    names: Sequence[str],
    trainer: Trainer,
    progress: Progress,
    pruning: Mapping[str, Any] | None,
    better: bool,
) -> None:
    """Write last.pt, and where this epoch is the best so far best.pt and Darknet's pair.

    Args:
        run: whose weights folder takes the files.
        settings: of the run.
        names: of the classes.
        trainer: whose averaged network is the one to use.
        progress: the epochs done.
        pruning: the state of pruning while training, plain values and tensors.
        better: whether this epoch is the best so far.
    """
    netdef = trainer.model.netdef
    training = TrainingState(
        **asdict(progress),
        run=run.name,
        model=trainer.model.state_dict(),
        optimizer=trainer.optimizer.state_dict(),
        schedule=trainer.schedule.state_dict(),
        averaged=int(trainer.mean.n_averaged),
        pruning=None if pruning is None else dict(pruning),
    )
    paths = [run.weights / "last.pt"]
    if better:
        paths.append(run.weights / "best.pt")
        write_pair(run.weights / "best", trainer.averaged, netdef, names)
    for path in paths:
        save_checkpoint(path, netdef, names, trainer.averaged.state_dict(), settings, training)


def restore_(trainer: Trainer, checkpoint: Checkpoint | None) -> Progress:
    """Put a checkpoint's state into the trainer; how far it had come.

    Raises:
        InputError: it is not of this network and these settings.
    """
    if not checkpoint:
        return Progress()
    training = checkpoint.training
    assert training
    load_(trainer, checkpoint.model, training, checkpoint.path)
    return Progress(training.epoch, training.best, training.stale)
