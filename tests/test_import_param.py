"""Are settings, flags and files the same values, and are bad ones refused by name?"""

import dataclasses
from pathlib import Path
from typing import get_type_hints

import pytest

import import_param as settings
from utils.errors import InputError

ALL = (settings.TrainSettings, settings.TestSettings, settings.DetectSettings)


@pytest.mark.parametrize("kind", ALL)
def test_defaults_need_no_flag(kind: type) -> None:
    assert settings.load(kind, []) == kind()


@pytest.mark.parametrize("kind", ALL)
def test_names_of_one_script_are_unique(kind: type) -> None:
    """Flags have no prefixes, so two groups of a script must not share a name."""
    names = [
        field.name for group in get_type_hints(kind).values() for field in dataclasses.fields(group)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", ALL)
def test_help_explains_every_flag(kind: type, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        settings.load(kind, ["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for group in get_type_hints(kind).values():
        for field in dataclasses.fields(group):
            assert f"--{field.name.replace('_', '-')}" in text
    assert "passes over the training photos" in text or kind is not settings.TrainSettings


def test_flags_change_values() -> None:
    argv = ["--epochs", "3", "--cfg", "x.cfg", "--no-visdom", "--batch_size", "2"]
    p = settings.load(settings.TrainSettings, argv)
    assert (p.train.epochs, p.model.cfg, p.visdom.visdom, p.train.batch_size) == (
        3,
        "x.cfg",
        False,
        2,
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "x"], "Error parsing --epochs: .*'x'; see --epochs"),
        (["--epoch", "3"], "Unrecognized options: --epoch, 3; see .*--epochs"),
        (["--optimizer", "adam"], r"invalid choice 'adam' .*'adamw', 'sgd'\)"),
        (["--data"], "Missing value for argument '--data'"),
        (["stray"], "Unrecognized options: stray; --help lists"),
    ],
)
def test_a_mistyped_flag_is_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=message) as error:
        settings.load(settings.TrainSettings, argv)
    assert "\n" not in str(error.value) and "─" not in str(error.value)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "epochs=0: expected at least 1"),
        (["--pretrained"], "weights='': expected a file"),
        (["--mosaic", "2"], "mosaic=2.0: expected 0 to 1"),
        (["--iou_thres", "0.97"], "iou_thres=0.97: expected one of (0.5, 0.55"),
        (["--plus_one"], "plus_one=True: expected no, as rule is coco"),
    ],
)
def test_a_value_out_of_range_is_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        settings.load(settings.TrainSettings, argv)
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
def test_an_edited_default_of_another_kind_is_one_line(
    name: str, value: object, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.Train.__dataclass_fields__[name], "default", value)
    with pytest.raises(InputError, match=f"{name}={value!r}: expected {kind}$"):
        settings.load(settings.TrainSettings, [])


def test_each_of_several_values_has_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    one = settings.Sparse.__dataclass_fields__["cut_epochs"]
    for value in (5, (10, "20")):
        monkeypatch.setattr(one, "default", value)
        with pytest.raises(InputError, match=r"cut_epochs=.*: expected tuple"):
            settings.load(settings.TrainSettings, [])
        with pytest.raises(InputError, match=r"score=.*: expected"):
            monkeypatch.setattr(settings.Prune.__dataclass_fields__["score"], "default", 1)
            settings.prune_arguments([])


def test_values_out_of_range_are_refused_in_code_too() -> None:
    with pytest.raises(InputError, match=r"nms_thres=1\.5: expected from 0 to 1"):
        settings.Detect(nms_thres=1.5)


def test_what_is_saved_is_restored(tmp_path: Path) -> None:
    import json

    p = settings.load(settings.TrainSettings, ["--lr", "0.5", "--name", "x"])
    settings.save(p, tmp_path / "settings.json")
    values = json.loads((tmp_path / "settings.json").read_text())
    assert settings.restore(settings.TrainSettings, values) == p


def test_settings_of_an_older_version_get_todays_defaults() -> None:
    restored = settings.restore(
        settings.TrainSettings, {"train": {"epochs": 7, "gone": 1}, "old": {}}
    )
    assert restored == settings.TrainSettings(train=settings.Train(epochs=7))
