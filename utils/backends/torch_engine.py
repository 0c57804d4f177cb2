"""PyTorch itself: batch normalisation folded, and on a CPU oneDNN's own convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import Convolution
from models.darknet import Darknet
from utils.backends.base import FixedBatch, Wanted
from utils.backends.fold import folded

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
        self._model = folded(model).to(self._dtype).to(memory_format=torch.channels_last)
        if self._device.type == "cpu" and torch.backends.mkldnn.is_available():
            with torch.inference_mode():
                _prepack_(self._model, wanted.images().to(self._dtype))

    def run(self, images: Tensor) -> list[Tensor]:
        images = images.to(self._device, self._dtype, memory_format=torch.channels_last)
        before = torch.get_num_threads()
        if self._threads in (0, before):
            return [raw.float() for raw in self._model(images)]
        torch.set_num_threads(self._threads)
        try:
            return [raw.float() for raw in self._model(images)]
        finally:
            torch.set_num_threads(before)


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


def _prepack_(model: Darknet, images: Tensor) -> None:
    """Replace every convolution, for inputs of the shape that `images` bring it."""
    seen: dict[int, tuple[int, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs, index=index: seen.update({index: tuple(inputs[0].shape)})
        )
        for index, layer in enumerate(model.layers)
    ]
    model(images.contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Convolution):
            model.layers[index] = Prepacked(layer, seen[index])
