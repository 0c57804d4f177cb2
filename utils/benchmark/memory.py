"""How much memory does a network take on an engine?

Each is opened in a process of its own, so that libraries do not mix. There the engine first opens
and runs a network of two small convolutions, which loads the library and, where the engine has
them, the tools that convert a network. What is reported is by how much resident memory then grows
as the network itself is opened and run, once what was freed has gone back to the system.

On a card it is the most memory that torch held there as the network ran, above what it held before
it was opened. Not what torch's tensors fill: a CUDA graph keeps the memory of the maps inside it,
which no tensor holds any more.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import psutil
import torch

from models.darknet import Darknet
from models.netdef import parse
from utils.benchmark.latency import Row
from utils.benchmark.networks import Candidate, Key, Peer, Run, open_one
from utils.console.progress import track
from utils.devices import choose_device
from utils.processes.workers import end_with_parent
from utils.timing import synchronize

CARD_METHOD = (
    "on a card, the most of its memory that torch took as the network ran, without what the "
    "driver and the libraries keep for themselves"
)
METHOD = (
    "resident memory that grows as the network is opened and run, in a process of its own in which "
    "the library already ran a small one"
)
RUNS = 3  # after which a library has taken the memory that it takes
SMALL = """
[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=18
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=10,10, 20,20, 30,30
classes=1
num=3
"""


def with_memory(
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    threads: int,
    peers: Mapping[str, Peer],
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> list[Row]:
    """The rows with their memory.

    Args:
        candidates: the networks that the rows are about.
        rows: what was measured before.
        threads: of the engines; 0 for as many as torch finds useful.
        peers: the other projects among the rows' engines.
        keep: gets the rows after each measurement.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    context = multiprocessing.get_context("spawn")
    result = list(rows)
    for number, row in track(list(enumerate(rows)), "measuring memory"):
        # Passed as bytes: tensors that processes share would not count as this one's memory.
        parcel = io.BytesIO()
        torch.save((by_name[row.network], row.key, threads, peers), parcel)
        with ProcessPoolExecutor(1, context, end_with_parent) as process:
            bytes_added = process.submit(_added_bytes, parcel.getvalue()).result()
        result[number] = replace(row, memory_mb=bytes_added / 1e6)
        keep(result)
    return result


def _added_bytes(parcel: bytes) -> int:
    """By how much a network lets this process grow."""
    candidate: Candidate
    key: Key
    peers: Mapping[str, Peer]
    # Whole objects, since the parcel comes from `with_memory` and never was a file.
    candidate, key, threads, peers = torch.load(io.BytesIO(parcel), weights_only=False)
    if threads:
        torch.set_num_threads(threads)
    calibration = None if candidate.calibration is None else torch.rand(8, 3, 64, 64)
    model = Darknet(parse(SMALL, "SMALL")).eval()
    small = Candidate("small", model, (64, 64), calibration)
    if key.engine in peers:
        importlib.import_module(peers[key.engine].module)
        _run(model, small, key._replace(device="cpu"))
    else:
        # An exported file in int8 comes without photos to calibrate another network on.
        precision = key.precision if isinstance(candidate.model, Darknet) else "fp32"
        small_key = key._replace(precision=precision)
        _run(open_one(small, small_key, threads, peers), small, key)
    device = choose_device(key.device)
    before = _held_bytes(device)
    run = open_one(candidate, key, threads, peers)
    if device.type != "cuda":
        _run(run, candidate, key)
        return _held_bytes(device) - before
    _held_bytes(device)  # what only the opening took is given back
    _run(run, candidate, key)
    return torch.cuda.max_memory_reserved(device) - before


def _run(run: Run, candidate: Candidate, key: Key) -> None:
    images = torch.rand(key.batch, 3, candidate.size[1], candidate.size[0])
    images = images.to(choose_device(key.device))
    for _ in range(RUNS):
        run(images)
    synchronize(run)


def _held_bytes(device: torch.device) -> int:
    """Memory on a device that is in use, or of this process, once what was freed is given back."""
    if device.type != "cuda":
        return _resident_bytes()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_reserved(device)


def _resident_bytes() -> int:
    """What of this process lies in memory, without what it freed."""
    gc.collect()
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):  # glibc keeps freed memory for later
            library.malloc_trim(0)
    return int(psutil.Process().memory_info().rss)
