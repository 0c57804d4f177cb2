"""Does a network on disk open again, alone, and is anything else refused?"""

import zipfile
from pathlib import Path

import pytest
import torch

from import_param import Pruning, TrainedNetwork, Training, TrainSettings
from models.darknet import Darknet
from models.netdef import parse
from tests.models.test_darknet import RESIDUAL
from tests.pretended_card import CardTensor
from utils.checkpoint.checkpoint import Origin, TrainingState, read_checkpoint, save_checkpoint
from utils.checkpoint.network import load_network
from utils.checkpoint.pretrained import read_pretrained
from utils.errors import InputError
from utils.settings.loader import restore
from utils.version import VERSION


def model(classes: int = 2) -> Darknet:
    return Darknet(parse(RESIDUAL).with_classes(classes))


def save(path: Path, network: Darknet, names: tuple[str, ...] = ("a", "b")) -> Path:
    save_checkpoint(path, network.netdef, names, network.state_dict(), TrainSettings(), Origin())
    return path


def test_a_checkpoint_opens_alone(tmp_path: Path) -> None:
    ours = model().eval()
    opened = load_network(
        TrainedNetwork(weights=str(save(tmp_path / "best.pt", ours)), device="cpu")
    )
    assert opened.names == ("a", "b") and opened.size == (32, 32) and not opened.letterbox
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], opened.model(x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_checkpoint_of_a_card_is_one_of_the_cpu(tmp_path: Path) -> None:
    torch._C._ensureCUDADeviceGuardSet()
    network = model()
    on_card = {name: CardTensor(value) for name, value in network.state_dict().items()}
    optimizer = {"state": {0: {"step": CardTensor(torch.ones(()))}}, "param_groups": [{"lr": 0.1}]}
    training = TrainingState(1, -1.0, 0, "run", dict(on_card), optimizer, {}, 0)
    save_checkpoint(
        tmp_path / "x.pt", network.netdef, ("a", "b"), on_card, TrainSettings(), training
    )
    held = torch.load(tmp_path / "x.pt")  # as other programs open it
    assert held["training"]["optimizer"]["state"][0]["step"].device.type == "cpu"
    for name, value in network.state_dict().items():
        assert torch.equal(held["model"][name], value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or not a file of tensors"),
        (b"no torch file at all", "damaged, or not a file of tensors"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_checkpoint(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.pt: {message}"):
        read_checkpoint(path)


def test_a_cut_off_checkpoint_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pt", model())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"x\.pt: damaged, or not a file of tensors"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("format", 2, "expected a checkpoint of this project .format 1."),
        ("format", torch.ones(2), "expected a checkpoint of this project .format 1."),
        ("format", [1], "expected a checkpoint of this project .format 1."),
        ("version", 3, "version=3: expected str"),
        ("cfg", 5, "cfg=5: expected str"),
        ("cfg", "[net", "(its cfg)"),
        ("names", "cat", "names='cat': expected tuple"),
        ("names", [1, 2], "names=.*: expected tuple"),
        ("names", ["a", "b\nc"], r"names='b.nc': expected a line of text"),
        ("names", ["a", ""], "names='': expected a line of text"),
        ("names", ["a", "\ud800"], "names=.*: expected"),
        ("names", ["a"] * 100_001, "names=.*: expected at most 100000 entries"),
        ("model", None, "model=None: expected dict"),
        ("model", {"layers.0.conv.weight": 1.0}, "model=.*: expected dict"),
        ("model", {7: torch.zeros(1)}, "model=.*: expected dict"),
        ("settings", [], "settings=.*: expected dict"),
        ("settings", {str(n): {} for n in range(101)}, "settings=.*: expected at most 100"),
        ("training", [], "training=.*: expected dict"),
    ],
)
def test_a_checkpoint_of_other_types_is_refused(
    part: str, value: object, message: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "x.pt", model())
    torch.save(torch.load(path) | {part: value}, path)
    with pytest.raises(InputError, match=rf"x\.pt.*{message}"):
        read_checkpoint(path)


STRANGE_TENSORS = {
    "expanded": lambda: torch.zeros(1).expand(10**6, 10**6),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.zeros(3, device="meta"),
    "complex": lambda: torch.zeros(3, dtype=torch.complex64),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.quint8),
}


@pytest.mark.parametrize("kind", STRANGE_TENSORS)
@pytest.mark.filterwarnings("ignore")  # torch's, of kinds that it is about to drop
def test_a_checkpoint_of_strange_tensors_is_refused(
    kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = save(tmp_path / "x.pt", model())
    state = {"layers.0.conv.weight": STRANGE_TENSORS[kind]()}
    torch.save(torch.load(path) | {"model": state}, path)
    torch.save(state, tmp_path / "y.pth")
    recwarn.clear()
    with pytest.raises(InputError, match=r"expected an ordinary tensor|damaged"):
        read_checkpoint(path)
    with pytest.raises(InputError, match=r"expected an ordinary tensor|damaged"):
        read_pretrained(tmp_path / "y.pth", model().netdef)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("run", "../../x", r"run='../../x': expected a name without slashes"),
        ("run", "/tmp/x", r"run='/tmp/x': expected a name without slashes"),
        ("run", "..", r"run='..': expected a name"),
        ("run", "", "run='': expected a name"),
        ("run", "a\0b", "run=.*: expected text"),
        ("run", 3, "run=3: expected str"),
        ("epoch", -1, "epoch=-1: expected from 0"),
        ("epoch", 2**70, "epoch=.*: expected an integer of at most 64 bits"),
        ("epoch", 1.5, "epoch=1.5: expected int"),
        ("epoch", torch.tensor(1), "epoch=.*: expected int"),
        ("best", "high", "best='high': expected float"),
        ("best", torch.ones(2), "best=.*: expected float"),
        ("best", float("inf"), "best=inf: expected a finite number"),
        ("stale", None, "stale=None: expected int"),
        ("model", {"a": torch.zeros(1).expand(9)}, r"model.'a'.=.*: expected an ordinary tensor"),
        ("optimizer", [], "optimizer=.*: expected dict"),
        ("schedule", None, "schedule=None: expected dict"),
        ("averaged", -3, "averaged=-3: expected from 0"),
        ("pruning", 1, "pruning=1: expected"),
    ],
)
def test_a_training_that_cannot_be_is_refused(
    entry: str, value: object, message: str, tmp_path: Path
) -> None:
    network, path = model(), tmp_path / "x.pt"
    state = TrainingState(3, 0.5, 0, "a", {}, {}, {}, 1)
    save_checkpoint(path, network.netdef, ("a",) * 2, network.state_dict(), TrainSettings(), state)
    content, training = torch.load(path), state.values()
    for values, wanted in (
        (training | {entry: value}, message),
        ({k: v for k, v in training.items() if k != entry}, f"'{entry}' is missing"),
    ):
        torch.save(content | {"training": values}, path)
        if entry in ("pruning", "optimizer") and entry not in values:
            assert entry == "pruning" or read_checkpoint(path).training is None
            continue
        with pytest.raises(InputError, match=rf"x\.pt: training: {wanted}"):
            read_checkpoint(path)


def test_a_changed_bit_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pt", model())
    data = path.read_bytes()
    state = torch.load(path)["model"]["layers.0.conv.weight"].numpy().tobytes()
    place = data.index(state) + len(state) // 2
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(InputError, match=r"x\.pt: damaged: .* is not what its checksum says"):
        read_checkpoint(path)


def test_archives_that_grow_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000)}, tmp_path / "sound.pt")
    with (
        zipfile.ZipFile(tmp_path / "sound.pt") as sound,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in sound.namelist():
            packed.writestr(name, sound.read(name))
    with pytest.raises(InputError, match="expected records that are stored as they are"):
        read_checkpoint(path)


def test_a_checkpoint_says_which_version_wrote_it_with_which_settings(tmp_path: Path) -> None:
    settings = TrainSettings(training=Training(lr=0.5), pruning=Pruning(target_ms=3.0))
    network = model()
    training = TrainingState(3, 0.5, 1, "a", {"x": torch.ones(2)}, {}, {}, 7)
    path = tmp_path / "x.pt"
    save_checkpoint(path, network.netdef, ("a", "b"), network.state_dict(), settings, training)
    checkpoint = read_checkpoint(path)
    assert checkpoint.version == VERSION
    assert restore(TrainSettings, checkpoint.settings) == settings
    assert checkpoint.netdef == network.netdef and checkpoint.names == ("a", "b")
    assert checkpoint.training and checkpoint.training.epoch == 3
    assert checkpoint.training.model["x"].tolist() == [1, 1]


def test_a_checkpoint_of_an_older_version_opens(tmp_path: Path) -> None:
    """It holds no version, and its settings are in groups of other names."""
    network = model()
    content = {
        "format": 1,
        "cfg": network.netdef.text(),
        "names": ["a", "b"],
        "model": network.state_dict(),
        "settings": {"train": {"lr": 0.5, "epochs": 7}, "prune": {"cost_table": "x.csv"}},
        "training": {},
    }
    torch.save(content, tmp_path / "x.pt")
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert checkpoint.version == ""
    settings = restore(TrainSettings, checkpoint.settings)
    assert (settings.training.lr, settings.training.epochs) == (0.5, 7)
    assert settings.pruning.latency_table == "x.csv"
    assert load_network(TrainedNetwork(weights=str(tmp_path / "x.pt"))).names == ("a", "b")


def test_a_foreign_state_dict_is_refused_as_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="expected a checkpoint of this project"):
        load_network(TrainedNetwork(weights=str(tmp_path / "x.pt")))
