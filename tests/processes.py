"""Several processes that work together, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT
from utils.data.demo_data import DemoSettings, make_demo

LIMIT = 900  # seconds, on a machine that others use


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(rank: int = 0, world: int = 1, port: int = 0) -> dict[str, str]:
    """The variables of one of several processes; those of one alone by default."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if world > 1:
        own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)}
        own |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        own |= {"MASTER_ADDR": "127.0.0.1"}
    return {**os.environ, **own}


def start(world: int, command: Sequence[str], folder: Path) -> list[subprocess.Popen[str]]:
    """Start Python with the command `world` times; each by its number."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment(rank, world, port),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Of each, its exit code and what it printed to stdout and stderr."""
    try:
        told = [process.communicate(timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *out) for process, out in zip(processes, told, strict=True)]


def small_data_set(folder: Path, train: int, valid: int) -> None:
    """Leave demo.data there, of photos of 96 pixels."""
    folder.mkdir(exist_ok=True)
    make_demo(folder / "demo", DemoSettings(train=train, valid=valid, side=96))
    (folder / "demo.names").write_text("".join(f"{digit}\n" for digit in range(10)))
    (folder / "demo.data").write_text(
        "names = demo.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n"
    )
