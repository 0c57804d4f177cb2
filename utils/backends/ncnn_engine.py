"""ncnn on the CPU, by way of pnnx, its converter."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import ncnn
import numpy as np
import pnnx
import torch
from torch import Tensor

from models.darknet import Darknet
from utils.backends.base import FixedBatch, Wanted
from utils.backends.onnx_graph import to_onnx
from utils.errors import InputError

LOWEST = "-3.0e38"
CONVERTER = Path(pnnx.__file__).parent / "pnnx"


def to_ncnn(model: Darknet, size: tuple[int, int], stem: Path) -> tuple[Path, Path]:
    """Write `stem`.param and `stem`.bin: one image of (width, height) `size` to the raw maps.

    Raises InputError where pnnx has no counterpart for a layer.
    """
    with tempfile.TemporaryDirectory() as folder:  # pnnx leaves eight files
        source = Path(folder) / "net.onnx"
        source.write_bytes(to_onnx(model, size))
        files = [f"ncnnparam={stem}.param", f"ncnnbin={stem}.bin"]
        done = subprocess.run(
            [CONVERTER, "net.onnx", "fp16=0", *files], cwd=folder, capture_output=True, text=True
        )
    parameters, weights = Path(f"{stem}.param"), Path(f"{stem}.bin")
    if done.returncode or not parameters.exists():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"backend='ncnn': pnnx cannot convert this network: {reason}")
    # What pads before a maximum; ncnn's reader knows no infinity.
    parameters.write_text(parameters.read_text().replace("=-inf", f"={LOWEST}"))
    return parameters, weights


def load(parameters: Path, weights: Path, threads: int = 0) -> ncnn.Net:
    """A network that pnnx wrote, ready to run in float32."""
    net = ncnn.Net()
    net.opt.num_threads = threads or torch.get_num_threads()
    for option in ("use_fp16_storage", "use_fp16_arithmetic", "use_fp16_packed"):
        setattr(net.opt, option, False)
    if net.load_param(str(parameters)) or net.load_model(str(weights)):
        raise InputError(f"{parameters}: ncnn cannot read this network")
    return net


def infer(net: ncnn.Net, image: Tensor) -> list[Tensor]:
    """One image [3, H, W] → the raw maps [1, C, h, w]."""
    extractor = net.create_extractor()
    pixels = np.ascontiguousarray(image.cpu().numpy())
    extractor.input("in0", ncnn.Mat(pixels))
    maps = []
    for name in net.output_names():
        failed, raw = extractor.extract(name)
        if failed:
            raise InputError(f"backend='ncnn': no output {name!r} (error {failed})")
        maps.append(torch.from_numpy(np.array(raw))[None])
    return maps


class NcnnEngine(FixedBatch):
    """It takes images one by one, as ncnn does."""

    name = "ncnn"

    def __init__(self, model: Darknet, wanted: Wanted) -> None:
        super().__init__(wanted)
        wanted.refuse_precision(self.name, ("fp32",))
        with tempfile.TemporaryDirectory() as folder:
            files = to_ncnn(model, wanted.size, Path(folder) / "net")
            self._net = load(*files, wanted.threads)

    def run(self, images: Tensor) -> list[Tensor]:
        parts = zip(*(infer(self._net, image) for image in images), strict=True)
        return [torch.cat(maps) for maps in parts]
