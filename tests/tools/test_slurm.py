"""Do an experiment's steps run as jobs of Slurm: in order, once, and with an end that is told?"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import fake_slurm
from tests.tools.test_experiment import SCRIPT, chain, checkpoint, order
from tests.waiting import wait_for
from tools import slurm
from tools.experiment import Step, planned
from tools.reproduce import ReproduceSettings
from tools.slurm import Slurm, run_on_slurm
from utils.errors import InputError
from utils.settings.loader import load

LIMIT = 300  # seconds, on a machine that others use
# A training that takes until somebody stops it, the first time.
SLOW = f"""
import os, pathlib, time
if not pathlib.Path("slow").exists():
    pathlib.Path("slow").write_text(str(os.getpid()))
    time.sleep({LIMIT})
"""

runs_jobs = pytest.mark.skipif(
    sys.platform == "win32" or importlib.util.find_spec("submitit") is None,
    reason="submitit is not installed: pip install -r requirements-dev.txt",
)


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a train.py, and a Slurm in PATH."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    checkpoint(tmp_path / "done.pt", epoch=3)
    fake_slurm.install(tmp_path / "bin")
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "jobs"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.1)
    yield tmp_path
    (tmp_path / "busy").unlink(missing_ok=True)
    fake_slurm.scancel(*(folder.name for folder in (tmp_path / "jobs").iterdir()))


def run(scripts: Path, *steps: Step, **options: object) -> None:
    run_on_slurm(steps, scripts, Path("x/slurm"), Path("x/logs"), Slurm(gpus=0, **options))  # type: ignore[arg-type]


def states(scripts: Path) -> list[str]:
    return [fake_slurm.state_of(str(n + 1)) for n in range(len(list((scripts / "jobs").iterdir())))]


def commands(*flags: str) -> list[str]:
    """What steps with these flags are run with: photos are loaded with the cores of the job."""
    return [f"{each} --workers -1" for each in flags]


@pytest.mark.slow
@runs_jobs
def test_jobs_run_in_order_and_only_once(scripts: Path) -> None:
    run(scripts, *chain("--epochs", "3"))
    assert order() == commands("--name first --epochs 3", "--name second")
    run(scripts, *chain("--epochs", "3"))
    assert states(scripts) == ["COMPLETED", "COMPLETED"]
    batch = Path("x/slurm/2_submission.sh").read_text()
    for line in ("dependency=afterok:1", "cpus-per-task=4", "time=720", "job-name=second"):
        assert f"#SBATCH --{line}\n" in batch
    assert json.loads(Path("x/slurm/jobs.json").read_text()) == {"first": "1", "second": "2"}


@pytest.mark.slow
@runs_jobs
def test_a_job_that_fails_is_told_with_its_log_and_others_go_on(scripts: Path) -> None:
    first, second = chain("--fail")
    third = Step("third", "train.py", (), (second,), 3)
    other = Step("other", "train.py", (), (), 3)
    told = r"x/logs/first\.log: job 1 ended as FAILED: no luck; 2 that start from .* cancelled"
    with pytest.raises(InputError, match=told):
        run(scripts, first, second, third, other)
    assert states(scripts) == ["FAILED", "CANCELLED", "CANCELLED", "COMPLETED"]
    run(scripts, *chain(), third, other)
    assert order()[-3:] == commands("--name first", "--name second", "--name third")
    assert len(states(scripts)) == 7, "what had failed was queued again, and nothing else"


@pytest.mark.slow
@runs_jobs
def test_ctrl_c_leaves_jobs_which_the_next_start_goes_on_with(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (scripts / "busy").touch()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slurm, "_wait_for", stop)
        with pytest.raises(KeyboardInterrupt, match=r"2 jobs stay .* `scancel 1 2` ends them"):
            run(scripts, *chain())
    assert not Path("order.txt").exists() and states(scripts) == ["PENDING", "PENDING"]
    (scripts / "busy").unlink()
    run(scripts, *chain())
    assert order() == commands("--name first", "--name second")
    assert states(scripts) == ["COMPLETED", "COMPLETED"]
    assert "0 jobs queued, 2 were there already" in capsys.readouterr().out


@pytest.mark.slow
@runs_jobs
def test_jobs_that_were_queued_with_other_flags_are_not_waited_for(
    scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scripts / "busy").touch()
    with monkeypatch.context() as patch:
        patch.setattr(slurm, "_wait_for", lambda *_: None)
        run(scripts, *chain("--lr", "1"))
        with pytest.raises(InputError, match=r"^first: was begun as `train.py --lr 1`, and "):
            run(scripts, *chain("--lr", "2"))
        assert states(scripts) == ["PENDING", "PENDING"]
        run(scripts, *chain("--lr", "1"))
    assert states(scripts) == ["PENDING", "PENDING"]
    fake_slurm.scancel("1", "2")
    (scripts / "busy").unlink()
    run(scripts, *chain("--lr", "2"))
    assert order() == commands("--name first --lr 2", "--name second")


@pytest.mark.slow
@runs_jobs
def test_a_training_that_reaches_its_time_limit_is_queued_again_and_goes_on(scripts: Path) -> None:
    (scripts / "train.py").write_text(SLOW + SCRIPT)
    ended = threading.Thread(target=run, args=(scripts, *chain()))
    ended.start()
    assert wait_for((scripts / "slow").exists)
    checkpoint(scripts / "weights/first/last.pt", epoch=2)
    child = int((scripts / "slow").read_text())
    job = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(child, signal.SIGUSR2)  # Slurm tells all of a job's processes
    os.kill(job, signal.SIGUSR2)
    ended.join(LIMIT)
    assert order()[0].startswith("--resume weights/first/last.pt") and len(order()) == 2
    assert states(scripts) == ["COMPLETED", "COMPLETED"]


@pytest.mark.slow
@runs_jobs
def test_a_job_that_slurm_refuses_is_told_in_a_line(scripts: Path) -> None:
    with pytest.raises(InputError, match=r"first: Slurm refuses the job: .*invalid partition"):
        run(scripts, *chain(), partition="nowhere")


@runs_jobs
def test_a_machine_without_slurm_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="no sbatch, srun, squeue, scancel here: expected a mach"):
        run(Path(), *chain())


def test_without_submitit_the_line_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r'not installed .*; pip install "submitit>=1.5,<2"$'):
        run(Path(), *chain())


def test_a_dry_run_prints_commands_and_what_waits_for_what(
    scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(Path("weights/first/last.pt"), epoch=3)
    first, second = chain()
    third = Step("third", "prune.py", ("--weights", "a b.pt"), (first, second))
    asked = Slurm(partition="cards", gpus=2, hours=1.5, sbatch=("account=lab", "exclusive"))
    assert planned([first, second, third], Path(), -1, asked.sbatch_line).splitlines() == [
        "first: done",
        "second",
        "    python train.py --name second --workers -1",
        "    sbatch --job-name=second --time=90 --mem=16384M --cpus-per-task=4 --gpus-per-node=2 "
        "--partition=cards --account=lab --exclusive",
        "third, after second",
        "    python prune.py --name third --weights 'a b.pt' --workers -1",
        "    sbatch --job-name=third --time=90 --mem=16384M --cpus-per-task=4 --gpus-per-node=2 "
        "--partition=cards --dependency=afterok:<second> --kill-on-invalid-dep=yes --account=lab "
        "--exclusive",
        "2 of 3 runs are left to do",
    ]
    assert not Path("order.txt").exists() and not list((scripts / "jobs").iterdir())


def test_options_that_would_break_the_jobs_are_refused() -> None:
    for option in ("time=5", "dependency=singleton", "=5"):
        with pytest.raises(InputError, match=f"sbatch=.*{option}"):
            load(ReproduceSettings, ["--sbatch", option])
