"""Does the reference experiment run what it needs, in order, once, and go on where it was?"""

from pathlib import Path

import pytest

from import_param import TrainSettings
from models.netdef import NetDef
from tests.pruning.nets import config
from tools.experiment import Reproduce, Step, in_order, plan_rows, run_steps
from utils.checkpoint.checkpoint import TrainingState, save_checkpoint
from utils.errors import InputError
from utils.training.runs import Run

# Stands for train.py: notes its flags, and leaves the checkpoint that it was told to copy.
SCRIPT = """
import pathlib, shutil, sys
flags = sys.argv[1:]
name = flags[flags.index("--name") + 1] if "--name" in flags else pathlib.Path(flags[1]).parent.name
with open("order.txt", "a") as order:
    order.write(" ".join(flags) + "\\n")
if "--fail" in flags:
    sys.exit("no luck")
pathlib.Path(f"weights/{name}").mkdir(parents=True, exist_ok=True)
shutil.copy("done.pt", f"weights/{name}/last.pt")
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    checkpoint(tmp_path / "done.pt", epoch=3)
    return tmp_path


def checkpoint(path: Path, epoch: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    training = TrainingState(epoch, 0.0, 0, "x", {}, {}, {}, 0)
    save_checkpoint(path, config("yolov3-lite"), ("a",), {}, TrainSettings(), training)


def settings(seeds: int = 2, dense_epochs: int = 0) -> Reproduce:
    return Reproduce(
        name="x",
        cfg="net.cfg",
        weights="w.weights",
        data="d.data",
        img_size=64,
        dense_epochs=dense_epochs,
        sparse_epochs=1,
        tune_epochs=2,
        lr=1e-3,
        tune_lr=2e-3,
        sparse_rate=1e-4,
        channels=(0.5, 0.85),
        speedups=(2.0,),
        eval_every=1,
        seed=tuple(range(seeds)),
    )


def plan(netdef: NetDef, seeds: int = 2) -> list[Step]:
    return in_order(plan_rows(settings(seeds), netdef))


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov3-mobilenetv2"])
def test_each_step_comes_once_and_behind_what_it_starts_from(name: str) -> None:
    steps = plan(config(name))
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for place, step in enumerate(steps):
        for earlier in step.after:
            assert names.index(earlier.name) < place
            assert any(str(earlier.run.weights) in flag for flag in step.flags)


@pytest.mark.parametrize("dense_epochs", [0, 4])
def test_everything_trains_for_as_many_epochs_in_all(dense_epochs: int) -> None:
    def epochs(step: Step) -> int:
        return step.epochs + max(
            (epochs(s) for s in step.after if "dense" not in s.name), default=0
        )

    for row in plan_rows(settings(2, dense_epochs), config("yolov3-mobilenetv2")):
        for step in (*row.trained, *row.taught):
            random = "--pretrained" not in step.flags
            expected = dense_epochs + (1 if row.label.startswith("sparse") else 3)
            assert (step.epochs if random else epochs(step)) == expected, step


def test_the_penalty_starts_from_the_weights_or_from_what_was_trained_without() -> None:
    for dense_epochs, start in ((0, "w.weights"), (4, "weights/x-start-0/last.pt")):
        steps = in_order(plan_rows(settings(1, dense_epochs), config("yolov3-tiny")))
        sparse = [step for step in steps if "--is_pruned" in step.flags]
        assert [step.name for step in sparse] == ["x-sparse-0", "x-gradual-0"]
        for step in sparse:
            assert step.flags[step.flags.index("--weights") + 1] == start


def test_a_net_without_shortcuts_is_not_cut_in_ways_that_need_them() -> None:
    labels = [row.label for row in plan_rows(settings(), config("yolov3-tiny"))]
    assert "latency, 2 times faster" in labels and "slim, 2 times faster" in labels
    assert not [label for label in labels if label.startswith(("normal", "layer", "shortcut"))]
    more = [row.label for row in plan_rows(settings(), config("yolov3-mobilenetv2"))]
    assert set(labels) < set(more)
    assert {"layer, 50% of blocks", "layer_channel, 2 times faster"} < set(more)


def test_main_rows_have_every_seed() -> None:
    rows = {row.label: row for row in plan_rows(settings(seeds=3), config("yolov3-tiny"))}
    main = rows[f"slim, {Reproduce().percent:.0%} of operations"]
    assert len(main.trained) == len(main.cut) == len(rows["dense"].trained) == 3
    for steps in (main.trained, main.taught):
        seeds = [step.flags[step.flags.index("--seed") + 1] for step in steps]
        assert seeds == ["0", "1", "2"]
    assert [step.after[1] for step in main.taught] == list(rows["dense"].trained)
    assert len(rows["slim, 85% of channels"].taught) == 1


def chain(*flags: str) -> list[Step]:
    first = Step("first", "train.py", flags, (), 3)
    return [first, Step("second", "train.py", (), (first,), 3)]


def order() -> list[str]:
    return Path("order.txt").read_text().splitlines()


def test_steps_run_in_order_and_only_once(scripts: Path) -> None:
    run_steps(chain("--epochs", "3"), scripts, Path("logs"), jobs=2)
    assert order() == ["--name first --epochs 3 --workers 0", "--name second --workers 0"]
    run_steps(chain("--epochs", "3"), scripts, Path("logs"), jobs=1)
    assert len(order()) == 2


def test_what_was_begun_with_other_flags_is_not_taken_for_what_is_asked(scripts: Path) -> None:
    logs = Path("logs")
    with pytest.raises(InputError, match="no luck"):
        run_steps(chain("--fail"), scripts, logs, jobs=1)
    run_steps(chain("--lr", "1"), scripts, logs, jobs=1)  # what failed left nothing
    told = (
        r"^first: was begun as `train.py --lr 1`, and `train.py --lr 2` is asked for: expected the "
        r"same flags or another --name$"
    )
    with pytest.raises(InputError, match=told):
        run_steps(chain("--lr", "2"), scripts, logs, jobs=1)
    checkpoint(Path("weights/first/last.pt"), epoch=2)  # as stopped
    with pytest.raises(InputError, match=told):
        run_steps(chain("--lr", "2"), scripts, logs, jobs=1)
    Path("weights/first/last.pt").unlink()
    with Run("first").claim(), pytest.raises(InputError, match=told):  # as at work
        run_steps(chain("--lr", "2"), scripts, logs, jobs=1)


def test_a_stopped_training_goes_on_and_one_without_a_checkpoint_starts_anew(scripts: Path) -> None:
    checkpoint(Path("weights/first/last.pt"), epoch=2)
    Path("runs/second").mkdir(parents=True)
    run_steps(chain(), scripts, Path("logs"), jobs=2)
    assert order()[0].startswith("--resume weights/first/last.pt")
    assert order()[1] == "--name second --workers 0"


def test_a_step_that_a_killed_run_of_the_tool_left_working_is_waited_for(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what it came to is used; one that it did not finish is run."""
    orphan, polls = Run("first").claim(), list[int]()

    def sleep(seconds: float) -> None:
        polls.append(1)
        if len(polls) == 3:
            assert not Path("order.txt").exists()
            checkpoint(Path("weights/first/last.pt"), epoch=3)
            orphan.release()

    monkeypatch.setattr("tools.experiment.time.sleep", sleep)
    run_steps(chain(), scripts, Path("logs"), jobs=1)
    assert order() == ["--name second --workers 0"]
    assert capsys.readouterr().out.count("another process works on it") == 1


def test_a_step_that_fails_is_named_with_its_log(scripts: Path) -> None:
    with pytest.raises(InputError, match=r"logs/first\.log: .* exit code 1: no luck"):
        run_steps(chain("--fail"), scripts, Path("logs"), jobs=2)
    assert len(order()) == 1


def test_any_strategies_and_importances_are_compared_for_any_seeds() -> None:
    asked = Reproduce(
        weights="",
        strategy=(3, "my.py:mine", "latency"),
        importance=("gamma", "l1"),
        seed=(5, 7),
        percent=0.6,
        speedups=(2.0,),
    )
    rows = plan_rows(asked, config("yolov3-tiny"))
    assert [row.label for row in rows] == [
        "dense",
        "sparse, not cut",
        "slim by gamma, 60% of operations",
        "slim by l1, 60% of operations",
        "mine by gamma, 60% of operations",
        "mine by l1, 60% of operations",
        "latency by gamma, 2 times faster",
        "latency by l1, 2 times faster",
    ]
    steps = in_order(rows)
    assert len({step.name for step in steps}) == len(steps) == 2 * (2 + 2 * 6)
    for row in rows:
        flags = [step.flags[step.flags.index("--seed") + 1] for step in row.trained]
        assert flags == ["5", "7"]
    starts = [step for step in steps if not step.after]
    assert not any("--pretrained" in step.flags for step in starts), "from random weights"
    own = rows[5].cut[0]
    assert own.flags[4:6] == ("--pruned_id", "my.py:mine") and own.name.endswith(
        "-mine-operations-60-l1"
    )
    assert own.flags[own.flags.index("--importance") + 1] == "l1"
