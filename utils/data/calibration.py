"""Which photos show a network's engine what it will see?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from utils.boxes import fit_image
from utils.data.definition import read_data
from utils.data.demo_data import make_if_demo
from utils.data.validation import load_split
from utils.images import find_images, read_image


def sample_images(
    source: str, size: tuple[int, int], letterbox: bool, count: int, split: str = "train"
) -> Tensor:
    """At most `count` photos, evenly spread over those there are, as a network's input.

    source: a `.data` file, whose `split` is taken, or a file, a folder or a glob of photos.
    size: (width, height) of the input in pixels. Returns float32 [N, 3, H, W], 0 to 1. Raises
    InputError where there are none, or one cannot be read.
    """
    if source.endswith(".data"):
        make_if_demo(source)
        photos = load_split(read_data(source), split)
        images = [photos.image(index) for index in _spread(len(photos), count)]
    else:
        paths = find_images(source)
        images = [read_image(paths[index]) for index in _spread(len(paths), count)]
    return torch.stack([fit_image(image, size, letterbox) for image in images])


def _spread(length: int, count: int) -> list[int]:
    return np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()
