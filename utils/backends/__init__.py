"""Which library runs a network: one interface, and a table of those that are known.

    engine = open_engine("onnxruntime", model, size=(320, 320))
    maps = engine(images)  # as model(images), several times faster

Every library but torch is an optional install: `requirements/engines.txt`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models.darknet import Darknet
from utils.backends import auto as choose
from utils.backends.base import PRECISIONS, Engine, Wanted
from utils.errors import InputError
from utils.timing import machine

__all__ = ["ENGINES", "PRECISIONS", "Engine", "Known", "installed", "open_engine"]


@dataclass(frozen=True)
class Known:
    """An engine of ours: module and class, and the packages that it needs for each precision."""

    module: str
    maker: str
    packages: tuple[str, ...]
    int8_packages: tuple[str, ...] = ()

    def needs(self, precision: str) -> tuple[str, ...]:
        return self.packages + (self.int8_packages if precision == "int8" else ())


ENGINES = {
    "torch": Known("torch_engine", "TorchEngine", ("torch",)),
    "onnxruntime": Known("onnxruntime_engine", "OnnxRuntimeEngine", ("onnxruntime", "onnx")),
    "openvino": Known("openvino_engine", "OpenVinoEngine", ("openvino", "onnx"), ("nncf",)),
    "ncnn": Known("ncnn_engine", "NcnnEngine", ("ncnn",)),
    "opencv": Known("opencv_engine", "OpenCvEngine", ("cv2",)),
}


def installed(name: str, precision: str = "fp32") -> str:
    """Empty where the engine's packages are installed; else the pip line that installs them.

    Raises InputError for an unknown engine.
    """
    if name not in ENGINES:
        raise InputError(f"backend={name!r}: expected auto or one of {', '.join(ENGINES)}")
    wanted = ENGINES[name].needs(precision)
    missing = [package for package in wanted if importlib.util.find_spec(package) is None]
    return f"pip install {' '.join(missing)}" if missing else ""


def open_engine(
    name: str,
    model: Darknet,
    size: tuple[int, int],
    *,
    precision: str = "fp32",
    batch: int = 1,
    threads: int = 0,
    calibration: Iterable[Tensor] | None = None,
    keep: bool = True,
    tell: Callable[[str], None] = print,
) -> Engine:
    """Make a network ready on a library: one of ENGINES, or `auto` for the fastest that is
    installed, which is measured once and then known (`utils.backends.auto`).

    size: (width, height) of the input in pixels. batch: images that it runs at once (it takes any
    number). threads: 0 for as many as torch uses. calibration: for int8, batches of images
    [B, 3, H, W], 0 to 1, like those that it will see. keep: int8 networks in the user's cache, so
    that the same one is quantised once. tell: gets a line on what `auto` chose.
    Raises InputError where the library is not installed or cannot compute in that precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
    threads = threads or torch.get_num_threads()
    wanted = Wanted(size, precision, batch, threads, calibration, keep)
    if name == "auto":
        engine, line = _open_fastest(model, wanted)
        tell(line)
        return engine
    if how := installed(name, precision):
        raise InputError(f"backend={name!r}: not installed: {how}")
    return _open(name, model, wanted)


def _open(name: str, model: Darknet, wanted: Wanted) -> Engine:
    module = importlib.import_module(f"utils.backends.{ENGINES[name].module}")
    engine: Engine = getattr(module, ENGINES[name].maker)(model, wanted)
    return engine


def _open_fastest(model: Darknet, wanted: Wanted) -> tuple[Engine, str]:
    """On a graphics card only torch runs."""
    device = next(model.parameters()).device
    names = ["torch"] if device.type != "cpu" else list(ENGINES)
    names = [name for name in names if not installed(name, wanted.precision)]
    openers = {name: partial(_open, name, model, wanted) for name in names}
    packages = [p for name in names for p in ENGINES[name].needs(wanted.precision)]
    return choose.open_fastest(openers, model.netdef.text(), wanted, packages, machine(device))
