"""How long does a data set of as many photos as COCO has take to open, and how much memory?

    python -m tools.benchmark_data --data data/custom.data
    python -m tools.benchmark_data --data data/custom.data --entries 5000 --form coco

Makes a set of many photos, which are hard links to the few of `data`, in `folder`: as a list of
photos and as a folder with YOLO .txt, as COCO .json, and as VOC .xml. Each form is then opened by
processes of their own: a first time, when every photo is decoded, and a second time. What follows
an opening is measured, too: anchors, the overview of labels, and epochs of training's loader, for
which photos are replaced by small black ones, so that what is seen is the set's size alone.
Memory is what of a process lies in memory (its highest), or is a worker's own (USS).
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from import_param import Augmentation, Count, Data, DataSet, Training, TrainSettings
from utils.console.progress import say, silent, track
from utils.errors import InputError, run
from utils.processes.workers import end_with_parent
from utils.settings.loader import load

if TYPE_CHECKING:
    from utils.data.photos import Photo, PhotoSet

Form = Literal["list", "folder", "coco", "voc"]

MARKER = "benchmark_data.txt"  # in a folder that was made here
VALID_EVERY = 20  # one photo of so many is for validation, as in COCO
POLYGON = 20  # corners of an object's outline in the .json, as in COCO
LOOK = 0.01  # seconds between two looks at the memory
CFG = Path(__file__).parents[1] / "config" / "yolov3-tiny.cfg"
INPUT = 32  # pixels, of the epochs


@dataclass(frozen=True)
class DataSize:
    """What is made, and measured."""

    folder: str = "runs/benchmark_data"  # takes the set; what it had of another one goes
    entries: Count = 100_000  # photos, to train on and to validate on
    form: tuple[Form, ...] = ("list", "folder", "coco", "voc")  # in which labels are read
    epochs: Count = 3  # of loading
    workers: Count = 2  # processes that load


@dataclass(frozen=True)
class DataSizeSettings:
    """Measure how long a large data set takes to open, and how much memory."""

    size: DataSize = DataSize()
    data: DataSet = DataSet(cache_mb=64)


@dataclass(frozen=True)
class Part:
    """What one step took; memory in bytes."""

    name: str
    seconds: float
    processor_seconds: float
    highest: int
    left: int


FIRST_FLAGS = ("data", "folder", "entries", "form", "epochs", "workers")


def main(argv: list[str] | None = None) -> None:
    """Read the flags, make the set, open it in each form, and print a table."""
    settings = load(DataSizeSettings, argv, about=__doc__, first=FIRST_FLAGS)
    if not settings.size.form:
        raise InputError("form=(): expected at least one")
    folder = Path(settings.size.folder)
    make_set(settings, folder)
    for form in settings.size.form:
        parts = measure(settings, folder, form)
        say(table(f"{settings.size.entries} photos, {form}", parts))


# --- the set ---


def make_set(settings: DataSizeSettings, folder: Path) -> None:
    """Fill a folder with links to the photos of `data` and with their labels in each form."""
    from utils.data.splits import open_split
    from utils.files.paths import output_folder
    from utils.files.writing import write_text

    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise InputError(
            f"folder={str(folder)!r}: holds something else than a set that this has made: expected "
            "a new folder, since what is in it goes"
        )
    write_text(output_folder(str(folder)) / MARKER, "made by tools/benchmark_data.py; may go\n")
    with silent():
        photos = open_split(settings.data, "train")
    for name in ("originals", "images", "labels", "Annotations", "cache"):
        shutil.rmtree(output_folder(str(folder)) / name, ignore_errors=True)
    originals = [_write_original(folder, i, photo) for i, photo in enumerate(photos.photos)]
    places = {"images": 0, "labels": 1, "Annotations": 2}
    for place in places:
        for split in ("train", "valid"):
            output_folder(str(folder / place / split))
    for number in track(range(settings.size.entries), "links to photos"):
        split, name = _split(number), f"{number:012}"
        original = originals[number % len(originals)]
        for place, index in places.items():
            os.link(original[index], folder / place / split / f"{name}{original[index].suffix}")
    _write_lists(folder, settings.size.entries, photos)


def _split(number: int) -> str:
    return "valid" if number % VALID_EVERY == 0 else "train"


def _write_original(folder: Path, number: int, photo: Photo) -> tuple[Path, Path, Path]:
    """A photo, its `.txt` and its `.xml`."""
    from utils.files.writing import write_bytes, write_text

    width, height = photo.size
    lines, objects = [], []
    for (left, top, right, bottom), label in zip(
        photo.boxes.tolist(), photo.labels.tolist(), strict=True
    ):
        centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
        values = (*centre, (right - left) / width, (bottom - top) / height)
        lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in values))
        box = f"<xmin>{left:.2f}</xmin><ymin>{top:.2f}</ymin><xmax>{right:.2f}</xmax>"
        box += f"<ymax>{bottom:.2f}</ymax>"
        objects.append(f"<object><name>class{label}</name><bndbox>{box}</bndbox></object>")
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    paths = [folder / "originals" / f"{number}{s}" for s in (photo.path.suffix, ".txt", ".xml")]
    write_bytes(paths[0], photo.path.read_bytes())
    write_text(paths[1], "\n".join(lines) + "\n")
    write_text(paths[2], "\n".join(["<annotation>", size, *objects, "</annotation>"]) + "\n")
    return paths[0], paths[1], paths[2]


def _write_lists(folder: Path, entries: int, photos: PhotoSet) -> None:
    """The lists, the `.json` files and the `.data` files."""
    from utils.files.writing import write_text

    names = [f"class{number}" for number in range(len(photos.names))]
    write_text(folder / "set.names", "\n".join(names) + "\n")
    sources = {
        "list": ("train.txt", "valid.txt", "yolo"),
        "folder": ("images/train", "images/valid", "yolo"),
        "coco": ("train.json", "valid.json", "auto"),
        "voc": ("images/train", "images/valid", "voc"),
    }
    for form, (train, valid, labels) in sources.items():
        text = f"names = set.names\ntrain = {train}\nvalid = {valid}\nformat = {labels}\n"
        write_text(folder / f"{form}.data", text + "images = images/train, images/valid\n")
    for split in ("train", "valid"):
        own = [number for number in range(entries) if _split(number) == split]
        files = {n: f"{n:012}{photos.photos[n % len(photos)].path.suffix}" for n in own}
        lines = "".join(f"images/{split}/{name}\n" for name in files.values())
        write_text(folder / f"{split}.txt", lines)
        write_text(folder / f"{split}.json", json.dumps(_coco(files, photos, names)))


def _coco(files: dict[int, str], photos: PhotoSet, names: Sequence[str]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, name in files.items():
        photo = photos.photos[number % len(photos)]
        width, height = photo.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for (left, top, right, bottom), label in zip(
            photo.boxes.round(2).tolist(), photo.labels.tolist(), strict=True
        ):
            outline = [left, top, right, top, right, bottom, left, bottom] * (POLYGON // 4)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": label,
                    "segmentation": [outline],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


# --- measuring ---


def measure(settings: DataSizeSettings, folder: Path, form: Form) -> list[Part]:
    """What opening the set in a form takes, the first time and the second, and what follows."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    parts: list[Part] = []
    for steps in (first_start, second_start):
        context, usual = multiprocessing.get_context("spawn"), multiprocessing.get_start_method()
        with ProcessPoolExecutor(1, context, _begin, (usual,)) as process:
            parts += process.submit(steps, settings, folder.resolve(), form).result()
    return parts


def _begin(start_method: str) -> None:
    """Let a process start others as scripts do."""
    multiprocessing.set_start_method(start_method, force=True)
    end_with_parent()


def first_start(settings: DataSizeSettings, folder: Path, form: Form) -> list[Part]:
    """Open the set."""
    parts: list[Part] = []
    with _measured("imports", parts):
        import utils.data.splits
        import utils.training.batches  # noqa: F401
    _open(settings, folder, form, "first start", parts)
    return parts


def second_start(settings: DataSizeSettings, folder: Path, form: Form) -> list[Part]:
    """Open the set, and do what training does with it."""
    from models import netdef as cfg_files
    from utils.data.anchors import fit_anchors
    from utils.training.batches import TrainingBatches, ValidationBatches
    from utils.visualization.label_plots import plot_labels

    parts: list[Part] = []
    train, valid = _open(settings, folder, form, "second start", parts)
    netdef = cfg_files.load(CFG).with_net_options(width=INPUT, height=INPUT)
    with _measured("anchors", parts):
        fit_anchors(train.object_sizes(netdef.size, netdef.letterbox), len(netdef.anchors_used))
    with _measured("overview of the labels", parts):
        plot_labels([("train", train), ("valid", valid)], folder / "labels.png")
    whole = TrainSettings(
        data=Data(batch_size=64, workers=settings.size.workers),
        training=Training(epochs=settings.size.epochs),
        augmentation=Augmentation(mosaic=0.5),
    )
    with _measured("loaders", parts):
        training = TrainingBatches(whole, replace(train, cache=_Black()), netdef)
        ValidationBatches(whole, replace(valid, cache=_Black()), netdef)
    for epoch in range(settings.size.epochs):
        with _measured(f"epoch {epoch + 1} of training's loader", parts):
            for _ in track(training.epoch(epoch), f"epoch {epoch + 1}", len(training)):
                pass
        own = max(_own_bytes(), default=0)
        parts.append(Part("after it, a worker's own", 0.0, 0.0, own, own))
    return parts


def _open(
    settings: DataSizeSettings, folder: Path, form: Form, name: str, parts: list[Part]
) -> tuple[PhotoSet, PhotoSet]:
    """Open the set with a cache folder of its own."""
    from utils.data.splits import open_splits

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    with _measured(name, parts), redirect_stdout(io.StringIO()):  # bars alone are shown
        return open_splits(replace(settings.data, data=str(folder / f"{form}.data")))


class _Black(dict[int, Any]):
    """In place of a cache: each photo is the same small black picture."""

    def get(self, key: int, default: Any = None) -> Any:
        import numpy as np

        return np.zeros((INPUT, INPUT, 3), np.uint8)


@contextmanager
def _measured(name: str, parts: list[Part]) -> Iterator[None]:
    """Add what the block takes to the parts."""
    import gc

    import psutil

    resident: Callable[[], int] = lambda: psutil.Process().memory_info().rss  # noqa: E731
    highest, over = resident(), threading.Event()

    def look() -> None:
        nonlocal highest
        while not over.wait(LOOK):
            highest = max(highest, resident())

    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        over.set()
        looker.join()
    gc.collect()
    parts.append(Part(name, seconds, cpu, max(highest, resident()), resident()))


def _own_bytes() -> list[int]:
    """The memory of each worker that it shares with no other process."""
    import psutil

    return [child.memory_full_info().uss for child in psutil.Process().children()]


def table(title: str, parts: Sequence[Part]) -> str:
    """The parts as a table in Markdown."""
    lines = [
        f"| {title} | seconds | of the processor | highest, MB | after it, MB |",
        "|---|---|---|---|---|",
    ]
    for part in parts:
        seconds, cpu = (
            f"{each:.1f}" * bool(each) for each in (part.seconds, part.processor_seconds)
        )
        memory = f"{part.highest / 1e6:.0f} | {part.left / 1e6:.0f}"
        lines.append(f"| {part.name} | {seconds} | {cpu} | {memory} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(run(main))
