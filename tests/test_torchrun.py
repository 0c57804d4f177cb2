"""train.py as torchrun starts it: who prints, who is missed, and on two hosts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.processes import LIMIT, environment, finish, free_port, small_data_set, start

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
# One of two processes is killed at the end of its second epoch, unless it was started anew.
KILLED = """
import os, signal, sys
import train
from utils import distributed, errors
wait, epochs = distributed.wait_for_main, []
def kill_at_the_second():
    epochs.append(1)
    which = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
    if len(epochs) == 2 and which == ("1", "0"):
        os.kill(os.getpid(), signal.SIGKILL)
    wait()
distributed.wait_for_main = kill_at_the_second
sys.exit(errors.run(train.main, together=True))
"""


def flags(name: str, epochs: int) -> list[str]:
    cfg = str(ROOT / "config" / "yolov3-lite.cfg")
    own = ["--cfg", cfg, "--data", "demo.data", "--img_size", "96", "--batch_size", "2"]
    return [*own, "--workers", "0", "--no_visdom", "--epochs", str(epochs), "--name", name]


def torchrun(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_data_set(tmp_path, train=12, valid=4)
    (tmp_path / "killed.py").write_text(KILLED)
    return tmp_path


@pytest.mark.slow
def test_two_hosts_train_one_network(folder: Path) -> None:
    """Two addresses of this machine; only the main process of the first prints and writes."""
    endpoint = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    hosts = [
        torchrun(
            folder, "--nnodes=2", "--nproc_per_node=1", "--rdzv-backend=c10d", "--rdzv-id=job",
            endpoint, f"--local-addr=127.0.0.{host}", str(ROOT / "train.py"), *flags("hosts", 1),
        )
        for host in (1, 2)
    ]  # fmt: skip
    results = finish(hosts)
    assert [code for code, _, _ in results] == [0, 0], results
    assert sum("epoch" in out for _, out, _ in results) == 1
    assert (folder / "weights/hosts/best.weights").exists()


@pytest.mark.slow
def test_one_that_is_killed_ends_all_with_a_line(folder: Path) -> None:
    started = time.monotonic()
    run = torchrun(folder, "--nproc_per_node=2", "killed.py", *flags("killed", 3))
    ((code, _, errors),) = finish([run])
    assert code == 1 and time.monotonic() - started < LIMIT
    assert sum("another process" in line for line in errors.splitlines()) == 1
    assert "train.py" not in errors and 'errors.py", line' not in errors  # no traceback of ours


@pytest.mark.slow
def test_processes_that_are_started_anew_go_on_from_the_last_checkpoint(folder: Path) -> None:
    options = ("--nproc_per_node=2", "--max-restarts=1", "killed.py")
    ((code, out, errors),) = finish([torchrun(folder, *options, *flags("again", 3))])
    assert code == 0, errors
    assert "resume weights/again/last.pt after epoch" in out
    rows = (folder / "runs/again/metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


@pytest.mark.slow
def test_other_scripts_refuse_several_processes(tmp_path: Path) -> None:
    results = finish(start(2, [str(ROOT / "test.py")], tmp_path))
    assert [code for code, _, _ in results] == [2, 2]
    told = [errors.strip() for _, _, errors in results]
    assert told[1] == ""
    assert told[0].startswith("error: torchrun: 2 processes: only train.py works with several")
