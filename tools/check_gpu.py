"""Does everything work on this graphics card, and how fast? Run it to report a problem with one.

    python -m tools.check_gpu
    python -m tools.check_gpu --steps parity timing table --minutes 3
    python -m tools.check_gpu --data bccd.data --weights yolov3-tiny.weights --mean_ap 0.869

It needs this project and what requirements.txt installs, no network, and at most ten minutes. Each
step runs in a process of its own with a time limit, so that one that fails, crashes or hangs hides
no other; the most important ones come first. What is known so far is written after each step:
check_gpu.md (to be read, and to be sent), check_gpu.json (the same) and check_gpu.log (all that the
steps printed) in the output folder. The exit code is 1 where a step failed or ran out of time.

With `--data`, train.py also trains on that set, from `--weights` (else from the published ones,
which it may have to fetch); `--mean_ap` is what a CPU came to, within a minute here.
`--device cpu` runs the same steps in small, without a card, to try this script itself.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass

from tools.gpu.task import GpuCheck, Task
from utils import errors
from utils.console.progress import say
from utils.settings.loader import load


@dataclass(frozen=True)
class GpuCheckSettings:
    """Check this project on a graphics card; see README.md."""

    check: GpuCheck = GpuCheck()


def expect_device(name: str) -> None:
    """Refuse a device that is not there, and leave a card alone: some take one process at a time.

    Raises:
        InputError: there is none of this name.
    """
    import torch

    from utils.devices import choose_device

    count = torch.cuda.device_count()
    cards = ["cuda", *(f"cuda:{number}" for number in range(count))] if count else []
    if name not in cards:
        choose_device(name)  # raises, or takes no more than the CPU


def main(argv: list[str] | None = None) -> None:
    """Run the steps, write the report after each, and end with exit code 1 where one failed."""
    check = load(GpuCheckSettings, argv, about=__doc__).check
    # Imported after the flags are read, so that --help and a mistyped flag are answered at once.
    from tools.gpu.report import Origin, write_report
    from tools.gpu.runner import Result, run_all
    from tools.gpu.steps import chosen_steps
    from utils.files.paths import output_folder
    from utils.files.writing import write_text

    steps = chosen_steps(check.steps)
    expect_device(check.device)
    task = Task(check.with_absolute_paths())
    folder = output_folder(check.output).resolve()
    flags = sys.argv[1:] if argv is None else argv
    origin = Origin.here(shlex.join(["python", "-m", "tools.check_gpu", *flags]))
    write_text(folder / "check_gpu.log", f"{origin.command}\n")
    results: list[Result] = []
    for results in run_all(steps, task, 60 * check.minutes, folder / "check_gpu.log"):
        write_report(folder, origin, results)
    say(f"{folder}: check_gpu.md, check_gpu.json, check_gpu.log")
    if any(result.is_bad for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(errors.run(main))
