"""How much memory does a network take on an engine?

Each is opened in a process of its own, so that libraries do not mix. There the engine first opens
and runs a network of two small convolutions, which loads the library and, where the engine has
them, the tools that convert a network. What is reported is by how much resident memory then grows
as the network itself is opened and run, once what was freed has gone back to the system.
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
from utils.processes import end_with_parent
from utils.progress import track

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
        _run(model, small, key.batch)
    else:
        # An exported file in int8 comes without photos to calibrate another network on.
        precision = key.precision if isinstance(candidate.model, Darknet) else "fp32"
        small_key = key._replace(precision=precision)
        _run(open_one(small, small_key, threads, peers), small, key.batch)
    before = _resident_bytes()
    run = open_one(candidate, key, threads, peers)
    _run(run, candidate, key.batch)
    return _resident_bytes() - before


def _run(run: Run, candidate: Candidate, batch: int) -> None:
    images = torch.rand(batch, 3, candidate.size[1], candidate.size[0])
    for _ in range(RUNS):
        run(images)


def _resident_bytes() -> int:
    """What of this process lies in memory, without what it freed."""
    gc.collect()
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):  # glibc keeps freed memory for later
            library.malloc_trim(0)
    return int(psutil.Process().memory_info().rss)
