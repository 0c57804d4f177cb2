"""Are settings, flags and files the same values, and are bad ones refused by name?"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import import_param
from import_param import (
    BenchmarkSettings,
    DetectSettings,
    ExportSettings,
    Nms,
    PruneSettings,
    PruningRun,
    Sparsity,
    Training,
    TrainSettings,
)
from tests.conftest import ROOT
from utils.errors import InputError
from utils.settings.loader import RENAMED, check, given, load, load_pruning, restore, save
from utils.version import VERSION

ALL = (
    TrainSettings,
    import_param.TestSettings,
    DetectSettings,
    PruneSettings,
    ExportSettings,
    BenchmarkSettings,
)


@pytest.mark.parametrize("kind", ALL)
def test_defaults_need_no_flag(kind: type) -> None:
    assert load(kind, []) == kind()


@pytest.mark.parametrize("kind", ALL)
def test_names_of_one_script_are_unique(kind: type) -> None:
    """Flags have no prefixes, so two groups of a script must not share a name."""
    names = [f.name for group in get_type_hints(kind).values() for f in dataclasses.fields(group)]
    assert len(names) == len(set(names))


def test_every_setting_has_one_line_and_a_comment() -> None:
    lines = (ROOT / "import_param.py").read_text(encoding="utf-8").splitlines()
    for group in vars(import_param).values():
        own = getattr(group, "__module__", "") == "import_param" and isinstance(group, type)
        if own and dataclasses.is_dataclass(group) and not group.__name__.endswith("Settings"):
            for name in group.__annotations__:
                line = next(line for line in lines if line.startswith(f"    {name}: "))
                assert " = " in line and "  # " in line


def test_hyphens_are_underscores() -> None:
    assert load(TrainSettings, ["--batch-size", "2", "--no-fit-anchors"]) == load(
        TrainSettings, ["--batch_size", "2", "--no-fit_anchors"]
    )


def test_a_message_is_the_same_whatever_the_script_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """tyro wraps the last line of its message by that name."""
    told = set()
    for length in range(0, 60, 12):
        monkeypatch.setattr(sys, "argv", [f"/{'a' * length}/train.py"])
        with pytest.raises(InputError) as error:
            load(TrainSettings, ["stray"])
        told.add(str(error.value))
    assert told == {"Unrecognized options: stray; --help_all lists the flags"}


@pytest.mark.parametrize("old", ["engines", "precisions", "batches"])
def test_one_thing_has_one_name(old: str) -> None:
    new = RENAMED[old]
    with pytest.raises(InputError, match=f"--{old}: is called --{new} now"):
        load(BenchmarkSettings, [f"--{old}", "1"])


def test_flags_change_values() -> None:
    argv = ["--epochs", "3", "--cfg", "x.cfg", "--no-visdom", "--batch_size", "2"]
    settings = load(TrainSettings, argv)
    assert settings.training.epochs == 3
    assert settings.model.cfg == "x.cfg"
    assert settings.monitoring.monitor == "none"
    assert settings.data.batch_size == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "x"], "Error parsing --epochs: .*'x'; see --epochs"),
        (["--epoch", "3"], "Unrecognized options: --epoch, 3; see .*--epochs"),
        (["--optimizer", "adam"], r"invalid choice 'adam' .*'adamw', 'sgd'\)"),
        (["--data"], "Missing value for argument '--data'"),
        (["stray"], "Unrecognized options: stray; --help_all lists"),
        (["--cost_table", "a.csv"], "--cost_table: is called --latency_table now"),
        (["--cost-table=a.csv"], "--cost_table: is called --latency_table now"),
        (["--backend", "onnxruntime"], "--backend: is called --engine now"),
        (["--score", "l1"], "Unrecognized options: --score, l1"),  # train.py never had it
    ],
)
def test_a_mistyped_flag_is_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load(TrainSettings, argv)
    assert "\n" not in str(error.value) and "─" not in str(error.value)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "epochs=0: expected at least 1"),
        (["--lr", "0"], "lr=0.0: expected more than 0"),
        (["--warmup_epochs", "inf"], "warmup_epochs=inf: expected a finite number"),
        (["--lr", "nan"], "lr=nan: expected a finite number"),
        (["--mosaic", "2"], "mosaic=2.0: expected from 0 to 1"),
        (["--momentum", "1"], "momentum=1.0: expected from 0 to below 1"),
        (["--scale_x_y", "0.5"], "scale_x_y=0.5: expected 0, or from 1 to 3"),
        (["--iou_thres", "0"], "iou_thres=0.0: expected above 0 to below 1"),
        (["--iou_thres", "0.97"], "iou_thres=0.97: expected one of (0.5, 0.55"),
        (["--plus_one"], "plus_one=True: expected no, as rule is coco"),
        (["--name", "a/b"], "name='a/b': expected a name without slashes"),
        (["--name", ".."], "name='..': expected a name without slashes"),
        (["--data", "a\0b"], "expected text as file names have it"),
        (["--seed", "9" * 40], "seed=9999"),
        (["--warmup_epochs", "1e300"], "warmup_epochs=1e+300: expected from 0 to 1e+06"),
        (["--workers", "1000"], "workers=1000: expected from -1 to 256"),
        (["--threads", "99999"], "threads=99999: expected from 0 to 1024"),
        (["--target_speedup", "0.5"], "target_speedup=0.5: expected 0, or at least 1"),
        (["--cut_epochs", "3"], "cut_epochs=(3,): expected none, or prune_while_training=True"),
        (["--prune_while_training"], "prune_while_training=True: expected False, or is_pruned"),
        (
            ["--is_pruned", "--prune_while_training", "--cut_epochs", "3", "0"],
            "cut_epochs=0: expected at least 1",
        ),
        (["--teacher_cfg", "x.cfg"], "teacher_cfg='x.cfg': expected none, or a teacher as well"),
    ],
)
def test_a_value_out_of_range_is_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        load(TrainSettings, argv)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("epochs", "3", "int"),
        ("epochs", 1.5, "int"),
        ("lr", "2e-3", "float"),
        ("optimizer", "adam", r"Literal\['adamw', 'sgd'\]"),
        ("amp", "no", "bool"),
        ("name", 5, "str"),
    ],
)
def test_an_edited_default_of_another_kind_is_one_line(name: str, value: Any, kind: str) -> None:
    edited = TrainSettings(training=Training(**{name: value}))
    with pytest.raises(InputError, match=f"{name}={value!r}: expected {kind}$"):
        load(TrainSettings, [], edited)


def test_an_edited_default_out_of_range_is_one_line() -> None:
    with pytest.raises(InputError, match=r"nms_thres=1\.5: expected from 0 to 1"):
        load(DetectSettings, [], DetectSettings(nms=Nms(nms_thres=1.5)))


@pytest.mark.parametrize("value", [5, (10, "20")])
def test_each_of_several_values_has_its_kind(value: Any) -> None:
    with pytest.raises(InputError, match=r"cut_epochs=.*: expected tuple"):
        check(TrainSettings(sparsity=Sparsity(cut_epochs=value)))


def test_each_pruning_script_takes_its_own_strategy_only() -> None:
    assert load_pruning([], "layer").pruning.strategy == "layer"
    assert load_pruning(["--pruned_id", "2"], "layer").pruning.strategy == "layer"
    assert load_pruning(["--pruned_id", "5"]).pruning.strategy == "layer_channel"
    with pytest.raises(InputError, match=r"pruned_id=3: expected 'layer', which this script is"):
        load_pruning(["--pruned_id", "3"], "layer")
    with pytest.raises(InputError, match=r"--score: is called --importance now"):
        load_pruning(["--score", "l1"])


def test_given_flags_are_told_whatever_their_value() -> None:
    flags = given(["--epochs", "40", "--no-amp", "--img-size=416", "--", "lr"])
    assert {"epochs", "amp", "img_size"} <= flags
    assert "lr" not in flags


def test_what_is_saved_is_restored(tmp_path: Path) -> None:
    settings = load(TrainSettings, ["--lr", "0.5", "--name", "x"])
    save(settings, tmp_path / "settings.json")
    values = json.loads((tmp_path / "settings.json").read_text())
    assert values["version"] == VERSION
    assert restore(TrainSettings, values) == settings


def test_settings_of_an_older_version_are_found_in_their_old_groups() -> None:
    old = {
        "train": {"epochs": 7, "batch_size": 4, "gone": 1},
        "latency": {"cost_table": "a.csv", "backend": "openvino"},
        "prune": {"score": "l1"},
    }
    restored = restore(TrainSettings, old)
    assert restored.training == Training(epochs=7)
    assert restored.data.batch_size == 4
    assert restored.pruning.latency_table == "a.csv"
    assert restored.runtime.engine == "openvino"
    assert restore(PruneSettings, old).run == PruningRun(importance="l1")


def test_stored_settings_are_checked_like_flags() -> None:
    with pytest.raises(InputError, match="epochs='7': expected int"):
        restore(TrainSettings, {"training": {"epochs": "7"}})


def test_settings_alone_import_nothing_of_the_project() -> None:
    code = "import import_param, sys; print(sys.modules.keys() & {'utils', 'models', 'torch'})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
