"""prune.py and the scripts like it, from their flags to their files, on a handful of pictures."""

import importlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import latency_prune
import prune
import slim_prune
import train
from import_param import PruneSettings, Pruning, Runtime, TrainedNetwork
from models.costs import count_parameters
from models.darknet import Darknet
from pruning.latency.meter import open_meter
from pruning.latency.table import Floats
from pruning.report import measure_latencies
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan
from tests.conftest import ROOT, next_commands
from tests.pruning.fake_latency import count_instead_of_timing, counted_latency
from tests.pruning.nets import config, trained
from tests.test_train import project  # noqa: F401  # a fixture
from tools import check_latency
from utils.checkpoint.darknet_files import write_pair
from utils.checkpoint.network import load_network
from utils.errors import InputError, run
from utils.settings.loader import load
from utils.training.runs import Run

pytestmark = pytest.mark.usefixtures("short_cuts")

NAMES = tuple("0123456789")


@pytest.fixture
def weights(project: Path) -> str:  # noqa: F811
    """A network with residual blocks, as a Darknet pair."""
    netdef = config("yolov3-mobilenetv2", thinner=16).with_classes(10)
    write_pair(Path("net"), trained(netdef, 0), netdef, NAMES)
    return "net.weights"


def flags(weights: str, *more: str) -> list[str]:
    base = ["--weights", weights, "--data", "demo.data", "--workers", "0", "--device", "cpu"]
    return [*base, "--latency_rounds", "1", "--batch_size", "2", *more]


@pytest.mark.parametrize("given", ["", "given.names"])
def test_the_class_names_of_a_pair_stay(weights: str, given: str) -> None:
    """Those beside it, or those that `names` gives."""
    own = tuple(f"class {number}" for number in range(10))
    Path("given.names").write_text("\n".join(own))
    if given:
        Path("net.names").unlink()
        Path("other.names").write_text(Path("given.names").read_text().replace("class", "kind"))
    else:
        Path("net.names").write_text("\n".join(own))
    more = ["--names", given] if given else []
    prune.main(flags(weights, "--name", "small", "--percent", "0.5", *more))
    assert tuple(Path("weights/small/pruned.names").read_text().splitlines()) == own
    assert load_network(TrainedNetwork(weights="weights/small/pruned.weights")).names == own


def test_a_cut_leaves_what_it_promises(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    prune.main(flags(weights, "--name", "small", "--percent", "0.5", "--pruned_id", "5"))
    said = capsys.readouterr().out
    assert "asked: layer_channel, of channels" in said
    assert [line for line in said.splitlines() if line.startswith(f"network: {weights}: ")]
    assert [script for script, _ in next_commands(said)] == ["train"]
    assert ("after BN re-estimation" in said) == ("BN is re-estimated: mAP@.5" in said)
    assert {path.name for path in Path("weights/small").iterdir()} == {
        f"pruned.{suffix}" for suffix in ("cfg", "weights", "names", "pt")
    }
    assert {path.name for path in Path("runs/small").glob("[!.]*")} == {
        "settings.json", "report.txt", "report.json", "channels.png", "index.html", "run.json",
    }  # fmt: skip
    report = json.loads(Path("runs/small/report.json").read_text())
    pair = load_network(TrainedNetwork(weights="weights/small/pruned.weights", device="cpu"))
    ours = load_network(TrainedNetwork(weights="weights/small/pruned.pt", device="cpu"))
    whole = load_network(TrainedNetwork(weights=weights, device="cpu"))
    assert ours.names == pair.names == NAMES
    assert report["after"]["parameters"] == count_parameters(pair.model)
    assert report["before"]["parameters"] == count_parameters(whole.model)
    for network, when in ((whole, "before"), (pair, "after")):
        path = weights if when == "before" else "weights/small/pruned.weights"
        assert report[when]["weights_bytes"] == Path(path).stat().st_size
        assert sum(row["parameters" + ("_now" if when == "after" else "")]
                   for row in report["layers"]) == count_parameters(network.model)  # fmt: skip
    assert report["reached"] == pytest.approx(0.5, abs=0.02)
    assert report["shares"]["blocks"] > 0
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(pair.model(x), ours.model(x), strict=True):
            assert torch.equal(a, b)
    cv2.dnn.readNetFromDarknet("weights/small/pruned.cfg", "weights/small/pruned.weights")


def test_training_goes_on_from_what_was_cut(
    weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prune.main(flags(weights, "--name", "small"))
    for start in ("pruned.pt", "pruned.weights"):
        train.main([
            "--cfg", "weights/small/pruned.cfg", "--pretrained", "--weights",
            f"weights/small/{start}", "--data", "demo.data", "--img_size", "0", "--epochs", "1",
            "--batch_size", "2", "--workers", "0", "--no-visdom", "--name", start.replace(".", "-"),
        ])  # fmt: skip
        assert "not layer" not in capsys.readouterr().out


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_script_does_its_strategy(
    strategy: str, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module(f"{strategy}_prune")
    score = "taylor" if strategy == "slim" else "l1"
    script.main(flags(weights, "--percent", "0.3", "--importance", score, "--bn_batches", "0"))
    assert f"asked: {strategy}" in capsys.readouterr().out
    assert Path(f"weights/net-{strategy}-30/pruned.pt").exists()
    with pytest.raises(InputError, match=f"expected '{strategy}', which this script is for"):
        script.main(flags(weights, "--pruned_id", "1" if strategy != "normal" else "2"))


def test_all_operations_are_of_the_size_asked_for(weights: str) -> None:
    prune.main(flags(weights, "--name", "small", "--img_size", "96", "--bn_batches", "0"))
    report = json.loads(Path("runs/small/report.json").read_text())
    for when, column in (("before", "operations"), ("after", "operations_now")):
        assert sum(row[column] for row in report["layers"]) == report[when]["operations"]


def test_what_was_not_reached_is_told(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    prune.main(flags(weights, "--percent", "0.97"))
    assert "note: percent=0.97: 0." in capsys.readouterr().out


def test_one_photo_to_train_on_is_none_for_bn(
    weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Path("demo/train.txt").read_text().splitlines()[0]
    Path("demo/train.txt").write_text(f"{first}\n")
    prune.main(flags(weights, "--name", "small", "--percent", "0.3"))
    said = capsys.readouterr().out
    assert "BN is not re-estimated" in said and "after BN re-estimation" not in said
    before, after = (
        load_network(TrainedNetwork(weights=path, device="cpu")).model.layers[0].bn.running_var
        for path in (weights, "weights/small/pruned.pt")
    )
    assert set(after.tolist()) <= set(before.tolist())


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--pruned_id", "6", "--target_ms", "3", "--target_speedup", "2"], "one of them above 0"),
        (["--target_speedup", "0.5"], "target_speedup=0.5: expected 0, or at least 1"),
        (["--target_speedup", "inf"], "target_speedup=inf: expected a finite number"),
        (["--target_ms", "inf"], "target_ms=inf: expected a finite number"),
        (["--pruned_id", "slimm"], "3 slim, 4 shortcut"),
        (["--percent", "1"], "percent=1.0: expected from 0 to below 1"),
    ],
)
def test_bad_flags_are_told_and_end_with_2(
    more: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(partial(prune.main, more)) == 2
    assert line in capsys.readouterr().err


def test_a_net_without_blocks_and_a_set_of_other_classes_are_told(
    weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    netdef = config("yolov3-lite", thinner=8)
    write_pair(Path("lite"), trained(netdef.with_classes(10), 0), netdef.with_classes(10), NAMES)
    write_pair(Path("two"), trained(netdef, 0), netdef, ("a", "b"))
    for name, strategy, line in (
        ("lite", "layer", "expected a residual block"),
        ("two", "slim", "expected 2, as the network has"),
    ):
        argv = flags(f"{name}.weights", "--pruned_id", strategy)
        assert run(partial(prune.main, argv)) == 2
        assert line in capsys.readouterr().err
    assert not Path("runs").exists()


def test_photos_to_measure_on_without_objects_are_refused(
    weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in Path("demo/labels/valid").iterdir():
        label.write_text("")
    assert run(partial(prune.main, flags(weights))) == 2
    assert "demo.data: no object in the photos to measure" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_numbers_and_names_are_one_setting() -> None:
    names = ("normal", "layer", "slim", "shortcut", "layer_channel", "latency")
    for number, name in enumerate(names, 1):
        assert load(PruneSettings, ["--pruned_id", str(number)]).pruning.strategy == name
        assert load(PruneSettings, ["--pruned_id", name]).pruning.strategy == name
    assert Pruning(pruned_id=2).strategy == "layer"


def test_a_latency_comes_with_how_it_was_measured() -> None:
    model = trained(config("yolov3-lite", thinner=16), 0)
    meter = open_meter(model, (64, 64), Runtime(engine="torch"))
    times, method = measure_latencies((model, model), (64, 64), 5, meter)
    assert len(times) == 2 and min(times) > 0
    assert "64x64, torch fp32" in method and "lower quartile of 5 rounds" in method


def test_a_cut_to_a_time_tells_asked_predicted_and_measured(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count_instead_of_timing(monkeypatch)
    netdef = config("yolov3-tiny", thinner=8).with_classes(10)
    write_pair(Path("tiny"), trained(netdef, 0), netdef, NAMES)
    latency_prune.main(flags("tiny.weights", "--target_speedup", "2", "--name", "fast"))
    said = capsys.readouterr().out
    assert "asked: latency, of milliseconds" in said and "predicted" in said
    report = json.loads(Path("runs/fast/report.json").read_text())
    timing = report["timing"]
    assert timing["measured"] == pytest.approx(timing["before"] / 2, rel=0.05)
    tables = list(Path("runs/latency").glob("torch-fp32-*.csv"))
    assert len(tables) == 1 and tables[0].read_text().startswith("# engine: torch\n")
    cv2.dnn.readNetFromDarknet("weights/fast/pruned.cfg", "weights/fast/pruned.weights")
    too_fast = flags("tiny.weights", "--target_ms", "0.01")
    assert run(partial(latency_prune.main, too_fast)) == 2
    assert "0.01 ms is asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("net", "losses", "taken"),
    [
        ("tiny.weights", {"shares of layers": 2.0, "plain sums": 1.0, "slim": 3.0}, "plain sums"),
        ("tiny.weights", {"shares of layers": 1.0, "plain sums": 1.0, "slim": 0.5}, "slim"),
        (
            "net.weights",
            {"shares of layers": 2.0, "plain sums": 3.0, "slim": 4.0, "layer_channel": 2.0},
            "shares of layers",
        ),
    ],
)
def test_of_the_ways_to_a_time_the_one_that_loses_least_is_taken(
    net: str,
    losses: dict[str, float],
    taken: str,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    count_instead_of_timing(monkeypatch)
    netdef = config("yolov3-tiny", thinner=8).with_classes(10)
    write_pair(Path("tiny"), trained(netdef, 0), netdef, NAMES)
    found = iter(losses.values())
    monkeypatch.setattr("pruning.pipeline.mean_loss", lambda *_: next(found))
    latency_prune.main(flags(net, "--target_speedup", "1.5", "--name", "best"))
    told = ", ".join(f"{way} {loss:.4f}" for way, loss in losses.items())
    assert f"ways to that time: {told}: {taken} taken" in capsys.readouterr().out


def test_a_way_that_cannot_cut_does_not_stop_the_others(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*_: object) -> Plan:
        raise InputError("nothing to judge by")

    count_instead_of_timing(monkeypatch)
    monkeypatch.setitem(STRATEGIES, "slim", nothing)
    netdef = config("yolov3-tiny", thinner=8).with_classes(10)
    write_pair(Path("tiny"), trained(netdef, 0), netdef, NAMES)
    latency_prune.main(flags("tiny.weights", "--target_speedup", "1.5", "--name", "some"))
    assert "not tried: slim: nothing to judge by" in capsys.readouterr().out


def test_other_ways_to_a_time_keep_to_the_widths_that_were_measured(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count_instead_of_timing(monkeypatch)
    monkeypatch.setattr("pruning.latency.predictor.measure_channel_step", lambda *_: 32)
    netdef = config("yolov3-tiny").with_classes(10)
    write_pair(Path("tiny"), trained(netdef, 0), netdef, NAMES)
    latency_prune.main(flags("tiny.weights", "--target_speedup", "15"))
    assert "slim" in capsys.readouterr().out


def test_any_strategy_cuts_to_a_time(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count_instead_of_timing(monkeypatch)
    netdef = config("yolov3-tiny", thinner=8).with_classes(10)
    write_pair(Path("tiny"), trained(netdef, 0), netdef, NAMES)
    slim_prune.main(flags("tiny.weights", "--target_speedup", "2", "--name", "fast"))
    said = capsys.readouterr().out
    assert "asked: slim, of milliseconds" in said and "predicted" not in said
    timing = json.loads(Path("runs/fast/report.json").read_text())["timing"]
    assert timing["measured"] == pytest.approx(timing["before"] / 2, rel=0.05)
    too_fast = flags("tiny.weights", "--target_ms", "0.01", "--name", "least")
    assert run(partial(slim_prune.main, too_fast)) == 2
    assert "0.01 ms is asked for" in capsys.readouterr().err and not Path("runs/least").exists()


def test_of_a_cut_to_a_time_one_factor_is_told_of_the_network_that_is_saved(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine slows down all the while, and the larger network more."""
    count_instead_of_timing(monkeypatch)
    calls: list[int] = []

    def time_in_turns(runs: Sequence[Darknet], image: torch.Tensor, rounds: int) -> Floats:
        calls.append(1)
        return np.array([counted_latency(run.netdef) ** (1 + 0.01 * len(calls)) for run in runs])

    monkeypatch.setattr("pruning.latency.meter.time_in_turns", time_in_turns)
    slim_prune.main(flags(weights, "--target_speedup", "2", "--name", "fast"))
    said = capsys.readouterr().out
    report = json.loads(Path("runs/fast/report.json").read_text())
    before, after, timing = (report[key] for key in ("before", "after", "timing"))
    assert (timing["before"], timing["measured"]) == (before["latency"], after["latency"])
    assert timing["asked"] == before["latency"] / 2
    factor = f"({before['latency'] / after['latency']:.2f} times faster)"
    told = [line for line in said.splitlines() if "times faster" in line]
    assert len(told) == 1 and told[0].count("times faster") == 2
    assert "(2.00 times faster)" in told[0] and factor in told[0]


def test_what_the_arguments_tell_is_refused_before_any_work(
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prune.main(flags(weights, "--name", "taken", "--bn_batches", "0"))
    netdef = config("yolov3-lite", thinner=8).with_classes(10)
    write_pair(Path("lite"), trained(netdef, 0), netdef, NAMES)
    Path("half.data").write_text("names = demo.names\ntrain = demo/train.txt\n")
    Path("gone.data").write_text(Path("half.data").read_text() + "valid = nowhere.txt\n")
    Path("other.csv").write_text("# engine: other\n")
    capsys.readouterr()

    def work(*_: object) -> None:
        raise AssertionError("work was done")

    for name in ("_importance", "new_run"):
        monkeypatch.setattr(f"pruning.pipeline.{name}", work)
    for line, argv in {
        "name='taken'": flags(weights, "--name", "taken"),
        "one of them above 0": flags(weights, "--pruned_id", "latency"),
        "no 'valid =' line": [*flags(weights), "--data", "half.data"],
        "nowhere.txt": [*flags(weights), "--data", "gone.data"],
        "expected a residual block": flags("lite.weights", "--pruned_id", "layer"),
        "engine='other'": flags(
            weights, "--pruned_id", "6", "--target_speedup", "2", "--latency_table", "other.csv"
        ),
    }.items():
        assert run(partial(prune.main, argv)) == 2, line
        assert line in capsys.readouterr().err


def test_a_cut_that_is_stopped_or_fails_leaves_its_name_free(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And while it works, no other process can take it."""

    def stop(*_: object, **__: object) -> None:
        with pytest.raises(InputError, match="another process is writing to runs/small"):
            Run("small").claim()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pruning.pipeline.evaluate", stop)
        assert run(partial(prune.main, flags(weights, "--name", "small"))) == 130
    assert not Path("runs/small").exists() and not Path("weights/small").exists()
    prune.main(flags(weights, "--name", "small", "--bn_batches", "0"))
    assert Path("weights/small/pruned.weights").is_file()


@pytest.mark.parametrize("last", ["settings.json", "channels.png", "pruned"])
def test_after_a_stop_between_files_the_same_command_leaves_the_same(
    last: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = flags(weights, "--percent", "0.5", "--name")
    prune.main([*argv, "whole"])
    replace_file = os.replace

    def replace(source: Path, target: Path) -> None:
        replace_file(source, target)
        if target.name.startswith(last):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.os.replace", replace)
        assert run(partial(prune.main, [*argv, "parts"])) == 130
    Path("runs/parts/.partial-channels-abc.png").touch()  # as a kill leaves it
    assert not Path("weights/parts/pruned.weights").exists()
    prune.main([*argv, "parts"])
    for suffix in ("cfg", "names", "weights"):
        whole, parts = (Path(f"weights/{name}/pruned.{suffix}") for name in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()
    for kind in ("runs", "weights"):
        whole_files, files = (
            {path.name for path in Path(kind, name).iterdir()} for name in ("whole", "parts")
        )
        assert files == whole_files


@pytest.mark.parametrize(
    "more",
    [
        ("--percent", "0", "--importance", "taylor"),
        ("--percent", "0.999", "--layer_keep", "0", "--round_to", "1"),
        ("--percent", "0.999", "--layer_keep", "1"),
        ("--percent", "1e-9", "--percent_of", "operations"),
    ],
)
def test_shares_at_the_edge_and_a_cut_of_a_cut_and_one_photo(
    more: tuple[str, ...], weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Path("demo/valid.txt").read_text().splitlines()[0]
    Path("demo/valid.txt").write_text(f"{first}\n")
    prune.main(flags(weights, "--name", "once", *more))
    prune.main(flags("weights/once/pruned.pt", "--name", "twice", *more))
    once, twice = (
        load_network(TrainedNetwork(weights=f"weights/{name}/pruned.pt", device="cpu")).model
        for name in ("once", "twice")
    )
    assert count_parameters(twice) <= count_parameters(once)
    said = capsys.readouterr().out
    far = float(more[1]) > 0.5
    assert said.count("note: percent=") == (2 if far else 0), "what was not reached is told"


def test_predictions_are_checked_on_random_cuts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count_instead_of_timing(monkeypatch)
    monkeypatch.chdir(tmp_path)
    config("yolov3-lite", thinner=8).write("lite.cfg")
    check_latency.main(["--cfg", "lite.cfg", "--img_size", "0", "--count", "3"])
    assert "| lite    | 3" in capsys.readouterr().out
    for bad in (["--cfg"], ["--latency_table", "a.txt"], ["--img_size", "33"]):
        assert run(partial(check_latency.main, bad)) == 2


def test_a_users_own_importance_and_strategy_and_protected_layers(
    weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ROOT / "docs/examples/own_pruning.py"
    more = ["--importance", f"{own}:entropy", "--importance_batches", "2", "--protected", "0"]
    prune.main(flags(weights, "--pruned_id", f"{own}:even", "--percent", "0.5", *more))
    assert f"asked: {own}:even, of channels" in capsys.readouterr().out
    small = load_network(TrainedNetwork(weights="weights/net-even-50/pruned.pt")).model.netdef
    whole = load_network(TrainedNetwork(weights=weights)).model.netdef
    assert small.layers[0].options == {**whole.layers[0].options, "protected": "1"}
    assert count_parameters(Darknet(small)) < 0.6 * count_parameters(Darknet(whole))
    with pytest.raises(InputError, match=r"own_pruning\.py:\d+: even: AttributeError"):
        prune.main(flags(weights, "--importance", f"{own}:even"))
