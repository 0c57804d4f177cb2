"""PyTorch itself: batch normalisation folded, and the faster of two ways to run what is left.

On a CPU, one is oneDNN's graph compiler (`utils.backends.onednn_graph`); the other, for what that
does not take, is a call of oneDNN for each convolution, with its kernel laid out beforehand. On a
card, they are a CUDA graph (`utils.backends.cuda_graph`), and layer after layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import Convolution, Logistic
from models.darknet import Darknet
from utils.backends.base import EngineOptions, FixedBatch, maps_agree
from utils.backends.cuda_graph import Run, captured
from utils.backends.fold import folded
from utils.backends.onednn_graph import compile_graph
from utils.console.progress import say_error
from utils.devices import has_fast_bfloat16, to_device, wait_for
from utils.timing import SETTLE, interleaved

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What oneDNN computes together with a convolution: its name, scalars and algorithm there.
FUSED: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.Identity: ("none", [], ""),
    nn.LeakyReLU: ("leaky_relu", [0.1], ""),
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
    nn.Tanh: ("tanh", [], ""),
    nn.GELU: ("gelu", [], "tanh"),
}
# How far the two ways may differ, as a share of a map's largest value.
TOLERANCE = {torch.float32: 0.01, torch.bfloat16: 0.2, torch.float16: 0.05}
ROUNDS, SECONDS = 5, 1.0  # of timing the two ways, at most


def is_card(device: torch.device) -> bool:
    """Whether it is a graphics card that CUDA drives."""
    return device.type == "cuda"


def precisions(device: torch.device) -> tuple[str, ...]:
    """What the device computes natively."""
    if is_card(device):
        return ("fp32", "fp16", "bf16") if has_fast_bfloat16(device) else ("fp32", "fp16")
    return ("fp32", "bf16") if has_fast_bfloat16(device) else ("fp32",)


class TorchEngine(FixedBatch):
    """PyTorch, on the device that the network is on."""

    name = "torch"

    def __init__(self, model: Darknet, options: EngineOptions) -> None:
        """Prepare a copy of the network, and time the two ways to run it."""
        super().__init__(options)
        self._device = model.device
        options.check_precision(f"torch on {self._device.type}", precisions(self._device))
        self._threads = options.threads
        self._dtype = DTYPES[options.precision]
        model = folded(model).to(self._dtype).to(memory_format=torch.channels_last)
        _keep_types_(model)
        self._run: Run = model
        with torch.inference_mode(), _threads(self._threads), _fixed_shapes(self._device):
            if is_card(self._device):
                images = self._prepared(options.random_images())
                self._run = faster_on_card(model, images, self.synchronize)
            elif self._device.type == "cpu" and torch.backends.mkldnn.is_available():
                self._run = _faster_on_cpu(model, self._prepared(options.random_images()))

    def run(self, images: Tensor) -> list[Tensor]:
        """Exactly `batch` images → the maps."""
        with _threads(self._threads), _fixed_shapes(self._device):
            return [raw.float() for raw in self._run(self._prepared(images))]

    def synchronize(self) -> None:
        """Wait for the card."""
        wait_for(self._device)

    def _prepared(self, images: Tensor) -> Tensor:
        images = to_device(images, self._device)
        return images.to(self._dtype, memory_format=torch.channels_last)


def _keep_types_(model: Darknet) -> None:
    """Let a sigmoid keep its input's type, except before a [yolo].

    `Logistic` gives float32, which a convolution of bfloat16 refuses where nothing casts as in
    training.
    """
    read_by_heads = {source for head in model.netdef.heads for source in model.netdef.sources(head)}
    for index, layer in enumerate(model.layers):
        if index not in read_by_heads:
            for module in list(layer.modules()):
                for name, child in module.named_children():
                    if isinstance(child, Logistic):
                        setattr(module, name, nn.Sigmoid())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads, 0 for as many as now."""
    before = torch.get_num_threads()
    if count in (0, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _fixed_shapes(device: torch.device) -> Iterator[None]:
    """Let cuDNN try its kernels on a card's first images: all that follow have their shape.

    torch remembers the kernel that was chosen for a shape, and takes it for any later convolution
    of that shape, tried or not, for which `deterministic` is the same. So it is off here: training
    that is to repeat, where it is on, must not get a kernel that was the fastest by chance.
    """
    if not is_card(device):
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = True, False
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


def _faster_on_cpu(model: Darknet, images: Tensor) -> Run:
    """The faster way to run a folded network, which is changed, on images of this shape."""
    compiled, prepacked = compile_graph(model, images), prepack_(model, images)
    if compiled is None:
        return prepacked
    if not maps_agree(compiled(images), prepacked(images), TOLERANCE[images.dtype]):
        return prepacked
    return _quicker(compiled, prepacked, images)


def faster_on_card(model: Run, images: Tensor, wait: Callable[[], None]) -> Run:
    """The faster way to run a folded network on images of this shape: as a graph, or as it is.

    Args:
        model: the network.
        images: on its card.
        wait: returns once the card has computed all that it was given.
    """
    try:
        graph = captured(model, images)
    except RuntimeError as error:
        wait()  # raises where the card has failed altogether
        _tell(f"note: no CUDA graph, so layer after layer: {str(error).splitlines()[0]}")
        return model
    if not maps_agree(graph(images), model(images), TOLERANCE[images.dtype]):
        _tell("note: no CUDA graph, so layer after layer: it computes other maps")
        return model
    return _quicker(graph, model, images, wait, settle=0.0)  # no threads wait busily there


@cache  # each reason once: a cut to a time opens hundreds of networks
def _tell(line: str) -> None:
    say_error(line)


def _quicker(
    first: Run,
    second: Run,
    images: Tensor,
    wait: Callable[[], None] = lambda: None,
    settle: float = SETTLE,
) -> Run:
    """Which of two runs is over first, timed in turns."""

    def to_the_end(run: Run) -> None:
        run(images)
        wait()

    runs = {"first": partial(to_the_end, first), "second": partial(to_the_end, second)}
    times = interleaved(runs, ROUNDS, settle=settle, seconds=SECONDS)
    return first if min(times["first"]) < min(times["second"]) else second


def prepack_(model: Darknet, images: Tensor) -> Darknet:
    """Replace each convolution of a folded network by a call of oneDNN for images of this shape."""
    shapes: dict[int, tuple[int, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs, index=index: shapes.update({index: tuple(inputs[0].shape)})
        )
        for index, layer in enumerate(model.layers)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Convolution):
            model.layers[index] = Prepacked(layer, shapes[index])
    return model


class Prepacked(nn.Module):
    """A convolution whose kernel lies as oneDNN wants it, with its activation in the same call."""

    def __init__(self, layer: Convolution, input_shape: tuple[int, ...]) -> None:
        """Lay the kernel out for inputs of this shape [B, C, H, W]."""
        super().__init__()
        conv = layer.conv
        geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._kernel = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight, *geometry, list(input_shape)
        )
        attribute, scalars, algorithm = FUSED.get(type(layer.activation), FUSED[nn.Identity])
        self._arguments: tuple[Any, ...] = (conv.bias, *geometry, attribute, scalars, algorithm)
        fused = type(layer.activation) in FUSED
        self._after: Callable[[Tensor], Tensor] | None = None if fused else layer.activation

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution's own."""
        x = torch.ops.mkldnn._convolution_pointwise(x, self._kernel, *self._arguments)
        return x if self._after is None else self._after(x)
