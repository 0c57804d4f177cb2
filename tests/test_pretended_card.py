"""Do the scripts work on a graphics card? On one that is only pretended: see pretended_card.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.processes import environment, small_data_set
from tests.pruning.nets import config, trained
from utils.checkpoint.darknet_files import write_pair

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card: tools/check_gpu.py"),
]

PHOTOS, BATCH = 8, 4  # to measure on
NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and a network."""
    folder = tmp_path_factory.mktemp("card")
    small_data_set(folder, 16, PHOTOS)
    netdef = config("yolov3-mobilenetv2", thinner=16).with_classes(len(NAMES))
    write_pair(folder / "net", trained(netdef, 0), netdef, NAMES)
    return folder


def run(folder: Path, device: str, script: str, *flags: str) -> dict[str, int]:
    """Run a script; how often which function of the project waited for the card."""
    card = [str(ROOT / "tests" / "pretended_card.py"), "waits.json", script]
    command = card if device == "cuda" else [str(ROOT / f"{script}.py")]
    command = [sys.executable, *command, *flags, "--weights", "net.weights", "--device", device]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if device == "cpu":
        return {}
    waits: dict[str, int] = json.loads((folder / "waits.json").read_text())
    return waits


def test_map_on_a_card_is_that_of_the_cpu_with_few_waits(folder: Path) -> None:
    flags = ("--data", "demo.data", "--engine", "torch", "--workers", "0")
    for device in ("cpu", "cuda"):
        more = ("--batch_size", str(BATCH), "--output", device)
        waits = run(folder, device, "test", *flags, *more)
    cpu, card = (json.loads((folder / d / "metrics.json").read_text()) for d in ("cpu", "cuda"))
    assert card["mAP"] == pytest.approx(cpu["mAP"], abs=1e-3)
    assert sum(waits.values()) <= 2 * PHOTOS / BATCH + 1  # and of the engine's first images


def test_detections_on_a_card_are_those_of_the_cpu(folder: Path) -> None:
    for device in ("cpu", "cuda"):
        flags = ("--source", "demo/images/valid", "--output", f"found-{device}", "--save_json")
        run(folder, device, "detect_img", *flags, "--engine", "torch", "--conf_thres", "0.05")
    cpu, card = (
        json.loads((folder / f"found-{d}" / "detections.json").read_text())["annotations"]
        for d in ("cpu", "cuda")
    )
    assert len(cpu) == len(card) > 0
    for mine, theirs in zip(card, cpu, strict=True):
        assert mine["category"] == theirs["category"]
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-3)


def test_a_cut_on_a_card_is_that_of_the_cpu(folder: Path) -> None:
    flags = ("--data", "demo.data", "--percent", "0.5", "--latency_rounds", "1", "--workers", "0")
    for device in ("cpu", "cuda"):
        run(folder, device, "prune", *flags, "--bn_batches", "2", "--name", device)
    cpu, card = (folder / "weights" / device / "pruned.cfg" for device in ("cpu", "cuda"))
    assert card.read_text() == cpu.read_text()


def test_a_card_resizes_batches_of_bytes_as_the_cpu_does_without_a_wait(folder: Path) -> None:
    script = [str(ROOT / "tests" / "pretended_card.py"), "waits.json", "tests.utils.training.sizes"]
    command = [sys.executable, *script, "demo.data"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "waits.json").read_text()) == {}
