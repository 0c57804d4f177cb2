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
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from models.darknet import Darknet
from models.netdef import parse
from utils.benchmark.latency import Candidate, Row, Run, key_of, open_one
from utils.benchmark.peers import PEERS
from utils.errors import InputError

MEMORY = (
    "resident memory that grows as the network is opened and run, in a process of its own in which "
    "the library already ran a small one"
)
RUNS = 3
STATUS = Path("/proc/self/statm")
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


def with_memory(candidates: Sequence[Candidate], found: Sequence[Row], threads: int) -> list[Row]:
    """The rows with their memory. Raises InputError where the system does not tell it."""
    if not STATUS.exists():
        raise InputError(f"memory=True: expected a system with {STATUS}, such as Linux")
    by_name = {candidate.name: candidate for candidate in candidates}
    context = multiprocessing.get_context("spawn")
    result = []
    for row in found:
        parcel = io.BytesIO()
        torch.save((by_name[row.network], key_of(row), threads), parcel)
        with ProcessPoolExecutor(1, context) as process:
            bytes_added = process.submit(_added, parcel.getvalue()).result()
        result.append(replace(row, memory_mb=bytes_added / 1e6))
    return result


def _added(parcel: bytes) -> int:
    """Bytes that a network adds to this process."""
    # Whole objects, since the parcel comes from `with_memory` and never was a file.
    candidate, key, threads = torch.load(io.BytesIO(parcel), weights_only=False)
    if threads:
        torch.set_num_threads(threads)
    network, engine, _, batch = key
    calibration = None if candidate.calibration is None else torch.rand(8, 3, 64, 64)
    small = Candidate(network, Darknet(parse(SMALL, "SMALL")).eval(), (64, 64), calibration)
    if engine in PEERS:
        importlib.import_module(PEERS[engine].module)
        _run(small.model, small, batch)
    else:
        _run(open_one(small, key, threads), small, batch)
    before = _resident()
    run = open_one(candidate, key, threads)
    _run(run, candidate, batch)
    return _resident() - before


def _run(run: Run, candidate: Candidate, batch: int) -> None:
    images = torch.rand(batch, 3, candidate.size[1], candidate.size[0])
    for _ in range(RUNS):
        run(images)


def _resident() -> int:
    """Bytes of this process that lie in memory, without what it freed."""
    gc.collect()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc keeps freed memory for later
        library.malloc_trim(0)
    return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
