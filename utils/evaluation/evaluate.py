"""From images to detections, one batch or a whole data set, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from import_param import Evaluation, Nms
from models.head import Head, decode, expect_finite
from utils.boxes import InputTransform, clip
from utils.console.progress import track
from utils.evaluation.metrics import Metrics, compute_metrics
from utils.evaluation.nms import non_maximum_suppression
from utils.structures import Batch, Detections, Targets

Run = Callable[[Tensor], list[Tensor]]  # images [B, 3, H, W] → the raw map of each head


class HeadedNetwork(Protocol):
    """A network of ours, or an exported file."""

    @property
    def heads(self) -> Sequence[Head]:
        """What decodes its maps."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its images are to be."""
        ...


@torch.inference_mode()
def predict(
    model: HeadedNetwork,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    nms: Nms,
    *,
    letterbox: bool,
    run: Run | None = None,
    on_network_done: Callable[[], None] = lambda: None,
) -> list[Detections]:
    """Detect on a batch.

    Args:
        model: the network, whose heads decode its maps.
        images: float32 [B, 3, H, W], 0 to 1, as `utils.boxes.network_input` makes them.
        sizes: the B original photos' (width, height) in pixels.
        nms: the thresholds, and how many boxes a photo may have.
        letterbox: whether the photos were fitted with their aspect kept.
        run: what computes the network's maps, such as an engine of `utils.backends`, or gives the
            Detections of each image, as a file with NMS in it does; None for the model itself.
        on_network_done: called between the network and NMS, by which callers time the two.

    Returns:
        B Detections, boxes in pixels of the original photos and cut to them.

    Raises:
        InputError: the network computes something that is not finite.
    """
    net = (images.shape[-1], images.shape[-2])
    run = run or cast(Run, model)
    outputs = run(images.contiguous(memory_format=torch.channels_last))
    on_network_done()
    detections = [_best(each, nms) for each in outputs if isinstance(each, Detections)]
    if not detections:
        predictions = decode(outputs, model.heads, net)
        expect_finite(outputs, "this network")  # waits for a card, so after all that it can do
        detections = non_maximum_suppression(
            predictions,
            nms,
            model.heads[-1].nms_power,  # Darknet, too, asks the last head
        )
    return [
        _on_photo(photo_detections, InputTransform.of(size, net, letterbox), size)
        for photo_detections, size in zip(detections, sizes, strict=True)
    ]


def _best(detections: Detections, nms: Nms) -> Detections:
    """Those, best first, that stricter thresholds leave of what a network's own NMS has left."""
    kept = (detections.scores > nms.conf_thres).nonzero().squeeze(1)
    kept = kept[: nms.max_detections or None]
    return Detections(detections.boxes[kept], detections.scores[kept], detections.labels[kept])


def _on_photo(
    detections: Detections, transform: InputTransform, size: tuple[int, int]
) -> Detections:
    boxes = clip(transform.to_photo(detections.boxes), size)
    return Detections(boxes, detections.scores, detections.labels)


def detect_all(
    model: HeadedNetwork,
    loader: Iterable[Batch],
    nms: Nms,
    *,
    letterbox: bool,
    run: Run | None = None,
    title: str = "measuring mAP",
) -> list[Detections]:
    """Detect on every photo of a loader, in its order, with a progress bar."""
    detections: list[Detections] = []
    for batch in track(loader, title):
        images = batch.for_network(model.device, torch.channels_last).images
        detections += predict(model, images, batch.sizes, nms, letterbox=letterbox, run=run)
    return detections


def evaluate(
    model: HeadedNetwork,
    loader: Iterable[Batch],
    targets: Sequence[Targets],
    evaluation: Evaluation,
    nms: Nms,
    *,
    letterbox: bool,
    run: Run | None = None,
) -> tuple[Metrics, list[Detections]]:
    """Detect on every photo of a loader and measure the detections.

    Args:
        model: the network.
        loader: the photos, in order.
        targets: the ground truth of the photos, in the same order.
        evaluation: how precision, recall and AP are taken.
        nms: which proposals become detections.
        letterbox: whether the photos were fitted with their aspect kept.
        run: as in `predict`.

    Returns:
        The metrics, and the detections of each photo.
    """
    detections = detect_all(model, loader, nms, letterbox=letterbox, run=run)
    metrics = compute_metrics(targets, detections, model.heads[0].classes, evaluation)
    return metrics, detections
