"""train.py where the network is made sparse, is cut on the way, or has a teacher."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

import train
from import_param import Pruning, TrainedNetwork, TrainSettings
from models.costs import count_operations, count_parameters
from models.darknet import Darknet
from models.netdef import parse
from pruning.iterative.while_training import make_penalty
from pruning.sparsity import penalty_groups
from pruning.targets import Measure
from tests.conftest import ROOT, next_commands
from tests.pruning.fake_latency import count_instead_of_timing
from tests.pruning.nets import config
from tests.pruning.scales import read, size
from tests.pruning.test_sparsity import BLOCK
from tests.test_train import figures, flags
from utils.checkpoint.checkpoint import read_checkpoint
from utils.checkpoint.darknet_files import write_pair
from utils.checkpoint.network import load_network
from utils.console.next_steps import how_to_resume
from utils.data.demo_data import DemoSettings, make_demo
from utils.errors import InputError, run
from utils.settings.loader import load
from utils.structures import Batch
from utils.timing import ms_in_words
from utils.training import lr_schedule as schedule
from utils.training.build import load_teacher
from utils.training.loop import Trainer, train_one_epoch

pytestmark = pytest.mark.usefixtures("short_cuts")

NET = BLOCK.replace("filters=7", "filters=15").replace("classes=2", "classes=10")
SPARSE = ["--is_pruned", "--lr", "0.01"]
TO_A_TIME = ["--prune_while_training", "--pruned_id", "latency"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a tiny data set and a tiny network of every kind of channel."""
    monkeypatch.chdir(tmp_path)
    make_demo(tmp_path / "demo", DemoSettings(train=6, valid=4, side=64))
    (tmp_path / "demo.names").write_text("".join(f"{digit}\n" for digit in range(10)))
    (tmp_path / "demo.data").write_text(
        "names = demo.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n"
    )
    (tmp_path / "tiny.cfg").write_text(NET)
    return tmp_path


def interrupt_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    done: list[str] = []

    def interrupted(
        trainer: Trainer, batches: Iterable[Batch], steps: int, title: str
    ) -> dict[str, float]:
        if len(done) == epochs:
            raise KeyboardInterrupt
        done.append(title)
        return train_one_epoch(trainer, batches, steps, title)

    monkeypatch.setattr("utils.training.loop.train_one_epoch", interrupted)


def expect_same_run(names: tuple[str, str]) -> None:
    """The same weights, state and figures, to the bit."""
    one, other = (read_checkpoint(f"weights/{name}/last.pt") for name in names)
    assert one.netdef == other.netdef
    for first, second in (
        (one.model, other.model),
        (one.training.model, other.training.model),
    ):
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), name
    states = [c.training.optimizer["state"] for c in (one, other)]
    for number, state in states[0].items():
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][number][key]))
    rows = [figures(f"runs/{name}/metrics.csv") for name in names]
    for row in (*rows[0], *rows[1]):
        row.pop("speed/images_per_second")
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lr", "1e300"], "the loss is nan"),
        (["--lr", "1e39", "--sparse_step", "subgradient", "--optimizer", "sgd"], "the loss is nan"),
        (["--sparse_rate", "1e300"], r"sparse_rate=1e\+300: expected from 0 to 1e\+06"),
    ],
)
def test_huge_settings_end_a_sparse_run_in_one_line(
    project: Path, more: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train.main(flags("--is_pruned", "--warmup_epochs", "0", *more))


def test_a_sparse_run_ends_with_zeros_pictures_and_a_percent(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        schedule, "MAX_SCALE_LR", 0.5
    )  # there are only a few steps to come to zero in
    train.main(
        flags("--name", "sparse", "--is_pruned", "--lr", "0.05", "--sparse_rate", "9", epochs=4)
    )
    said = capsys.readouterr().out
    assert " uncut" in said and "a cut by slim" in said and " dead " in said
    assert [script for script, _ in next_commands(said)] == ["prune", "test"]
    left = {path.name for path in (project / "runs/sparse").iterdir()}
    assert {"scales.png", "percent.png", "percent.txt", "curves_scales.png"} <= left
    rows = figures("runs/sparse/metrics.csv")
    assert 0 <= float(rows[0]["sparsity/below 0.01"]) <= float(rows[-1]["sparsity/below 0.01"])
    assert float(rows[-1]["scales/10 %"]) < float(rows[0]["scales/10 %"])
    saved = load_network(TrainedNetwork(weights="weights/sparse/best.pt", device="cpu")).model
    sizes = torch.cat(
        [size(read(saved, b.penalized)) for b in penalty_groups(saved.netdef, "slim")]
    )
    zeros = float((sizes == 0).float().mean())
    assert zeros > 0 and zeros <= float(rows[-1]["sparsity/below 0.01"]) + 1e-6
    last, best = (read_checkpoint(f"weights/sparse/{name}.pt") for name in ("last", "best"))
    assert last.origin.epoch == best.origin.epoch == 4  # the sparsest, not mAP's


@pytest.mark.parametrize("step", ["proximal", "subgradient"])
def test_a_resumed_sparse_run_is_the_uninterrupted_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    more = [*SPARSE, "--sparse_step", step, "--sparse_decay", "local", "--pruned_id", "1"]
    train.main(flags("--name", "whole", *more, epochs=3))
    interrupt_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train.main(flags("--name", "halved", *more, epochs=3))
    monkeypatch.setattr("utils.training.loop.train_one_epoch", train_one_epoch)
    train.main(["--resume", "weights/halved/last.pt", "--workers", "0", "--no-visdom"])
    expect_same_run(("whole", "halved"))


def test_a_run_that_is_cut_on_the_way_ends_at_the_target_and_resumes_exactly(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = ["--prune_while_training", "--cut_epochs", "1", "3", "--percent", "0.5"]
    train.main(flags("--name", "whole", *SPARSE, *cut, epochs=5))
    said = capsys.readouterr().out
    assert said.count("cut after epoch") == 2 and " uncut" not in said
    last = read_checkpoint("weights/whole/last.pt")
    small, whole = last.netdef, parse(NET).with_net_options(width=64, height=64)
    counts = [
        sum(layer.integer("filters") for layer in net.layers if layer.kind == "convolutional") - 15
        for net in (small, whole)
    ]
    assert counts[0] / counts[1] == pytest.approx(0.5, abs=0.08)
    opened = load_network(TrainedNetwork(weights="weights/whole/best.weights", device="cpu")).model
    assert count_parameters(opened) == count_parameters(Darknet(small))
    for epochs in (1, 2, 3, 4):  # before, between and after the cuts
        name = f"halved{epochs}"
        interrupt_after(monkeypatch, epochs)
        with pytest.raises(KeyboardInterrupt):
            train.main(flags("--name", name, *SPARSE, *cut, epochs=5))
        monkeypatch.setattr("utils.training.loop.train_one_epoch", train_one_epoch)
        train.main(["--resume", f"weights/{name}/last.pt", "--workers", "0", "--no-visdom"])
        expect_same_run(("whole", name))


def test_a_run_is_cut_to_a_time_on_the_way_and_resumes_exactly(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count_instead_of_timing(monkeypatch)
    cut = ["--prune_while_training", "--cut_epochs", "1", "3", "--pruned_id", "latency"]
    cut += ["--target_speedup", "1.25", "--img_size", "128"]
    train.main(flags("--name", "whole", *SPARSE, *cut, epochs=4))
    said = capsys.readouterr().out
    assert said.count("layers measured") == 1 and said.count("cut after epoch") == 2
    left = Path("runs/whole/latency.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in left] == ["cut 1", "cut 2", "at the end"]
    assert left[-1] in said
    small = read_checkpoint("weights/whole/best.pt").netdef
    measured = ms_in_words(0.5 + count_operations(small) / 1e6)
    assert f"measured {measured}" in left[-1]
    for epochs in (2, 3):  # between and after the cuts
        name = f"halved{epochs}"
        interrupt_after(monkeypatch, epochs)
        with pytest.raises(KeyboardInterrupt):
            train.main(flags("--name", name, *SPARSE, *cut, epochs=4))
        monkeypatch.setattr("utils.training.loop.train_one_epoch", train_one_epoch)
        train.main(["--resume", f"weights/{name}/last.pt", "--workers", "0", "--no-visdom"])
        expect_same_run(("whole", name))
        assert Path(f"runs/{name}/latency.txt").read_text().splitlines() == left


def test_blocks_are_cut_on_the_way_too(project: Path) -> None:
    cut = ["--prune_while_training", "--cut_epochs", "1", "--percent", "0.9", "--pruned_id", "2"]
    train.main(flags("--name", "layers", *SPARSE, *cut, epochs=2))
    small = read_checkpoint("weights/layers/last.pt").netdef
    assert not any(layer.kind == "shortcut" for layer in small.layers)


def test_a_teacher_is_heard(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(flags("--name", "large", epochs=1))
    (project / "small.cfg").write_text(
        Path("weights/large/best.cfg").read_text().replace("filters=8", "filters=3")
    )
    capsys.readouterr()
    start = ["--pretrained", "--weights", "weights/large/best.pt", "--cfg", "small.cfg"]
    for teacher in ("weights/large/best.pt", "weights/large/best.weights"):
        train.main([*flags(*start, epochs=1), "--cfg", "small.cfg", "--teacher", teacher])
        said = capsys.readouterr().out
        assert f"teacher {teacher}: " in said and "note: the teacher" not in said
    rows = figures("runs/small-demo/metrics.csv")
    assert float(rows[0]["loss/teacher"]) > 0
    plain = figures("runs/large/metrics.csv")
    assert "loss/teacher" not in plain[0]


def test_a_teacher_with_the_classes_in_another_order_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = parse(NET).with_net_options(width=64, height=64)
    names = tuple("0123456789")
    write_pair(Path("large"), Darknet(network), network, names)
    settings = load(TrainSettings, ["--teacher", "large.weights"])
    with pytest.raises(InputError, match=r"class 1 is '0', in teacher='large\.weights' it is"):
        load_teacher(settings, network, tuple("1023456789"))
    load_teacher(settings, network, ("nought", *"123456789"))
    assert "teacher='large.weights' calls the data set's 'nought' '0'" in capsys.readouterr().out


def test_a_teacher_that_saw_other_photos_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = parse(NET).with_net_options(width=64, height=64)
    names = tuple("0123456789")
    write_pair(Path("large"), Darknet(network), network, names)
    network.with_net_options(letter_box=1).write("large.cfg")
    p = load(TrainSettings, ["--teacher", "large.weights"])
    load_teacher(p, network.with_net_options(letter_box=1), names)
    assert "note" not in capsys.readouterr().out
    load_teacher(p, network, names)
    assert "not as it was trained: of 64x64, letterbox=False" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prune_while_training"], "prune_while_training=True: expected False, or is_pruned"),
        ([*SPARSE, "--prune_while_training", "--cut_epochs", "2"], "cut_epochs=(2,): expected"),
        ([*SPARSE, "--prune_while_training", "--freeze", "1"], "freeze=1: expected 0"),
        ([*SPARSE, *TO_A_TIME], "target_ms=0, target_speedup=0: expected one of them above 0"),
        (
            [*SPARSE, *TO_A_TIME, "--target_ms", "1", "--target_speedup", "2"],
            "target_ms=1, target_speedup=2: expected one of them above 0",
        ),
        ([*SPARSE, *TO_A_TIME, "--target_ms", "1e6"], "1e+06ms: expected less time than the"),
        (
            [*SPARSE, "--prune_while_training", "--target_speedup", "2"],
            "target_speedup=2: expected 0, or pruned_id=latency",
        ),
        (
            [*SPARSE, "--pruned_id", "latency", "--target_ms", "2"],
            "target_ms=2: expected 0, or prune_while_training=True",
        ),
        ([*SPARSE, "--cut_epochs", "1"], "cut_epochs=(1,): expected none, or prune_while_training"),
        (
            [*SPARSE, "--pruned_id", "normal", "--cfg", "lite.cfg", "--freeze", "11"],
            "freeze: no layer",
        ),
        ([*SPARSE, "--pruned_id", "layer", "--cfg", "lite.cfg"], "it has no [shortcut]"),
        ([*SPARSE, "--pruned_id", "5", "--cfg", "lite.cfg"], "pruned_id='layer_channel': expected"),
        ([*SPARSE, "--sparse_rate", "inf"], "sparse_rate=inf: expected a finite number"),
        (["--teacher_cfg", "tiny.cfg"], "teacher_cfg='tiny.cfg': expected none, or a teacher"),
        ([*SPARSE, "--sparse_rate", "-1"], "sparse_rate=-1.0: expected from 0 to 1e+06"),
        (["--teacher", "no.pt"], "no.pt"),
        (["--teacher", "other.weights"], "other.cfg"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    project: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config("yolov3-lite", thinner=16).write("lite.cfg")
    assert run(lambda: train.main(flags(*argv))) == 2
    assert message in capsys.readouterr().err
    assert not (project / "weights").exists() and not (project / "runs").exists()


def test_a_teacher_with_other_heads_is_one_line(project: Path, colour_weights: str) -> None:
    with pytest.raises(InputError, match=r"teacher='.*colours\.weights': head 1 has classes 3"):
        train.main(flags("--teacher", colour_weights))


@pytest.mark.parametrize("measure", ["channels", "operations"])
def test_the_penalty_is_in_proportion_to_what_was_asked(measure: Measure) -> None:
    settings = load(TrainSettings, [*SPARSE, "--sparse_by", measure])
    penalty = make_penalty(settings, Darknet(parse(NET)), 1)
    expected = penalty_groups(parse(NET), settings.pruning.strategy, measure)
    assert [group.cost for group in penalty.groups] == [group.cost for group in expected]
    assert (measure == "channels") == all(group.cost == 1 for group in penalty.groups)


def test_a_users_own_strategy_is_trained_for_and_protected_layers_stay(project: Path) -> None:
    own = f"{ROOT / 'docs/examples/own_pruning.py'}:even"
    train.main(flags("--name", "own", *SPARSE, "--pruned_id", own, "--protected", "0", epochs=1))
    netdef = load_network(TrainedNetwork(weights="weights/own/last.pt")).model.netdef
    assert netdef.layers[0].flag("protected")
    assert "after a cut by" in Path("runs/own/percent.txt").read_text()
    with pytest.raises(InputError, match=rf"names a function to be run.* give --pruned_id {own}"):
        train.main(["--resume", "weights/own/last.pt"])
    settings = TrainSettings(pruning=Pruning(pruned_id=own))
    assert f"--pruned_id {own}" in how_to_resume(settings, Path("weights/own"))
