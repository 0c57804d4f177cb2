"""How do the steps of an experiment run as jobs of a Slurm cluster?

submitit writes the batch files, and queues a training again that has reached its time limit; that
one then goes on from its last checkpoint. Which jobs are there still is asked of Slurm's squeue,
and whether a step has come to its result of the files that it leaves.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Predicate

from import_param import Count, Positive, Whole
from tools.experiment import (
    Step,
    expect_same_asked,
    last_line,
    log_of,
    remember_asked,
    start_step,
)
from utils.console.progress import Wait, say
from utils.errors import InputError
from utils.files.reading import read_text
from utils.files.writing import alone, write_text

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.core.utils import DelayedSubmission

POLL_SECONDS = 10.0  # between looks at the queue
WORKERS = -1  # processes that load photos: what suits the cores of the job
STEP_POLL_SECONDS = 0.2  # between looks at a step's process
PATIENCE = (
    3  # looks at which a job is gone before it has failed: files may come late over a network
)
REQUEUES = 100  # times that a training may reach its time limit
LAST_SECONDS = 60.0  # that a process may take to end at its time limit; submitit leaves 90
COMMANDS = ("sbatch", "srun", "squeue", "scancel")
JOBS = "jobs.json"  # the number of each step's job

SbatchOptions = dict[str, str | int | bool]  # by their names there

OWN_OPTIONS = ("job-name", "time", "dependency", "output", "error", "signal", "array", "open-mode")

SbatchOption = Annotated[
    str, Predicate(lambda text: bool(re.fullmatch(r"[a-z][a-z-]*(=.+)?", text))), "NAME=VALUE"
]


class RefusedError(InputError):
    """Slurm does not take a job."""


@dataclass(frozen=True)
class Slurm:
    """With launcher=slurm: what a job asks the cluster for."""

    partition: str = ""  # where jobs queue; empty = the cluster's own choice
    hours: Positive = 12.0  # a job's time limit; a training that reaches it queues again, goes on
    memory_gb: Positive = 16.0  # memory of a job, GB
    gpus: Whole = 1  # graphics cards of a job; 0 = trains on the CPU
    cpus: Count = 4  # cores of a job
    sbatch: tuple[SbatchOption, ...] = ()  # other options of sbatch, such as account=lab

    def check(self) -> None:
        """Raises ValueError where an option is set otherwise."""
        for option in self.sbatch:
            if option.partition("=")[0] in OWN_OPTIONS:
                raise ValueError(
                    f"sbatch={option!r}: expected none of {', '.join(OWN_OPTIONS)}; hours is a "
                    "job's time"
                )

    def options(self, step: Step, after: Sequence[str]) -> SbatchOptions:
        """A job's options by their names in sbatch. after: the jobs that must succeed before."""
        given = (option.partition("=") for option in self.sbatch)
        return {
            "job-name": step.name,
            "time": math.ceil(60 * self.hours),
            "mem": f"{math.ceil(1024 * self.memory_gb)}M",
            "cpus-per-task": self.cpus,
            **({"gpus-per-node": self.gpus} if self.gpus else {}),
            **({"partition": self.partition} if self.partition else {}),
            # Else what can never start any more would stay in the queue.
            **({"dependency": f"afterok:{':'.join(after)}"} if after else {}),
            **({"kill-on-invalid-dep": "yes"} if after else {}),
            **{name: value if equals else True for name, equals, value in given},
        }

    def sbatch_line(self, step: Step, after: Sequence[str]) -> str:
        """The command that queues a step. after: names of steps, for their jobs' numbers."""
        options = self.options(step, [f"<{name}>" for name in after])
        flags = (f"--{name}" if value is True else f"--{name}={value}"
                 for name, value in options.items())  # fmt: skip
        return " ".join(["sbatch", *flags])


@dataclass
class StepJob:
    """A step as a job: what submitit runs on one of the cluster's machines."""

    step: Step
    scripts: Path
    logs: Path
    threads: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __call__(self) -> None:
        """Run it, or go on with it.

        Raises:
            InputError: it failed.
        """
        if self.step.result.is_file() and self.step.done:
            return
        self._process = start_step(
            self.step, self.scripts, self.logs, self.threads, _ignore_slurms_signals, WORKERS
        )
        while self._process.poll() is None:  # `wait` would not let `checkpoint` wait as well
            time.sleep(STEP_POLL_SECONDS)
        if code := self._process.returncode:
            log = log_of(self.step, self.logs)
            raise InputError(f"{log}: the run ended with exit code {code}: {last_line(log)}")

    def checkpoint(self) -> DelayedSubmission:
        """What goes on once the job runs again; submitit calls this at a time limit."""
        from submitit.core.utils import DelayedSubmission

        if self._process:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(LAST_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return DelayedSubmission(StepJob(self.step, self.scripts, self.logs, self.threads))


def _ignore_slurms_signals() -> None:
    """Leave it to submitit what happens at a time limit; Slurm tells all of a job's processes."""
    from submitit.core.job_environment import JobEnvironment

    for name in ("SIGTERM", "SIGCONT", f"SIG{JobEnvironment.USR_SIG}"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which `checkpoint` sends


def run_on_slurm(
    steps: Sequence[Step], scripts: Path, folder: Path, logs: Path, slurm: Slurm
) -> None:
    """Queue what is not done yet, all at once, and wait for it.

    A job starts when those that it depends on have succeeded. One that is in the queue already, or
    runs, is not queued again. Ctrl-C leaves the jobs as they are.

    Args:
        steps: in an order in which each is behind those that it starts from.
        scripts: the folder of train.py and prune.py.
        folder: for submitit's files and the jobs' numbers; all machines of the cluster see it.
        logs: a folder for what the steps print.
        slurm: what a job asks for.

    Raises:
        InputError: there is no Slurm here, or no submitit; it refuses a job; or steps failed.
            And see `expect_same_asked`.
    """
    executor = _executor(folder)
    logs.mkdir(parents=True, exist_ok=True)
    jobs = folder / JOBS

    def told() -> None:
        say(f"{folder}: another process looks after these jobs: waiting for it")

    with alone(jobs, told), Wait("runs", len(steps)) as wait:
        numbers = _read_numbers(jobs)
        queued = _queued()
        expect_same_asked(steps, logs, {name for name in numbers if numbers[name] in queued})
        left = [step for step in steps if numbers.get(step.name) in queued or not step.done]
        wait.advance(len(steps) - len(left))
        submitted: dict[str, str] = {}  # the jobs of what is left, by the step's name
        fresh: set[str] = set()
        try:
            for step in left:
                waits_for = [earlier.name for earlier in step.after if earlier.name in submitted]
                number = numbers.get(step.name, "")
                if number in queued and fresh.isdisjoint(waits_for):
                    submitted[step.name] = number
                    continue
                if number in queued:  # for one that failed, and has another job now
                    _cancel(number)
                job = StepJob(step, scripts, logs, slurm.cpus)
                options = slurm.options(step, [submitted[name] for name in waits_for])
                remember_asked(step, logs)
                submitted[step.name] = _submit(executor, job, options, slurm.cpus)
                fresh.add(step.name)
                write_text(jobs, json.dumps(numbers | submitted, indent=1) + "\n")
            say(f"{len(fresh)} jobs queued, {len(left) - len(fresh)} were there already: {jobs}")
            _wait_for(left, submitted, folder, logs, wait)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(*stop.args, _leave(submitted)) from None
        except RefusedError as error:
            raise InputError(f"{error}; {_leave(submitted)}") from error


def _executor(folder: Path) -> SlurmExecutor:
    try:
        import submitit
    except ImportError as error:
        raise InputError(
            f"launcher='slurm': submitit is not installed ({error}); "
            'pip install "submitit>=1.5,<2"'
        ) from error
    if missing := [name for name in COMMANDS if not shutil.which(name)]:
        raise InputError(
            f"launcher='slurm': no {', '.join(missing)} here: expected a machine of a Slurm "
            "cluster, such as the one that people log in to"
        )
    return submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)


def _submit(executor: SlurmExecutor, job: StepJob, options: SbatchOptions, cpus: int) -> str:
    """The number of the job that is queued."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    project = Path(__file__).parents[1].resolve()
    own = {name.replace("-", "_"): options.pop(name, None)
           for name in ("job-name", "time", "dependency")}  # fmt: skip
    executor.update_parameters(
        **own,
        wckey=None,  # a word for accounting, which some clusters refuse
        additional_parameters=options,
        stderr_to_stdout=True,
        # Slurm hands a job's cores on to srun in no version since 22.05.
        srun_args=[f"--cpus-per-task={cpus}"],
        setup=[
            f"cd {shlex.quote(str(Path.cwd()))}",
            f"export PYTHONPATH={shlex.quote(str(project))}${{PYTHONPATH:+:$PYTHONPATH}}",
        ],
    )
    try:
        return str(executor.submit(job).job_id)
    except (FailedJobError, FailedSubmissionError) as error:
        told = " ".join(str(error).split()) or "sbatch told nothing"
        raise RefusedError(f"{job.step.name}: Slurm refuses the job: {told}") from error


def _wait_for(
    steps: Sequence[Step], numbers: dict[str, str], folder: Path, logs: Path, wait: Wait
) -> None:
    """Until no job is left; what depends on one that fails is cancelled, others go on."""
    waiting = list(steps)
    gone: dict[str, int] = {}  # looks at which a job was neither there nor done
    failures: dict[str, str] = {}
    cancelled: set[str] = set()
    is_silent = False
    while waiting:
        try:
            queued = _queued()
        except InputError as error:  # busy, or started anew: the jobs are none the worse
            if not is_silent:
                say(f"warning: {error}; asking on")
            is_silent = True
            time.sleep(POLL_SECONDS)
            continue
        is_silent = False
        for step in list(waiting):
            number = numbers[step.name]
            if any(earlier.name in failures.keys() | cancelled for earlier in step.after):
                if number in queued:
                    _cancel(number)
                cancelled.add(step.name)
            elif number in queued:
                gone.pop(step.name, None)
                continue
            elif not step.done:
                gone[step.name] = gone.get(step.name, 0) + 1
                if gone[step.name] < PATIENCE:
                    continue
                failures[step.name] = _why(step, number, folder, logs)
                say(f"failed: {failures[step.name]}")
            else:
                wait.advance(1, f"{len(queued)} jobs in the queue")
            waiting.remove(step)
        if waiting:
            time.sleep(POLL_SECONDS)
    if failures:
        first, *others = failures.values()
        more = [f"{len(others)} others failed too"] if others else []
        more += [f"{len(cancelled)} that start from them were cancelled"] if cancelled else []
        raise InputError("; ".join([first, *more]))


def _why(step: Step, number: str, folder: Path, logs: Path) -> str:
    """What is known of a job that did not come to its result."""
    states = _slurm("sacct", "--allocations", "--noheader", "--parsable2", "--format=State",
                    f"--jobs={number}", check=False).split()  # fmt: skip
    ended = f"job {number} ended" + (f" as {states[0]}" if states else "")
    own, jobs = log_of(step, logs), folder / f"{number}_0_log.out"
    log = own if own.exists() else jobs  # a job that never came to its step has said so itself
    return f"{log}: {ended}: {last_line(log)}"


def _leave(numbers: dict[str, str]) -> str:
    """What becomes of the jobs after Ctrl-C."""
    try:
        left = _queued() & set(numbers.values())
    except InputError:
        left = set(numbers.values())
    if not left:
        return "no job is left in the queue"
    cancel = shlex.join(["scancel", *sorted(left, key=int)])
    return (
        f"{len(left)} jobs stay in the queue; the same command goes on with them, and "
        f"`{cancel}` ends them"
    )


def _queued() -> set[str]:
    """The numbers of this user's jobs that wait or run.

    Raises:
        InputError: Slurm does not answer.
    """
    return set(_slurm("squeue", "--me", "--noheader", "--format=%i").split())


def _cancel(number: str) -> None:
    """End a job; that it is gone already is no matter."""
    _slurm("scancel", number, check=False)


def _slurm(*command: str, check: bool = True) -> str:
    """What a command of Slurm's prints.

    Raises:
        InputError: it fails, and `check` is asked for; else that is as if it printed nothing.
    """
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        failed, told = done.returncode, done.stderr
    except OSError as error:
        failed, told = 1, str(error)
    if not failed:
        return done.stdout
    if check:
        raise InputError(f"{command[0]}: {' '.join(told.split()) or 'no answer'}")
    return ""


def _read_numbers(path: Path) -> dict[str, str]:
    """The job of each step, as far as one was queued before."""
    if not path.exists():
        return {}
    try:
        numbers = json.loads(read_text(path))
        return {str(name): str(number) for name, number in numbers.items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not what was written there: {error}") from error
