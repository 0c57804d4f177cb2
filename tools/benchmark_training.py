"""How fast does train.py train here, how fast does it load photos, how fast is evaluation?

    python -m tools.benchmark_training --data data/custom.data
    python -m tools.benchmark_training --data data/custom.data --peers

Takes train.py's settings, and runs its step on real photos with all augmentation on, by default for
yolov3-tiny at 320 pixels. The training, the loader alone (with photos kept in memory, and reading
files each time) and, with `--peers`, other projects' training take turns, so that whatever else
the machine does meets all alike. All load in the process that trains (`--workers` is for train.py).
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

import torch
from terminaltables import AsciiTable

from import_param import (
    Augmentation,
    Count,
    Data,
    Evaluation,
    Loss,
    Model,
    Training,
    TrainSettings,
    Whole,
)
from models import netdef as cfg_files
from models.darknet import Darknet
from models.netdef import NetDef
from tools.training_peers import Task, endless, peer_step, write_yolo
from utils.benchmark.peers import PEERS
from utils.checkpoint import check_for_photos, check_size
from utils.data.datasets import DetectionDataset, EpochSampler, training_loader
from utils.data.photos import PhotoSet
from utils.data.splits import open_split
from utils.errors import InputError, run
from utils.evaluation.metrics import compute_metrics
from utils.settings import load
from utils.structures import Batch, Detections, Targets
from utils.timing import interleaved, machine, spread, version
from utils.training.loop import TrainerFactory, has_fast_bfloat16, train_one_epoch

Turn = Callable[[], object]  # some batches

PHOTOS, OBJECTS, BOXES, CLASSES = 5000, 10, 100, 80  # of the evaluation that is timed, as COCO's


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


def main(argv: list[str] | None = None) -> None:
    p = load(TrainingSpeedSettings, argv)
    threads = p.speed.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    netdef = network(p)
    photos = open_split(p.data, "train")
    netdef = netdef.with_classes(len(photos.names))
    with TemporaryDirectory() as folder:
        turns = {
            "train.py": training(p, photos, netdef, Path(folder)),
            "its loader": loading(p, photos, netdef),
            "its loader, from files": loading(p, dataclasses.replace(photos, cache={}), netdef),
            **(peers(p, photos, netdef, Path(folder) / "photos") if p.speed.peers else {}),
        }
        torch.set_num_threads(threads)  # ultralytics changes it
        times = interleaved(turns, p.speed.rounds, warm_up=1)
    print(f"{table(times, p.speed.turn * p.data.batch_size)}\n{about(p, photos)}")
    if p.speed.evaluation:
        print(
            f"evaluation of {PHOTOS} photos x {BOXES} boxes, {CLASSES} classes: "
            f"{evaluation_seconds():.2f} s"
        )


def network(p: TrainingSpeedSettings) -> NetDef:
    netdef = cfg_files.load(p.model.cfg)
    check_for_photos(netdef)
    if p.model.img_size:
        netdef = netdef.with_net_options(width=p.model.img_size, height=p.model.img_size)
    check_size(netdef, netdef.size)
    return netdef


def loader(p: TrainingSpeedSettings, photos: PhotoSet, netdef: NetDef) -> Iterator[Batch]:
    """Batches as train.py gets them, without end."""
    dataset = DetectionDataset(
        photos,
        netdef.size,
        netdef.letterbox,
        p.augmentation,
        p.training,
    )
    sampler = EpochSampler(len(dataset), p.training.seed)
    return endless(training_loader(dataset, sampler, dataclasses.replace(p.data, workers=0)))


def training(
    p: TrainingSpeedSettings,
    photos: PhotoSet,
    netdef: NetDef,
    folder: Path,
) -> Turn:
    """train.py's steps, with their loading."""
    model = Darknet(netdef)
    model.init_heads_(netdef.heads)
    settings = TrainSettings(training=p.training, loss=p.loss)
    trainer = TrainerFactory(settings, -(-len(photos) // p.data.batch_size), folder)(model)
    batches = loader(p, photos, netdef)
    return lambda: train_one_epoch(trainer, islice(batches, p.speed.turn), p.speed.turn, "training")


def loading(p: TrainingSpeedSettings, photos: PhotoSet, netdef: NetDef) -> Turn:
    """Its loader alone."""
    batches = loader(p, photos, netdef)
    return turn_of(lambda: next(batches), p.speed.turn)


def peers(
    p: TrainingSpeedSettings, photos: PhotoSet, netdef: NetDef, folder: Path
) -> dict[str, Turn]:
    """The training of other projects; those that cannot are told."""
    found: dict[str, Turn] = {}
    for name in PEERS:
        listed = write_yolo(photos, folder / name)
        task = Task(netdef, Path(p.model.cfg).stem, len(photos.names), listed, p.data.batch_size)
        try:
            found[name] = turn_of(peer_step(name, task), p.speed.turn)
        except InputError as error:
            print(f"left out: {error}")
    return found


def turn_of(step: Callable[[], object], count: int) -> Turn:
    def turn() -> None:
        for _ in range(count):
            step()

    return turn


def table(times: dict[str, list[float]], images: int) -> str:
    """Images a second, from the milliseconds that turns of so many images took."""
    medians = {name: spread(found)[0] for name, found in times.items()}
    lines = [["", "images/s", "quartiles", "times train.py"]]
    for name, found in times.items():
        _, low, high = spread(found)
        lines.append(
            [
                name,
                f"{1000 * images / medians[name]:.1f}",
                f"{1000 * images / high:.1f}-{1000 * images / low:.1f}",
                f"{medians['train.py'] / medians[name]:.2f}",
            ]
        )
    drawn = AsciiTable(lines)
    drawn.justify_columns = dict.fromkeys((1, 2, 3), "right")
    return drawn.table


def about(p: TrainingSpeedSettings, photos: PhotoSet) -> str:
    names = [name for name in PEERS if p.speed.peers and version(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in ["torch", *names])
    bfloat16 = p.training.amp and has_fast_bfloat16(torch.device("cpu"))
    return (
        f"{machine()}; {versions}; {p.model.cfg}, batches of {p.data.batch_size}, "
        f"{'bfloat16' if bfloat16 else 'float32'}, {len(photos)} photos of which "
        f"{len(photos.cache)} are kept in memory; medians and quartiles of {p.speed.rounds} rounds "
        f"of {p.speed.turn} batches in which all took turns"
    )


def evaluation_seconds() -> float:
    """Seconds that mAP takes on random boxes by COCO's rule, as many as COCO has."""
    generator = torch.Generator().manual_seed(0)

    def boxes(count: int) -> torch.Tensor:
        corner, side = torch.rand(2, count, 2, generator=generator)
        return torch.cat([corner, corner + side], 1) * 300

    def labels(count: int) -> torch.Tensor:
        return torch.randint(CLASSES, (count,), generator=generator)

    targets, found = [], []
    for _ in range(PHOTOS):
        objects = boxes(OBJECTS)
        area = (objects[:, 2:] - objects[:, :2]).prod(1)
        targets.append(
            Targets(objects, labels(OBJECTS), torch.zeros(OBJECTS, dtype=torch.bool), area)
        )
        scores = torch.rand(BOXES, generator=generator).sort(descending=True).values
        found.append(Detections(boxes(BOXES), scores, labels(BOXES)))
    start = time.perf_counter()
    compute_metrics(targets, found, CLASSES, Evaluation())
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(run(main))
