"""Other projects' YOLOv3, where a user has installed them: their networks, and their training.

    pip install --no-deps pytorchyolo imgaug imageio scikit-image lazy-loader shapely six "numpy<2"
    pip install --no-deps ultralytics ultralytics-thop ultralytics-platform polars \
        polars-runtime-32 nvidia-ml-py pyyaml

best in an environment of its own: pytorchyolo asks for older versions of torch and numpy, and runs
with today's torch, but not with numpy 2. Nothing else here needs them.

What each does by default in training is left as it is: augmentation, loss, optimizer, precision
(float32 on a CPU) and memory layout; photos are read from their files each time. Only the batch
size, the size of the input and the number of loading processes (none) are set, to be as ours.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from models.costs import count_parameters
from models.darknet import Darknet
from models.netdef import NetDef
from models.weights import to_bytes
from utils.benchmark.networks import Peer
from utils.data.photos import PhotoSet
from utils.errors import InputError

Step = Callable[[], None]  # loads a batch and trains on it


# Networks ------------------------------------------------------------------------------------


def open_peer(name: str, model: Darknet, network: str) -> nn.Module:
    """A network as a peer has it.

    Args:
        name: of the peer, one of `PEERS`.
        model: our network.
        network: the name of `model`.

    Raises:
        InputError: the peer is not installed, or does not have the network.
    """
    check_installed(name)
    return OPENERS[name](model, network)


def check_installed(name: str) -> None:
    """Refuse a peer that is not installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec(name) is None:
        raise InputError(f"{name} is not installed, see tools/peers.py")


def open_pytorchyolo(model: Darknet, network: str) -> nn.Module:
    """PyTorch-YOLOv3 by eriklindernoren, from the same .cfg and with the same weights."""
    with TemporaryDirectory() as folder:
        cfg, weights = Path(folder) / "network.cfg", Path(folder) / "network.weights"
        cfg.write_text(model.netdef.text(), encoding="utf-8")
        weights.write_bytes(to_bytes(model))
        try:
            peer: nn.Module = importlib.import_module("pytorchyolo.models").Darknet(str(cfg))
            # It overlooks `groups=` in a convolution, which then is another one.
            if count_parameters(peer) != count_parameters(model):
                raise InputError(
                    f"pytorchyolo makes {count_parameters(peer)} parameters of it, "
                    f"expected {count_parameters(model)}"
                )
            peer.load_darknet_weights(str(weights))  # type: ignore[operator]
        except (ImportError, AttributeError, KeyError, ValueError, AssertionError) as error:
            raise InputError(f"pytorchyolo cannot open it: {error!r}") from error
    return peer


def open_ultralytics(model: Darknet, network: str) -> nn.Module:
    """Ultralytics' network of that name, fused as it is to predict; its heads have no anchors."""
    try:
        tasks = importlib.import_module("ultralytics.nn.tasks")
        peer: nn.Module = tasks.DetectionModel(
            f"{network}.yaml", nc=model.heads[0].classes, verbose=False
        )
        fused: nn.Module = peer.eval().fuse(verbose=False)  # type: ignore[operator]
    except (ImportError, FileNotFoundError) as error:
        raise InputError(f"ultralytics cannot open {network}.yaml: {error}") from error
    return fused


OPENERS = {"pytorchyolo": open_pytorchyolo, "ultralytics": open_ultralytics}
PEERS = {
    "pytorchyolo": Peer("pytorchyolo.models", partial(open_peer, "pytorchyolo")),
    "ultralytics": Peer("ultralytics.nn.tasks", partial(open_peer, "ultralytics")),
}


# Training ------------------------------------------------------------------------------------


def write_yolo(photos: PhotoSet, folder: Path) -> Path:
    """Write photos and labels into a folder as these projects want them.

    Returns:
        The file that lists the photos.
    """
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
    photo_list = folder / "train.txt"
    photo_list.write_text("\n".join(paths) + "\n", encoding="utf-8")
    return photo_list


@dataclass(frozen=True)
class Task:
    """What a peer is to train."""

    netdef: NetDef
    network: str  # its name
    classes: int
    photo_list: Path  # as `write_yolo` gives it
    batch: int  # photos a step


def peer_step(name: str, task: Task) -> Step:
    """A peer's training step, with its loading.

    Raises:
        InputError: the peer is not installed, or cannot train the network.
    """
    check_installed(name)
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
    cfg = task.photo_list.parent / "network.cfg"
    netdef = task.netdef.with_net_options(batch=task.batch, subdivisions=1)
    cfg.write_text(netdef.text(), encoding="utf-8")
    model = part("pytorchyolo.models").load_model(str(cfg))
    model.train()
    options = model.hyperparams
    dataset = part("pytorchyolo.utils.datasets").ListDataset(
        str(task.photo_list), netdef.size[0], multiscale=False, transform=augmented
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
    folder = task.photo_list.parent
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
