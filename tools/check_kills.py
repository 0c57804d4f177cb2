"""Is nothing lost however the work is killed? Scripts are killed, looked at, and started again.

    python -m tools.check_kills --kills 20
    python -m tools.check_kills --scenarios prune export --kills 0 --every 1

Each scenario runs once to its end. Then it is killed, again and again: by SIGKILL before and after
the renames and removals that put files in place, and at random moments by SIGKILL, SIGTERM, SIGINT
and SIGHUP. After each kill every file under a final name must be whole, and files that belong
together of one network. Then the work goes on as a user would have it: with `--resume` where there
is a last.pt, else by the same command. It must end with the files of the run that was not killed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from import_param import Count, Whole
from utils import errors
from utils.errors import InputError
from utils.files.temporary import PARTIAL
from utils.settings.loader import load

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
    if hasattr(signal, name)  # Windows lacks two
)
STOPPED = 130  # the exit code of work that a signal ended in an orderly way
TIMED = ("speed/images_per_second",)  # columns of metrics.csv that no two runs share
SIDE = 64  # pixels, of the demo photos and the networks' input
CFG = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky
[shortcut]
from=-2
activation=linear
[convolutional]
filters=45
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1,2
anchors=8,8, 16,16, 32,32
classes=10
num=3
"""


@dataclass(frozen=True)
class Kills:
    """How often each scenario is killed."""

    scenarios: tuple[str, ...] = ()  # see SCENARIOS; none = all
    kills: Whole = 12  # at random moments, of each scenario
    every: Count = 1  # of the renames and removals, each so-many-th
    seed: Whole = 0  # of the random moments


@dataclass(frozen=True)
class KillSettings:
    """Kill scripts, and see that nothing is lost."""

    check: Kills = Kills()


@dataclass(frozen=True)
class Scenario:
    """A script's work.

    Attributes:
        script: the module whose `main` does it.
        flags: its flags.
        run: the name of its run, where it is a training's that can be resumed.
        timed: whether what it leaves depends on times that are measured, so that no two runs end
            with the same files.
    """

    script: str
    flags: Sequence[str]
    run: str = ""
    timed: bool = False


TRAIN = (
    "--cfg", "net.cfg", "--data", "demo.data", "--batch_size", "4", "--no_visdom", "--epochs", "3",
    "--name", "run",
)  # fmt: skip
SPARSE = ("--is_pruned", "--sparse_rate", "0.01")
PRUNE = (
    "--weights", "trained.pt", "--data", "demo.data", "--name", "cut", "--latency_rounds", "1",
    "--importance_batches", "1", "--bn_batches", "1", "--workers", "0",
)  # fmt: skip
DETECT = (
    "--weights", "trained.pt", "--output", "out", "--engine", "torch", "--conf_thres", "0.001",
    "--max_detections", "3", "--save_txt", "--save_json", "--save_crops",
)  # fmt: skip
# fmt: off
SCENARIOS = {
    "dense": Scenario("train", (*TRAIN, "--workers", "0"), "run"),
    "workers": Scenario("train", (*TRAIN, "--workers", "2"), "run"),
    "sparse": Scenario("train", (*TRAIN, "--workers", "0", *SPARSE), "run"),
    "cut while training": Scenario(
        "train",
        (*TRAIN, "--workers", "0", *SPARSE, "--prune_while_training", "--percent", "0.4",
         "--cut_epochs", "1", "2"),
        "run",
    ),
    "teacher": Scenario(
        "train",
        (*TRAIN, "--workers", "0", "--pretrained", "--weights", "trained.pt",
         "--teacher", "trained.pt"),
        "run",
    ),
    "prune": Scenario("prune", (*PRUNE, "--percent", "0.5"), timed=True),
    "latency_prune": Scenario(
        "latency_prune", (*PRUNE, "--target_speedup", "1", "--threads", "1"), timed=True
    ),
    "export": Scenario(
        "export",
        ("--weights", "trained.pt", "--data", "demo.data", "--output", "out", "--photos", "2",
         "--format", "darknet", "onnx", "openvino", "ncnn", "torchscript"),
    ),
    "detect_img": Scenario("detect_img", (*DETECT, "--source", "demo/images/valid")),
    "detect_video": Scenario("detect_video", (*DETECT, "--source", "clip.avi", "--no_show")),
}
# fmt: on


@dataclass
class Tally:
    """What the kills of a scenario came to."""

    kills: int = 0
    after_the_end: int = 0  # the work was done before the moment came
    resumed: int = 0
    again: int = 0
    faults: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> None:
    """Kill each scenario, print a table, and end with exit code 1 where there was a fault."""
    settings = load(KillSettings, argv, about=__doc__).check
    if sys.platform != "linux":
        raise InputError("tools.check_kills: expected Linux, where it can fork and kill")
    unknown = set(settings.scenarios) - set(SCENARIOS)
    if unknown:
        known = ", ".join(map(repr, SCENARIOS))
        raise InputError(f"scenarios={min(unknown)!r}: expected some of {known}")
    from terminaltables import AsciiTable

    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    rows = [["scenario", "kills", "after its end", "resumed", "started again", "faults"]]
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder) / "start")
        for name in settings.scenarios or SCENARIOS:
            tally = check_scenario(name, Path(folder), settings)
            rows.append(
                [name, str(tally.kills), str(tally.after_the_end), str(tally.resumed),
                 str(tally.again), str(len(tally.faults))]
            )  # fmt: skip
            faults += [f"{name}: {fault}" for fault in tally.faults]
            print(AsciiTable([rows[0], rows[-1]]).table, flush=True)
    print(AsciiTable(rows).table)
    for fault in faults:
        print(fault)
    if faults:
        raise SystemExit(1)


def prepare(start: Path) -> None:
    """Write what every scenario begins with: photos, a clip, a network that is trained a little."""
    import cv2
    import numpy as np

    from utils.data.demo_data import DemoSettings, make_demo

    make_demo(start / "demo", DemoSettings(train=8, valid=4, side=SIDE))
    (start / "net.cfg").write_text(CFG, encoding="utf-8")
    (start / "demo.names").write_text(
        "".join(f"{digit}\n" for digit in range(10)), encoding="utf-8"
    )
    (start / "demo.data").write_text(
        "names = demo.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n", encoding="utf-8"
    )
    writer = cv2.VideoWriter(
        str(start / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (SIDE, SIDE)
    )
    for value in range(12):
        writer.write(np.full((SIDE, SIDE, 3), 20 * value, np.uint8))
    writer.release()
    code = in_child(start, Work("train", (*TRAIN, "--workers", "0", *SPARSE))).wait()
    if code:
        raise RuntimeError(f"the first training ended with exit code {code}")
    shutil.copy(start / "weights/run/best.pt", start / "trained.pt")
    for name in ("runs", "weights"):
        shutil.rmtree(start / name)


def check_scenario(name: str, folder: Path, settings: Kills) -> Tally:
    """Run one scenario to its end twice, then kill it."""
    scenario, tally = SCENARIOS[name], Tally()
    work = Work(scenario.script, scenario.flags)
    ends: list[dict[str, object]] = []
    seconds, moments = 0.0, 0
    for attempt in range(2):  # what two runs do not share is not compared
        place = fresh(folder, f"whole-{attempt}")
        begun = time.monotonic()
        child = in_child(place, work, count_to=place / ".moments")
        code = child.wait()
        seconds = time.monotonic() - begun
        if code:
            tally.faults.append(f"not killed: exit code {code}: {child.said()}")
            return tally
        moments = len((place / ".moments").read_text(encoding="utf-8").split())
        (place / ".moments").unlink()
        ends.append(contents(place))
    expected = {
        path: (value if value == ends[1].get(path) and not scenario.timed else None)
        for path, value in ends[0].items()
        if path in ends[1]
    }
    rng = random.Random(f"{settings.seed} {name}")
    plans: list[Moment] = [
        Moment(at_change=number, after=after)
        for number in range(0, moments, settings.every)
        for after in (False, True)
    ]
    plans += [
        Moment(seconds=rng.uniform(0, seconds), signal=SIGNALS[number % len(SIGNALS)])
        for number in range(settings.kills)
    ]
    for moment in plans:
        place = fresh(folder, "killed")
        for fault in check_kill(scenario, work, moment, place, expected, tally):
            tally.faults.append(f"{moment}: {fault}")
    return tally


@dataclass(frozen=True)
class Moment:
    """When the work is killed: before or after a rename or removal, or after some seconds."""

    at_change: int | None = None
    after: bool = False
    seconds: float = 0.0
    signal: signal.Signals = SIGNALS[0]

    def __str__(self) -> str:
        if self.at_change is not None:
            return f"{'after' if self.after else 'before'} change {self.at_change}"
        return f"{self.signal.name} after {self.seconds:.2f} s"


def check_kill(
    scenario: Scenario,
    work: Work,
    moment: Moment,
    place: Path,
    expected: Mapping[str, object],
    tally: Tally,
) -> Iterator[str]:
    """Kill the work once, look, go on, and compare; yields what is wrong."""
    child = in_child(place, work, kill=moment)
    if moment.at_change is None:
        time.sleep(moment.seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, moment.signal)
    code = child.wait(seconds=60)
    tally.kills += 1
    if code == 0:
        tally.after_the_end += 1
    elif code not in (STOPPED, -moment.signal):
        yield f"exit code {code}: {child.said()}"
    if left := child.processes_left():
        yield f"processes left: {left}"
    yield from faults_in(place)
    if code == 0:
        return
    last = place / "weights" / scenario.run / "last.pt"
    if scenario.run and last.is_file():
        tally.resumed += 1
        work = Work(work.script, ("--resume", str(last.relative_to(place)), "--no_visdom"))
    else:
        tally.again += 1
    child = in_child(place, work)
    code = child.wait(seconds=300)
    if code:
        yield f"going on: exit code {code}: {child.said()}"
        return
    yield from faults_in(place)
    ended = contents(place)
    yield from (f"missing: {path}" for path in sorted(expected.keys() - ended.keys()))
    yield from (f"too much: {path}" for path in sorted(ended.keys() - expected.keys()))
    for path, value in expected.items():
        if value is not None and path in ended and ended[path] != value:
            yield f"differs: {path}"


def fresh(folder: Path, name: str) -> Path:
    """A new copy of what scenarios begin with."""
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "start", place)
    return place


# --- a script in a process of its own, forked so that it need not import torch again


@dataclass(frozen=True)
class Work:
    """What a child does: a script's main with flags."""

    script: str
    flags: Sequence[str]


@dataclass(frozen=True)
class Child:
    """A process that works in a folder."""

    pid: int
    log: Path

    def wait(self, seconds: float = 600.0) -> int:
        """Its exit code, negative for the signal that ended it; what hangs is killed: 124."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return 124

    def said(self) -> str:
        """The last line that it printed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")[-300:]

    def processes_left(self) -> list[int]:
        """What it started and what still works a second after its end."""
        import psutil

        left: list[int] = []
        for _ in range(10):
            left = [
                process.pid
                for process in psutil.process_iter(["status"])
                if os.getpgid(process.pid) == self.pid
                and process.info["status"] != psutil.STATUS_ZOMBIE
            ]
            if not left:
                break
            time.sleep(0.1)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left


def in_child(
    place: Path, work: Work, kill: Moment | None = None, count_to: Path | None = None
) -> Child:
    """Start the work in a child process.

    Args:
        place: the folder to work in.
        work: what to do.
        kill: where it kills itself, if that is at a change of files.
        count_to: a file that gets a line for each change of files.
    """
    __import__(work.script)  # before the fork, with torch
    sys.stdout.flush()
    log = place.parent / f"{place.name}.log"
    pid = os.fork()
    if pid:
        return Child(pid, log)
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(place)
        file = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ["XDG_CACHE_HOME"] = str(place.parent / "cache")
        _watch_changes(kill, count_to)
        code = errors.run(lambda: sys.modules[work.script].main(list(work.flags)))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _watch_changes(kill: Moment | None, count_to: Path | None) -> None:
    """Count the calls that put files under final names or remove them, and end at one of them."""
    own, count = os.getpid(), 0
    counted = count_to.open("w", encoding="utf-8") if count_to else None

    def watched(change: Callable[..., Any], final: int) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            name = Path(os.fsdecode(args[final])).name if args else ""
            if os.getpid() != own or name.startswith(PARTIAL) or not name:
                return change(*args, **kwargs)
            number, count = count, count + 1
            if counted:
                print(number, file=counted, flush=True)
            at = kill is not None and kill.at_change == number
            if at and kill and not kill.after:
                os.kill(own, signal.SIGKILL)
            result = change(*args, **kwargs)
            if at:
                os.kill(own, signal.SIGKILL)
            return result

        return wrapper

    os.replace = watched(os.replace, 1)
    os.rename = watched(os.rename, 1)
    os.unlink = watched(os.unlink, 0)
    os.remove = watched(os.remove, 0)


# --- what a folder holds


def files_of(place: Path) -> Iterator[Path]:
    """What work has left in a folder: files under final names, which do not begin with a dot."""
    for name in ("runs", "weights", "out"):
        for path in sorted((place / name).rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
            if path.is_file() and not hidden:
                yield path


def contents(place: Path) -> dict[str, object]:
    """What the files of a folder hold, by their path: what two runs may have in common."""
    held: dict[str, object] = {}
    for path in files_of(place):
        name = path.relative_to(place).as_posix()
        if path.suffix == ".pt":
            held[name] = _weights_of(path)
        elif path.suffix == ".torchscript":
            with zipfile.ZipFile(path) as archive:  # without the lines of Python that traced it
                traced = (".debug_pkl", "serialization_id")
                names = [each for each in archive.namelist() if not each.endswith(traced)]
                held[name] = {each: archive.read(each) for each in names}
        elif path.name == "metrics.csv":
            rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
            held[name] = [[(k, v) for k, v in row.items() if k not in TIMED] for row in rows]
        elif path.name in ("settings.json", "run.json", "index.html"):
            held[name] = path.name  # those of a resumed run say so
        else:
            held[name] = path.read_bytes()
    return held


def _weights_of(path: Path) -> object:
    from utils.checkpoint.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(path)
    tensors = {name: tensor.numpy().tobytes() for name, tensor in checkpoint.model.items()}
    return tensors, checkpoint.netdef.text(), checkpoint.training and checkpoint.training.epoch


def faults_in(place: Path) -> list[str]:
    """What is half-written, or does not belong together; told by a child, so that none is opened
    in the process that forks.
    """  # noqa: D205
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reader)
            found = []
            for path in files_of(place):
                try:
                    expect_whole(path)
                except Exception as error:
                    found.append(f"{path.relative_to(place)}: {type(error).__name__}: {error}")
            with os.fdopen(writer, "w") as pipe:
                json.dump(found, pipe)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return [str(fault) for fault in json.loads(text)] if text else ["the look ended in a crash"]


def expect_whole(path: Path) -> None:
    """Raise what is wrong with a file, or with those that belong to it."""
    match path.suffix:
        case ".pt":
            from utils.checkpoint.checkpoint import read_checkpoint

            read_checkpoint(path)
        case ".weights":
            _expect_pair(path)
        case ".png" | ".jpg" | ".bmp":
            from utils.images import read_image

            read_image(path)
        case ".json":
            json.loads(path.read_text(encoding="utf-8"))
        case ".csv":
            _expect_table(path)
        case ".avi" | ".mp4":
            _expect_frames(path)
        case ".onnx":
            import onnx

            onnx.checker.check_model(onnx.load(str(path)))
        case ".xml":
            import openvino

            openvino.Core().read_model(path)
        case ".param":
            import ncnn

            net = ncnn.Net()
            if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
                raise ValueError("ncnn cannot load it")
        case ".torchscript":
            import torch

            torch.jit.load(str(path))
        case _:
            path.read_bytes()


def _expect_pair(path: Path) -> None:
    """A .weights file fits its .cfg, has names, and is of the network in the .pt beside it."""
    import torch

    from models import netdef as cfg_files
    from models.weights import read_weights
    from utils.checkpoint.checkpoint import read_checkpoint
    from utils.data.definition import read_names

    netdef = cfg_files.load(path.with_suffix(".cfg"))
    state, _ = read_weights(path, netdef)
    read_names(path.with_suffix(".names"))
    if path.with_suffix(".pt").exists():
        checkpoint = read_checkpoint(path.with_suffix(".pt"))
        if checkpoint.netdef.text() != netdef.text():
            raise ValueError("another network than the .pt beside it")
        for name, tensor in state.items():
            if not torch.equal(tensor, checkpoint.model[name]):
                raise ValueError(f"{name}: other weights than the .pt beside it")


def _expect_table(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    if not text.endswith("\n") or len({len(row) for row in rows}) > 1:
        raise ValueError("a row that is cut off")


def _expect_frames(path: Path) -> None:
    import cv2

    video = cv2.VideoCapture(str(path))
    frames = 0
    while video.read()[0]:
        frames += 1
    if not frames:
        raise ValueError("no frame can be read")


if __name__ == "__main__":
    sys.exit(errors.run(main))
