"""What comes next? Commands of the scripts that go on from here, as they can be pasted."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from import_param import (
    BenchmarkSettings,
    CheckDataSettings,
    DataSet,
    DetectSettings,
    ExportSettings,
    PruneSettings,
    Pruning,
    TestSettings,
    TrainSettings,
    is_own,
)
from utils.console.progress import say

SCRIPTS: dict[str, type] = {
    "train": TrainSettings,
    "test": TestSettings,
    "detect_img": DetectSettings,
    "detect_video": DetectSettings,
    "prune": PruneSettings,
    "latency_prune": PruneSettings,
    "export": ExportSettings,
    "benchmark": BenchmarkSettings,
    "check_data": CheckDataSettings,
}
# What a next script is to know, where the user gave it. A network's size and letterbox are in its
# file.
CARRIED = (
    *("data", "bad_labels", "max_megapixels", "cache_mb", "workers"),
    *("max_network_gb", "max_network_gflops", "device"),
    *("rule", "iou_thres", "plus_one"),
)
CUT = (
    *("percent", "percent_of", "layer_keep", "round_to", "percent_blocks"),
    "latency_batch_size",
)
FILES = ("cfg", "img_size", "letterbox", "names")  # of a network that a script was given
ENGINE = ("engine", "precision", "threads", "calibration")
MACHINE = ("device", "workers", "cache_mb", "monitor", "visdom_url", "keep_visdom", "class_table")


EXPORTED = (".onnx", ".xml", ".param")  # that the scripts take as weights


def tell_next(aims: str, commands: Sequence[str]) -> None:
    """Print what to do next, and with which commands, a line each."""
    say("\n".join([f"next, {aims}:", *(f"  {command}" for command in commands)]))


def command(script: str, done: Any, carried: Sequence[str] = CARRIED, **values: Any) -> str:
    """A command line of a script.

    Args:
        script: its name, a key of `SCRIPTS`.
        done: settings of the script that ends.
        carried: of these, what the user gave and the next script has, too, goes on.
        values: settings of the next script.
    """
    defaults = by_name(SCRIPTS[script]())
    given, usual = by_name(done), by_name(type(done)())
    going_on = {
        name: given[name]
        for name in carried
        if name in given and name in defaults and given[name] != usual[name]
    }
    flags: list[str] = []
    for name, value in (values | going_on | values).items():
        if value != defaults[name]:
            flags += flag(name, value)
    return quoted([*script_call(f"{script}.py"), *flags])


def by_name(settings: Any) -> dict[str, Any]:
    """The values of all groups of a script's settings; no name is in two groups."""
    groups = [getattr(settings, field.name) for field in fields(settings)]
    return {field.name: getattr(group, field.name) for group in groups for field in fields(group)}


def flag(name: str, value: Any) -> list[str]:
    """A setting as a flag.

    >>> flag("engine", ("torch", "ncnn")), flag("amp", False), flag("percent", 0.85)
    (['--engine', 'torch', 'ncnn'], ['--no_amp'], ['--percent', '0.85'])
    """
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{name}", *map(str, values)]


def script_call(name: str) -> list[str]:
    """How a script is called: beside the one that runs, by the Python that runs it."""
    folder = Path(sys.argv[0]).parent
    beside = folder / name
    return [_python(), str(beside if beside.is_file() else name)]


def _python() -> str:
    """The shortest name by which a shell finds this Python."""
    own = Path(sys.executable)
    for name in ("python", "python3"):
        path = shutil.which(name)
        if path and Path(path).parent == own.parent:
            return name
    return str(own) if own.name else "python"


def quoted(words: Sequence[str]) -> str:
    """A command line as the system's shell reads it."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def after_training(
    settings: TrainSettings, weights: Path, photos: Path, safe_percent: float | None
) -> None:
    """Say what follows a training.

    Args:
        settings: of the training.
        weights: its best.pt.
        photos: a folder with photos to validate on.
        safe_percent: the share that can be cut, as far as a sparse training found one.
    """
    best = str(weights)
    test = command("test", settings, weights=best)
    sparsity = settings.sparsity
    if sparsity.is_pruned and not sparsity.prune_while_training:
        tell_next("cut it, or measure it first", [_cut(settings, best, safe_percent), test])
    elif sparsity.prune_while_training or Path(settings.model.weights).name == "pruned.pt":
        data = settings.data.data
        tell_next(
            "measure it, write it for other programs, compare its speed",
            [
                test,
                command("export", settings, weights=best, data=data),
                command("benchmark", settings, weights=(best,), data=data, img_size=0),
            ],
        )
    else:
        tell_next(
            "measure it, detect with it, make it smaller",
            [
                test,
                command("detect_img", settings, weights=best, source=str(photos)),
                command("prune", settings, weights=best, importance="taylor"),
            ],
        )


def _cut(settings: TrainSettings, weights: str, safe_percent: float | None) -> str:
    """The command that cuts what a sparse training has prepared."""
    strategy = settings.pruning.strategy
    if strategy == "latency":
        return command(
            "latency_prune", settings, (*CARRIED, *CUT), weights=weights, target_speedup=2.0
        )
    values: dict[str, Any] = {"weights": weights}
    values |= {"pruned_id": strategy} if strategy != Pruning().strategy else {}
    values |= {"percent": safe_percent} if safe_percent else {}
    return command("prune", settings, (*CARRIED, *CUT), **values)


def after_pruning(settings: PruneSettings, cut: Path) -> None:
    """Say what follows a cut. cut: the path of its files, without a suffix."""
    tell_next(
        "train it on, so that it learns to do with less",
        [
            command(
                "train",
                settings,
                cfg=f"{cut}.cfg",
                pretrained=True,
                weights=f"{cut}.pt",
            )
        ],
    )


def after_test(settings: TestSettings, weights: str, photos: Path) -> None:
    """Say what follows a test: photos with the detections on them."""
    values: dict[str, Any] = {"weights": weights, "source": str(photos)}
    if settings.runtime.precision == "int8":  # on the data set's photos where none are named
        values["calibration"] = settings.runtime.calibration or settings.data.data
    detect = command("detect_img", settings, (*CARRIED, *FILES, *ENGINE), **values)
    tell_next("see what it detects", [detect])


def after_detection(settings: DetectSettings, weights: str) -> None:
    """Say what follows detection; nothing where that was with a file for another program."""
    if Path(weights).suffix in EXPORTED:
        return
    export = command("export", settings, (*CARRIED, *FILES), weights=weights)
    tell_next("write it for other programs", [export])


def after_export(
    settings: ExportSettings, files: Sequence[Path], weights: str, photos: Path
) -> None:
    """Say what follows an export.

    Args:
        settings: of the export.
        files: those that were written, of each format the one that others open.
        weights: what was exported.
        photos: a folder with photos.
    """
    usable = [str(file) for file in files if file.suffix in (*EXPORTED, ".weights")]
    carried = CARRIED if usable else (*CARRIED, *FILES)  # a file says the rest itself
    first = [*usable, weights][0]
    detect = command("detect_img", settings, carried, weights=first, source=str(photos))
    tell_next("detect with it" if usable else "detect", [detect])


def after_benchmark(
    settings: BenchmarkSettings,
    weights: str,
    engine: str,
    precision: str,
    device: str,
    photos: Path | None,
) -> None:
    """Say what follows a benchmark.

    Args:
        settings: of the benchmark.
        weights: of the fastest network.
        engine: on which it is that fast.
        precision: in which it is.
        device: on which it is; empty for the one that is taken where none is asked for.
        photos: a folder with photos, where mAP was measured.
    """
    carried = [name for name in CARRIED if name != "device"]  # a benchmark has several
    if Path(weights).suffix == ".cfg":
        data = settings.data.data or DataSet().data
        train = command("train", settings, carried, cfg=weights, data=data)
        tell_next("train the fastest", [train])
        return
    if not photos:
        export = command("export", settings, carried, weights=weights)
        tell_next("write the fastest for other programs", [export])
        return
    values: dict[str, Any] = {"weights": weights, "engine": engine, "precision": precision}
    if device:
        values["device"] = device
    if precision == "int8":
        values["calibration"] = settings.benchmark.calibration or settings.data.data
    detect = command("detect_img", settings, carried, **values, source=str(photos))
    tell_next("detect with the fastest", [detect])


def after_check(settings: CheckDataSettings, data: str) -> None:
    """Say what follows a look at a data set."""
    tell_next("train on it", [command("train", settings, data=data)])


def how_to_resume(settings: TrainSettings, weights: Path) -> str:
    """How a training that is stopped goes on. weights: the folder of its checkpoints."""
    last = weights / "last.pt"
    if not last.is_file():
        return "before the first epoch was done: the same command starts it again"
    values: dict[str, Any] = {"resume": str(last)}
    if is_own(settings.pruning.pruned_id):  # it is not run because a checkpoint says so
        values["pruned_id"] = settings.pruning.pruned_id
    return f"go on with: {command('train', settings, MACHINE, **values)}"
