"""A Slurm of one machine, for test_slurm.py: its commands as far as they are used.

`fake_slurm.py COMMAND FLAG ...` does what Slurm's COMMAND does. Jobs are processes; what is known
of them stands in files of the folder $FAKE_SLURM, a folder a job.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
OVER = ("COMPLETED", "FAILED", "CANCELLED")


def install(folder: Path) -> None:
    """Leave the commands there."""
    folder.mkdir()
    for name in COMMANDS:
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        command.chmod(0o755)


def jobs() -> Path:
    return Path(os.environ["FAKE_SLURM"])


def state_of(number: str) -> str:
    file = jobs() / number / "state"
    return file.read_text() if file.exists() else "PENDING"


def set_state(number: str, state: str) -> None:
    partial = jobs() / number / f"state-{os.getpid()}"
    partial.write_text(state)
    partial.replace(jobs() / number / "state")


def sbatch(file: str) -> None:
    """Queue a batch file; its own options stand in it."""
    text = Path(file).read_text()
    number = str(1 + len(list(jobs().iterdir())))
    if "--partition=nowhere" in text:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    (jobs() / number).mkdir()
    (jobs() / number / "batch.sh").write_text(text)
    run(number)
    print(f"Submitted batch job {number}")


def run(number: str) -> None:
    """Look after a job in the background."""
    subprocess.Popen(
        [sys.executable, __file__, "job", number],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def job(number: str) -> None:
    """Wait for what it depends on and for a machine, and run it."""
    folder = jobs() / number
    text = (folder / "batch.sh").read_text()
    (folder / "process").write_text(str(os.getpid()))
    depends = re.search(r"--dependency=afterok:([\d:]+)", text)
    for other in depends[1].split(":") if depends else []:
        while state_of(other) not in OVER:
            time.sleep(0.05)
        if state_of(other) != "COMPLETED":
            set_state(number, "CANCELLED")
            return
    while (jobs().parent / "busy").exists():
        time.sleep(0.05)
    set_state(number, "RUNNING")
    own = {"JOB_ID": number, "NTASKS": "1", "JOB_NUM_NODES": "1", "NODEID": "0", "PROCID": "0"}
    own |= {"LOCALID": "0", "JOB_NODELIST": "localhost"}
    environment = os.environ | {f"SLURM_{name}": value for name, value in own.items()}
    code = subprocess.call(["bash", folder / "batch.sh"], env=environment)
    if state_of(number) == "REQUEUED":
        set_state(number, "PENDING")
        job(number)
    else:
        set_state(number, "FAILED" if code else "COMPLETED")


def srun(*arguments: str) -> None:
    """Run a command, its output in a file."""
    flags = list(arguments)
    output = flags[flags.index("--output") + 1].replace("%t", "0")
    output = output.replace("%j", os.environ["SLURM_JOB_ID"])
    command = flags[next(i for i, flag in enumerate(flags) if flag == sys.executable) :]
    with Path(output).open("a") as log:
        sys.exit(subprocess.call(command, stdout=log, stderr=log))


def squeue(*flags: str) -> None:
    """The jobs that are not over."""
    assert flags == ("--me", "--noheader", "--format=%i")
    numbers = [folder.name for folder in jobs().iterdir()]
    print("\n".join(number for number in numbers if state_of(number) not in OVER))


def sacct(*flags: str) -> None:
    """How a job ended."""
    print(state_of(flags[-1].removeprefix("--jobs=")))


def scancel(*numbers: str) -> None:
    """End jobs."""
    for number in numbers:
        if state_of(number) not in OVER:
            set_state(number, "CANCELLED")
            os.killpg(int((jobs() / number / "process").read_text()), signal.SIGKILL)


def scontrol(action: str, number: str) -> None:
    """Run a job again."""
    assert action == "requeue"
    set_state(number, "REQUEUED")


if __name__ == "__main__":
    {f.__name__: f for f in (sbatch, srun, squeue, sacct, scancel, scontrol, job)}[sys.argv[1]](
        *sys.argv[2:]
    )
