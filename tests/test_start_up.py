"""Flags are read before anything heavy is imported, so that --help and a typo answer at once."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPTS = (
    *("train", "test", "detect_img", "detect_video", "export", "benchmark", "prune"),
    *("normal_prune", "layer_prune", "slim_prune", "shortcut_prune"),
    *("layer_channel_prune", "latency_prune"),
)
HEAVY = ("torch", "torchvision", "cv2", "numpy", "scipy", "matplotlib", "PIL", "tqdm")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("flag", "answer"), [("--help", 0), ("--wieghts=3", 2)])
def test_flags_are_answered_without_heavy_imports(script: str, flag: str, answer: int) -> None:
    code = (
        "import importlib, sys; from utils.errors import run; code = 0\n"
        f"try: code = run(lambda: importlib.import_module({script!r}).main([{flag!r}]))\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        f"print('imported', *(name for name in {HEAVY!r} if name in sys.modules))\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "imported"
    assert done.returncode == answer
    assert ("--weights" in done.stdout) == (answer == 0)
    assert done.stderr.count("\n") == (answer == 2)
    assert ("see --weights" in done.stderr) == (answer == 2)
