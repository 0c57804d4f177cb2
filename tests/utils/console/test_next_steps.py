"""Do the commands that scripts name next work when they are pasted?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from import_param import (
    Benchmark,
    BenchmarkSettings,
    CheckDataSettings,
    Data,
    DataSet,
    DetectSettings,
    Evaluation,
    ExportSettings,
    Model,
    Monitoring,
    PruneSettings,
    Pruning,
    Runtime,
    Sparsity,
    TrainedNetwork,
    TrainSettings,
)
from import_param import TestSettings as SettingsOfTest  # pytest collects what begins with Test
from tests.conftest import next_commands
from utils.console import next_steps

ODD = Path("weights/it's my run, no 2/best.pt")
DATA = Data(data="my data/data.yaml", batch_size=2)
TRAIN = TrainSettings(data=DATA, evaluation=Evaluation(rule="voc07"))
SPARSE = replace(TRAIN, sparsity=Sparsity(is_pruned=True))


def told(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, Any]]:
    return next_commands(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("settings", "scripts"),
    [
        (TRAIN, ["test", "detect_img", "prune"]),
        (SPARSE, ["prune", "test"]),
        (replace(SPARSE, pruning=Pruning(pruned_id="latency")), ["latency_prune", "test"]),
        (
            replace(TRAIN, model=Model(pretrained=True, weights="weights/cut/pruned.pt")),
            ["test", "export", "benchmark"],
        ),
        (
            replace(TRAIN, sparsity=Sparsity(is_pruned=True, prune_while_training=True)),
            ["test", "export", "benchmark"],
        ),
    ],
)
def test_a_training_leads_on(
    settings: TrainSettings, scripts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    next_steps.after_training(settings, ODD, Path("my photos"), 0.85)
    commands = told(capsys)
    assert [script for script, _ in commands] == scripts
    for _, parsed in commands:
        values = next_steps.by_name(parsed)
        assert values["weights"] in (str(ODD), (str(ODD),))
        assert values.get("data", DATA.data) == DATA.data
        assert values.get("rule", "voc07") == "voc07"
        assert values.get("source", "") in ("", ("my photos",))


def test_a_sparse_training_names_the_strategy_and_the_safe_share(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pruning = Pruning(pruned_id="layer", percent_of="operations")
    next_steps.after_training(replace(SPARSE, pruning=pruning), ODD, Path("photos"), 0.3)
    (_, cut), _ = told(capsys)
    assert (cut.pruning.strategy, cut.pruning.percent) == ("layer", 0.3)
    assert cut.pruning.percent_of == "operations"


def test_a_cut_is_fine_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    next_steps.after_pruning(PruneSettings(data=DATA), ODD.with_name("pruned"))
    ((script, train),) = told(capsys)
    assert script == "train" and train.model.pretrained and train.data.data == DATA.data
    assert train.model.weights.endswith("pruned.pt") and train.model.cfg.endswith("pruned.cfg")


def test_a_test_leads_to_its_photos_with_its_own_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = TrainedNetwork(cfg="a b.cfg", img_size=320, names="my.names")
    runtime = Runtime(engine="openvino", precision="bf16")
    next_steps.after_test(
        SettingsOfTest(network=network, runtime=runtime, data=DATA), "a.weights", Path("my photos")
    )
    ((script, detect),) = told(capsys)
    assert script == "detect_img"
    assert detect.network == replace(network, weights="a.weights")
    assert detect.runtime == runtime and detect.detection.source == ("my photos",)


@pytest.mark.parametrize(("named", "used"), [("", DATA.data), ("own", "own")])
def test_detection_in_int8_is_told_what_the_test_was_calibrated_on(
    named: str, used: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = Runtime(engine="openvino", precision="int8", calibration=named)
    settings = SettingsOfTest(runtime=runtime, data=DATA)
    next_steps.after_test(settings, "a.weights", Path("photos"))
    ((_, detect),) = told(capsys)
    assert detect.runtime == replace(runtime, calibration=used)


def test_others_lead_on(capsys: pytest.CaptureFixture[str]) -> None:
    next_steps.after_detection(DetectSettings(), str(ODD))
    files = [Path("a b/net.torchscript"), Path("a b/net.onnx")]
    next_steps.after_export(ExportSettings(), files, str(ODD), Path("my photos"))
    next_steps.after_detection(DetectSettings(), "net.xml")
    next_steps.after_check(CheckDataSettings(), "my export")
    devices = Benchmark(device=("cpu", "cuda:1"))  # which go on as one, or not at all
    int8 = BenchmarkSettings(devices, DataSet(data=DATA.data))
    next_steps.after_benchmark(int8, str(ODD), "torch", "int8", "cuda:1", Path("my photos"))
    next_steps.after_benchmark(BenchmarkSettings(devices), str(ODD), "openvino", "fp32", "", None)
    cfg = Benchmark().weights[0]
    next_steps.after_benchmark(BenchmarkSettings(devices), cfg, "torch", "fp32", "", None)
    commands = told(capsys)
    scripts = [script for script, _ in commands]
    assert scripts == ["export", "detect_img", "train", "detect_img", "export", "train"]
    assert commands[1][1].network.weights == str(Path("a b/net.onnx"))
    assert commands[3][1].network.device == "cuda:1"


def test_a_stopped_training_names_what_goes_on(tmp_path: Path) -> None:
    settings = replace(TRAIN, monitoring=Monitoring(monitor="none"))
    assert "the same command" in next_steps.how_to_resume(settings, tmp_path)
    (tmp_path / "last.pt").touch()
    line = next_steps.how_to_resume(settings, tmp_path)
    assert "\n" not in line
    ((_, resumed),) = next_commands(line.replace("go on with:", "next:\n "))
    assert resumed.training.resume == str(tmp_path / "last.pt")
    assert resumed.monitoring.monitor == "none" and resumed.data == Data(), (
        "it has its own settings"
    )


def test_commands_are_quoted_for_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.name", "nt")
    assert next_steps.quoted(["python", "my file.py"]) == 'python "my file.py"'
