"""Does a network on disk open again, alone, and is anything else refused?"""

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from import_param import NetworkLimits, Pruning, TrainedNetwork, Training, TrainSettings
from models.darknet import Darknet
from models.netdef import load, parse
from models.weights import write_weights
from tests.models.test_darknet import RESIDUAL
from utils.checkpoint import (
    Origin,
    TrainingState,
    load_network,
    newest_weights,
    read_checkpoint,
    read_pretrained,
    reopen,
    save_checkpoint,
    untrained_heads,
    write_pair,
)
from utils.errors import InputError
from utils.settings import restore
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_network_that_cannot_be_computed_with_does_not_open(value: float, tmp_path: Path) -> None:
    broken = model()
    broken.layers[0].bn.running_var[3] = value
    paths = [
        save(tmp_path / "a.pt", broken),
        write_pair(tmp_path / "b", broken, broken.netdef, "xy")[1],
    ]
    for path in paths:
        with pytest.raises(InputError, match=rf"{path.name}: layer 0: .*(nan|inf|-1)"):
            load_network(TrainedNetwork(weights=str(path), device="cpu"))


def test_size_letterbox_and_names_can_be_chosen(tmp_path: Path) -> None:
    path = str(save(tmp_path / "best.pt", model()))
    (tmp_path / "other.names").write_text("cat\ndog\n")
    opened = load_network(
        TrainedNetwork(
            weights=path,
            names=str(tmp_path / "other.names"),
            img_size=64,
            letterbox="yes",
            device="cpu",
        )
    )
    assert opened.names == ("cat", "dog") and opened.size == (64, 64) and opened.letterbox


def test_a_pair_takes_the_names_beside_it(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.weights", model())
    model().netdef.write(tmp_path / "x.cfg")
    assert load_network(
        TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")
    ).names == ("0", "1")
    (tmp_path / "coco.names").write_text("cat\ndog\n")
    assert load_network(
        TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")
    ).names == ("cat", "dog")
    write_pair(tmp_path / "x", model(), model().netdef, ("own", "names"))
    assert load_network(
        TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")
    ).names == ("own", "names")


def test_of_several_names_beside_a_pair_those_that_fit_are_taken(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.weights", model())
    model().netdef.write(tmp_path / "x.cfg")
    (tmp_path / "coco.names").write_text("a\nb\nc\n")
    (tmp_path / "two.names").write_text("cat\ndog\n")
    settings = TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")
    assert load_network(settings).names == ("cat", "dog")
    (tmp_path / "other.names").write_text("cow\npig\n")
    assert load_network(settings).names == ("0", "1")


@pytest.mark.parametrize("program", ["cfg", "opencv", "darknet"])
def test_a_pair_computes_the_same_for_the_program_it_is_for(program: str, tmp_path: Path) -> None:
    network = model().eval()
    network.layers[0].bn.running_var.fill_(1e-5)
    write_pair(tmp_path / "x", network, network.netdef.with_bn_epsilon_of(program), "ab")
    opened = load_network(TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")).model
    assert opened.layers[0].bn.eps == (1e-5 if program == "darknet" else 1e-6)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[0], opened(images)[0], rtol=1e-4, atol=1e-4)


def test_the_newest_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(("new", "old")):
        path = save(tmp_path / "weights" / name / "best.pt", model())
        os.utime(path, (1e9 - age, 1e9 - age))
    assert newest_weights(tmp_path / "weights").parent.name == "new"
    monkeypatch.chdir(tmp_path)
    assert newest_weights() == Path("weights/new/best.pt")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cfg": "x.cfg"}, "cfg='x.cfg': expected none"),
        ({"img_size": 33}, "img_size=33x33: expected multiples of"),
        ({"names": "three.names"}, "3 class names for a network of 2 classes"),
        ({"names": "no.names"}, "no.names"),
        ({"weights": "three.names"}, "weights='three.names': expected a .pt of this project, or"),
        ({"weights": "no.onnx", "cfg": "x.cfg"}, "weights='no.onnx': expected a .pt"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("three.names").write_text("a\nb\nc\n")
    strided = RESIDUAL.replace("size=3\npad=1", "size=3\nstride=2\npad=1", 1)
    save(Path("best.pt"), Darknet(parse(strided)))
    with pytest.raises(InputError) as error:
        load_network(replace(TrainedNetwork(weights="best.pt"), **arguments))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (NetworkLimits(max_network_gb=1e-5), "takes .* GB .* larger max_network_gb"),
        (NetworkLimits(max_network_gflops=1e-5), "takes .* operations .*larger max_network_gflops"),
    ],
)
def test_a_network_beyond_the_limits_does_not_open(
    limit: NetworkLimits, message: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.pt", model())
    settings = TrainedNetwork(weights=str(path), device="cpu", **vars(limit))
    with pytest.raises(InputError, match=message):
        load_network(settings)
    assert reopen(path, "cpu").names == ("a", "b")


def test_a_part_of_a_network_is_not_used(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.weights", model(), layers=1)
    model().netdef.write(tmp_path / "x.cfg")
    with pytest.raises(InputError, match="holds only a part of the network: filled 1 of 3"):
        load_network(TrainedNetwork(weights=str(tmp_path / "x.weights")))


def test_pretrained_heads_keep_their_anchors(tmp_path: Path) -> None:
    trained = model()
    trained = Darknet(trained.netdef.with_anchors([(5, 6)]).with_head_options(scale_x_y="2"))
    path = save(tmp_path / "x.pt", trained)
    start = read_pretrained(path, model().netdef)
    state, definition = start.state, start.netdef
    assert definition == trained.netdef
    assert untrained_heads(definition, state) == []
    assert untrained_heads(definition.with_classes(3), state) == [6]
    assert untrained_heads(definition, {}) == [6]


def test_pretrained_weights_for_other_heads_leave_the_definition(tmp_path: Path) -> None:
    trained = model().netdef.with_head_options(scale_x_y="2")
    path = save(tmp_path / "x.pt", Darknet(trained))
    tail = RESIDUAL[RESIDUAL.rindex("[conv") :]
    two = parse(f"{RESIDUAL}[route]\nlayers=4\n{tail}")
    start = read_pretrained(path, two)
    state, definition = start.state, start.netdef
    assert definition == two and untrained_heads(two, state) == [9]


def test_pretrained_weights_may_be_a_part_of_darknets(tmp_path: Path) -> None:
    network = model()
    write_weights(tmp_path / "x.weights", network, layers=2)
    start = read_pretrained(tmp_path / "x.weights", network.netdef)
    state, definition = start.state, start.netdef
    assert definition == network.netdef and untrained_heads(definition, state) == [6]
    assert torch.equal(state["layers.1.conv.weight"], network.state_dict()["layers.1.conv.weight"])


def test_a_pair_is_a_cfg_weights_and_names(tmp_path: Path) -> None:
    network = model()
    cfg, weights = write_pair(tmp_path / "net-1.1", network, network.netdef, ("a", "b"))
    assert load(cfg) == network.netdef.with_plain_heads()
    assert (cfg.name, weights.name) == ("net-1.1.cfg", "net-1.1.weights")
    assert load_network(TrainedNetwork(weights=str(weights), device="cpu")).names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[net]\n[convolutional]\nfilters=8\n", "at least one .yolo. section"),
        (RESIDUAL.replace("channels=3", "channels=1"), "channels='1': expected 3"),
    ],
)
def test_a_network_that_finds_nothing_on_photos_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    network = Darknet(parse(text))
    with pytest.raises(InputError, match=message):
        load_network(TrainedNetwork(weights=str(save(tmp_path / "x.pt", network))))
