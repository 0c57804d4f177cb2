"""From images to detections, one batch or a whole data set, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from models.darknet import Darknet
from models.head import decode
from utils.boxes import Fit, clip
from utils.evaluation.metrics import Metrics, compute_metrics
from utils.evaluation.nms import nms
from utils.structures import Batch, Detections, Targets

Run = Callable[[Tensor], list[Tensor]]  # images [B, 3, H, W] → the raw map of each head


@torch.inference_mode()
def predict(
    model: Darknet,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    conf_thres: float,
    nms_thres: float,
    max_detections: int | None,
    letterbox: bool,
    run: Run | None = None,
    on_network_done: Callable[[], None] = lambda: None,
) -> list[Detections]:
    """Detect on a batch.

    images: float32 [B, 3, H, W], 0 to 1, fitted by `utils.boxes.fit_image`. sizes: the B original
    photos' (width, height). run: what computes the network's maps, such as an engine of
    `utils.backends`; None for the model itself. Returns B Detections, boxes in pixels of the
    original photos, cut to them. on_network_done is called between the network and NMS, for those
    who take the time.
    """
    net = (images.shape[-1], images.shape[-2])
    maps = (run or model)(images.contiguous(memory_format=torch.channels_last))
    on_network_done()
    found = nms(
        decode(maps, model.heads, net),
        conf_thres,
        nms_thres,
        max_detections,
        model.heads[-1].nms_power,  # Darknet, too, asks the last head
    )
    return [
        _on_photo(detections, Fit.of(size, net, letterbox), size)
        for detections, size in zip(found, sizes, strict=True)
    ]


def _on_photo(detections: Detections, fit: Fit, size: tuple[int, int]) -> Detections:
    boxes = clip(fit.back(detections.boxes), size)
    return Detections(boxes.cpu(), detections.scores.cpu(), detections.labels.cpu())


def detect_all(
    model: Darknet,
    loader: Iterable[Batch],
    *,
    conf_thres: float,
    nms_thres: float,
    max_detections: int | None,
    letterbox: bool,
    run: Run | None = None,
    title: str = "evaluate",
) -> list[Detections]:
    """Detect on every photo of a loader, in its order, with a progress bar."""
    device = next(model.parameters()).device
    found: list[Detections] = []
    for batch in tqdm(loader, title, leave=False, dynamic_ncols=True):
        found += predict(
            model,
            batch.images.to(device, non_blocking=True),
            batch.sizes,
            conf_thres=conf_thres,
            nms_thres=nms_thres,
            max_detections=max_detections,
            letterbox=letterbox,
            run=run,
        )
    return found


def evaluate(
    model: Darknet,
    loader: Iterable[Batch],
    targets: Sequence[Targets],
    *,
    rule: str,
    iou_thres: float,
    conf_thres: float,
    nms_thres: float,
    max_detections: int,
    plus_one: bool,
    letterbox: bool,
    run: Run | None = None,
) -> tuple[Metrics, list[Detections]]:
    """Detect on every photo of a loader and measure it against `targets`, in the same order.

    The thresholds and rules are those of `utils.evaluation.nms.nms` and `utils.evaluation.metrics.compute_metrics`;
    max_detections is 0 for any number of boxes a photo; run is that of `predict`.
    """
    found = detect_all(
        model,
        loader,
        conf_thres=conf_thres,
        nms_thres=nms_thres,
        max_detections=max_detections or None,
        letterbox=letterbox,
        run=run,
    )
    classes = model.heads[0].classes
    metrics = compute_metrics(
        targets, found, classes, rule=rule, iou_thres=iou_thres, plus_one=plus_one
    )
    return metrics, found
