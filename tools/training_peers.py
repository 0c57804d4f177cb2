"""How fast do other projects train? Their own steps, on the same photos, where they are installed.

What each does by default is left as it is: augmentation, loss, optimizer, precision (float32 on a
CPU) and memory layout; photos are read from their files each time. Only the batch size, the size of
the input and the number of loading processes (none) are set, to be as ours.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from models.netdef import NetDef
from utils.benchmark.peers import PEERS
from utils.data.photos import PhotoSet
from utils.errors import InputError

Step = Callable[[], None]  # loads a batch and trains on it


def write_yolo(photos: PhotoSet, folder: Path) -> Path:
    """The photos as these projects want them; the file that lists them."""
    paths = []
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number, photo in enumerate(photos.photos):
        link = folder / "images" / f"{number:06d}{photo.path.suffix}"
        link.symlink_to(photo.path.resolve())
        width, height = photo.size
        lines = [
            f"{label} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
            f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}"
            for label, (x0, y0, x1, y1) in zip(
                photo.labels[~photo.ignore].tolist(), photo.boxes[~photo.ignore].tolist(),
                strict=True,
            )
        ]  # fmt: skip
        if lines:  # pytorchyolo cannot read an empty file
            text = "\n".join(lines) + "\n"
            (folder / "labels" / f"{number:06d}.txt").write_text(text, encoding="utf-8")
            paths.append(str(link))
    listed = folder / "train.txt"
    listed.write_text("\n".join(paths) + "\n", encoding="utf-8")
    return listed


@dataclass(frozen=True)
class Task:
    """What to train: a network and its name, the classes, the file that lists the photos (see
    `write_yolo`), and photos a step."""

    netdef: NetDef
    network: str
    classes: int
    listed: Path
    batch: int


def peer_step(name: str, task: Task) -> Step:
    """A peer's training step, with its loading.

    Raises InputError where the peer is not installed or cannot train the network.
    """
    if importlib.util.find_spec(name) is None:
        raise InputError(f"{name} is not installed, see utils/benchmark/peers.py")
    try:
        importlib.import_module(PEERS[name].module)
        return STEPS[name](task)
    except (ImportError, AttributeError, KeyError, ValueError, FileNotFoundError) as error:
        raise InputError(f"{name} cannot train {task.network}: {error!r}") from error


def endless(loader: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from loader


def pytorchyolo_step(task: Task) -> Step:
    """As `pytorchyolo.train.run` does with every option at its default."""
    part = importlib.import_module
    compute_loss = part("pytorchyolo.utils.loss").compute_loss
    augmented = part("pytorchyolo.utils.augmentations").AUGMENTATION_TRANSFORMS
    cfg = task.listed.parent / "network.cfg"
    netdef = task.netdef.with_net_options(batch=task.batch, subdivisions=1)
    cfg.write_text(netdef.text(), encoding="utf-8")
    model = part("pytorchyolo.models").load_model(str(cfg))
    model.train()
    options = model.hyperparams
    dataset = part("pytorchyolo.utils.datasets").ListDataset(
        str(task.listed), netdef.size[0], multiscale=False, transform=augmented
    )
    loader = DataLoader(dataset, task.batch, shuffle=True, collate_fn=dataset.collate_fn)
    batches = endless(loader)
    optimizer = torch.optim.Adam(
        model.parameters(), options["learning_rate"], weight_decay=options["decay"]
    )

    def step() -> None:
        paths, images, targets = next(batches)
        if not paths:
            raise InputError("pytorchyolo could load no photo")
        loss, _ = compute_loss(model(images), targets, model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def ultralytics_step(task: Task) -> Step:
    """As the loop of `ultralytics.engine.trainer.BaseTrainer` does, without its validation."""
    detect = importlib.import_module("ultralytics.models.yolo.detect")
    folder = task.listed.parent
    names = "".join(f"  {number}: class{number}\n" for number in range(task.classes))
    data = folder / "data.yaml"
    data.write_text(
        f"path: {folder}\ntrain: train.txt\nval: train.txt\nnames:\n{names}",
        encoding="utf-8",
    )
    trainer = detect.DetectionTrainer(
        overrides={
            "model": f"{task.network}.yaml", "data": str(data), "imgsz": task.netdef.size[0],
            "batch": task.batch, "workers": 0, "device": "cpu", "plots": False, "val": False,
            "pretrained": False, "project": str(folder / "ultralytics"), "verbose": False,
        }
    )  # fmt: skip
    trainer._setup_train()
    trainer._model_train()
    batches = endless(trainer.train_loader)
    done = 0

    def step() -> None:
        nonlocal done
        with torch.autocast("cpu", enabled=trainer.amp):
            loss, _ = trainer.model(trainer.preprocess_batch(next(batches)))
        trainer.scaler.scale(loss.sum()).backward()
        done += 1
        if done % trainer.accumulate == 0:
            trainer.optimizer_step()

    return step


STEPS = {"pytorchyolo": pytorchyolo_step, "ultralytics": ultralytics_step}
