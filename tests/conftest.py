"""What many tests share."""

import os
import re
import resource
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from matplotlib.figure import Figure
from PIL import Image

from models.blocks import Convolution
from models.darknet import Darknet
from models.netdef import parse
from utils.checkpoint.darknet_files import write_pair
from utils.console.next_steps import SCRIPTS
from utils.settings.loader import load
from utils.timing import interleaved

# A machine that others use can be slow at any moment.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parent.parent
COLOURS = ("red", "green", "blue")
# One box of 20×20 pixels in the middle of each of 2×2 cells, of the class that the cell's colour
# says: the first of the cell's pixels, times 20, decides.
COLOUR_CFG = """
[net]
width=64
height=64
channels=3
[convolutional]
filters=8
size=1
stride=32
activation=linear
[yolo]
mask=0
anchors=20,20
classes=3
num=1
"""


@contextmanager
def full_disk(size: int = 10_000) -> Iterator[None]:
    """Files may take no more bytes than these: what is nearest to a full disk without one."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def next_commands(said: str) -> list[tuple[str, Any]]:
    """The scripts that a script named as the next ones, each with its settings, as it parses them.

    `said` is all that it printed, which must be readable in a log.
    """
    assert "\r" not in said
    blocks = re.findall(r"^next.*:\n((?:  \S.*(?:\n|$))+)", said, re.MULTILINE)
    commands = [shlex.split(line) for line in "".join(blocks).splitlines()]
    for call, script, *_ in commands:
        assert "python" in call and (ROOT / script).is_file()
    stems = [Path(script).stem for _, script, *_ in commands]
    return [
        (stem, load(SCRIPTS[stem], flags))
        for stem, (_, _, *flags) in zip(stems, commands, strict=True)
    ]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared references beside the project; a test that needs it skips without it."""
    folder = Path(os.environ.get("YOLO_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared references at {folder}")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured in a test neither comes from the user's cache nor goes there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_call_a_turn() -> Iterator[None]:
    """Time networks without the calls that let a turn settle: no test is about a true speed."""
    with pytest.MonkeyPatch.context() as patch:
        defaults = {**(interleaved.__kwdefaults__ or {}), "settle": 0.0}
        patch.setattr(interleaved, "__kwdefaults__", defaults)
        yield


@pytest.fixture
def colour_weights(tmp_path: Path) -> str:
    """The .weights file of a network whose detections are known exactly: see COLOUR_CFG."""
    netdef = parse(COLOUR_CFG)
    model = Darknet(netdef)
    layer = model.layers[0]
    assert isinstance(layer, Convolution) and layer.conv.bias is not None
    torch.nn.init.zeros_(layer.conv.weight)
    with torch.no_grad():
        layer.conv.weight[5:, :, 0, 0] = 20 * torch.eye(3)
        layer.conv.bias.copy_(torch.tensor([0.0, 0, 0, 0, 3, -10, -10, -10]))
    write_pair(tmp_path / "net" / "colours", model, netdef, COLOURS)
    return str(tmp_path / "net" / "colours.weights")


@contextmanager
def short_cuts() -> Iterator[pytest.MonkeyPatch]:
    """Leave out what takes most of the time of a short training or a cut, and is tested elsewhere.

    Figures are written without being drawn: tests/utils/visualization. PyTorch's engine runs a
    network as it is, without trying which way is the fastest: tests/utils/backends.
    """

    def write_blank(figure: Figure, path: Path, **options: object) -> None:
        Image.new("RGB", (1, 1)).save(path, format="png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", write_blank)
        patch.setattr("utils.visualization.figures.use_fonts_", lambda _: None)
        patch.setattr("utils.backends.torch_engine._faster_on_cpu", lambda model, _: model)
        yield patch


@pytest.fixture(name="short_cuts")
def take_short_cuts() -> Iterator[None]:
    """See `short_cuts`."""
    with short_cuts():
        yield
