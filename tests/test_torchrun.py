"""train.py as torchrun starts it: who prints, who is missed, and on two hosts."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.processes import environment, finish, free_port, small_data_set, start

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
# One of two processes is killed at the end of its second epoch, unless it was started anew.
KILLED = """
import os, signal, sys
import train
from utils import errors
from utils.processes import distributed
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


# One of two processes is killed while the main one measures.
MEASURING = """
import os, signal, sys, threading, time
from pathlib import Path
import train
from pruning.iterative import while_training
from utils import errors
def measure(*_):
    Path("measuring").touch()
    time.sleep(1000)
    raise AssertionError("measured on")
def kill_meanwhile():
    while not Path("measuring").exists():
        time.sleep(0.1)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
while_training.open_meter = measure
if os.environ["RANK"] == os.environ["VICTIM"]:
    threading.Thread(target=kill_meanwhile, daemon=True).start()
sys.exit(errors.run(train.main, together=True))
"""
# Ends after the first of its epochs.
FIRST_EPOCH = """
import sys
import train
from utils import errors
from utils.processes import distributed
distributed.wait_for_main = lambda: sys.exit(0)
sys.exit(errors.run(train.main, together=True))
"""
CUT = ("--is_pruned", "--prune_while_training", "--cut_epochs", "1")


def flags(name: str, epochs: int, batch_size: int = 2) -> list[str]:
    cfg = str(ROOT / "config" / "yolov3-lite.cfg")
    own = ["--cfg", cfg, "--data", "demo.data", "--img_size", "96"]
    own += ["--batch_size", str(batch_size)]
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
    (tmp_path / "measuring.py").write_text(MEASURING)
    (tmp_path / "first_epoch.py").write_text(FIRST_EPOCH)
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
    run = torchrun(folder, "--nproc_per_node=2", "killed.py", *flags("killed", 3))
    ((code, _, errors),) = finish([run])
    assert code == 1
    assert sum("another process" in line for line in errors.splitlines()) == 1
    assert "train.py" not in errors and 'errors.py", line' not in errors  # no traceback of ours


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["0", "1"])
def test_one_that_is_killed_while_the_main_process_measures_ends_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    monkeypatch.setenv("VICTIM", victim)
    budget = ("--pruned_id", "latency", "--target_speedup", "2")
    run = torchrun(folder, "--nproc_per_node=2", "measuring.py", *flags("x", 3), *CUT, *budget)
    ((code, _, errors),) = finish([run])  # which does not wait until all is measured
    assert code == 1
    assert sum("another process" in line for line in errors.splitlines()) == 1
    assert 'errors.py", line' not in errors


@pytest.mark.slow
@pytest.mark.parametrize("cut", [(), (*CUT, "--percent", "0.4")], ids=["dense", "cut"])
def test_processes_that_are_started_anew_go_on_from_the_last_checkpoint(
    folder: Path, cut: tuple[str, ...]
) -> None:
    options = ("--nproc_per_node=2", "--max-restarts=1", "killed.py")
    ((code, out, errors),) = finish([torchrun(folder, *options, *flags("again", 3), *cut)])
    assert code == 0, errors
    assert "resume weights/again/last.pt after epoch" in out
    assert out.count("cut after epoch 1") == bool(cut)
    rows = (folder / "runs/again/metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


@pytest.mark.slow
def test_two_hosts_are_started_anew_together(folder: Path) -> None:
    """Each torchrun counts its own restarts, and one may count none."""
    endpoint = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    hosts = [
        torchrun(
            folder, "--nnodes=2", "--nproc_per_node=1", "--rdzv-backend=c10d", "--rdzv-id=job",
            endpoint, f"--local-addr=127.0.0.{host}", "--max-restarts=1", "killed.py",
            *flags("hosts", 3),
        )
        for host in (1, 2)
    ]  # fmt: skip
    results = finish(hosts)
    assert [code for code, _, _ in results] == [0, 0], results
    assert sum("resume weights/hosts/last.pt after epoch" in out for _, out, _ in results) == 1
    rows = (folder / "runs/hosts/metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


def losses(folder: Path, run: str) -> list[list[float]]:
    """By epoch, the parts of the loss."""
    rows = list(csv.DictReader((folder / "runs" / run / "metrics.csv").open()))
    return [[float(row[name]) for name in row if name.startswith("loss/")] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    folder: Path, before: int, after: int
) -> None:
    """With as many photos a batch in all, it comes to what one would have come to."""

    def run(world: int, *command: str) -> str:
        (code, out, errors), *_ = finish(start(world, command, folder))
        assert code == 0, errors
        return out

    train = str(ROOT / "train.py")
    run(1, train, *flags("whole", 2, batch_size=4), "--eval_every", "2", "--no_amp")
    run(before, str(folder / "first_epoch.py"),
        *flags("parts", 2, batch_size=4 // before), "--eval_every", "2", "--no_amp")  # fmt: skip
    size = ("--batch_size", str(4 // after))
    out = run(after, train, "--resume", "weights/parts/last.pt", *size, "--no_visdom")
    assert "2 before: 4 photos a batch" in out or "1 before: 4 photos a batch" in out
    np.testing.assert_allclose(losses(folder, "parts"), losses(folder, "whole"), rtol=0.02)


@pytest.mark.slow
def test_other_scripts_refuse_several_processes(tmp_path: Path) -> None:
    results = finish(start(2, [str(ROOT / "test.py")], tmp_path))
    assert [code for code, _, _ in results] == [2, 2]
    told = [errors.strip() for _, _, errors in results]
    assert told[1] == ""
    assert told[0].startswith("error: torchrun: 2 processes: only train.py works with several")
