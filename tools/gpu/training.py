"""Does training work on the card: to its mAP, in fp16, and to the same bits after a resume?"""

from __future__ import annotations

import _thread
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

import train
from tools.gpu.findings import Findings, NotPossible
from tools.gpu.task import ROOT, SMALL_SIDE, Task
from utils.checkpoint.checkpoint import read_checkpoint
from utils.data.demo_data import DEMO, DemoSettings, make_demo
from utils.files.writing import write_text
from utils.monitoring.history import CSV_NAME, History, read_history
from utils.training.runs import Run

SMALL_DEMO = DemoSettings(train=16, valid=8, side=64)
DEMO_RUN, OWN_RUN, BRIEF_RUN, FP16_RUN = "demo", "own-data", "brief", "fp16"
EPOCHS, MEAN_AP = 40, 0.96  # of the demo set, and the mAP@.5 that a CPU came to (README.md)
DEMO_TOLERANCE, OWN_TOLERANCE = 0.02, 0.01  # by which mAP may be less
OWN_SECONDS = 60.0  # that BCCD's 25 epochs may take
RESUMED_EPOCHS = 4
POLL_SECONDS = 0.02
TIMED = "speed/"  # begins the names of figures that no two runs share


def demo_flags(
    task: Task, name: str, epochs: int, *more: str, cfg: str = "yolov3-lite"
) -> list[str]:
    """train.py's flags for a run on the demo set; where this is only tried, on a small one."""
    flags = ["--data", demo_data(task), "--cfg", str(ROOT / "config" / f"{cfg}.cfg")]
    if task.small:
        flags += ["--img_size", str(SMALL_SIDE)]
    flags += ["--device", task.check.device, "--no_visdom"]
    return [*flags, "--name", name, "--epochs", str(epochs), *more]


def demo_data(task: Task) -> str:
    """The .data file of the demo set, or of a small one, which it makes."""
    if not task.small:
        return str(DEMO)
    make_demo("demo", SMALL_DEMO)
    write_text("demo.names", "".join(f"{digit}\n" for digit in range(10)))
    write_text("demo.data", "names = demo.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n")
    return "demo.data"


def trained(task: Task) -> Path:
    """A network that knows the demo set a little; it is trained where no step has left one."""
    for name in (DEMO_RUN, BRIEF_RUN):
        if (best := Run(name).weights / "best.pt").is_file():
            return best
    train.main(demo_flags(task, BRIEF_RUN, task.of(4, 3), "--batch_size", "8"))
    return Run(BRIEF_RUN).weights / "best.pt"


def history_of(name: str) -> History:
    """The figures of a run's epochs."""
    return read_history(Run(name).folder / CSV_NAME)


def losses(history: History) -> list[float]:
    """The training loss of each epoch."""
    return [
        sum(value for name, value in row.items() if name.startswith("loss/"))
        for _, row in sorted(history.items())
    ]


def demo_training(task: Task, findings: Findings) -> None:
    """The training that train.py begins with."""
    epochs = task.of(EPOCHS, 3)
    flags = demo_flags(task, DEMO_RUN, epochs, "--batch_size", "8", "--eval_every", "10")
    train_and_tell(flags, DEMO_RUN, findings)
    if not task.small:
        expect_mean_ap(DEMO_RUN, MEAN_AP, DEMO_TOLERANCE, findings)


def own_training(task: Task, findings: Findings) -> None:
    """The user's data set, such as BCCD, as it was trained on a CPU."""
    check = task.check
    if not check.data:
        raise NotPossible("no --data was given")
    flags = [
        *("--data", check.data, "--cfg", check.cfg, "--pretrained", "--weights", check.weights),
        *("--epochs", str(check.epochs), "--img_size", "320", "--lr", "3e-3", "--seed", "0"),
        *("--batch_size", "8", "--eval_every", "5", "--device", check.device, "--no_visdom"),
        *("--name", OWN_RUN),
    ]
    seconds = train_and_tell(flags, OWN_RUN, findings)
    if not check.mean_ap:
        return
    expect_mean_ap(OWN_RUN, check.mean_ap, OWN_TOLERANCE, findings)
    findings.expect(
        task.small or seconds < OWN_SECONDS, f"{seconds:.0f} s: expected below {OWN_SECONDS:.0f}"
    )


def train_and_tell(flags: Sequence[str], name: str, findings: Findings) -> float:
    """Run train.py, and tell its loss, mAP and speed; the seconds that it took."""
    begun = time.perf_counter()
    train.main([*flags])
    seconds = time.perf_counter() - begun
    history = history_of(name)
    figures = history[max(history)]
    falling = losses(history)
    findings.figure("seconds of train.py", seconds)
    findings.figure("epochs", len(history))
    findings.figure("loss, first epoch", falling[0])
    findings.figure("loss, last epoch", falling[-1])
    findings.figure("mAP@.5", figures["mAP/mAP@.5"])
    findings.figure("images a second, last epoch", figures["speed/images_per_second"])
    findings.expect(
        falling[-1] < falling[0], f"the loss went from {falling[0]:.4g} to {falling[-1]}"
    )
    return seconds


def expect_mean_ap(name: str, expected: float, tolerance: float, findings: Findings) -> None:
    """What a CPU came to."""
    history = history_of(name)
    mean_ap = history[max(history)]["mAP/mAP@.5"]
    findings.figure("mAP@.5 on a CPU", expected)
    findings.expect(
        mean_ap >= expected - tolerance,
        f"mAP@.5 {mean_ap:.4f}: expected {expected:.4f}, which a CPU came to",
    )


def fp16(task: Task, findings: Findings) -> None:
    """A training in fp16, whose loss is scaled, whatever the card is fast with."""
    flags = demo_flags(task, FP16_RUN, task.of(4, 3), "--amp_dtype", "fp16", "--batch_size", "8")
    train_and_tell(flags, FP16_RUN, findings)
    told = losses(history_of(FP16_RUN))
    findings.expect(all(map(math.isfinite, told)), f"a loss is no number: {told}")
    state = read_checkpoint(Run(FP16_RUN).weights / "last.pt").training
    scaler = state.scaler if state else None
    findings.expect(bool(scaler), "last.pt does not hold by what the loss is scaled")
    if scaler:
        findings.figure("the loss is scaled by", float(scaler["scale"]))


def resume(task: Task, findings: Findings) -> None:
    """A training that is stopped and goes on, beside one that is not stopped."""

    def flags(name: str) -> list[str]:
        more = ("--workers", "0", "--batch_size", "8", "--eval_every", "2")
        return demo_flags(task, name, RESUMED_EPOCHS, *more)

    train.main(flags("whole"))
    with interrupted_after("cut", 2):
        train.main(flags("cut"))
    last = Run("cut").weights / "last.pt"
    stopped = read_checkpoint(last).training
    assert stopped
    findings.figure("stopped after epoch", stopped.epoch)
    if stopped.epoch == RESUMED_EPOCHS:
        raise NotPossible("the training was over before it could be stopped")
    train.main(["--resume", str(last), "--workers", "0", "--no_visdom",
                "--device", task.check.device])  # fmt: skip
    differing = differences("whole", "cut")
    findings.figure("differing tensors and figures", len(differing))
    if not differing:
        return
    findings.fault(f"after a resume {len(differing)} tensors and figures differ, such as "
                f"{differing[0]}")  # fmt: skip
    train.main(flags("again"))
    findings.figure("differing without any resume", len(differences("whole", "again")))


@contextmanager
def interrupted_after(name: str, epochs: int) -> Iterator[None]:
    """Press Ctrl-C, as it were, once a run has done so many epochs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            if len(history_of(name)) >= epochs and (Run(name).weights / "last.pt").is_file():
                _thread.interrupt_main()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with suppress(KeyboardInterrupt):
        try:
            yield
        finally:
            over.set()
            watcher.join()


def differences(one: str, other: str) -> list[str]:
    """What differs in the last bits: tensors of the last checkpoints of two runs, and figures."""
    names = []
    for part in ("network", "training", "optimizer"):
        pairs = _tensors(one)[part], _tensors(other)[part]
        names += [f"{part}: {name}" for name in pairs[0] if not _equal(name, *pairs)]
    figures = [  # as texts: of those, nan equals itself
        {k: str(v) for row in history_of(run).values() for k, v in row.items() if TIMED not in k}
        for run in (one, other)
    ]
    return names + [name for name in figures[0] if figures[0][name] != figures[1].get(name)]


def _tensors(run: str) -> dict[str, Mapping[str, Any]]:
    checkpoint = read_checkpoint(Run(run).weights / "last.pt")
    assert checkpoint.training
    memory = {
        f"{number} {name}": value
        for number, entry in checkpoint.training.optimizer["state"].items()
        for name, value in entry.items()
        if isinstance(value, torch.Tensor)
    }
    return {
        "network": checkpoint.model,
        "training": checkpoint.training.model,
        "optimizer": memory,
    }


def _equal(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return name in other and torch.equal(one[name], other[name])
