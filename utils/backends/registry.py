"""Which library runs a network: a table of those that are known, and what each needs.

To add an engine: a file beside this one with a class like `onnxruntime_engine.OnnxRuntimeEngine`,
an entry in `ENGINES`, and its name in `import_param.Runtime.engine`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from models.darknet import Darknet
from models.head import expect_finite
from utils.backends import auto
from utils.backends.base import PRECISIONS, Engine, EngineOptions
from utils.console.progress import Wait, say
from utils.devices import CPU, on_device
from utils.errors import InputError, is_out_of_memory
from utils.timing import machine


@dataclass(frozen=True)
class EngineEntry:
    """An engine: its module here and class there, and the packages that it needs."""

    module: str
    class_name: str
    packages: tuple[str, ...]
    on_cards: bool = False  # whether it computes on graphics cards, too
    fast_precisions: tuple[str, ...] = ("fp32",)  # that `auto` tries, where the machine has them
    int8_packages: tuple[str, ...] = ()  # beside `packages`, for int8

    def required_packages(self, precision: str) -> tuple[str, ...]:
        """The packages that it needs to compute in a precision."""
        return self.packages + (self.int8_packages if precision == "int8" else ())


ENGINES = {
    "torch": EngineEntry("torch_engine", "TorchEngine", ("torch",), True, ("fp32", "bf16", "fp16")),
    "onnxruntime": EngineEntry("onnxruntime_engine", "OnnxRuntimeEngine", ("onnxruntime", "onnx")),
    "openvino": EngineEntry(
        "openvino_engine",
        "OpenVinoEngine",
        ("openvino", "onnx"),
        fast_precisions=("fp32", "bf16"),
        int8_packages=("nncf",),
    ),
    "ncnn": EngineEntry("ncnn_engine", "NcnnEngine", ("ncnn",)),
    "opencv": EngineEntry("opencv_engine", "OpenCvEngine", ("cv2",)),
}


def install_command(name: str, precision: str = "fp32") -> str:
    """The pip line that installs what an engine lacks here; empty where it lacks nothing.

    Raises:
        InputError: no engine has this name.
    """
    if name not in ENGINES:
        raise InputError(f"engine={name!r}: expected auto or one of {', '.join(ENGINES)}")
    packages = ENGINES[name].required_packages(precision)
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"pip install {' '.join(missing)}" if missing else ""


def engine_device(name: str, device: torch.device) -> torch.device:
    """Where an engine computes a network that is on a device: there, or on the CPU."""
    return device if name == "auto" or ENGINES[name].on_cards else CPU


def check_installed(name: str, precision: str) -> None:
    """Refuse an engine that is not installed; `auto` takes what there is.

    Raises:
        InputError: it is not, or there is none of this name.
    """
    if name != "auto" and (command := install_command(name, precision)):
        raise InputError(f"engine={name!r}: not installed: {command}")


def open_engine(
    name: str, model: Darknet, options: EngineOptions, report: Callable[[str], None] = say
) -> Engine:
    """Make a network ready on a library.

    Args:
        name: one of `ENGINES`, or `auto` for the fastest of those that are installed, which is
            measured once and then known (`utils.backends.auto`).
        model: the network, which stays as it is.
        options: what the engine is made for; of the precision `auto`, the fastest is taken that is
            no int8.
        report: gets a line on what `auto` chose.

    Raises:
        InputError: the library is not installed, cannot compute this network in that precision,
            or computes something of it that is not finite.
    """
    if options.precision not in ("auto", *PRECISIONS):
        raise InputError(
            f"precision={options.precision!r}: expected auto or one of {', '.join(PRECISIONS)}"
        )
    options = dataclasses.replace(options, threads=options.threads or torch.get_num_threads())
    check_installed(name, options.precision)
    if "auto" in (name, options.precision):
        engine, line = _open_fastest(name, model, options)
        report(line)
        return engine
    return _open(name, model, options)


def _open(name: str, model: Darknet, options: EngineOptions) -> Engine:
    model = on_device(model, engine_device(name, model.device))
    with Wait(f"opening {name}, {options.precision}"):
        module = importlib.import_module(f"{__package__}.{ENGINES[name].module}")
        width, height = options.size
        grey = torch.full((options.batch, 3, height, width), 0.5)
        try:
            engine: Engine = getattr(module, ENGINES[name].class_name)(model, options)
            maps = engine(grey)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            told = next(iter(str(error).splitlines()), "MemoryError")
            raise InputError(
                f"engine={name!r}, precision={options.precision!r}: out of memory on "
                f"{model.device} with {options.batch} images of {width}x{height} at once ({told})"
            ) from error
        expect_finite(maps, f"engine={name!r}")
    return engine


def _open_fastest(wanted: str, model: Darknet, options: EngineOptions) -> tuple[Engine, str]:
    """The fastest of the engines and precisions that are left open."""
    device = engine_device(wanted, model.device)
    names = list(ENGINES) if wanted == "auto" else [wanted]
    if device.type != "cpu":
        names = [name for name in names if ENGINES[name].on_cards]
    names = [name for name in names if not install_command(name, options.precision)]
    openers = {}
    for name in names:
        for precision in _precisions(name, options.precision, device):
            label = f"{name} {precision}" if options.precision == "auto" else name
            chosen = dataclasses.replace(options, precision=precision)
            openers[label] = partial(_open, name, model, chosen)
    packages = {p for name in names for p in ENGINES[name].required_packages(options.precision)}
    return auto.open_fastest(openers, model.netdef.text(), options, packages, machine(device))


def _precisions(engine: str, wanted: str, device: torch.device) -> tuple[str, ...]:
    """What an engine is tried in; of those that the machine lacks, the engine itself tells."""
    if wanted != "auto":
        return (wanted,)
    on_cards = device.type == "cuda"
    return tuple(p for p in ENGINES[engine].fast_precisions if on_cards or p != "fp16")
