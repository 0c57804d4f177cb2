"""Is every file written through utils/files, and on a full disk whole or not at all?"""

import ast
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from import_param import Detection, Export, Nms, TrainSettings
from models.netdef import parse
from models.weights import write_weights
from tests.conftest import COLOUR_CFG, ROOT, full_disk
from tests.utils.backends.test_backends import trained
from utils.backends import export, install_command
from utils.backends.export import FORMATS
from utils.checkpoint.checkpoint import Origin, save_checkpoint, save_with_pair
from utils.checkpoint.darknet_files import write_pair
from utils.checkpoint.network import Network
from utils.data.demo_data import DemoSettings, make_demo
from utils.detection.writer import DetectedPicture, Picture, Results
from utils.errors import InputError
from utils.monitoring.history import write_history
from utils.settings.loader import save as save_settings
from utils.structures import Detections
from utils.visualization.curves import plot_curves
from utils.visualization.draw import write_image
from utils.visualization.figures import write_figure

PICTURE = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
NETDEF = parse(COLOUR_CFG)


def write_picture(suffix: str, folder: Path) -> None:
    write_image(folder / f"a{suffix}", PICTURE)


def write_network(kind: str, folder: Path) -> None:
    network = Network(trained(), ("a", "b", "c"), (64, 64), False)
    export.export(network, kind, folder / "net", torch.zeros(1, 3, 64, 64), Export(), Nms())


def write_results(folder: Path) -> None:
    detections = Detections(torch.tensor([[1.0, 2, 90, 99]]), torch.ones(1), torch.zeros(1).long())
    picture = Picture(PICTURE, torch.zeros(3, 8, 8), "below/photo", "photo.jpg")
    settings = Detection(save_txt=True, save_json=True, save_crops=True)
    with Results(folder, ("a",), settings) as results:
        results.add(DetectedPicture(picture, detections))


def small_state() -> dict[str, torch.Tensor]:
    return {"x": torch.arange(5000.0)}


WRITERS: dict[str, Callable[[Path], object]] = {
    **{
        suffix: partial(write_picture, suffix)
        for suffix in (".jpg", ".png", ".bmp", ".tif", ".webp", ".gif", ".ppm")
    },
    **{
        kind: partial(write_network, kind)
        for kind in FORMATS
        if not install_command(FORMATS[kind].engine, "fp32")
    },
    "figure": lambda folder: write_figure(Figure(), folder / "a.png"),
    "curves": lambda folder: plot_curves({1.0: {"loss/box": 1.0}}, folder),
    "history": lambda folder: write_history(folder / "a.csv", {1.0: {"loss/box": 1.0}}),
    "settings": lambda folder: save_settings(TrainSettings(), folder / "a.json"),
    "weights": lambda folder: write_weights(folder / "a.weights", trained()),
    "cfg": lambda folder: NETDEF.write(folder / "a.cfg"),
    "pair": lambda folder: write_pair(folder / "a", trained(), NETDEF, ("a", "b", "c")),
    "checkpoint": lambda folder: save_checkpoint(
        folder / "a.pt", NETDEF, (), small_state(), TrainSettings(), Origin()
    ),
    "checkpoint and pair": lambda folder: save_with_pair(
        folder / "a", NETDEF, (), trained(), TrainSettings(), Origin()
    ),
    "results": write_results,
    "demo set": lambda folder: make_demo(folder / "demo", DemoSettings(train=2, valid=1)),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("writer", WRITERS)
def test_on_a_full_disk_files_are_whole_or_not_there(writer: str, tmp_path: Path) -> None:
    for name in ("whole", "limited"):
        (tmp_path / name).mkdir()
    WRITERS[writer](tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    largest = max(map(len, whole.values()))
    for limit in (0, largest // 3, largest // 2, largest - 1):
        with full_disk(limit), pytest.raises(InputError, match="cannot be written") as told:
            WRITERS[writer](tmp_path / "limited")
        assert "\n" not in str(told.value) and ".partial" not in str(told.value)
        found = contents(tmp_path / "limited")
        if writer == "results":  # those of the pictures until then
            found.pop("detections.json", None)
        assert found.items() <= whole.items()
        assert len(found) < len(whole)


WRITES = {
    "write_text", "write_bytes", "imwrite", "savefig", "savetxt", "tofile", "touch", "dump",
    "save", "save_model", "savez", "VideoWriter", "mkdir", "makedirs", "mkstemp", "mkdtemp",
    "TemporaryDirectory", "NamedTemporaryFile", "rename", "symlink_to", "copy2", "copyfile",
    "copytree", "move", "rmtree", "unlink", "to_csv", "truncate",
}  # fmt: skip
# Where one of these is right, and why.
ALLOWED = {
    ("utils/files/writing.py", ""): "the one place",
    ("utils/files/temporary.py", ""): "on its behalf",
    ("utils/files/paths.py", "mkdir"): "a folder for what is written there",
    ("setup.py", ""): "runs without the project",
    ("requirements/visdom/backend.py", ""): "runs without the project",
    ("utils/backends/standalone_detector.py", ""): "runs without the project",
    ("tools/fuzz.py", ""): "files to be read, among the system's temporary ones",
    ("tools/fuzz_targets.py", ""): "files to be read, among the system's temporary ones",
    ("tools/check_kills.py", ""): "files to be read, among the system's temporary ones",
    ("tools/peers.py", ""): "files for other programs, among the system's temporary ones",
    ("tools/benchmark_training.py", ""): "files for other programs, among the temporary ones",
    ("tools/benchmark_data.py", "rmtree"): "a set that is made anew",
    ("tools/experiment.py", "mkdir"): "logs of child processes",
    ("tools/experiment.py", "open"): "logs of child processes",
    ("tools/experiment.py", "rmtree"): "a run that is begun anew",
    ("tools/slurm.py", "mkdir"): "logs of jobs",
    ("tools/gpu/runner.py", "open"): "logs of child processes",
    ("tools/gpu/runner.py", "TemporaryDirectory"): "what the steps train and cut",
    ("utils/monitoring/server.py", ""): "its log, and what goes wrong is told where it is started",
    ("utils/monitoring/tensorboard.py", "open"): "appended to; where it cannot be, it is given up",
    ("utils/monitoring/tensorboard.py", "unlink"): "a run that is begun anew, or goes on",
    ("utils/monitoring/page.py", "TemporaryDirectory"): "npm's files",
    ("utils/monitoring/client.py", "save"): "Visdom's own, in its server",
    ("utils/detection/video.py", "VideoWriter"): "checked when it is whole",
    ("utils/backends/openvino_engine.py", "save_model"): "read again at once",
    ("utils/backends/export.py", "save"): "into a guarded file",
    ("utils/checkpoint/checkpoint.py", "save"): "into a guarded file",
    ("utils/benchmark/memory.py", "save"): "into memory",
    ("utils/visualization/figures.py", "savefig"): "into memory",
    ("utils/images.py", "save"): "into memory",
    ("utils/checkpoint/downloads.py", "truncate"): "of a file of `growing`",
    ("utils/training/runs.py", "mkdir"): "told there",
    ("utils/training/runs.py", "unlink"): "a lock",
    ("utils/benchmark/tables.py", "unlink"): "a table that is begun anew",
    ("utils/detection/writer.py", "open"): "into a temporary file of `atomic`",
    ("pruning/latency/table.py", "open"): "into a temporary file of `atomic`",
    ("utils/backends/auto.py", "unlink"): "a damaged cache",
    ("utils/files/cache.py", "unlink"): "an old result of the cache",
}


def writes(path: Path) -> set[str]:
    """What a module calls that writes files by itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):  # our own functions have such names, too
            name = node.func.id if node.func.id in ("open", "TemporaryDirectory") else ""
        else:
            name = getattr(node.func, "attr", "")
        texts = [ast.literal_eval(v) for v in node.args if isinstance(v, ast.Constant)]
        modes = [text for text in texts if re.fullmatch("[rwax][bt+]*", str(text))]
        if name in WRITES or (name == "open" and any(set(m) & set("wax+") for m in modes)):
            found.add(name)
    return found


def test_no_module_writes_files_by_itself() -> None:
    folders = ("models", "pruning", "tools", "utils", "yolov3", "requirements")
    modules = [*ROOT.glob("*.py"), *(path for f in folders for path in (ROOT / f).rglob("*.py"))]
    odd = {
        (name, call)
        for path in modules
        if (name := path.relative_to(ROOT).as_posix(), "") not in ALLOWED
        for call in writes(path)
    }
    assert odd <= ALLOWED.keys()
