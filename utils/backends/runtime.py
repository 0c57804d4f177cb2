"""The engine that a user asked for, for a network of theirs."""

from __future__ import annotations

from collections.abc import Callable

from import_param import DataSet, Runtime
from utils.backends.base import Engine, EngineOptions
from utils.backends.registry import check_installed, open_engine
from utils.checkpoint import Network
from utils.data.calibration import sample_images
from utils.progress import say

CALIBRATION_BATCH = 8  # photos that go through the network at once while int8's ranges are taken


def open_runtime(
    network: Network, batch: int, runtime: Runtime, report: Callable[[str], None] = say
) -> Engine:
    """Open a network on an engine, to run `batch` images at once; `report` gets a line of `auto`.

    Raises:
        InputError: the library is not installed or cannot compute in that precision, or there are
            no photos to calibrate on.
    """
    check_installed(runtime.engine, runtime.precision)
    calibration = None
    if runtime.precision == "int8":
        photos = sample_images(
            DataSet(data=runtime.calibration),
            network.size,
            network.letterbox,
            runtime.calibration_photos,
        )
        calibration = photos.split(CALIBRATION_BATCH)
    options = EngineOptions(
        network.size,
        runtime.precision,
        batch,
        runtime.threads,
        calibration=calibration,
        int8_loss=runtime.int8_loss,
    )
    return open_engine(runtime.engine, network.model, options, report)
