"""Does what times networks wait for the card, and how fast is the card?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from tools.gpu.findings import Findings
from tools.gpu.networks import config, noise, settled
from tools.gpu.task import Task
from utils.backends import EngineOptions, open_engine
from utils.timing import interleaved, to_its_end

KERNEL_MS = 50.0  # of the long kernel
TOLERANCE = 0.05  # of a true time, and
OVERHEAD_MS = 0.3  # more, for the call itself
ROUNDS = 10


class LongKernel:
    """A kernel that does nothing for a while; a call of it returns at once."""

    def __init__(self, device: torch.device, milliseconds: float) -> None:
        self.device, self.cycles = device, 10_000_000
        self()
        self.synchronize()
        for _ in range(2):  # the first time, the card's clock may still be rising
            self.cycles = round(self.cycles * milliseconds / event_time(self, device))

    def __call__(self, images: Tensor | None = None) -> None:
        """Begin with it."""
        torch.cuda._sleep(self.cycles)

    def synchronize(self) -> None:
        """Wait for it."""
        torch.cuda.synchronize(self.device)


class Thread:
    """Stands for a card where there is none: what it is given is done later, in another thread."""

    def __init__(self, milliseconds: float) -> None:
        self.pool, self.seconds = ThreadPoolExecutor(1), milliseconds / 1000
        self.last: Future[None] | None = None

    def __call__(self, images: Tensor | None = None) -> None:
        """Begin with it."""
        self.last = self.pool.submit(time.sleep, self.seconds)

    def synchronize(self) -> None:
        """Wait for it."""
        if self.last:
            self.last.result()


def event_time(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of a call by the card's own clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end))


def timing(task: Task, findings: Findings) -> None:
    """A long kernel, and a large network, by our meter and by the card's own clock."""
    device, image = task.device, noise(1, (32, 32))
    kernel: LongKernel | Thread
    if device.type == "cuda":
        kernel = LongKernel(device, KERNEL_MS)
        true = statistics.median(event_time(kernel, device) for _ in range(ROUNDS))
    else:
        kernel, true = Thread(KERNEL_MS), KERNEL_MS
    compare_times("a long kernel", kernel, image, true, findings)
    begun = time.perf_counter()
    kernel(image)
    returned = 1000 * (time.perf_counter() - begun)
    kernel.synchronize()
    findings.figure("its call returns after, ms", returned)
    findings.expect(returned < true / 2, f"a call returns after {returned:.1f} of {true:.1f} ms")

    size = (task.side, task.side)
    network, images = task.of(("yolov3", 32), ("yolov3-lite", 2))
    batch = noise(images, size)
    engine = open_engine(
        "torch", settled(config(network, task.side)).to(device), EngineOptions(size, batch=images)
    )
    engine(batch)
    if device.type == "cuda":
        calls = (event_time(lambda: engine(batch), device) for _ in range(ROUNDS))
        compare_times(
            f"{network}, {images} images", engine, batch, statistics.median(calls), findings
        )


def compare_times(
    name: str, run: Callable[[Tensor], object], images: Tensor, true: float, findings: Findings
) -> None:
    """The time of a run by our meter, beside the true one in milliseconds."""
    ours = statistics.median(interleaved({name: to_its_end(run, images)}, ROUNDS)[name])
    findings.figure(f"{name}, true ms", true)
    findings.figure(f"{name}, our ms", ours)
    findings.expect(
        abs(ours - true) <= TOLERANCE * true + OVERHEAD_MS,
        f"{name}: {ours:.2f} ms by our meter: expected {true:.2f}",
    )
