"""Does a whole network answer as Darknet and OpenCV answer, on real photos? (`../shared` only)"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from import_param import Nms, TrainedNetwork
from utils.boxes import clip, cxcywh_to_xyxy, network_input
from utils.checkpoint.network import Network, load_network
from utils.evaluation.evaluate import predict
from utils.images import read_image
from utils.structures import Detections

OPENCV = {
    "yolov3-tiny": "yolov3-tiny",
    "yolo-fastest-1.1": "yolo-fastest-1.1",
    "mobilenetv2-nano": "MobileNetV2-YOLOv3-Nano-coco",
    "yoloface-50k": "yoloface-50k",
}
DARKNET = {folder: name for folder, name in OPENCV.items() if folder != "yoloface-50k"}
CONF, NMS = 0.25, 0.45  # what Darknet's golden detections were made with


def opened(shared: Path, folder: str, name: str) -> Network:
    return load_network(
        TrainedNetwork(weights=str(shared / f"weights/{folder}/{name}.weights"), device="cpu")
    )


@pytest.mark.parametrize("folder", OPENCV)
def test_logits_are_opencvs(folder: str, shared: Path) -> None:
    network = opened(shared, folder, OPENCV[folder])
    width, height = network.size
    image = cv2.imread(str(shared / f"golden/opencv/input_dog_{width}x{height}.png"))
    pixels = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255
    with np.load(shared / f"golden/opencv/{OPENCV[folder]}_dog.npz") as golden, torch.no_grad():
        heads = network.model.netdef.heads
        for index, ours in zip(heads, network.model(pixels[None]), strict=True):
            np.testing.assert_allclose(ours, golden[f"conv_{index - 1}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("letterbox", [False, True], ids=["stretched", "letterboxed"])
@pytest.mark.parametrize("folder", DARKNET)
def test_detections_are_darknets(folder: str, letterbox: bool, shared: Path) -> None:
    """The same boxes: same classes, IoU ≥ 0.98, and confidence within 0.01.

    One in ten may differ by up to 0.02: decoding a JPEG with another transform (`djpeg -dct float`
    against our default) alone moves confidences on horses.jpg by 0.013, towards Darknet's own.
    """
    network = opened(shared, folder, DARKNET[folder])
    suffix = "-letter_box" if letterbox else ""
    golden = json.loads((shared / f"golden/darknet/{DARKNET[folder]}{suffix}.json").read_text())
    assert len(golden) == 5
    differences: list[float] = []
    for entry in golden:
        image = read_image(shared / "photos" / Path(entry["filename"]).name)
        size = (image.shape[1], image.shape[0])
        ours = predict(
            network.model,
            network_input(image, network.size, letterbox)[None],
            [size],
            Nms(CONF, NMS, max_detections=0),
            letterbox=letterbox,
        )[0]
        differences += compare(ours, darknets(entry, size), entry["filename"])
    assert max(differences) < 0.02
    assert sum(d <= 0.01 for d in differences) >= 0.9 * len(differences)


def darknets(entry: dict[str, Any], size: tuple[int, int]) -> Detections:
    """Darknet's detections, in pixels of the photo and cut to it as ours are."""
    keys = ("center_x", "center_y", "width", "height")
    found = entry["objects"]
    shares = torch.tensor([[o["relative_coordinates"][key] for key in keys] for o in found])
    boxes = cxcywh_to_xyxy(shares.reshape(-1, 4)) * torch.tensor([*size, *size])
    return Detections(
        clip(boxes, size),
        torch.tensor([o["confidence"] for o in found]),
        torch.tensor([o["class_id"] for o in found]),
    )


def compare(ours: Detections, theirs: Detections, photo: str) -> list[float]:
    """Refuse boxes that only one of both has; the differences in confidence of the others."""
    iou = box_iou(theirs.boxes, ours.boxes) * (theirs.labels[:, None] == ours.labels)
    best = iou.argmax(1)
    assert len(set(best.tolist())) == len(theirs) == len(ours), photo
    assert (iou.amax(1) >= 0.98).all(), photo
    return (theirs.scores - ours.scores[best]).abs().tolist()
