"""OpenCV's own reader of Darknet files, on the CPU."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.darknet import Darknet
from models.weights import to_bytes
from utils.backends.base import FixedBatch, Wanted, near
from utils.errors import InputError

# Of the largest value of a map. Of what OpenCV takes for something else (dilated convolutions,
# shortcuts of three maps, weighted ones, ...), the nearest was 0.03 off.
DIFFERENT = 0.01


def load(cfg: bytes, weights: bytes) -> cv2.dnn.Net:
    """A Darknet pair, ready to run. Raises InputError for what OpenCV refuses."""
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise InputError(
            f"backend='opencv': OpenCV {cv2.__version__} reads no Darknet files: "
            "pip install 'opencv-python<5'"
        )
    try:
        net = cv2.dnn.readNetFromDarknet(_buffer(cfg), _buffer(weights))
    except cv2.error as error:
        reason = error.err.splitlines()[0]  # further lines repeat the whole .cfg
        raise InputError(f"backend='opencv': OpenCV refuses this network: {reason}") from error
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    return net


def _buffer(file: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(file, np.uint8)  # it would take bytes for a file's name


def raw_maps(net: cv2.dnn.Net, heads: tuple[int, ...]) -> list[str]:
    """What OpenCV calls the layers that the [yolo] `heads` read.

    Raises InputError where it has not made such layers.
    """
    names = list(net.getLayerNames())
    for index in heads:
        if f"permute_{index}" not in names:
            raise InputError(f"backend='opencv': OpenCV makes no head of [yolo] {index}")
    return [names[names.index(f"permute_{index}") - 1] for index in heads]


class OpenCvEngine(FixedBatch):
    name = "opencv"

    def __init__(self, model: Darknet, wanted: Wanted) -> None:
        super().__init__(wanted)
        wanted.refuse_precision(self.name, ("fp32",))
        width, height = wanted.size
        netdef = model.netdef.with_net_options(width=width, height=height)
        self._net = load(netdef.text().encode(), to_bytes(model))
        self._threads = wanted.threads
        self._try(model, wanted.images())

    @torch.inference_mode()
    def _try(self, model: Darknet, images: Tensor) -> None:
        """Raise InputError where OpenCV cannot run the network, or computes something else of it:
        it overlooks options of a section that it does not know."""
        try:
            self._outputs = raw_maps(self._net, model.netdef.heads)
            found = self.run(images)
        except cv2.error as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"backend='opencv': cannot run this network: {reason}") from error
        wanted = [raw.cpu() for raw in model(images.to(next(model.parameters()).device))]
        if not near(found, wanted, DIFFERENT):
            raise InputError("backend='opencv': OpenCV computes something else of this network")

    def run(self, images: Tensor) -> list[Tensor]:
        before = cv2.getNumThreads()
        cv2.setNumThreads(self._threads or torch.get_num_threads())
        try:
            self._net.setInput(images.cpu().contiguous().numpy())
            return [torch.from_numpy(raw.copy()) for raw in self._net.forward(self._outputs)]
        finally:
            cv2.setNumThreads(before)
