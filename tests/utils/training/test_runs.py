"""Are a run's folders made, this process's alone, and never written over?"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.errors import InputError
from utils.files.temporary import PARTIAL
from utils.training.runs import Run, RunInUseError, expect_free, new_run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_network(name: str) -> Run:
    run = Run(name)
    run.weights.mkdir(parents=True)
    (run.weights / "last.pt").touch()
    return run


@pytest.mark.parametrize("name", ["run", "a" * 300])
def test_folders_that_cannot_be_made_are_bad_input(name: str) -> None:
    Path("runs").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot make this folder"):
        new_run(name, "")


def test_a_run_that_holds_a_network_or_figures_is_refused_before_any_work() -> None:
    with_network("trained")
    Path("runs/measured").mkdir(parents=True)
    Path("runs/measured/metrics.csv").write_text("epoch,loss/box\n1,0.5\n")
    for name in ("trained", "measured"):
        with pytest.raises(InputError, match="is there already"):
            expect_free(name)
        with pytest.raises(InputError, match="is there already"):
            new_run(name, "")
    expect_free("new")
    expect_free("")


@pytest.mark.parametrize("file", ["weights/mine/best.weights", "runs/mine/a.jpg"])
def test_files_of_somebody_else_are_no_interrupted_start(file: str) -> None:
    Path(file).parent.mkdir(parents=True)
    expect_free("mine")  # an empty folder
    Path(file).touch()
    with pytest.raises(InputError, match="is there already"):
        expect_free("mine")
    with new_run("", "mine") as run:
        assert run.name == "mine-2"


def test_an_interrupted_start_starts_again_under_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with new_run("mine", "") as run:
        (run.folder / "metrics.csv").write_text("epoch\n")
        (run.weights / f"{PARTIAL}last-x.pt").write_text("half")
    assert "interrupted" not in capsys.readouterr().out
    with new_run("mine", ""):
        assert "it was interrupted, and starts again" in capsys.readouterr().out
    assert not list(run.weights.iterdir())


def test_numbered_names_pass_runs_that_are_there_or_in_use() -> None:
    with_network("net")
    with new_run("", "net") as second:
        assert second.name == "net-2"
        with new_run("", "net") as third:
            assert third.name == "net-3"
    with new_run("", "net") as again:
        assert again.name == "net-2"  # nothing came of it


def test_a_run_belongs_to_one_process_until_that_ends() -> None:
    script = (
        "import sys, time; from utils.training.runs import new_run\n"
        "run = new_run('mine', ''); print('claimed', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout.readline() == b"claimed\n"
        with pytest.raises(RunInUseError, match="another process is writing to runs/mine"):
            new_run("mine", "")
        process.kill()
        process.wait()
    with new_run("mine", "") as run:
        assert run.name == "mine"


def test_work_that_came_to_nothing_leaves_no_folders() -> None:
    for error in (InputError("nothing to cut"), KeyboardInterrupt()):
        with pytest.raises(type(error)), new_run("mine", "") as run:
            raise error
        assert not run.exists
    with pytest.raises(KeyboardInterrupt), new_run("mine", "") as run:
        (run.folder / "settings.json").touch()
        raise KeyboardInterrupt
    assert (run.folder / "settings.json").exists()
