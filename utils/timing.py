"""How long do several runs take, timed in turns on a machine that also does other work?"""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from utils.console.progress import Wait

# Seconds of untimed calls. Where five engines took turns on one network, ONNX Runtime took 6.5 ms
# after one untimed call, and 4.5 ms after 0.02 s of them.
SETTLE = 0.02
NVIDIA_SMI_SECONDS = 10.0  # that it may take to answer


@runtime_checkable
class Queued(Protocol):
    """What may still compute when a call of it is over, as a graphics card does."""

    def synchronize(self) -> None:
        """Wait until all that it was given is computed."""
        ...


def synchronize(run: object) -> None:
    """Wait for what was called: until then its time is not over."""
    if isinstance(run, Queued):
        run.synchronize()


def to_its_end(run: Callable[[Tensor], object], images: Tensor) -> partial[None]:
    """The call to time: a network on images, which is over when its maps are computed."""
    # Asked here: to ask takes some microseconds, in which a card computes a layer.
    wait = run.synchronize if isinstance(run, Queued) else None
    return partial(_call_and_wait, run, images, wait)


def _call_and_wait(
    run: Callable[[Tensor], object], images: Tensor, wait: Callable[[], None] | None
) -> None:
    run(images)
    if wait is not None:
        wait()


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 2,
    settle: float = SETTLE,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
    after_round: Callable[[Mapping[str, list[float]]], object] = lambda times: None,
    title: str = "timing in turns",
) -> dict[str, list[float]]:
    """Milliseconds of each run in each round.

    The runs take turns, so that other work of the machine slows all of them alike. A turn is one
    call or more, for `settle` seconds, and then one that counts: threads of the library whose turn
    was before may still be waiting busily for work.

    Args:
        runs: what to call, by name; a call is to end with its work, see `to_its_end`.
        rounds: how often each is timed.
        warm_up: untimed calls of each before the first round.
        settle: seconds of untimed calls at the beginning of a turn.
        seconds: after so many no new round begins, but there is at least one.
        clock: tells the time in seconds.
        after_round: gets the milliseconds so far, to keep them.
        title: of the progress that is shown.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    with Wait(title, rounds) as wait:
        for _ in range(warm_up):
            for call in runs.values():
                call()
        began = clock()
        for number in range(rounds):
            if number and clock() - began > seconds:
                break
            for name, call in runs.items():
                start = clock()
                call()
                while clock() - start < settle:
                    call()
                start = clock()
                call()
                times[name].append(1000 * (clock() - start))
            after_round(times)
            wait.advance()
    return times


def spread(times: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    if len(times) < 2:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return middle, low, high


def ms_in_words(milliseconds: float) -> str:
    """Milliseconds with two digits behind the point; on a card a few often tell nothing.

    >>> ms_in_words(12.3456), ms_in_words(0.0123456)
    ('12.35 ms', '0.0123 ms')
    """
    return f"{milliseconds:.2f} ms" if milliseconds >= 1 else f"{milliseconds:.3g} ms"


def cpu_name() -> str:
    """The CPU's name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(device: torch.device | None = None) -> str:
    """What computes, in words: a graphics card with its driver, or the CPU with its threads.

    It tells machines apart whose times differ, and stays the same from call to call.
    """
    if device is not None and device.type == "cuda":
        return _card(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'' if threads == 1 else 's'}"


@cache  # asking takes a moment, and the driver stays
def _card(device: torch.device) -> str:
    driver = "".join(f", driver {answer}" for answer in _ask_card(device, "driver_version"))
    return f"{torch.cuda.get_device_name(device)}{driver}, CUDA {torch.version.cuda}"


def clocks(device: torch.device) -> str:
    """How fast a card's clock is at the moment, in words; empty for a CPU, or if nobody tells."""
    if device.type != "cuda":
        return ""
    answers = _ask_card(device, "clocks.sm", "clocks.max.sm")
    return f"clock {answers[0]} of at most {answers[1]}" if answers else ""


def _ask_card(device: torch.device, *questions: str) -> list[str]:
    """What NVIDIA's driver tells of a card; nothing where its `nvidia-smi` is not there."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    # By its id: CUDA_VISIBLE_DEVICES gives torch's cards other numbers than the driver's.
    card = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = [
        program,
        f"--id={card}",
        f"--query-gpu={','.join(questions)}",
        "--format=csv,noheader",
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            timeout=NVIDIA_SMI_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    answers = [answer.strip() for answer in done.stdout.split(",")]
    return answers if len(answers) == len(questions) else []


def version(package: str) -> str:
    """An installed package's version, empty where it is not installed."""
    names = {"cv2": "opencv-python"}
    try:
        return metadata.version(names.get(package, package))
    except metadata.PackageNotFoundError:
        return ""
