"""train.py and test.py, from their flags to their files, on a handful of pictures."""

import csv
import itertools
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import pytest
import torch

import test as measure
import train
from import_param import TrainedNetwork
from models import netdef
from models.netdef import head_anchors
from models.weights import read_weights
from tests.conftest import next_commands, short_cuts
from tests.models.test_darknet import RESIDUAL
from utils.checkpoint.checkpoint import Checkpoint, Origin, read_checkpoint
from utils.checkpoint.network import load_network
from utils.data.demo_data import DemoSettings, make_demo
from utils.errors import InputError, run
from utils.monitoring.monitor import Monitor
from utils.structures import Batch
from utils.training.loop import Trainer, train_one_epoch
from utils.training.runs import Run

pytestmark = pytest.mark.usefixtures("short_cuts")

NET = RESIDUAL.replace("filters=7", "filters=15").replace("classes=2", "classes=10")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a tiny data set and a tiny network."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    return tmp_path


def fill(folder: Path) -> None:
    make_demo(folder / "demo", DemoSettings(train=6, valid=4, side=64))
    names = "".join(f"{digit}\n" for digit in range(10))
    (folder / "demo.names").write_text(names)
    (folder / "demo.data").write_text(
        "names = demo.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n"
    )
    strided = NET.replace("size=3\npad=1", "size=3\nstride=4\npad=1", 1)
    (folder / "tiny.cfg").write_text(strided)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that many tests begin with, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("made")
    fill(folder)
    with short_cuts() as patch:
        patch.chdir(folder)
        train.main(flags("--name", "whole"))
        move_run(folder, folder / "whole")
        train.main(flags("--name", "first", epochs=1))
        move_run(folder, folder / "finished")
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train.main(flags("--name", "first", epochs=3))
        move_run(folder, folder / "interrupted")
    return folder


def move_run(source: Path, target: Path) -> None:
    target.mkdir()
    for kind in ("runs", "weights"):
        shutil.move(source / kind, target)


def flags(*more: str, epochs: int = 2) -> list[str]:
    base = ["--cfg", "tiny.cfg", "--data", "demo.data", "--img_size", "64", "--batch_size", "4"]
    return [*base, "--workers", "0", "--no-visdom", "--epochs", str(epochs), *more]


def figures(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def test_a_run_leaves_what_it_promises(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(flags("--name", "first"))
    said = capsys.readouterr().out
    assert said.count("| class ") == 1, "one table, at the end"
    epochs = [line for line in said.splitlines() if line.split()[:1] in (["1/2"], ["2/2"])]
    assert len(epochs) == 2 and max(map(len, epochs)) <= 100
    assert [script for script, _ in next_commands(said)] == ["test", "detect_img", "prune"]
    left = {path.name for path in (project / "runs/first").iterdir()}
    pictures = {"augmented_batch.jpg", "examples.jpg", "precision_recall.png", "confusion.png"}
    curves = {f"curves_{plot}.png" for plot in ("loss", "lr", "mAP", "AP", "metrics", "training")}
    assert {"settings.json", "metrics.csv", *pictures, *curves} <= left
    weights = {path.name for path in (project / "weights/first").iterdir()}
    assert weights == {"last.pt", "best.pt", "best.cfg", "best.weights", "best.names"}
    rows = figures("runs/first/metrics.csv")
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert float(rows[1]["loss/box"]) > 0 and "AP/7" in rows[1]
    settings = json.loads((project / "runs/first/settings.json").read_text())
    assert settings["training"]["epochs"] == 2


def test_the_pair_is_the_checkpoint_and_opens_elsewhere(finished: Path) -> None:
    folder = finished / "weights/first"
    ours = load_network(TrainedNetwork(weights=str(folder / "best.pt"), device="cpu"))
    pair = load_network(TrainedNetwork(weights=str(folder / "best.weights"), device="cpu"))
    assert ours.names == pair.names == tuple("0123456789")
    assert ours.size == pair.size == (64, 64)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.model(x)[0], pair.model(x)[0])
    cv2.dnn.readNetFromDarknet(str(folder / "best.cfg"), str(folder / "best.weights"))
    read_weights(folder / "best.weights", netdef.load(folder / "best.cfg"))


@pytest.mark.parametrize(
    "more", [("--multi_scale", "0.5"), ("--amp_dtype", "fp16")], ids=["sizes", "fp16"]
)
def test_a_resumed_run_is_the_uninterrupted_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    train.main(flags("--name", "whole", *more, epochs=3))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 1)
        train.main(flags("--name", "cut", *more, epochs=3))
    again = resume(name="cut")
    with pytest.raises(InputError, match=r"epochs=9: a run that goes on .* such as epochs=3"):
        train.main([*again, "--epochs", "9"])
    train.main([*again, "--epochs", "3"])

    whole, cut = (read_checkpoint(f"weights/{name}/last.pt") for name in ("whole", "cut"))
    for name, tensor in whole.model.items():
        assert torch.equal(tensor, cut.model[name]), name
    assert whole.training.scaler == cut.training.scaler
    assert (whole.training.scaler is None) == ("fp16" not in more)
    rows = [figures(f"runs/{name}/metrics.csv") for name in ("whole", "cut")]
    timed = "speed/images_per_second"
    for row in (*rows[0], *rows[1]):
        row.pop(timed)
    assert rows[0] == rows[1]


class Killed(BaseException):
    """The process ends here, as by `kill -9`."""


def renamed(folder: Path, *names: str) -> None:
    """Call the data set's classes otherwise."""
    (folder / "demo.names").write_text("".join(f"{name}\n" for name in names))


def resume(*more: str, name: str = "first") -> list[str]:
    return ["--resume", f"weights/{name}/last.pt", "--workers", "0", "--no-visdom", *more]


def last(name: str) -> Checkpoint:
    return read_checkpoint(f"weights/{name}/last.pt")


@pytest.fixture
def interrupted(project: Path, made: Path) -> Path:
    """The project with a run of three epochs, `first`, that was stopped after one."""
    return shutil.copytree(made / "interrupted", project, dirs_exist_ok=True)


@pytest.fixture
def finished(project: Path, made: Path) -> Path:
    """The project with a run of one epoch, `first`."""
    return shutil.copytree(made / "finished", project, dirs_exist_ok=True)


@pytest.fixture
def whole(project: Path, made: Path) -> Path:
    """The project with a run of two epochs, `whole`."""
    return shutil.copytree(made / "whole", project, dirs_exist_ok=True)


def stop_after(patch: pytest.MonkeyPatch, epochs: int) -> None:
    done: list[str] = []

    def stopping(
        trainer: Trainer, batches: Iterable[Batch], steps: int, title: str
    ) -> dict[str, float]:
        if len(done) == epochs:
            raise KeyboardInterrupt
        done.append(title)
        return train_one_epoch(trainer, batches, steps, title)

    patch.setattr("utils.training.loop.train_one_epoch", stopping)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "0123456789+",
            "11 classes: expected 10, as weights/first/last.pt has; only the data set has",
        ),
        ("012345678", "9 classes: expected 10, as weights/first/last.pt has"),
        ("1023456789", "class 1 is '0', in weights/first/last.pt it is class 0"),
    ],
)
def test_a_run_does_not_go_on_with_other_classes(
    interrupted: Path, names: str, message: str
) -> None:
    renamed(interrupted, *names)
    before = Path("weights/first/last.pt").read_bytes()
    with pytest.raises(InputError, match=re.escape(message)):
        train.main(resume())
    assert Path("weights/first/last.pt").read_bytes() == before


def test_a_class_that_was_renamed_is_told(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed(interrupted, "nought", *"123456789")
    train.main(resume())
    assert "last.pt calls the data set's 'nought' '0'" in capsys.readouterr().out
    assert last("first").names[0] == "nought"


def test_the_learning_rate_comes_to_its_end_on_a_data_set_that_has_grown(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = (interrupted / "demo/train.txt").read_text().splitlines()
    for copy in range(3):
        for name in photos:
            photo = interrupted / "demo" / name
            label = Path(str(photo).replace("images", "labels")).with_suffix(".txt")
            for file in (photo, label):
                shutil.copy(file, file.with_stem(f"{file.stem}-{copy}"))
            photos = [*photos, str(Path(name).with_stem(f"{Path(name).stem}-{copy}"))]
    (interrupted / "demo/train.txt").write_text("\n".join(photos))
    train.main(resume())
    assert f"{len(photos)} photos to train on, 6 before" in capsys.readouterr().out
    rates = [float(row["lr/lr"]) for row in figures("runs/first/metrics.csv")]
    settings = last("first").settings["training"]
    assert rates[2] == pytest.approx(settings["lr"] * settings["final_lr"], rel=0.05)


def test_a_finished_run_says_so_and_makes_what_its_end_left_unmade(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs/first/confusion.png").unlink()
    before = Path("weights/first/last.pt").read_bytes()
    capsys.readouterr()
    train.main(resume())
    assert "first: nothing is left to train after epoch 1" in capsys.readouterr().out
    assert Path("runs/first/confusion.png").exists()
    assert Path("weights/first/last.pt").read_bytes() == before


def test_a_run_that_ran_out_of_patience_stays_finished(project: Path) -> None:
    train.main(flags("--name", "first", "--patience", "1", "--lr", "1e-12", epochs=9))
    epochs = last("first").training.epoch
    train.main(resume())
    assert last("first").training.epoch == epochs < 9


def test_last_alone_is_enough_to_go_on(
    interrupted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = interrupted / "elsewhere"
    elsewhere.mkdir()
    shutil.copy("weights/first/last.pt", elsewhere)
    history = Path("runs/first/metrics.csv").read_text()
    for folder in ("runs", "weights"):
        shutil.rmtree(folder)
    train.main(["--resume", "elsewhere/last.pt", "--workers", "0", "--no-visdom"])
    assert "no best.pt: the network after epoch 1 stands in" in capsys.readouterr().out
    assert Path("runs/first/metrics.csv").read_text().startswith(history)
    left = {path.name for path in Path("weights/first").iterdir()}
    assert left == {"last.pt", "best.pt", "best.cfg", "best.weights", "best.names"}


def test_another_run_of_the_same_name_is_not_written_over(interrupted: Path, made: Path) -> None:
    (interrupted / "elsewhere").mkdir()
    shutil.copy("weights/first/last.pt", "elsewhere/last.pt")
    for folder in ("runs", "weights"):
        shutil.rmtree(folder)
    shutil.copytree(made / "finished", interrupted, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"last\.pt is of another run of the name .first."):
        train.main(["--resume", "elsewhere/last.pt", "--workers", "0", "--no-visdom"])
    assert last("first").training.epoch == 1


def elsewhere(name: str) -> list[str]:
    """Move a run's last.pt away, delete all else of the run, and what goes on from there."""
    Path("elsewhere").mkdir()
    shutil.move(f"weights/{name}/last.pt", "elsewhere/last.pt")
    shutil.rmtree(f"weights/{name}")
    shutil.rmtree(f"runs/{name}")
    return ["--resume", "elsewhere/last.pt", "--workers", "0", "--no-visdom"]


@pytest.mark.parametrize("left", ["best.pt", "best.weights", "pruned.pt"])
def test_what_another_run_of_the_same_name_left_is_not_written_over(
    interrupted: Path, made: Path, left: str
) -> None:
    again = elsewhere("first")
    shutil.copytree(made / "finished", interrupted, dirs_exist_ok=True)
    shutil.rmtree("runs")
    folder = Path("weights/first")
    (folder / "best.pt").rename(folder / "keep")
    for path in folder.glob("*.*"):
        path.unlink()
    (folder / "keep").rename(folder / left)
    content = (folder / left).read_bytes()
    for argv in (again, flags("--name", "first", epochs=1)):
        with pytest.raises(InputError, match=r"move it away|is there already"):
            train.main(argv)
    assert (folder / left).read_bytes() == content
    assert [path.name for path in folder.iterdir()] == [left]


def test_last_of_another_run_beside_ones_own_best_is_refused(interrupted: Path, made: Path) -> None:
    again = elsewhere("first")
    shutil.copytree(made / "finished", interrupted, dirs_exist_ok=True)
    shutil.copy(again[1], "weights/first/last.pt")
    best = Path("weights/first/best.pt").read_bytes()
    with pytest.raises(InputError, match=r"best\.pt is of another run of the name 'first'"):
        train.main(resume())
    assert Path("weights/first/best.pt").read_bytes() == best


def test_a_run_goes_on_from_where_its_weights_were_moved_to(interrupted: Path) -> None:
    shutil.move("weights/first", "moved")
    train.main(["--resume", "moved/last.pt", "--workers", "0", "--no-visdom"])
    assert last("first").training.epoch == 3


def test_a_damaged_best_network_is_told_at_once_and_made_anew(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = Path("weights/first/best.pt")
    best.write_bytes(best.read_bytes()[:1000])
    train.main(resume())
    told = capsys.readouterr().out
    assert "best.pt: damaged" in told and "the network after epoch 1 stands in" in told
    expect_one_network(best.parent)


def test_a_missing_part_of_the_pair_is_made_of_the_best_network(finished: Path) -> None:
    pair = [Path(f"weights/first/best.{suffix}") for suffix in ("cfg", "names", "weights")]
    content = [path.read_bytes() for path in pair]
    for path in pair[1:]:
        path.unlink()
    train.main(resume())
    assert [path.read_bytes() for path in pair] == content


def test_a_run_in_use_is_refused_before_any_work(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for name, argv in (("first", resume()), ("second", flags("--name", "second"))):
        line = f"another process is writing to runs/{name}"
        with Run(name).claim(), pytest.raises(InputError, match=line):
            train.main(argv)
    assert capsys.readouterr().out == ""


def test_other_photos_to_validate_on_are_told(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = interrupted / "demo/valid.txt"
    listing.write_text("\n".join(listing.read_text().splitlines()[:3]))
    train.main(resume())
    assert "note: 3 photos to validate on, 4 before" in capsys.readouterr().out


def test_a_step_without_memory_is_told_with_flags_that_need_less(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("utils.training.loop._losses", lambda *_: torch.empty(10**17))
        assert run(lambda: train.main(flags("--name", "first"))) == 2
    told = capsys.readouterr().err
    assert (
        "error: out of memory on cpu, which other programs may use, too, with batch_size=4" in told
        and told.count("\n") == 1
    )
    less = re.findall(r"--batch_size 2 --accumulate 2", told)[0].split()
    train.main([*flags("--name", "first", epochs=1), *less])


def test_pictures_and_tables_that_cannot_be_written_cost_no_epoch(
    interrupted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("labels.png", "augmented_batch.jpg", "precision_recall.png", "examples.jpg")
    for name in names:
        (Path("runs/first") / name).unlink(missing_ok=True)
        (Path("runs/first") / name).mkdir()
    Path("runs/first/confusion.png").unlink(missing_ok=True)

    show = Monitor.show

    def full(path: Path, history: object) -> None:
        raise InputError(f"{path}: cannot be written: No space left on device")

    def show_on_a_full_disk(monitor: Monitor, values: Iterable[str]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("utils.monitoring.monitor.write_history", full)
            show(monitor, values)

    monkeypatch.setattr(Monitor, "show", show_on_a_full_disk)
    train.main(resume())
    told = capsys.readouterr().out
    for name in (*names, "metrics.csv"):
        assert f"warning: runs/first/{name}: cannot be written" in told
    assert last("first").training.epoch == 3 and Path("runs/first/confusion.png").exists()
    expect_one_network(Path("weights/first"))


def test_curves_that_cannot_be_drawn_cost_no_epoch(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(history: object, folder: Path) -> None:
        raise InputError(f"{folder}/curves_loss.png: cannot be written: No space left on device")

    monkeypatch.setattr("utils.monitoring.monitor.plot_curves", full)
    train.main(flags("--name", "first", epochs=2))
    assert "warning: runs/first/curves_loss.png: cannot be" in capsys.readouterr().out
    assert last("first").training.epoch == 2


@pytest.mark.parametrize("kill", range(0, 26, 3))
def test_killed_at_any_renaming_a_run_goes_on_to_the_same_files(
    whole: Path, monkeypatch: pytest.MonkeyPatch, kill: int
) -> None:
    """Each file that is put in its place is a moment; the kill comes before one of them."""
    replace = Path.replace
    moments = itertools.count()

    def killed(path: Path, target: Path) -> None:
        if next(moments) >= kill:  # after its end a process writes nothing more
            raise Killed
        replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", killed)
        train.main(flags("--name", "first"))
    expect_one_network(whole / "weights/first")
    started = Path("weights/first/last.pt").exists()
    train.main(resume() if started else flags("--name", "first"))
    expect_one_network(whole / "weights/first")
    for name in ("last", "best"):
        files = [read_checkpoint(f"weights/{run}/{name}.pt") for run in ("whole", "first")]
        for key, tensor in files[0].model.items():
            assert torch.equal(tensor, files[1].model[key]), key
    weights = [Path(f"weights/{run}/best.weights").read_bytes() for run in ("whole", "first")]
    assert weights[0] == weights[1]
    rows = [figures(f"runs/{run}/metrics.csv") for run in ("whole", "first")]
    for row in (*rows[0], *rows[1]):
        row.pop("speed/images_per_second")
    assert rows[0] == rows[1]


def expect_one_network(folder: Path) -> None:
    """Those of the best network's files that are there are of one epoch."""
    if (folder / "best.weights").exists():
        best = read_checkpoint(folder / "best.pt")
        assert (folder / "best.cfg").read_text() == best.netdef.text()
        state, _ = read_weights(folder / "best.weights", best.netdef)
        for name, tensor in state.items():
            assert torch.equal(tensor, best.model[name]), name


def test_pretrained_starts_from_any_of_our_files(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(flags("--name", "first", "--weights", "no.weights", epochs=1))
    assert "no.weights is not read, since pretrained=False" in capsys.readouterr().out
    for file in ("best.pt", "best.weights"):
        source = ["--cfg", "weights/first/best.cfg", "--weights", f"weights/first/{file}"]
        train.main([*flags(epochs=1), "--pretrained", *source, "--lr", "1e-12"])
        said = capsys.readouterr().out
        assert "filled 3 of 3 layers" in said and "anchors:" not in said
    renamed(project, *"1023456789")
    train.main([*flags(epochs=1), "--pretrained", *source])
    assert (
        "its heads know 2 of the 10 classes by other names, '0' for '1'" in capsys.readouterr().out
    )
    (project / "weights/first/best.names").write_text("a\nb\n")
    train.main([*flags(epochs=1), "--pretrained", *source])
    assert "2 names beside it for heads of 10 classes: not compared" in capsys.readouterr().out
    other = project / "two.data"
    (project / "two.names").write_text("a\nb\n")
    for listing in ("train", "valid"):
        shutil.copy(project / f"demo/{listing}.txt", project / f"{listing}.txt")
    other.write_text("names = two.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n")
    train.main([*flags(epochs=1), "--pretrained", *source, "--data", "two.data"])
    said = capsys.readouterr().out
    assert "filled 2 of 3 layers" in said and "anchors:" in said and "class out of range" in said


def test_weights_of_another_network_are_refused(finished: Path) -> None:
    (finished / "other.cfg").write_text(NET.replace("filters=8", "filters=4"))
    start = ["--pretrained", "--weights", "weights/first/best.pt", "--cfg", "other.cfg"]
    with pytest.raises(InputError, match=r"best\.pt: expected weights of other\.cfg: filled 0"):
        train.main(flags("--name", "second", *start))
    assert not Path("runs/second").exists()


def test_a_run_is_never_overwritten(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        train.main(flags(epochs=1))
    assert {path.name for path in (project / "weights").iterdir()} == {"tiny-demo", "tiny-demo-2"}
    train.main(flags("--name", "mine", epochs=1))
    with pytest.raises(InputError, match=r"name='mine': .* is there already"):
        train.main(flags("--name", "mine", epochs=1))


def test_a_loss_that_is_no_number_names_the_files(project: Path) -> None:
    with pytest.raises(InputError, match=r"the loss is (nan|inf): .*not_finite\.txt"):
        train.main(flags("--name", "wild", "--lr", "1e30", "--clip", "0", "--optimizer", "sgd"))
    listed = (project / "runs/wild/not_finite.txt").read_text().splitlines()
    assert listed and all(Path(name).is_file() for name in listed)


def test_best_holds_the_network_alone_and_says_of_which_training_it_is(project: Path) -> None:
    train.main(flags("--name", "lean", epochs=1))
    best, last = Path("weights/lean/best.pt"), Path("weights/lean/last.pt")
    assert best.stat().st_size < last.stat().st_size / 2
    checkpoint, state = read_checkpoint(best), read_checkpoint(last).training
    assert state and checkpoint.training is None
    assert checkpoint.origin == read_checkpoint(last).origin
    assert checkpoint.origin == Origin("lean", state.identity, 1, state.best)
    with pytest.raises(InputError, match=r"expected the last.pt of a training; best.pt and"):
        train.main(["--resume", str(best)])


def test_best_is_an_epoch_that_was_measured(project: Path) -> None:
    train.main(flags("--name", "rare", "--eval_every", "2", epochs=3))
    measured = [float(row["mAP/mAP@.5"]) for row in figures("runs/rare/metrics.csv")[1:]]
    best = read_checkpoint("weights/rare/best.pt").origin
    assert best.run == "rare" and best.epoch == 2 + measured.index(max(measured))
    assert best.best == pytest.approx(max(measured))


def test_boxes_thinner_than_a_tenth_of_a_pixel_make_no_anchor_of_width_0(project: Path) -> None:
    for label in (project / "demo/labels").rglob("*.txt"):
        label.write_text("0 0.5 0.5 0.0002 0.5\n")
    train.main(flags("--name", "thin", epochs=1))
    netdef = read_checkpoint("weights/thin/last.pt").netdef
    anchors = [pair for index in netdef.heads for pair in head_anchors(netdef.layers[index])]
    assert (0.1, 32.0) in anchors and all(min(pair) > 0 for pair in anchors)


def test_a_validation_without_objects_is_refused_at_once(project: Path) -> None:
    for label in (project / "demo/labels/valid").iterdir():
        label.write_text("")
    with pytest.raises(InputError, match=r"demo\.data: no object in the photos to measure"):
        train.main(flags())
    assert not (project / "runs").exists()


def test_weights_that_end_in_nowhere_are_not_saved(project: Path) -> None:
    more = ["--lr", "1e39", "--epochs", "1", "--warmup_epochs", "0", "--batch_size", "8"]
    with pytest.raises(InputError, match=r"no longer finite|the loss is"):
        train.main(flags("--name", "wild", *more))
    assert not (project / "weights/wild/last.pt").exists()


def test_the_cfg_says_whether_photos_keep_their_aspect(project: Path) -> None:
    text = (project / "tiny.cfg").read_text().replace("width=32", "letter_box=1\nwidth=32")
    (project / "tiny.cfg").write_text(text)
    train.main(flags("--name", "boxed", epochs=1))
    assert load_network(TrainedNetwork(weights="weights/boxed/best.pt", device="cpu")).letterbox
    train.main(flags("--name", "plain", "--letterbox", "no", epochs=1))
    assert not load_network(TrainedNetwork(weights="weights/plain/best.pt", device="cpu")).letterbox


def test_early_stop_freezing_and_accumulation(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--freeze", "2", "--accumulate", "2", "--patience", "1", "--lr", "1e-12"]
    train.main(flags("--name", "calm", *more, epochs=9))
    assert "stopped: no better mAP in 1 evaluations" in capsys.readouterr().out
    first = read_checkpoint("weights/calm/best.pt").netdef
    assert len(first.layers) == 7
    last = read_checkpoint("weights/calm/last.pt")
    assert last.training.epoch < 9
    bn = "layers.1.bn.num_batches_tracked"
    assert last.training.model[bn] == 0  # frozen layers take no statistics


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cfg", "no.cfg"], "no.cfg: cannot be read"),
        (["--data", "no.data"], "no.data"),
        (["--img_size", "33"], "img_size=33x33: expected multiples of 4"),
        (["--pretrained", "--weights", "no.weights"], "no.weights: cannot be read"),
        (["--device", "cuda:7"], "device='cuda:7'"),
        (["--device", "gpu"], "device='gpu'"),
        (["--freeze", "99"], "freeze=99: expected at most 7"),
        (["--resume", "no.pt"], "no.pt: cannot be read"),
        (["--visdom", "--visdom_url", "ftp://x"], "visdom address 'ftp://x': expected something"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    project: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: train.main(flags(*argv))) == 2
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if line.startswith("error: ")] and message in error[-1]
    assert not (project / "weights").exists() and not (project / "runs").exists()


def test_measuring_gives_tables_curves_and_coco_files(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for rule in ("coco", "voc10", "voc07", "darknet"):
        argv = ["--data", "demo.data", "--workers", "0", "--rule", rule]
        measure.main([*argv, "--output", f"out/{rule}"])
        said = capsys.readouterr().out
        assert "AP@.5" in said
        assert ", the newest: run first, epoch 1 of 1, best mAP@.5 " in said
        assert [script for script, _ in next_commands(said)] == ["detect_img"]
        left = {path.name for path in (finished / "out" / rule).iterdir()}
        assert left == {
            *("settings.json", "table.txt", "metrics.json", "precision_recall.png"),
            *("confusion.png", "detections.json", "ground_truth.json"),
        }
    truth = json.loads((finished / "out/coco/ground_truth.json").read_text())
    found = json.loads((finished / "out/coco/detections.json").read_text())
    assert len(truth["images"]) == 4 and {c["name"] for c in truth["categories"]} >= {"0", "9"}
    assert {entry["image_id"] for entry in found} <= {image["id"] for image in truth["images"]}


def test_coco_files_keep_their_ids(project: Path, colour_weights: str) -> None:
    train_photo = next((project / "demo/images/train").iterdir())
    shutil.copy(train_photo, project / train_photo.name)
    (project / "colours.names").write_text("red\ngreen\nblue\n")
    coco = {
        "images": [{"id": 4711, "file_name": train_photo.name, "width": 64, "height": 64}],
        "categories": [{"id": i, "name": n} for i, n in ((7, "blue"), (3, "red"), (90, "green"))],
        "annotations": [
            {"id": 1, "image_id": 4711, "category_id": 90, "bbox": [5, 5, 20, 20], "area": 99}
        ],
    }
    (project / "coco.json").write_text(json.dumps(coco))
    (project / "coco.data").write_text("names = colours.names\nvalid = coco.json\n")
    argv = ["--weights", colour_weights, "--data", "coco.data", "--workers", "0"]
    measure.main([*argv, "--output", "out", "--conf_thres", "0"])
    found = json.loads((project / "out/detections.json").read_text())
    assert {entry["image_id"] for entry in found} == {4711}
    assert {entry["category_id"] for entry in found} == {3, 7, 90}
    truth = json.loads((project / "out/ground_truth.json").read_text())
    assert truth["annotations"][0] | {"area": 99} == truth["annotations"][0]
    with pytest.raises(InputError, match="cannot make this folder"):
        measure.main([*argv, "--output", "coco.data/out"])


def test_a_data_set_with_other_classes_is_refused(project: Path, colour_weights: str) -> None:
    with pytest.raises(InputError, match=r"demo\.data: 10 classes: expected 3, as the network has"):
        measure.main(["--weights", colour_weights, "--data", "demo.data", "--workers", "0"])


def test_without_any_weights_the_way_to_some_is_told(project: Path) -> None:
    with pytest.raises(InputError, match=r"found no weights/\*/best\.pt; run train\.py"):
        measure.main(["--data", "demo.data"])
