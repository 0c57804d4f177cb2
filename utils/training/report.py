"""What does a training tell: its figures epoch by epoch, example pictures, and its end?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from import_param import Monitoring, TrainSettings
from utils.checkpoint.network import reopen
from utils.console.progress import say
from utils.data.datasets import ValidationDataset
from utils.devices import choose_device
from utils.errors import only_warn
from utils.evaluation.metrics import Metrics, format_metrics
from utils.monitoring.history import History
from utils.monitoring.monitor import Monitor, NoMonitor
from utils.monitoring.server import Address
from utils.monitoring.tensorboard import expect_tensorboard
from utils.processes import distributed
from utils.run_page.live import LivePage, NoPage
from utils.structures import Detections, Image
from utils.training.batches import TrainingBatches, ValidationBatches
from utils.training.progress import Progress
from utils.training.runs import Run
from utils.visualization.draw import draw_boxes, draw_detections, grid, write_image
from utils.visualization.label_plots import plot_labels

EXAMPLES = 8  # validation photos that are shown with their detections
LOWEST_SCORE = 0.25  # of a detection that is drawn
COLUMNS = 4  # of pictures beside each other


def check_monitor(settings: Monitoring) -> None:
    """Refuse an address that is none, or a missing package, before any work."""
    if settings.monitor == "visdom":
        Address.parse(settings.visdom_url)
    elif settings.monitor == "tensorboard":
        expect_tensorboard()


def open_monitor(
    run: Run, settings: TrainSettings, progress: Progress, history: History | None
) -> Monitor:
    """The record of the run; that of a run that goes on keeps the rows of the epochs done.

    history: those rows, as the checkpoint has them; None for those in metrics.csv.
    """
    if not distributed.is_main():
        return NoMonitor()
    return Monitor(
        run.folder,
        visdom=settings.monitoring.visdom_url if settings.monitoring.monitor == "visdom" else "",
        name=run.name,
        resume_before=progress.epoch + 1 if settings.training.resume else None,
        keep=settings.monitoring.keep_visdom,
        history=history,
        tensorboard=settings.monitoring.monitor == "tensorboard",
    )


def open_page(
    run: Run, settings: TrainSettings, training: TrainingBatches, validation: ValidationBatches
) -> LivePage:
    """The page of the run, runs/<name>/index.html."""
    if not distributed.is_main():
        return NoPage()
    return LivePage(
        run.folder,
        run.weights,
        training.photos,
        validation.dataset,
        settings.evaluation,
        goes_on=bool(settings.training.resume),
        device=choose_device(settings.model.device),
    )


def training_figures(means: Mapping[str, float]) -> dict[str, float]:
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


def validation_figures(metrics: Metrics, names: Sequence[str]) -> dict[str, float]:
    """The figures of an evaluation, by plot and curve."""
    figures = {
        "metrics/precision": metrics.mean_precision,
        "metrics/recall": metrics.mean_recall,
        "mAP/mAP@.5": metrics.mean_ap,
        "mAP/mAP@.5:.95": metrics.mean_ap_50_95,
    }
    return figures | {f"AP/{name}": float(ap) for name, ap in zip(names, metrics.ap, strict=True)}


def write_overview(training: TrainingBatches, validation: ValidationBatches, folder: Path) -> None:
    """Draw what is labelled, and the first photos as the network will see them."""
    splits = [("train", training.photos), ("valid", validation.dataset.photos)]
    with only_warn():
        plot_labels(splits, folder / "labels.png")
    with only_warn():
        _write_augmented_batch(training, folder / "augmented_batch.jpg")


def _write_augmented_batch(training: TrainingBatches, path: Path) -> None:
    dataset, names = training.dataset, training.photos.names
    count = min(training.settings.data.photos_at_once, len(dataset))
    samples = [dataset[0, index] for index in range(count)]
    pictures = [draw_boxes(s.image, s.boxes, s.labels, names) for s in samples]
    write_image(path, grid(pictures, columns=COLUMNS))


def show_examples(
    monitor: Monitor,
    epoch: int,
    validation: ValidationBatches,
    detections: Sequence[Detections] | None,
) -> None:
    """Show example pictures where somebody may watch and the epoch was evaluated."""
    if monitor.page and detections is not None:
        names = validation.dataset.photos.names
        pictures = _example_pictures(validation.dataset, detections, names)
        monitor.images(epoch, "validation", pictures)


def _example_pictures(
    validation: ValidationDataset, detections: Sequence[Detections], names: Sequence[str]
) -> list[Image]:
    """Some validation photos, spread over all, with the detections on them."""
    step = max(1, len(validation) // EXAMPLES)
    indices = range(0, min(len(validation), step * EXAMPLES), step)
    return [
        draw_detections(validation.photos.image(i), _confident(detections[i]), names)
        for i in indices
    ]


def _confident(detections: Detections) -> Detections:
    keep = detections.scores >= LOWEST_SCORE
    return Detections(detections.boxes[keep], detections.scores[keep], detections.labels[keep])


def report_best(
    run: Run, settings: TrainSettings, validation: ValidationBatches, page: LivePage
) -> None:
    """Evaluate the best network once more, as saved, and draw what it does."""
    best = run.weights / "best.pt"
    network = reopen(best, settings.model.device)
    metrics, detections = validation.evaluate(network.model)
    page.show_best(metrics, detections)
    with only_warn():
        pictures = _example_pictures(validation.dataset, detections, network.names)
        write_image(run.folder / "examples.jpg", grid(pictures, columns=COLUMNS))
    say(f"the best epoch, {best}:\n{format_metrics(metrics, network.names)}")
    say(f"pictures are in {run.folder}, beside index.html, which shows them all")
