"""Do the commands that the pages show run?"""

import importlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import commands
from tests.conftest import ROOT
from utils.data.demo_data import DemoSettings, make_demo
from utils.settings import loader

PAGES = ("README.md", "README.zh-CN.md", "RESULTS.md", "docs/*.md")


class ParsedError(Exception):
    """The flags were right; nothing else is to be done."""


def all_commands() -> list[str]:
    pages = [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
    shown = {shlex.join(words) for page in pages for words in commands(page)}
    others = ("python -c", "python -m venv", "python weights/")
    return sorted(line for line in shown if not line.startswith(others))


@pytest.mark.parametrize("command", all_commands())
def test_a_shown_command_has_flags_that_its_script_takes(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for word in shlex.split(command)[1:] if word != "-m"]
    module = importlib.import_module(words[0].removesuffix(".py"))

    def stop(parsed: Any) -> Any:
        raise ParsedError

    for name in ("load", "load_pruning"):
        if hasattr(module, name):
            read = getattr(loader, name)
            monkeypatch.setattr(module, name, lambda *of, read=read, **by: stop(read(*of, **by)))
    assert not [word for word in words if word.startswith("--") and "-" in word[2:]], "underscores"
    with pytest.raises(SystemExit if {"--help", "--help_all"} & set(words) else ParsedError):
        module.main(words[1:])


TOUR, CHINESE_TOUR = "Ten minutes with your own photos", "用自己的照片走一遍，十分钟"
# What makes a step quick here: the last flag of a name holds.
SHORT = {
    "train.py": "--epochs 1 --img_size 64 --workers 0 --no-visdom",
    "prune.py": "--bn_batches 2 --latency_rounds 2 --workers 0",
    "test.py": "--workers 0",
    "benchmark.py": "--seconds 2 --rounds 2 --engine torch",
}


def test_the_chinese_page_shows_the_same_commands() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    tour = commands(english, TOUR)
    assert tour and tour == commands(chinese, CHINESE_TOUR)
    assert not [words for words in commands(english) if words not in commands(chinese)]


def published_weights(project: Path) -> bool:
    """Put the file that `--pretrained` alone would fetch where it looks first, if it is at hand."""
    shared = Path(os.environ.get("YOLO_SHARED", ROOT.parent / "shared"))
    file = shared / "weights/yolov3-tiny/yolov3-tiny.weights"
    if file.is_file():
        shutil.copy(file, project / "weights")
    return file.is_file()


@pytest.mark.slow
def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    project = tmp_path / "project"
    unwanted = shutil.ignore_patterns(".*", "runs", "__pycache__", "*.pt", "*.weights")
    shutil.copytree(ROOT, project, ignore=unwanted)
    make_demo(project / "my_photos", DemoSettings(train=16, valid=6, side=64))
    has_weights = published_weights(project)
    steps = commands(ROOT / "README.md", TOUR)
    assert len(steps) >= 8
    for _, script, *flags in steps:
        if "--weights" not in flags and not has_weights:  # a test needs no network
            flags = [flag for flag in flags if flag != "--pretrained"]
        step = subprocess.run(
            [sys.executable, script, *flags, *SHORT.get(script, "").split()],
            cwd=project,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert step.returncode == 0, f"{script} {flags}\n{step.stdout}\n{step.stderr}"
    assert list((project / "runs/detect").rglob("*.*"))
    assert list((project / "weights/small/export").glob("*.onnx"))
    assert (project / "runs/dense/index.html").is_file()
    assert (project / "runs/cut/index.html").is_file()
