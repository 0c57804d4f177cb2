"""Train a network: `python train.py`, with the settings of import_param.py."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from terminaltables import AsciiTable

from import_param import TrainedNetwork, TrainSettings
from models import netdef as cfg_files
from models.costs import count_operations, count_parameters
from models.darknet import Darknet, stride
from models.distillation import DistillationLoss, check_teacher
from models.netdef import NetDef
from models.weights import fill_
from pruning.iterative.schedule import Gradual, check_cut_epochs, cut_trainer, last_cut
from pruning.iterative.targets import Aim, Gone, ShareAim, TimeAim
from pruning.latency.meter import open_meter
from pruning.latency.search import LatencyTarget
from pruning.plots import plot_bearing, plot_scales
from pruning.sparsity import Sparsity, equalise_, near_zero
from pruning.strategies import LATENCY
from pruning.sweep import bearing, bearing_line, bearing_table
from utils import errors
from utils.checkpoint import (
    Checkpoint,
    check_for_photos,
    check_size,
    choose_device,
    load_network,
    read_checkpoint,
    read_pretrained,
    save_checkpoint,
    untrained_heads,
    write_pair,
)
from utils.data.anchors import fit_anchors, mean_best_iou, reachable_recall
from utils.data.augment import multi_scale
from utils.data.datasets import (
    DetectionDataset,
    EpochSampler,
    ValidationDataset,
    training_loader,
    validation_loader,
)
from utils.data.photos import PhotoSet
from utils.data.splits import open_splits
from utils.errors import InputError
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import Metrics, format_metrics
from utils.files import write_text
from utils.monitoring.history import CSV_NAME, read_history
from utils.monitoring.monitor import Monitor
from utils.settings import given, load
from utils.settings import restore as restore_settings
from utils.settings import save as save_settings
from utils.structures import Batch, Detections, Image
from utils.training.loop import Trainer, freeze_, plain_trainer, train_one_epoch
from utils.training.lr_schedule import scale_lr
from utils.training.runs import Run, new_run
from utils.visualization.draw import draw_boxes, draw_detections, grid, write_image
from utils.visualization.metrics_plots import plot_confusion, plot_precision_recall

EXAMPLES = 8  # validation photos that are shown with their detections
MULTI_SCALE = 1  # makes a batch's generator another one than that of the photo with its index
SHOWN_SCORE = 0.25  # lowest score of a detection that is drawn


@dataclass
class Progress:
    """How far a training has come. epoch: epochs done. best: the highest mAP@.5 so far, and
    stale: evaluations since then."""

    epoch: int = 0
    best: float = -1.0
    stale: int = 0

    def judge(self, metrics: Metrics, shrinking: bool) -> bool:
        """Take note of an evaluation; whether it is the best so far. While a network is drawn to
        zero, the last state is: earlier ones are better only because less of them is gone."""
        better = shrinking or metrics.mean_ap > self.best
        self.best = metrics.mean_ap if better else self.best
        self.stale = 0 if better else self.stale + 1
        return better


def main(argv: list[str] | None = None) -> None:
    p, checkpoint = resumed(load(TrainSettings, argv), given(argv))
    device = choose_device(p.model.device)
    torch.manual_seed(p.training.seed)

    train_photos, valid_photos = open_splits(p.data)
    names = train_photos.names
    model = build_network(p, train_photos, checkpoint)
    netdef = model.netdef
    freeze_(model, p.training.freeze)
    if p.sparsity.is_pruned and not checkpoint:
        make_pull(p, model, steps=1)  # refuses what cannot be drawn before a file is written
    teacher = load_teacher(p, netdef)
    gradual = make_gradual(p, netdef, checkpoint)
    run = open_run(p, checkpoint)
    print(f"{run.name}: {describe(model)}, on {device}; see {run.folder}, {run.weights}")

    training = DetectionDataset(
        train_photos,
        netdef.size,
        netdef.letterbox,
        p.augmentation,
        p.training,
    )
    sampler = EpochSampler(len(training), p.training.seed)
    loader = training_loader(training, sampler, p.data)
    validation = ValidationDataset(valid_photos, netdef.size, netdef.letterbox)
    valid_loader = validation_loader(validation, p.data)

    def make(model: Darknet) -> Trainer:
        pulled = p.sparsity.is_pruned and not (gradual and gradual.met)
        return make_trainer(p, model, teacher, len(loader), run.folder, pulled)

    trainer = make(model.to(device))
    progress = restore(trainer, checkpoint)

    write_image(run.folder / "augmented_batch.jpg", augmented_batch(training, p.data.batch_size))
    with Monitor(
        run.folder,
        visdom=p.monitoring.visdom_url if p.monitoring.visdom else "",
        name=run.name,
        resume_before=progress.epoch + 1 if checkpoint else None,
        keep=p.monitoring.keep_visdom,
    ) as monitor:
        for epoch in range(progress.epoch, p.training.epochs):
            sampler.set_epoch(epoch)
            torch.manual_seed(p.training.seed + epoch)  # dropout, the same after a resume
            batches = sized(loader, p.training.multi_scale, p.training.seed, epoch, stride(netdef))
            title = f"epoch {epoch + 1}/{p.training.epochs}"
            figures = training_figures(train_one_epoch(trainer, batches, len(loader), title))
            progress.epoch, better = epoch + 1, False
            if trainer.penalty:
                trainer.penalty.settle_(trainer.averaged)
                figures |= trainer.penalty.figures()
            if gradual and trainer.penalty:
                trainer = cut_when_due(gradual, trainer, progress, make)
            if progress.epoch % p.training.eval_every == 0 or progress.epoch == p.training.epochs:
                metrics, found = measure(p, trainer.averaged, valid_loader, validation)
                better = progress.judge(metrics, shrinking=trainer.penalty is not None)
                figures |= validation_figures(metrics, names)
                if monitor.address:
                    pictures = examples(validation, found, names)
                    monitor.images(progress.epoch, "validation", pictures)
                print(f"{title}\n{figures_table(figures)}\n{format_metrics(metrics, names)}")
            monitor.log(progress.epoch, figures)
            save(run, p, names, trainer, progress, gradual, better)
            if p.training.patience and progress.stale >= p.training.patience:
                print(f"stopped: no better mAP in {progress.stale} evaluations")
                break
    finish(run, p, validation, valid_loader)
    if p.sparsity.is_pruned:
        show_scales(run)
    if gradual and isinstance(gradual.aim, TimeAim):
        show_time(run, gradual.aim)
    if p.sparsity.is_pruned and not gradual:
        calibration = ValidationDataset(train_photos, netdef.size, netdef.letterbox)
        unchanged = validation_loader(calibration, p.data)
        show_bearing(run, p, validation, valid_loader, unchanged)


def resumed(p: TrainSettings, flags: Set[str]) -> tuple[TrainSettings, Checkpoint | None]:
    """With `resume`, the settings of that run and its checkpoint.

    What belongs to the machine and not to the run is taken from today's settings.
    """
    if not p.training.resume:
        return p, None
    checkpoint = read_checkpoint(p.training.resume)
    if "optimizer" not in checkpoint.training:
        raise InputError(
            f"resume={p.training.resume!r}: expected a last.pt or best.pt of a training"
        )
    old = restore_settings(TrainSettings, checkpoint.settings)
    used = dataclasses.replace(
        old,
        model=dataclasses.replace(old.model, device=p.model.device),
        data=dataclasses.replace(old.data, workers=p.data.workers, cache_mb=p.data.cache_mb),
        training=dataclasses.replace(old.training, resume=p.training.resume),
        pruning=dataclasses.replace(
            old.pruning, latency_table=p.pruning.latency_table or old.pruning.latency_table
        ),
        monitoring=p.monitoring,
    )
    expect_no_other(p, used, flags)
    print(
        f"resume {p.training.resume} after epoch {checkpoint.training['epoch']}, its settings used"
    )
    return used, checkpoint


def expect_no_other(p: TrainSettings, used: TrainSettings, flags: Set[str]) -> None:
    """Raise InputError where a flag asks for what a run that goes on does not use."""
    asked, found = (dataclasses.asdict(s) for s in (p, used))
    for group, values in asked.items():
        for name, value in values.items():
            if name in flags and value != found[group][name]:
                raise InputError(
                    f"{name}={value!r}: a run that goes on keeps its own settings, such as "
                    f"{name}={found[group][name]!r}; to train {p.training.resume} with others, give "
                    "it as weights, with pretrained"
                )


def open_run(p: TrainSettings, checkpoint: Checkpoint | None) -> Run:
    """The folders of this run: new ones, or with `resume` those of the run that goes on."""
    if checkpoint:
        return Run(checkpoint.training["run"])
    run = new_run(p.training.name, f"{Path(p.model.cfg).stem}-{Path(p.data.data).stem}")
    save_settings(p, run.folder / "settings.json")
    return run


def build_network(p: TrainSettings, photos: PhotoSet, checkpoint: Checkpoint | None) -> Darknet:
    """The network to train: from the checkpoint that is resumed, from `weights`, or at random."""
    if checkpoint:
        netdef = checkpoint.netdef
        return Darknet(netdef)
    netdef = cfg_files.load(p.model.cfg)
    for note in netdef.notes:
        print(f"note: {note}")
    check_for_photos(netdef)
    state: dict[str, torch.Tensor] = {}
    if p.model.pretrained:
        state, netdef = read_pretrained(p.model.weights, netdef)
    elif p.model.weights:
        print(f"note: {p.model.weights} is not read, since pretrained=False")
    netdef = netdef.with_classes(len(photos.names))
    if p.model.letterbox != "auto":
        netdef = netdef.with_net_options(letter_box=int(p.model.letterbox == "yes"))
    if p.model.img_size:
        netdef = netdef.with_net_options(width=p.model.img_size, height=p.model.img_size)
    check_size(netdef, netdef.size)
    untrained = untrained_heads(netdef, state)
    if untrained:
        netdef = with_new_heads(p, netdef, photos)
    model = Darknet(netdef)
    model.init_heads_(untrained)
    if p.model.pretrained:
        filled = fill_(model, state)
        if not filled.layers:
            raise InputError(f"{p.model.weights}: expected weights of {p.model.cfg}: {filled}")
        print(f"{p.model.weights}: {filled}")
    if p.sparsity.is_pruned:
        equalise_(model)
    return model


def with_new_heads(p: TrainSettings, netdef: NetDef, photos: PhotoSet) -> NetDef:
    """Heads whose anchors and reach are chosen anew, since no weights depend on the old ones."""
    if p.model.scale_x_y:
        netdef = netdef.with_head_options(scale_x_y=f"{p.model.scale_x_y:g}")
    sizes = photos.object_sizes(netdef.size, netdef.letterbox)
    ratio = p.loss.anchor_ratio
    before = [
        pair for index in netdef.heads for pair in cfg_files.head_anchors(netdef.layers[index])
    ]
    report = (
        f"anchors: {reachable_recall(sizes, np.array(before), ratio):.4f} of the objects within "
    )
    report += (
        f"{ratio:g} times an anchor, mean best IoU {mean_best_iou(sizes, np.array(before)):.3f}"
    )
    if p.model.fit_anchors:
        anchors = fit_anchors(sizes, len(netdef.anchors_used), p.training.seed)
        rounded = anchors.round(1).clip(min=0.1).tolist()
        netdef = netdef.with_anchors([(w, h) for w, h in rounded])
        report += (
            f"; after fitting {reachable_recall(sizes, anchors, ratio):.4f}, "
            f"{mean_best_iou(sizes, anchors):.3f}"
        )
    print(report)
    return netdef


def load_teacher(p: TrainSettings, netdef: NetDef) -> Darknet | None:
    if not p.distillation.teacher:
        return None
    network = load_network(
        TrainedNetwork(
            cfg=p.distillation.teacher_cfg, weights=p.distillation.teacher, device=p.model.device
        )
    )
    check_teacher(network.model.netdef, netdef, p.distillation.teacher)
    print(f"teacher {p.distillation.teacher}: {describe(network.model)}")
    if (network.size, network.letterbox) != (netdef.size, netdef.letterbox):
        print(
            "note: the teacher sees photos as the network does, not as it was trained: of "
            f"{netdef.size[0]}x{netdef.size[1]}, letterbox={netdef.letterbox}"
        )
    return network.model


def make_gradual(p: TrainSettings, netdef: NetDef, checkpoint: Checkpoint | None) -> Gradual | None:
    """The cuts on the way, as far as they have come; None where there are to be none."""
    if not p.sparsity.prune_while_training:
        refuse_times(p, "prune_while_training=True, or latency_prune.py after the training")
        return None
    if p.training.freeze:
        raise InputError(f"freeze={p.training.freeze}: expected 0 with prune_while_training=True")
    check_cut_epochs(p.sparsity.cut_epochs, p.training.epochs)
    state = checkpoint.training["gradual"] if checkpoint else None
    whole = cfg_files.parse(state["cfg"], netdef.net.path) if state else netdef
    aim = make_aim(p, whole, state["aim"] if state else None)
    gradual = Gradual(aim, p.training.epochs, p.sparsity.cut_epochs, Gone.nothing(whole))
    if state:
        gradual.load_state(state)
    return gradual


def make_aim(p: TrainSettings, whole: NetDef, state: dict[str, Any] | None) -> Aim[Any]:
    """What the network is to come to: a time, or a share of the whole one."""
    if p.pruning.strategy != LATENCY:
        refuse_times(p, "pruned_id=latency")
        return ShareAim(p.pruning.strategy, p.pruning)
    goal = LatencyTarget(p.pruning.target_ms, p.pruning.target_speedup)
    meter = open_meter(Darknet(whole).eval(), whole.size, p.runtime)
    path = Path(p.pruning.latency_table or meter.table_path)
    return TimeAim.of(whole, goal, p.pruning, meter, path, print, state)


def refuse_times(p: TrainSettings, wanted: str) -> None:
    for name in ("target_ms", "target_speedup"):
        if value := getattr(p.pruning, name):
            raise InputError(f"{name}={value:g}: expected 0, or {wanted}")


def cut_when_due(
    gradual: Gradual,
    trainer: Trainer,
    progress: Progress,
    make: Callable[[Darknet], Trainer],
) -> Trainer:
    """The training of what is left, where the end of this epoch is a time to cut."""
    assert trainer.penalty
    plan = gradual.plan(progress.epoch, trainer.averaged, trainer.penalty.dead)
    if plan is None:
        return trainer
    trainer = cut_trainer(trainer, plan, make)
    progress.best = -1.0  # earlier networks were larger: another race
    gone = gradual.aim.line(gradual.gone, gradual.met)
    print(f"cut after epoch {progress.epoch}: {gone}; left are {describe(trainer.model)}")
    return trainer


def describe(model: Darknet) -> str:
    width, height = model.netdef.size
    return (
        f"{count_parameters(model) / 1e6:.3f} M parameters, "
        f"{count_operations(model.netdef) / 1e9:.3f} G operations at {width}x{height}"
    )


def make_trainer(
    p: TrainSettings,
    model: Darknet,
    teacher: Darknet | None,
    steps: int,
    folder: Path,
    pulled: bool,
) -> Trainer:
    """What trains a network, from its first step. steps: batches an epoch. pulled: whether scales
    are drawn to zero."""
    epoch_steps = -(-steps // p.training.accumulate)
    trainer = plain_trainer(
        model,
        epoch_steps,
        folder,
        p.training,
        p.loss,
        lr_of_scales(p, epoch_steps) if p.sparsity.is_pruned else 0.0,
    )
    return dataclasses.replace(
        trainer,
        penalty=make_pull(p, trainer.model, epoch_steps * p.training.epochs) if pulled else None,
        distillation=DistillationLoss(teacher, trainer.loss, p.distillation) if teacher else None,
    )


def lr_of_scales(p: TrainSettings, epoch_steps: int) -> float:
    shrinking = p.training.epochs
    if p.sparsity.prune_while_training:
        shrinking = last_cut(p.training.epochs, p.sparsity.cut_epochs)
    return scale_lr(p.training, epoch_steps, epoch_steps * shrinking)


def make_pull(p: TrainSettings, model: Darknet, steps: int) -> Sparsity:
    return Sparsity.of(
        model,
        p.pruning.strategy,
        p.sparsity.sparse_rate,
        steps,
        p.sparsity.sparse_decay,
        p.sparsity.sparse_step == "proximal",
        p.sparsity.sparse_by,
    )


def save(
    run: Run,
    p: TrainSettings,
    names: tuple[str, ...],
    trainer: Trainer,
    progress: Progress,
    gradual: Gradual | None,
    better: bool,
) -> None:
    """Write last.pt, and where this epoch is better than all before best.pt and Darknet's pair."""
    mean, netdef = trainer.averaged, trainer.model.netdef
    training = {
        **dataclasses.asdict(progress),
        "run": run.name,
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "averaged": int(trainer.mean.n_averaged),
        "gradual": gradual.state() if gradual else None,
    }
    paths = [run.weights / "last.pt"]
    if better:
        paths.append(run.weights / "best.pt")
        write_pair(run.weights / "best", mean, netdef, names)
    for path in paths:
        save_checkpoint(path, netdef, names, mean.state_dict(), p, training)


def restore(trainer: Trainer, checkpoint: Checkpoint | None) -> Progress:
    """Put a checkpoint's state into the trainer; how far it had come."""
    if not checkpoint:
        return Progress()
    training = checkpoint.training
    trainer.model.load_state_dict(training["model"])
    trainer.averaged.load_state_dict(checkpoint.model)
    trainer.mean.n_averaged.fill_(training["averaged"])
    trainer.optimizer.load_state_dict(training["optimizer"])
    trainer.schedule.load_state_dict(training["schedule"])
    return Progress(training["epoch"], training["best"], training["stale"])


def sized(
    batches: Iterable[Batch], spread: float, seed: int, epoch: int, multiple: int
) -> Iterator[Batch]:
    """Batches at changing sizes, the same ones after a resume."""
    for index, batch in enumerate(batches):
        rng = np.random.default_rng((seed, epoch, index, MULTI_SCALE))
        yield multi_scale(batch, spread, rng, multiple) if spread else batch


def measure(
    p: TrainSettings, model: Darknet, loader: Iterable[Batch], validation: ValidationDataset
) -> tuple[Metrics, list[Detections]]:
    return evaluate(
        model,
        loader,
        validation.targets,
        p.evaluation,
        p.nms,
        letterbox=validation.letterbox,
    )


def training_figures(means: dict[str, float]) -> dict[str, float]:
    """The figures of a training epoch, by plot and curve."""
    return {
        "loss/box": means["box"],
        "loss/objectness": means["objectness"],
        "loss/classes": means["classes"],
        **({"loss/teacher": means["teacher"]} if means["teacher"] else {}),
        "training/precision": means["precision"],
        "training/recall": means["recall"],
        "lr/lr": means["lr"],
        "speed/images_per_second": means["images_per_second"],
    }


def validation_figures(metrics: Metrics, names: tuple[str, ...]) -> dict[str, float]:
    figures = {
        "metrics/precision": metrics.mean_precision,
        "metrics/recall": metrics.mean_recall,
        "mAP/mAP@.5": metrics.mean_ap,
        "mAP/mAP@.5:.95": metrics.mean_ap_50_95,
    }
    return figures | {f"AP/{name}": float(ap) for name, ap in zip(names, metrics.ap, strict=True)}


def figures_table(figures: dict[str, float]) -> str:
    long = ("AP/", "scales/")
    shown = {name: value for name, value in figures.items() if not name.startswith(long)}
    return AsciiTable([list(shown), [f"{value:.4g}" for value in shown.values()]]).table


def augmented_batch(training: DetectionDataset, batch_size: int) -> Image:
    """The first photos as the network will see them, with their boxes."""
    samples = [training[0, index] for index in range(min(batch_size, len(training)))]
    names = training.photos.names
    drawn = [draw_boxes(s.image, s.boxes, s.labels, names) for s in samples]
    return grid(drawn, columns=4)


def examples(
    validation: ValidationDataset, found: list[Detections], names: tuple[str, ...]
) -> list[Image]:
    """Some validation photos with what was found on them."""
    step = max(1, len(validation) // EXAMPLES)
    indices = range(0, min(len(validation), step * EXAMPLES), step)
    return [
        draw_detections(validation.photos.image(i), confident(found[i]), names) for i in indices
    ]


def confident(detections: Detections) -> Detections:
    keep = detections.scores >= SHOWN_SCORE
    return Detections(detections.boxes[keep], detections.scores[keep], detections.labels[keep])


def finish(
    run: Run, p: TrainSettings, validation: ValidationDataset, loader: Iterable[Batch]
) -> None:
    """Measure the best network once more, as saved, and draw what it does."""
    network = load_network(
        TrainedNetwork(weights=str(run.weights / "best.pt"), device=p.model.device)
    )
    metrics, found = measure(p, network.model, loader, validation)
    plot_precision_recall(metrics, network.names, run.folder / "precision_recall.png")
    plot_confusion(metrics, network.names, run.folder / "confusion.png")
    pictures = examples(validation, found, network.names)
    write_image(run.folder / "examples.jpg", grid(pictures, columns=4))
    print(f"the best epoch, {run.weights / 'best.pt'}:\n{format_metrics(metrics, network.names)}")
    print(f"pictures are in {run.folder}")


def show_scales(run: Run) -> None:
    """Draw how the scales came to zero."""
    network = load_network(TrainedNetwork(weights=str(run.weights / "best.pt"), device="cpu"))
    dead = near_zero(network.model)
    plot_scales(read_history(run.folder / CSV_NAME), dead, run.folder / "scales.png")


def show_time(run: Run, aim: TimeAim) -> None:
    """Say what the network takes that came of the cuts, beside the one before them."""
    network = load_network(TrainedNetwork(weights=str(run.weights / "best.pt"), device="cpu"))
    cuts = [f"cut {n}: {timing.line()}" for n, timing in enumerate(aim.timings, 1)]
    last = aim.measure(network.model)
    text = "\n".join([*cuts, f"at the end: {last.outcome()}"])
    write_text(run.folder / "latency.txt", text + "\n")
    print(text)


def show_bearing(
    run: Run,
    p: TrainSettings,
    validation: ValidationDataset,
    loader: Iterable[Batch],
    calibration: Iterable[Batch],
) -> None:
    """Say how much of the sparse network could be cut."""
    network = load_network(
        TrainedNetwork(weights=str(run.weights / "best.pt"), device=p.model.device)
    )
    # A time is no share of a network; slim cuts the same channels by shares.
    strategy = "slim" if p.pruning.strategy == LATENCY else p.pruning.strategy
    points = bearing(
        network.model,
        strategy,
        p.pruning,
        lambda model: measure(p, model, loader, validation)[0].mean_ap,
        calibration,
    )
    plot_bearing(points, strategy, run.folder / "percent.png")
    text = (
        f"{bearing_table(points)}\nmAP on the validation photos after a cut by {strategy} of "
        f"that share of {p.pruning.percent_of}, without and with new BN statistics, not fine-tuned.\n"
        f"{bearing_line(points)}"
    )
    write_text(run.folder / "percent.txt", text + "\n")
    print(text)


if __name__ == "__main__":
    sys.exit(errors.run(main))
