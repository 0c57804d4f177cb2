"""The engine that a user asked for, for a network of theirs."""

from __future__ import annotations

from import_param import DataSet
from utils.backends import open_engine
from utils.backends.base import Engine
from utils.checkpoint import Network
from utils.data.calibration import sample_images

CALIBRATION_BATCH = 8  # photos that go through the network at once while it is calibrated


def open_runtime(
    network: Network,
    batch: int,
    *,
    backend: str,
    precision: str,
    threads: int = 0,
    calibration: str = "",
    calibration_photos: int = 200,
) -> Engine:
    """Open a network on an engine; the settings are those of `import_param.Runtime`."""
    photos = None
    if precision == "int8":
        photos = sample_images(
            DataSet(data=calibration), network.size, network.letterbox, calibration_photos
        )
    return open_engine(
        backend,
        network.model,
        network.size,
        precision=precision,
        batch=batch,
        threads=threads,
        calibration=None if photos is None else photos.split(CALIBRATION_BATCH),
    )
