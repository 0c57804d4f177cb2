"""How does a step run, so that its failure, crash or hang costs nothing but itself?"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.gpu.findings import Findings, NotPossible, Value
from tools.gpu.task import ROOT, Task
from utils.console.progress import Wait, say
from utils.files.reading import read_start
from utils.processes.workers import end_with_parent

Work = Callable[[Task, Findings], None]

PASSED, FAILED, TIMEOUT = "passed", "failed", "ran out of time"
NOT_POSSIBLE, NOT_STARTED = "not possible here", "not started"
STACK_BEFORE = 1.0  # seconds before a step's limit in which it writes down where it is
BUSY = 4  # times as long as a card that is one's own a CPU may take that others use
LONGEST_END = 10.0  # seconds that a killed process may take; one that a driver holds never ends


@dataclass(frozen=True)
class Step:
    """One thing that is checked.

    Attributes:
        name: as a user chooses it.
        title: what is checked, in words.
        seconds: that it may take.
        work: does it, in a process and a folder of its own; heavy modules are imported there.
    """

    name: str
    title: str
    seconds: float
    work: Work


@dataclass(frozen=True)
class Result:
    """What became of a step; of one that was cut off, all until then."""

    name: str
    title: str
    outcome: str  # PASSED, FAILED, TIMEOUT, NOT_POSSIBLE or NOT_STARTED
    seconds: float = 0.0
    error: str = ""  # a line; empty where nothing went wrong
    faults: list[str] = field(default_factory=list)  # all of them; the first is in `error`
    figures: dict[str, Value] = field(default_factory=dict)
    rows: list[dict[str, Value]] = field(default_factory=list)  # of its table, by column

    @property
    def is_bad(self) -> bool:
        """Whether it is a reason to look closer."""
        return self.outcome in (FAILED, TIMEOUT)

    def line(self) -> str:
        """For a terminal."""
        error = f": {self.error}" if self.error else ""
        return f"{self.name}: {self.outcome}, {self.seconds:.1f} s{error}"


def run_all(steps: Sequence[Step], task: Task, seconds: float, log: Path) -> Iterator[list[Result]]:
    """Run steps one after the other; what is known of all of them, before the first and after each.

    Args:
        steps: the most important ones first.
        task: what they work with.
        seconds: for all of them; what has not begun by then is not started.
        log: a file that gets all that they print.
    """
    end = time.monotonic() + seconds
    results = [Result(step.name, step.title, NOT_STARTED) for step in steps]
    yield results
    with TemporaryDirectory(prefix="check_gpu-", ignore_cleanup_errors=True) as folder:
        for number, step in enumerate(steps):
            left = end - time.monotonic()
            if left <= 0:
                break
            with Wait(step.name):
                results[number] = run_step(step, task, left, Path(folder), log)
            say(results[number].line())
            yield results


def run_step(step: Step, task: Task, seconds: float, folder: Path, log: Path) -> Result:
    """Run a step in a process of its own, for at most so many seconds.

    Args:
        step: what is to be done.
        task: what it works with.
        seconds: that are left.
        folder: that steps share; what they find lies there as well.
        log: a file that gets all that it prints.
    """
    limit = min(step.seconds * task.of(1, BUSY), seconds)
    file, stack = folder / f"{step.name}.json", folder / f"{step.name}.stack"
    context = multiprocessing.get_context("spawn")  # a card cannot be used after a fork
    process = context.Process(
        target=_work, args=(step, task, time.time() + limit, file, stack, log)
    )
    begun = time.monotonic()
    process.start()
    try:
        process.join(limit)
        late = process.is_alive()
    finally:
        if process.pid is not None and process.is_alive():
            end_all(process.pid)
        process.join(LONGEST_END)
    findings = Findings.read(file)
    outcome, error = _outcome(
        findings, process.exitcode, f"still in {_place(stack)}" if late else ""
    )
    return Result(
        *(step.name, step.title, outcome, time.monotonic() - begun, error),
        *(findings.faults, findings.figures, findings.rows),
    )


def _outcome(findings: Findings, code: int | None, late: str) -> tuple[str, str]:
    """What became of a step, and a line on it."""
    if late:
        return TIMEOUT, late
    if findings.note:
        return NOT_POSSIBLE, findings.note
    if not findings.finished:
        return FAILED, f"its process ended with {_code(code)}"
    more = f" (and {len(findings.faults) - 1} more)" if len(findings.faults) > 1 else ""
    return (FAILED, findings.faults[0] + more) if findings.faults else (PASSED, "")


def _code(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _place(stack: Path) -> str:
    """The innermost line of the project in a stack that `faulthandler` wrote, of the main thread.

    That one comes last, with its innermost call first.
    """
    frames = [
        line.strip() for line in read_start(stack, 2**20).rpartition("\nThread 0x")[2].split("\n")
    ]
    own = [frame for frame in frames if frame.startswith("File") and str(ROOT) in frame]
    return own[0].replace(f"{ROOT}{os.sep}", "") if own else "a place that it did not tell"


def end_all(pid: int) -> None:
    """End a process and all that it started, such as processes that load photos."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def use_card(task: Task) -> None:
    """Let torch take the card that was asked for, where nothing else is said."""
    import torch

    if task.device.index is not None:  # such as of cuda:1
        torch.cuda.set_device(task.device)


def _work(step: Step, task: Task, end: float, file: Path, stack: Path, log: Path) -> None:
    """What a step's process does, until it is `end` on the clock of time.time."""
    end_with_parent()
    os.chdir(file.parent)
    findings = Findings(file)
    with log.open("ab") as output, stack.open("wb") as traces:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(output.fileno(), stream.fileno())  # also of what libraries print
        print(f"\n===== {step.name}: {step.title}", flush=True)
        faulthandler.enable(output)  # a crash tells where
        faulthandler.dump_traceback_later(max(0.1, end - time.time() - STACK_BEFORE), file=traces)
        try:
            use_card(task)
            step.work(task, findings)
        except NotPossible as reason:
            findings.note = str(reason)
        except Exception as error:  # it is told, in the report and whole in the log
            traceback.print_exc()
            findings.fault(f"{type(error).__name__}: {error}")
        faulthandler.cancel_dump_traceback_later()
        faulthandler.disable()
        findings.finished = True
        findings.keep()
        sys.stdout.flush()
        sys.stderr.flush()
