"""How many parameters and operations does a layer take, at its own or at any other widths?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from models.darknet import shapes
from models.netdef import NetDef
from utils.errors import InputError

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerCosts:
    """Parameters and operations of the L layers that hold parameters, by their channel counts.

    A layer with `inputs` and `outputs` channels has, for one image,

        parameters = kernel · (group_inputs or inputs) · outputs + per_output · outputs + constant
        operations = 2 · kernel · (group_inputs or inputs) · outputs · pixels

    Two operations are a multiply-add, as Darknet counts; batch normalisation, activations and
    additions of maps are not counted.

    Attributes:
        layers: int64 [L], their indices in the NetDef.
        inputs: int64 [L], channels of the (first) map that the layer reads.
        outputs: int64 [L], channels of the map that it writes.
        kernel: int64 [L], values of a kernel for each input channel (size²); 0 for shortcuts.
        group_inputs: int64 [L], channels that each filter of a convolution with groups reads,
            however many groups there are; 0 for one without groups.
        per_output: int64 [L], parameters beside the kernel of each output channel: scale and shift
            of batch normalisation, a bias, or the weights of a shortcut `per_channel`.
        constant: int64 [L], parameters whatever the widths: the weights of a shortcut `per_layer`.
        pixels: int64 [L], height · width of the map that it writes.
    """

    layers: Ints
    inputs: Ints
    outputs: Ints
    kernel: Ints
    group_inputs: Ints
    per_output: Ints
    constant: Ints
    pixels: Ints

    def parameters(self, inputs: ArrayLike, outputs: ArrayLike) -> NDArray[np.float64]:
        """[..., L]: the parameters of each layer with other channel counts, [..., L] each."""
        outputs = np.asarray(outputs)
        weights = self._weights(inputs, outputs)
        return np.asarray(weights + self.per_output * outputs + self.constant)

    def operations(self, inputs: ArrayLike, outputs: ArrayLike) -> NDArray[np.float64]:
        """[..., L]: the operations of each layer with other channel counts, [..., L] each."""
        return 2 * self._weights(inputs, outputs) * self.pixels

    def _weights(self, inputs: ArrayLike, outputs: ArrayLike) -> NDArray[np.float64]:
        """[..., L]: the values of all kernels of a convolution; 0 for shortcuts."""
        read = np.where(self.group_inputs > 0, self.group_inputs, np.asarray(inputs, float))
        return np.asarray(self.kernel * read * np.asarray(outputs, float))


def layer_costs(netdef: NetDef, size: tuple[int, int] | None = None) -> LayerCosts:
    """What each layer with parameters costs.

    Args:
        netdef: the network.
        size: (width, height) of its input in pixels, which operations depend on; the cfg's own by
            default.
    """
    outputs = shapes(netdef, size)
    rows = []
    for index, section in enumerate(netdef.layers):
        sources = netdef.sources(index)
        inputs = netdef.channels if sources[0] < 0 else outputs[sources[0]][0]
        channels, height, width = outputs[index]
        kernel = group_inputs = per_output = constant = 0
        if section.kind == "convolutional":
            groups = section.integer("groups", 1)
            kernel = section.integer("size", 1) ** 2
            group_inputs = inputs // groups if groups > 1 else 0
            per_output = 2 if section.flag("batch_normalize") else 1
        elif section.kind == "shortcut" and "weights_type" in section.options:
            weights = section.options["weights_type"]
            per_output = len(sources) if weights == "per_channel" else 0
            constant = len(sources) if weights in ("per_feature", "per_layer") else 0
        if per_output or constant:
            rows.append(
                (index, inputs, channels, kernel, group_inputs, per_output, constant,
                 height * width)
            )  # fmt: skip
    columns = np.array(rows, np.int64).reshape(-1, 8).T
    return LayerCosts(*columns)


def layer_parameters(netdef: NetDef) -> dict[int, int]:
    """The parameters of each layer that has any, by its index."""
    costs = layer_costs(netdef)
    return _by_layer(costs, costs.parameters(costs.inputs, costs.outputs))


def layer_operations(netdef: NetDef, size: tuple[int, int] | None = None) -> dict[int, int]:
    """The operations of each convolution for one image of (width, height) `size`, by its index."""
    costs = layer_costs(netdef, size)
    by_layer = _by_layer(costs, costs.operations(costs.inputs, costs.outputs))
    return {index: count for index, count in by_layer.items() if count}


def count_operations(netdef: NetDef, size: tuple[int, int] | None = None) -> int:
    """Operations of all convolutions for one image: two a multiply-add, as Darknet counts."""
    return sum(layer_operations(netdef, size).values())


def check_demand(
    netdef: NetDef, size: tuple[int, int], gigabytes: float, gigaoperations: float
) -> None:
    """Refuse a network that would take more memory or time than a person allows, before it does.

    A .cfg of a few lines may ask for any amount of both.

    Args:
        netdef: the network.
        size: (width, height) of its input in pixels.
        gigabytes: the most that its weights, and the maps that are held at once for one photo, may
            take in float32; what a library needs beside them does not count.
        gigaoperations: the most operations for one photo, in 10^9.

    Raises:
        InputError: it takes more; or its layers do not fit together.
    """
    sides = f"at {size[0]}x{size[1]}"
    costs = layer_costs(netdef, size)
    parameters = float(costs.parameters(costs.inputs, costs.outputs).sum())
    memory = 4 * (parameters + _largest_maps(netdef, size)) / 1e9
    if memory > gigabytes:
        raise InputError(
            f"{netdef.name}: takes {memory:.3g} GB for one photo {sides}: expected at most "
            f"{gigabytes:g}, or a larger max_network_gb"
        )
    operations = float(costs.operations(costs.inputs, costs.outputs).sum()) / 1e9
    if operations > gigaoperations:
        raise InputError(
            f"{netdef.name}: takes {operations:.3g} G operations for one photo {sides}: expected "
            f"at most {gigaoperations:g}, or a larger max_network_gflops"
        )


def _largest_maps(netdef: NetDef, size: tuple[int, int]) -> int:
    """The most numbers in maps that are held at once: each from its layer to its last reader."""
    numbers = {n: math.prod(shape) for n, shape in enumerate(shapes(netdef, size))}
    numbers[-1] = netdef.channels * size[0] * size[1]
    sources = [netdef.sources(index) for index in range(len(netdef.layers))]
    last_reader = {source: index for index, read in enumerate(sources) for source in read}
    held = most = numbers[-1]
    for index, read in enumerate(sources):
        held += numbers[index]
        most = max(most, held)
        held -= sum(numbers[source] for source in set(read) if last_reader[source] == index)
    return most


def count_parameters(model: nn.Module) -> int:
    """Parameters of a module, also of another project's."""
    return sum(parameter.numel() for parameter in model.parameters())


def _by_layer(costs: LayerCosts, values: NDArray[np.float64]) -> dict[int, int]:
    return {
        int(index): int(value) for index, value in zip(costs.layers, values.tolist(), strict=True)
    }
