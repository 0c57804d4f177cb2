"""How many photos make a step of training, where the user does not say?

On a CPU 8. A card computes more of them in hardly more time; but what its memory takes is not all:
with few steps an epoch, a network has learned less at its end.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from import_param import TrainSettings
from models.darknet import shapes
from models.netdef import NetDef
from utils.console.progress import say
from utils.errors import InputError, is_out_of_memory
from utils.processes import distributed
from utils.training.precision import training_dtype

LARGEST = 64
LEAST_STEPS = 100  # of the optimizer, in an epoch
SHARE_OF_MEMORY = 0.7  # of the card's; the rest is for weights and what libraries need
COPIES = 3  # of each map: the convolution's, that of batch normalisation, and a gradient


def with_batch_size(
    settings: TrainSettings, device: torch.device, netdef: NetDef, photos: int
) -> TrainSettings:
    """The settings with the number of photos a step, which is chosen where it is 0.

    Args:
        settings: of the training.
        device: that trains; where processes train together, the main one's decides.
        netdef: of the network.
        photos: to train on.
    """
    data = settings.data
    if data.batch_size or device.type != "cuda":
        return replace(settings, data=replace(data, batch_size=data.photos_at_once))
    free, _ = distributed.from_main(lambda: torch.cuda.mem_get_info(device))
    fits = SHARE_OF_MEMORY * free / bytes_a_photo(settings, netdef, device)
    step = photos / distributed.world() / settings.training.accumulate
    chosen = suitable(fits, step, data.photos_at_once)
    say(
        f"batch_size={chosen}: {photos} photos, and {free / 1e9:.1f} GB free on {device} for about "
        f"{int(fits)} at once"
    )
    return replace(settings, data=replace(data, batch_size=chosen))


@contextlib.contextmanager
def within_memory(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Where memory runs out, tell what needs less: what was free when a run began may be gone.

    Args:
        settings: of the training, with its number of photos a step.
        device: that trains.

    Raises:
        InputError: the device's ran out. (That of a card's machine is told as anywhere.)
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        of_loader = str(error).startswith("Caught ")  # a process that loads photos
        of_machine = isinstance(error, MemoryError) and device.type != "cpu"
        if not is_out_of_memory(error) or of_loader or of_machine:
            raise
        photos, accumulate = settings.data.photos_at_once, settings.training.accumulate
        if settings.training.resume:
            less = "the same command goes on from the checkpoint once more is free"
        elif photos > 1:
            less = f"--batch_size {photos // 2} --accumulate {2 * accumulate} needs about half"
        else:
            less = "a smaller --img_size or another --cfg needs less"
        raise InputError(
            f"out of memory on {device}, which other programs may use, too, with "
            f"batch_size={photos}: {less} ({next(iter(str(error).splitlines()), 'MemoryError')})"
        ) from error


def suitable(fits: float, photos: float, usual: int) -> int:
    """A power of two: the largest that leaves an epoch its steps, or the usual; if it fits.

    Args:
        fits: photos at once, into memory.
        photos: of an epoch, for this process.
        usual: photos at once, where there are few of them.

    >>> suitable(500, 118_000, 8), suitable(500, 2_000, 8), suitable(500, 60, 8)
    (64, 16, 8)
    >>> suitable(5.5, 118_000, 8), suitable(0.5, 60, 8)
    (4, 1)
    """
    wanted = min(LARGEST, max(usual, photos / LEAST_STEPS))
    return int(2 ** math.floor(math.log2(max(1, min(fits, wanted)))))


def bytes_a_photo(settings: TrainSettings, netdef: NetDef, device: torch.device) -> float:
    """Memory that training needs for each photo of a batch, about."""
    numbers = sum(math.prod(shape) for shape in shapes(netdef))
    larger = (1 + settings.training.multi_scale) ** 2
    return COPIES * training_dtype(settings.training, device).itemsize * numbers * larger
