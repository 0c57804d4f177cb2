"""A device whose kernels take simulated time, in place of a graphics card."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pytest
from torch import Tensor

from models.costs import layer_operations
from models.darknet import Darknet, shapes
from models.netdef import NetDef
from pruning.latency.meter import LatencyMeter
from tests.pruning.fake_latency import CONDITIONS

NO_KERNEL = ("yolo", "dropout")


@dataclass
class FakeDevice:
    """Kernels start one after another, each once it is launched and the one before it is done.

    Attributes:
        launch: microseconds that the host takes to launch a kernel.
        gap: microseconds that the device takes between two kernels.
        rate: operations a microsecond, where it has many images at once.
        half: so many images at once come to half of that rate.
        queued: whether the host goes on to the next launch meanwhile, as in eager mode; else a
            network's kernels are launched as one, as a CUDA graph.
        now: seconds since it was there.
    """

    launch: float
    rate: float
    gap: float = 0.0
    half: float = 3.0
    queued: bool = False
    now: float = 0.0

    def meter(self, batch: int = 1) -> LatencyMeter:
        """What times networks and layers on it."""
        conditions = replace(CONDITIONS, batch=batch)
        return LatencyMeter("a fake device", lambda *by: FakeRun(self, *by), conditions)

    def milliseconds(self, netdef: NetDef, size: tuple[int, int], batch: int = 1) -> float:
        """What a network takes for an image, of so many at once."""
        rate = self.rate * batch / (batch + self.half)
        host = end = 0.0
        for work in kernels(netdef, size):
            host += self.launch if self.queued else 0
            end = max(host, end) + self.gap + (0 if self.queued else self.launch)
            end += work * batch / rate
        return end / 1000 / batch


class FakeRun:
    """A network on a fake device; the call returns at once."""

    def __init__(self, device: FakeDevice, model: Darknet, size: tuple[int, int]) -> None:
        """Make it ready for images of (width, height)."""
        self.device, self.netdef, self.size = device, model.netdef, size
        self._times: dict[int, float] = {}
        self._until = 0.0

    def __call__(self, images: Tensor) -> None:
        """Begin."""
        batch = len(images)
        if batch not in self._times:
            ms = self.device.milliseconds(self.netdef, self.size, batch)
            self._times[batch] = ms * batch / 1000
        self._until = max(self._until, self.device.now) + self._times[batch]

    def synchronize(self) -> None:
        """Wait for the end."""
        self.device.now = max(self.device.now, self._until)


def kernels(netdef: NetDef, size: tuple[int, int]) -> list[float]:
    """The operations of each kernel of a network for an image; moving a value counts as 10."""
    operations, maps = layer_operations(netdef, size), shapes(netdef, size)
    work = []
    for index, section in enumerate(netdef.layers):
        alias = section.kind == "route" and len(netdef.sources(index)) == 1
        if section.kind not in NO_KERNEL and not alias:
            channels, height, width = maps[index]
            work.append(operations.get(index, 0) + 10.0 * channels * height * width)
    return work


def time_on(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clocks tell the device's time."""
    monkeypatch.setattr(time, "perf_counter", lambda: device.now)
