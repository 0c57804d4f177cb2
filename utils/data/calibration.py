"""Which photos is an engine calibrated on, or compared with torch on?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from import_param import DataSet
from utils.boxes import network_input
from utils.console.progress import track
from utils.data.photos import PhotoSet
from utils.data.splits import Split, open_split
from utils.images import find_images, read_image

TITLE = "reading photos"  # of the wait
DATA_SETS = (".data", ".yaml", ".yml", ".json", ".xml")


class SampleImages(NamedTuple):
    """Photos as a network's input, float32 [N, 3, H, W], 0 to 1, and the folder of the first."""

    images: Tensor
    folder: Path


def sample_images(
    source: DataSet,
    size: tuple[int, int],
    letterbox: bool,
    count: int,
    split: Split = "train",
    is_data_set: bool = False,
) -> SampleImages:
    """Read at most `count` photos, evenly spread over those there are.

    Args:
        source: its `data` is a data set, whose `split` is taken, or a file, a folder or a glob of
            photos.
        size: (width, height) of the input in pixels.
        letterbox: whether photos keep their aspect.
        count: at most so many photos.
        split: which photos of a data set.
        is_data_set: a folder is one, too; else it is taken as photos.

    Raises:
        InputError: there are no photos, or one cannot be read.
    """
    if is_data_set or Path(source.data).suffix.lower() in DATA_SETS:
        photos = open_split(replace(source, cache_mb=0), split)
        return images_of(photos, size, letterbox, count)
    paths = find_images(source.data)
    images = [
        network_input(read_image(paths[index], source.max_megapixels), size, letterbox)
        for index in track(_spread(len(paths), count), TITLE)
    ]
    return SampleImages(torch.stack(images), paths[0].parent)


def images_of(photos: PhotoSet, size: tuple[int, int], letterbox: bool, count: int) -> SampleImages:
    """The same of a split that is open."""
    images = [
        network_input(photos.image(index), size, letterbox)
        for index in track(_spread(len(photos), count), TITLE)
    ]
    return SampleImages(torch.stack(images), photos.photos[0].path.parent)


def _spread(length: int, count: int) -> list[int]:
    return [round(place) for place in np.linspace(0, length - 1, min(length, count)).tolist()]
