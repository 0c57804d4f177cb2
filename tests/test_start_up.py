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
def test_flags_are_answered_without_heavy_imports(script: str) -> None:
    code = (
        "import importlib, sys; from utils.errors import run\n"
        f"main = importlib.import_module({script!r}).main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "code = run(lambda: main(['--wieghts=3']))\n"
        f"print('imported', *(name for name in {HEAVY!r} if name in sys.modules))\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    *help_text, imported = done.stdout.splitlines()
    assert imported == "imported"
    assert any("--weights" in line for line in help_text)
    assert done.stderr.count("\n") == 1 and "see --weights" in done.stderr
