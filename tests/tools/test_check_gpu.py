"""Does the check of a card tell all that it finds, whatever goes wrong on the way?"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools import check_gpu
from tools.gpu.findings import Findings, NotPossible
from tools.gpu.report import Origin, markdown, write_report
from tools.gpu.runner import Result, Step, run_all
from tools.gpu.task import GpuCheck, Task
from utils.errors import InputError

TASK = Task(GpuCheck(device="cpu"))
ORIGIN = Origin("python -m tools.check_gpu", "2026-11-27", "a machine", {"torch": "2"}, "0.4.0")


def pass_(task: Task, findings: Findings) -> None:
    findings.figure("images a second", 1234.5)
    print("printed")


def fail(task: Task, findings: Findings) -> None:
    findings.row({"network": "tiny", "ms": 1.0})
    findings.expect(False, "tiny: 2 ms: expected 1")
    raise RuntimeError("no kernel\nfor it")


def crash(task: Task, findings: Findings) -> None:
    findings.figure("until then", 1)
    os._exit(7)


def not_possible(task: Task, findings: Findings) -> None:
    raise NotPossible("no card")


def hang(task: Task, findings: Findings) -> None:
    findings.figure("until then", 2)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    findings.figure("child", child.pid)
    time.sleep(600)


@pytest.mark.slow
def test_a_step_that_goes_wrong_hides_no_other(tmp_path: Path) -> None:
    import psutil

    steps = [
        Step("crash", "", 60, crash),
        Step("not_possible", "", 60, not_possible),
        Step("fail", "", 60, fail),
        Step("pass", "", 60, pass_),
        Step("hang", "", 6, hang),
        Step("late", "", 60, pass_),
    ]
    log = tmp_path / "log"
    first, *_, results = [list(each) for each in run_all(steps, TASK, 600, log)]
    assert {result.outcome for result in first} == {"not started"}
    crashed, impossible, failed, passed, hung, late = results
    assert (crashed.outcome, crashed.error) == ("failed", "its process ended with exit code 7")
    assert crashed.figures == {"until then": 1}
    assert (impossible.outcome, impossible.error) == ("not possible here", "no card")
    assert failed.error == "tiny: 2 ms: expected 1 (and 1 more)"
    assert failed.faults[1] == "RuntimeError: no kernel for it"
    assert failed.rows == [{"network": "tiny", "ms": 1.0}]
    assert (passed.outcome, passed.error) == ("passed", "")
    assert hung.outcome == "ran out of time" and hung.figures["until then"] == 2
    assert hung.error.startswith("still in File") and hung.error.endswith("in hang")
    assert not psutil.pid_exists(int(hung.figures["child"]))
    assert late.outcome == "passed"
    printed = log.read_text()
    assert "printed" in printed and "in fail" in printed  # the traceback


def test_what_there_is_no_time_for_is_told(tmp_path: Path) -> None:
    *_, results = run_all([Step("pass", "", 60, pass_)], TASK, 0, tmp_path / "log")
    assert [result.outcome for result in results] == ["not started"]


def test_the_report_tells_the_card_each_step_its_table_and_all_faults(tmp_path: Path) -> None:
    results = [
        Result("card", "which", "passed", 1.0, figures={"name": "A card", "driver": "580.1"}),
        Result("table", "how fast", "failed", 2.5, "a | b (and 1 more)", ["a | b", "c"],
               {"ratio": 3.14159}, [{"network": "tiny", "ms": 1.0}, {"network": "lite"}]),
        Result("later", "what", "not started"),
    ]  # fmt: skip
    lines = markdown(ORIGIN, results).splitlines()
    assert lines[0] == "# check_gpu: A card"
    assert "- driver: 580.1" in lines and "- date: 2026-11-27" in lines
    assert "| table | how fast | **failed** | 2.5 | ratio 3.142 | a \\| b (and 1 more) |" in lines
    assert "| later | what | not started |  |  |  |" in lines
    assert "| tiny | 1 |" in lines and "| lite |  |" in lines and "- c" in lines

    write_report(tmp_path, ORIGIN, [Result("a", "", "passed", figures={"loss": float("nan")})])
    told = json.loads((tmp_path / "check_gpu.json").read_text())
    assert told["command"] == ORIGIN.command and told["steps"][0]["figures"] == {"loss": "nan"}


def test_without_a_card_one_line_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.check_gpu", "--output", str(tmp_path / "out")]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=hidden)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: device='cuda': expected one that torch has here")
    assert not (tmp_path / "out").exists()


def test_a_step_that_is_not_known_is_one_line() -> None:
    with pytest.raises(InputError, match="steps='x': expected some of card"):
        check_gpu.main(["--steps", "x", "--device", "cpu"])


@pytest.mark.slow
def test_in_small_each_step_passes_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_gpu.main(["--device", "cpu", "--output", str(tmp_path), "--minutes", "30"])
    steps = {
        step["name"]: step
        for step in json.loads((tmp_path / "check_gpu.json").read_text())["steps"]
    }
    impossible = {name for name, step in steps.items() if step["outcome"] != "passed"}
    assert impossible == {"own_data", "waits"}
    assert all(steps[name]["outcome"] == "not possible here" for name in impossible)
    page = (tmp_path / "check_gpu.md").read_text()
    assert all(f"| {name} |" in page for name in steps)
    assert "Traceback" not in (tmp_path / "check_gpu.log").read_text()
    assert "parity: passed" in capsys.readouterr().out
