"""OpenCV's own reader of Darknet files, on the CPU."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.darknet import Darknet
from models.netdef import BN_EPSILON
from models.weights import to_bytes
from utils.backends.base import EngineOptions, FixedBatch, maps_agree
from utils.errors import InputError

# How far its maps may be off, as a share of a map's largest value. Of what OpenCV takes for
# something else (dilated convolutions, shortcuts of three maps, ...), the nearest was 0.03 off.
TOLERANCE = 0.01


def load(cfg: bytes, weights: bytes) -> cv2.dnn.Net:
    """A Darknet pair, ready to run.

    Raises:
        InputError: OpenCV refuses the network, or this OpenCV reads no Darknet files.
    """
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise InputError(
            f"engine='opencv': OpenCV {cv2.__version__} reads no Darknet files: "
            "pip install 'opencv-python<5'"
        )
    try:
        net = cv2.dnn.readNetFromDarknet(_buffer(cfg), _buffer(weights))
    except cv2.error as error:
        reason = error.err.splitlines()[0]  # further lines repeat the whole .cfg
        raise InputError(f"engine='opencv': OpenCV refuses this network: {reason}") from error
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    return net


def _buffer(file: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(file, np.uint8)  # it would take bytes for a file's name


def raw_maps(net: cv2.dnn.Net, heads: tuple[int, ...]) -> list[str]:
    """What OpenCV calls the layers that the [yolo] `heads` read.

    Raises:
        InputError: it has not made such layers.
    """
    names = list(net.getLayerNames())
    for index in heads:
        if f"permute_{index}" not in names:
            raise InputError(f"engine='opencv': OpenCV makes no head of [yolo] {index}")
    return [names[names.index(f"permute_{index}") - 1] for index in heads]


class OpenCvEngine(FixedBatch):
    """OpenCV, in float32."""

    name = "opencv"

    def __init__(self, model: Darknet, options: EngineOptions) -> None:
        """Let OpenCV read the network, and compare what it computes with torch."""
        super().__init__(options)
        options.check_precision(self.name, ("fp32",))
        width, height = options.size
        netdef = model.netdef.with_net_options(width=width, height=height).with_plain_heads()
        self._net = load(netdef.text().encode(), to_bytes(model, epsilon=BN_EPSILON))
        self._threads = options.threads
        self._check(model, options.random_images())

    @torch.inference_mode()
    def _check(self, model: Darknet, images: Tensor) -> None:
        """Refuse what OpenCV cannot run, or computes something else of.

        It overlooks options of a section that it does not know.
        """
        try:
            self._outputs = raw_maps(self._net, model.netdef.heads)
            maps = self.run(images)
        except cv2.error as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"engine='opencv': cannot run this network: {reason}") from error
        reference = [raw.cpu() for raw in model(images.to(model.device))]
        if not maps_agree(maps, reference, TOLERANCE):
            raise InputError("engine='opencv': OpenCV computes something else of this network")

    def run(self, images: Tensor) -> list[Tensor]:
        """Exactly `batch` images → the maps."""
        before = cv2.getNumThreads()
        cv2.setNumThreads(self._threads or torch.get_num_threads())
        try:
            self._net.setInput(images.cpu().contiguous().numpy())
            return [torch.from_numpy(raw.copy()) for raw in self._net.forward(self._outputs)]
        finally:
            cv2.setNumThreads(before)
