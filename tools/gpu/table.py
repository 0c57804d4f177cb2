"""How fast is the card? The table of the project that this one is after, whose card was a GTX 1660.

Three ways to run a network: `eager` is PyTorch as it comes; `channels_last` has batch normalisation
folded, the layout that cards prefer, and cuDNN try its kernels; `CUDA graph` is the same, launched
at once. The torch engine takes the faster one of the last two.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor

from models.darknet import Darknet
from tools.gpu.findings import Findings, Value
from tools.gpu.networks import config, noise, settled
from tools.gpu.task import Task
from utils.backends.base import maps_agree
from utils.backends.cuda_graph import captured
from utils.backends.fold import folded
from utils.backends.torch_engine import DTYPES, TOLERANCE, precisions
from utils.devices import wait_for
from utils.timing import interleaved, spread

# Milliseconds of a GTX 1660 in the project that this one is after: 320x320, one image.
ORIGINAL_MS = {
    "yolov3": 31.0,
    "yolov3-tiny": 9.5,
    "yolov3-mobilenet": 20.0,
    "yolov3-mobilenetv2": 29.0,
    "yolov3-lite": 5.8,
    "yolov3-tiny-mobilenet": 14.0,
}
SMALL = ("yolov3-lite",)
GRAPH_SPEEDUP = 3.0  # of yolov3 and one image, against eager, where launches take the time
LAUNCHING = 0.7  # of eager's time: if the calls alone take more, launches take the time
Run = Callable[[Tensor], list[Tensor]]
Call = Callable[[], object]


def table(task: Task, findings: Findings) -> None:
    """Milliseconds of each network, batch, precision and way to run it, which take turns."""
    device = task.device
    findings.figure("TF32 in fp32", device.type == "cuda" and torch.backends.cudnn.allow_tf32)
    for batch in task.of((1, 32), (1, 2)):
        for name in task.of(tuple(ORIGINAL_MS), SMALL):
            model = settled(config(name, task.side)).to(device)
            for precision in precisions(device):
                row: dict[str, Value] = {"network": name, "batch": batch, "precision": precision}
                images = noise(batch, model.netdef.size).to(device, DTYPES[precision])
                try:
                    times = time_ways(name, model, images, task.of(9, 2), findings)
                except torch.OutOfMemoryError:
                    findings.row({**row, "eager ms": "out of memory"})
                    continue
                except RuntimeError as error:  # such as of a capture
                    findings.fault(f"{name}, {precision}, batch {batch}: {error}")
                    continue
                finally:
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
                compare(row, times, findings)
                findings.row(row)


def time_ways(
    name: str, model: Darknet, images: Tensor, rounds: int, findings: Findings
) -> dict[str, float]:
    """Milliseconds of each way to run a network on images of its device, and of eager's calls."""
    dtype, device = images.dtype, images.device
    flat = copy.deepcopy(model).to(dtype)
    packed = folded(model).to(dtype).to(memory_format=torch.channels_last)
    packed_images = images.contiguous(memory_format=torch.channels_last)

    def eager() -> object:
        torch.backends.cudnn.benchmark = False
        return flat(images)

    def channels_last(images: Tensor) -> list[Tensor]:
        torch.backends.cudnn.benchmark = True
        return packed(images)  # type: ignore[no-any-return]

    with torch.inference_mode():
        runs: dict[str, Call] = {"eager": eager}
        runs["channels_last"] = lambda: channels_last(packed_images)
        if device.type == "cuda":
            graph = captured(channels_last, packed_images)
            findings.expect(
                maps_agree(graph(packed_images), channels_last(packed_images), TOLERANCE[dtype]),
                f"{name}, {dtype}: a CUDA graph computes other maps than its network",
            )
            runs["CUDA graph"] = lambda: graph(packed_images)
        ended = {name: _to_the_end(call, device) for name, call in runs.items()}
        times = {name: spread(values)[0] for name, values in interleaved(ended, rounds).items()}
        return times | {"calls": _launch_ms(eager, device, rounds)}


def _to_the_end(call: Call, device: torch.device) -> Callable[[], None]:
    def run() -> None:
        call()
        wait_for(device)

    return run


def _launch_ms(call: Call, device: torch.device, rounds: int) -> float:
    """Milliseconds after which a call returns, whether the card is done or not."""
    times = []
    for _ in range(rounds):
        wait_for(device)
        begun = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begun))
    wait_for(device)
    return spread(times)[0]


def compare(row: dict[str, Value], times: dict[str, float], findings: Findings) -> None:
    """Complete a row of the table."""
    name, batch = str(row["network"]), int(row["batch"])
    calls = times.pop("calls")
    row |= {f"{way} ms": value for way, value in times.items()}
    row["images a second"] = 1000 * batch / min(times.values())
    if batch == 1:
        row["GTX 1660 ms"] = ORIGINAL_MS[name]
    if "CUDA graph" not in times:
        return
    speedup, eager = times["eager"] / times["CUDA graph"], times["eager"]
    row["graph, times eager"] = speedup
    row["eager's calls ms"] = calls
    if (name, batch) == ("yolov3", 1):
        which = f"yolov3, {row['precision']}, one image"
        findings.figure(f"{which}: CUDA graph, times eager", speedup)
        if calls < LAUNCHING * eager:
            findings.figure(f"{which}: what takes the time", "arithmetic, not launches")
            return
        findings.expect(
            speedup >= GRAPH_SPEEDUP,
            f"{which}: a CUDA graph is {speedup:.2f} times as fast as eager: expected "
            f"{GRAPH_SPEEDUP:g}, since launches take the time",
        )
