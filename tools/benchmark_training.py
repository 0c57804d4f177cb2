"""How fast does train.py train here, how fast does it load photos, how fast is evaluation?

    python -m tools.benchmark_training --data data/custom.data
    python -m tools.benchmark_training --data data/custom.data --peers

Takes train.py's settings, and runs its step on real photos with all augmentation on, by default for
yolov3-tiny at 320 pixels. The training, the loader alone (with photos kept in memory, and reading
files each time) and, with `--peers`, other projects' training take turns, so that whatever else
the machine does meets all alike. All load in the process that trains. With `--workers N`, so many
processes then load alone.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from import_param import (
    Augmentation,
    Count,
    Data,
    Evaluation,
    Loss,
    Model,
    NetworkLimits,
    Training,
    TrainSettings,
    Whole,
)
from utils.console.progress import say
from utils.errors import InputError, run
from utils.settings.loader import load

if TYPE_CHECKING:
    from models.netdef import NetDef
    from utils.data.photos import PhotoSet
    from utils.structures import Batch

Turn = Callable[[], object]  # some batches

# Of the evaluation that is timed, as COCO has them: photos, ground-truth objects and detections in
# each, and classes.
PHOTOS, OBJECTS, DETECTIONS, CLASSES = 5000, 10, 100, 80


@dataclass(frozen=True)
class TrainingSpeed:
    """How training speed is measured."""

    peers: bool = False  # time pytorchyolo's and ultralytics' training too, where installed
    rounds: Count = 7  # in which all take turns
    turn: Count = 3  # batches a turn
    evaluation: bool = True  # time the evaluation of 5,000 photos with 100 boxes each, too
    threads: Whole = 0  # 0 = as many as torch finds useful


@dataclass(frozen=True)
class TrainingSpeedSettings:
    """Measure how fast training, its loader and evaluation are; see README.md."""

    speed: TrainingSpeed = TrainingSpeed()
    model: Model = Model(cfg="config/yolov3-tiny.cfg", img_size=320)
    data: Data = Data()
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    loss: Loss = Loss()


FIRST_FLAGS = (  # of --help; --help_all has the others
    *("data", "cfg", "img_size"),
    *("batch_size", "peers", "rounds", "threads"),
)


def main(argv: list[str] | None = None) -> None:
    """Read the flags, let training, loader and peers take turns, and print images a second."""
    settings = load(TrainingSpeedSettings, argv, about=__doc__, first=FIRST_FLAGS)
    # Imported after the flags are read, so that --help and a mistyped flag need no torch.
    import torch

    from utils.data.splits import open_split
    from utils.timing import interleaved

    speed = settings.speed
    threads = speed.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    netdef = open_netdef(settings.model)
    photos = open_split(settings.data, "train")
    netdef = netdef.with_classes(len(photos.names))
    uncached = dataclasses.replace(photos, cache={})
    with TemporaryDirectory() as folder:
        turns = {
            "train.py": training_turn(settings, photos, netdef, Path(folder)),
            "its loader": loading_turn(settings, photos, netdef),
            "its loader, from files": loading_turn(settings, uncached, netdef),
        }
        if speed.peers:
            turns |= peer_turns(settings, photos, netdef, Path(folder) / "photos")
        torch.set_num_threads(threads)  # ultralytics changes it
        times = interleaved(turns, speed.rounds, warm_up=1)
    images = speed.turn * settings.data.photos_at_once
    say(f"{table(times, images)}\n{method_text(settings, photos)}")
    if settings.data.workers > 0:
        say(workers_line(settings, photos, netdef))
    if speed.evaluation:
        say(
            f"evaluation of {PHOTOS} photos x {DETECTIONS} boxes, {CLASSES} classes: "
            f"{evaluation_seconds():.2f} s"
        )


def open_netdef(settings: Model) -> NetDef:
    """The network to train, at the size that is asked for."""
    from models import netdef as cfg_files
    from utils.checkpoint.network import check_for_photos, check_size

    netdef = cfg_files.load(settings.cfg)
    check_for_photos(netdef)
    if settings.img_size:
        netdef = netdef.with_net_options(width=settings.img_size, height=settings.img_size)
    check_size(netdef, netdef.size, NetworkLimits())
    return netdef


def endless_batches(
    settings: TrainingSpeedSettings, photos: PhotoSet, netdef: NetDef, workers: int = 0
) -> Iterator[Batch]:
    """Batches as train.py gets them, without end."""
    from tools.peers import endless
    from utils.data.datasets import DetectionDataset, EpochSampler, training_loader

    dataset = DetectionDataset(
        photos, netdef.size, netdef.letterbox, settings.augmentation, settings.training
    )
    sampler = EpochSampler(len(dataset), settings.training.seed)
    data = dataclasses.replace(settings.data, workers=workers)
    return endless(training_loader(dataset, sampler, data))


def training_turn(
    settings: TrainingSpeedSettings, photos: PhotoSet, netdef: NetDef, folder: Path
) -> Turn:
    """train.py's steps, with their loading."""
    from models.darknet import Darknet
    from utils.training.loop import TrainerFactory, train_one_epoch

    model = Darknet(netdef)
    model.init_heads_(netdef.heads)
    steps = -(-len(photos) // settings.data.photos_at_once)
    train_settings = TrainSettings(training=settings.training, loss=settings.loss)
    trainer = TrainerFactory(train_settings, steps, folder)(model)
    batches, count = endless_batches(settings, photos, netdef), settings.speed.turn
    return lambda: train_one_epoch(trainer, islice(batches, count), count, "training")


def loading_turn(settings: TrainingSpeedSettings, photos: PhotoSet, netdef: NetDef) -> Turn:
    """Its loader alone."""
    batches = endless_batches(settings, photos, netdef)
    return turn_of(lambda: next(batches), settings.speed.turn)


def workers_line(settings: TrainingSpeedSettings, photos: PhotoSet, netdef: NetDef) -> str:
    """How fast `--workers` processes load photos in memory, and the bytes of a batch of theirs."""
    workers, speed = settings.data.workers, settings.speed
    batches = endless_batches(settings, photos, netdef, workers)
    for _ in range(2 * workers + 1):  # that they load ahead
        next(batches)
    start = time.perf_counter()
    loaded = list(map(_photos_and_bytes, islice(batches, speed.rounds * speed.turn)))
    seconds = time.perf_counter() - start
    count, size = max(loaded)
    return (
        f"{workers} worker processes alone: {sum(count for count, _ in loaded) / seconds:.1f} "
        f"images/s; {size / 1e6:.1f} MB of shared memory for a batch of {count}"
    )


def _photos_and_bytes(batch: Batch) -> tuple[int, int]:
    return len(batch.paths), batch.images.nbytes


def peer_turns(
    settings: TrainingSpeedSettings, photos: PhotoSet, netdef: NetDef, folder: Path
) -> dict[str, Turn]:
    """The training of other projects; those that cannot are told."""
    from tools.peers import STEPS, Task, peer_step, write_yolo

    turns: dict[str, Turn] = {}
    network, batch = Path(settings.model.cfg).stem, settings.data.photos_at_once
    for name in STEPS:
        photo_list = write_yolo(photos, folder / name)
        task = Task(netdef, network, len(photos.names), photo_list, batch)
        try:
            turns[name] = turn_of(peer_step(name, task), settings.speed.turn)
        except InputError as error:
            say(f"left out: {error}")
    return turns


def turn_of(step: Callable[[], object], count: int) -> Turn:
    """So many steps."""

    def turn() -> None:
        for _ in range(count):
            step()

    return turn


def table(times: dict[str, list[float]], images: int) -> str:
    """Images a second, from the milliseconds that turns of so many images took."""
    from terminaltables import AsciiTable

    from utils.timing import spread

    lines = [["", "images/s", "quartiles", "times train.py"]]
    train_median, _, _ = spread(times["train.py"])
    for name, values in times.items():
        median, low, high = spread(values)
        lines.append(
            [
                name,
                f"{1000 * images / median:.1f}",
                f"{1000 * images / high:.1f}-{1000 * images / low:.1f}",
                f"{train_median / median:.2f}",
            ]
        )
    drawn = AsciiTable(lines)
    drawn.justify_columns = dict.fromkeys((1, 2, 3), "right")
    return str(drawn.table)


def method_text(settings: TrainingSpeedSettings, photos: PhotoSet) -> str:
    """How it was measured, in words."""
    from tools.peers import STEPS
    from utils.devices import CPU
    from utils.timing import machine, version
    from utils.training.precision import training_dtype, type_name

    speed, data = settings.speed, settings.data
    peers = [name for name in STEPS if speed.peers and version(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in ["torch", *peers])
    dtype = training_dtype(settings.training, CPU)
    return (
        f"{machine()}; {versions}; {settings.model.cfg}, batches of {data.photos_at_once}, "
        f"{type_name(dtype)}, {len(photos)} photos of which "
        f"{len(photos.cache)} are kept in memory; medians and quartiles of {speed.rounds} rounds "
        f"of {speed.turn} batches in which all took turns"
    )


def evaluation_seconds() -> float:
    """Seconds that mAP takes on random boxes by COCO's rule, as many as COCO has."""
    import torch

    from utils.evaluation.metrics import compute_metrics
    from utils.structures import Detections, Targets

    generator = torch.Generator().manual_seed(0)

    def boxes(count: int) -> torch.Tensor:
        corner, side = torch.rand(2, count, 2, generator=generator)
        return torch.cat([corner, corner + side], 1) * 300

    def labels(count: int) -> torch.Tensor:
        return torch.randint(CLASSES, (count,), generator=generator)

    targets, detections = [], []
    for _ in range(PHOTOS):
        objects = boxes(OBJECTS)
        area = (objects[:, 2:] - objects[:, :2]).prod(1)
        targets.append(
            Targets(objects, labels(OBJECTS), torch.zeros(OBJECTS, dtype=torch.bool), area)
        )
        scores = torch.rand(DETECTIONS, generator=generator).sort(descending=True).values
        detections.append(Detections(boxes(DETECTIONS), scores, labels(DETECTIONS)))
    start = time.perf_counter()
    compute_metrics(targets, detections, CLASSES, Evaluation())
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(run(main))
