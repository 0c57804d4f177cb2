"""Darknet's files of a network: `.cfg`, `.weights` and `.names` beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.darknet import Darknet
from models.netdef import NetDef
from models.weights import to_bytes
from utils.files.reading import read_lines
from utils.files.writing import fill, together

DARKNET_SUFFIXES = ("names", "cfg", "weights")  # in the order in which they are put in place


def write_pair(
    path: Path, model: Darknet, netdef: NetDef, names: Sequence[str]
) -> tuple[Path, Path]:
    """Write `path`.cfg and `path`.weights, which Darknet and OpenCV read, and `path`.names."""
    paths = beside(path, *DARKNET_SUFFIXES)
    with together(*paths) as temporaries:
        fill_pair(temporaries, model, netdef, names)
    return paths[1], paths[2]


def fill_pair(files: Sequence[Path], model: Darknet, netdef: NetDef, names: Sequence[str]) -> None:
    """Fill the files of `DARKNET_SUFFIXES`, in that order, which are there already."""
    listed, cfg, weights = files
    fill(listed, "".join(f"{name}\n" for name in names))
    fill(cfg, netdef.with_plain_heads().text())
    fill(weights, to_bytes(model, epsilon=netdef.bn_epsilon))


def beside(path: Path, *suffixes: str) -> list[Path]:
    """`path` with each suffix; a dot in the name, as in yolo-fastest-1.1, begins none."""
    return [Path(f"{path}.{suffix}") for suffix in suffixes]


def class_count(netdef: NetDef) -> int:
    """Classes of a network by its first head; 0 where it has none."""
    return netdef.layers[netdef.heads[0]].integer("classes", 20) if netdef.heads else 0


def names_beside(path: Path, classes: int) -> str:
    """`best.names` of best.weights, or the only .names file in the folder, or nothing.

    Of several, it is the one that names as many classes as the network has.
    """
    own = path.with_suffix(".names")
    if own.is_file():
        return str(own)
    others = sorted(path.parent.glob("*.names"))
    if len(others) > 1:
        others = [other for other in others if len(read_lines(other)) == classes]
    return str(others[0]) if len(others) == 1 else ""
