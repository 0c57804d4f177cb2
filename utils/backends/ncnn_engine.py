"""ncnn on the CPU."""

from __future__ import annotations

from pathlib import Path

import ncnn
import numpy as np
import torch
from torch import Tensor

from models.darknet import Darknet
from utils.backends.base import EngineOptions, FixedBatch
from utils.backends.ncnn_graph import IMAGE, to_ncnn
from utils.errors import InputError
from utils.files.writing import fill, scratch_folder


def write(model: Darknet, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.param and `stem`.bin: one image to the raw maps."""
    parameters, weights = Path(f"{stem}.param"), Path(f"{stem}.bin")
    text, numbers = to_ncnn(model)
    fill(parameters, text)
    fill(weights, numbers)
    return parameters, weights


def load(parameters: Path, weights: Path, threads: int = 0) -> ncnn.Net:
    """A network that `write` wrote, ready to run in float32.

    Raises:
        InputError: ncnn refuses the files.
    """
    net = ncnn.Net()
    net.opt.num_threads = threads or torch.get_num_threads()
    for option in ("use_fp16_storage", "use_fp16_arithmetic", "use_fp16_packed"):
        setattr(net.opt, option, False)
    if net.load_param(str(parameters)) or net.load_model(str(weights)):
        raise InputError(f"{parameters}: ncnn cannot read this network")
    return net


def infer(net: ncnn.Net, image: Tensor, count: int) -> list[Tensor]:
    """One image [3, H, W] → its `count` raw maps [1, C, h, w].

    Raises:
        InputError: the network has not so many maps.
    """
    extractor = net.create_extractor()
    pixels = np.ascontiguousarray(image.cpu().numpy())
    extractor.input(IMAGE, ncnn.Mat(pixels))
    maps = []
    for number in range(count):
        failed, raw = extractor.extract(f"map{number}")
        if failed:
            raise InputError(f"engine='ncnn': no output 'map{number}' (error {failed})")
        maps.append(torch.from_numpy(np.array(raw))[None])
    return maps


class NcnnEngine(FixedBatch):
    """It takes images one by one, as ncnn does."""

    name = "ncnn"

    def __init__(self, model: Darknet, options: EngineOptions) -> None:
        """Write the network as ncnn's files and read them."""
        super().__init__(options)
        options.check_precision(self.name, ("fp32",))
        self._count = len(model.heads)
        with scratch_folder() as folder:
            self._net = load(*write(model, folder / "net"), options.threads)

    def run(self, images: Tensor) -> list[Tensor]:
        """Exactly `batch` images → the maps."""
        parts = zip(*(infer(self._net, image, self._count) for image in images), strict=True)
        return [torch.cat(maps) for maps in parts]
