"""The page of a run while it trains, and its pictures of what the network sees."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch

from import_param import Evaluation
from utils.data.datasets import ValidationDataset
from utils.data.photos import PhotoSet
from utils.errors import only_warn
from utils.evaluation.metrics import Metrics
from utils.run_page.folder import record_start
from utils.run_page.page import write_page
from utils.run_page.photos import write_photos
from utils.structures import Detections
from utils.visualization.metrics_plots import plot_confusion, plot_precision_recall

PICTURE_SHARE = 0.05  # of a training's time at most goes into its pictures


class LivePage:
    """Keeps `index.html` of a run up to date; in a `with`, also where that ends early.

    What cannot be written only warns: no training ends for its page.

    Args:
        folder: runs/<name>.
        weights: weights/<name>.
        training: the photos to train on.
        validation: those that networks are evaluated on.
        evaluation: how their detections are matched.
        goes_on: whether the run goes on from a checkpoint.
        device: that trains.
    """

    def __init__(
        self,
        folder: Path,
        weights: Path,
        training: PhotoSet,
        validation: ValidationDataset,
        evaluation: Evaluation,
        goes_on: bool,
        device: torch.device,
    ) -> None:
        self.folder, self.weights = folder, weights
        self.validation, self.evaluation = validation, evaluation
        self._pictures_after = 0.0  # on the clock of time.monotonic
        photos = {"training": training, "validation": validation.photos}
        data = {f"photos for {name}": photo_set.describe() for name, photo_set in photos.items()}
        with only_warn():
            record_start(folder, goes_on, data, device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def update(
        self, epoch: float, metrics: Metrics | None, detections: Sequence[Detections] | None
    ) -> None:
        """Show an epoch that is done; its pictures where it was evaluated and it is time for new.

        Args:
            epoch: how many are done.
            metrics: None where it was not evaluated.
            detections: of each validation photo.
        """
        if metrics and detections is not None and time.monotonic() >= self._pictures_after:
            started = time.monotonic()
            self._draw(metrics, detections, epoch)
            now = time.monotonic()
            self._pictures_after = now + (now - started) / PICTURE_SHARE
        self.write(trains=True)

    def show_best(self, metrics: Metrics, detections: Sequence[Detections]) -> None:
        """Draw what the best network detects, in place of the pictures of epochs."""
        self._draw(metrics, detections, None)

    def write(self, trains: bool = False) -> None:
        """Write the page. trains: more is to come."""
        with only_warn():
            write_page(self.folder, self.weights, trains)

    def _draw(
        self, metrics: Metrics, detections: Sequence[Detections], epoch: float | None
    ) -> None:
        names = self.validation.photos.names
        with only_warn():
            plot_precision_recall(metrics, names, self.folder / "precision_recall.png")
        with only_warn():
            plot_confusion(metrics, names, self.folder / "confusion.png")
        with only_warn():
            write_photos(self.folder, self.validation, detections, metrics, self.evaluation, epoch)


class NoPage(LivePage):
    """What processes have that only take part in a run: the main one writes its page."""

    def __init__(self) -> None:
        pass

    def update(
        self, epoch: float, metrics: Metrics | None, detections: Sequence[Detections] | None
    ) -> None:
        """Nothing."""

    def write(self, trains: bool = False) -> None:
        """Nothing."""
