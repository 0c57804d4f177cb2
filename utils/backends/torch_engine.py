"""PyTorch itself: batch normalisation folded, and on a CPU the faster of two ways to oneDNN.

`graph`: the whole network at once, by oneDNN's graph compiler. It lets maps lie as the next layer
wants them and prepares each call once, where a call of its own for each convolution costs 20 to
40 µs: a third of the time of a network of many small layers. `layers`: a call for each convolution,
for what the compiler does not take.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import Convolution, Logistic
from models.darknet import Darknet
from models.netdef import NetDef
from utils.backends.base import FixedBatch, Wanted, near
from utils.backends.fold import folded
from utils.timing import interleaved

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
# What takes two maps of one shape, and may write what it computes over one of them.
IN_PLACE = ("shortcut", "sam", "scale_channels")
NEAR = {torch.float32: 0.01, torch.bfloat16: 0.2, torch.float16: 0.05}  # of a map's largest value
PROFILED = 2  # runs until TorchScript has seen the shapes and compiled for them
ROUNDS, SECONDS = 5, 1.0  # of timing the two ways, at most
Run = Callable[[Tensor], list[Tensor]]


def precisions(device: torch.device) -> tuple[str, ...]:
    """What the device computes natively."""
    if device.type == "cuda":
        whole = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("fp32", "fp16", "bf16") if whole else ("fp32", "fp16")
    whole = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return ("fp32", "bf16") if whole else ("fp32",)


class TorchEngine(FixedBatch):
    name = "torch"

    def __init__(self, model: Darknet, wanted: Wanted) -> None:
        super().__init__(wanted)
        self._device = next(model.parameters()).device
        wanted.refuse_precision(f"torch on {self._device.type}", precisions(self._device))
        self._threads = wanted.threads
        self._dtype = DTYPES[wanted.precision]
        model = folded(model).to(self._dtype).to(memory_format=torch.channels_last)
        _keep_types_(model)
        self._run: Run = model
        if self._device.type == "cpu" and torch.backends.mkldnn.is_available():
            with torch.inference_mode(), _threads(self._threads):
                self._run = _fastest(model, self._prepared(wanted.images()))

    def run(self, images: Tensor) -> list[Tensor]:
        with _threads(self._threads):
            return [raw.float() for raw in self._run(self._prepared(images))]

    def _prepared(self, images: Tensor) -> Tensor:
        return images.to(self._device, self._dtype, memory_format=torch.channels_last)


def _keep_types_(model: Darknet) -> None:
    """Let a sigmoid give what type it gets, but before a [yolo]: a convolution of bfloat16 refuses
    the float32 of `Logistic`, where nothing casts as in training."""
    before = {source for head in model.netdef.heads for source in model.netdef.sources(head)}
    for index, layer in enumerate(model.layers):
        if index not in before:
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


def _fastest(model: Darknet, images: Tensor) -> Run:
    """The faster way to run a folded network, which is changed, on images of this shape."""
    compiled, called = graph(model, images), layers(model, images)
    if compiled is None or not near(compiled(images), called(images), NEAR[images.dtype]):
        return called
    runs = {"graph": lambda: compiled(images), "layers": lambda: called(images)}
    times = interleaved(runs, ROUNDS, seconds=SECONDS)
    return compiled if min(times["graph"]) < min(times["layers"]) else called


def graph(model: Darknet, images: Tensor) -> Run | None:
    """By oneDNN's graph compiler, which only TorchScript reaches; None where it fails on the
    network, as it does on some maps of 1x1, or may compute something else of it."""
    if any(isinstance(module, nn.GELU) for module in model.modules()):
        return None  # it would compute the other GELU, of erf
    if not _may_overwrite(model.netdef):
        return None
    for module in model.modules():
        if isinstance(module, nn.LeakyReLU | nn.ReLU | nn.ReLU6):
            module.inplace = False  # in place, it takes some bfloat16 maps for float32
    before = torch.jit.onednn_fusion_enabled()
    torch.jit.enable_onednn_fusion(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is old
            compiled = torch.jit.freeze(torch.jit.trace(model, images, check_trace=False))
            for _ in range(PROFILED):
                compiled(images)
    except RuntimeError:
        return None
    finally:
        torch.jit.enable_onednn_fusion(before)
    return compiled


def _may_overwrite(netdef: NetDef) -> bool:
    """Whether nobody misses the maps that the compiler writes a sum over.

    It takes the map of one of the summands for the result, even where another layer reads that
    later: of the first 321 random networks of `tests.pruning.nets`, five gave wrong maps. And a
    convolution with two sums after it can end the process.
    """
    roots: list[int] = []  # by layer, the one whose map it passes on
    last: dict[int, int] = {}  # by such a layer, the last one that reads its map
    for index, section in enumerate(netdef.layers):
        sources = [roots[source] if source >= 0 else source for source in netdef.sources(index)]
        passes = section.kind == "dropout" or (section.kind == "route" and len(sources) == 1)
        roots.append(sources[0] if passes else index)
        for source in sources:
            reader = len(netdef.layers) if section.kind == "yolo" else index
            last[source] = max(last.get(source, -1), reader)
    for index, section in enumerate(netdef.layers):
        if section.kind in IN_PLACE:
            first, *others = [roots[n] if n >= 0 else n for n in netdef.sources(index)]
            again = first >= 0 and netdef.layers[first].kind in IN_PLACE
            if again or len(others) > 1 or any(last[n] > index for n in (first, *others)):
                return False
    return True


def layers(model: Darknet, images: Tensor) -> Run:
    """By a call of oneDNN for each convolution, which replaces it, for images of this shape."""
    seen: dict[int, tuple[int, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs, index=index: seen.update({index: tuple(inputs[0].shape)})
        )
        for index, layer in enumerate(model.layers)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Convolution):
            model.layers[index] = Prepacked(layer, seen[index])
    return model


class Prepacked(nn.Module):
    """A convolution whose kernel lies as oneDNN wants it, with its activation in the same call."""

    def __init__(self, layer: Convolution, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        conv = layer.conv
        window = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._kernel = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight, *window, list(input_shape)
        )
        attribute, scalars, algorithm = FUSED.get(type(layer.activation), FUSED[nn.Identity])
        self._arguments: tuple[Any, ...] = (conv.bias, *window, attribute, scalars, algorithm)
        fused = type(layer.activation) in FUSED
        self._after: Callable[[Tensor], Tensor] | None = None if fused else layer.activation

    def forward(self, x: Tensor) -> Tensor:
        x = torch.ops.mkldnn._convolution_pointwise(x, self._kernel, *self._arguments)
        return x if self._after is None else self._after(x)
