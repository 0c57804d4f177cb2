"""The engine that a user asked for, for a network of theirs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import torch
from torch import Tensor

from import_param import DataSet, Runtime, TrainedNetwork
from utils.backends.base import Engine, EngineOptions
from utils.backends.exported import ExportedNetwork, is_exported, load_exported
from utils.backends.registry import check_installed, engine_device, open_engine
from utils.checkpoint.network import Network, load_network
from utils.console.progress import say
from utils.data.calibration import sample_images
from utils.errors import InputError

CARD = torch.device("cuda")
CALIBRATION_BATCH = 8  # photos that go through the network at once while int8's ranges are taken


def calibration_source(runtime: Runtime, data: DataSet | None = None) -> DataSet:
    """The photos that int8 is calibrated on: those of `calibration`, else the data set's own."""
    data = data or DataSet(data="")
    return replace(data, data=runtime.calibration or data.data)


def calibration_photos(
    runtime: Runtime, data: DataSet | None, size: tuple[int, int], letterbox: bool, count: int
) -> Tensor:
    """At most `count` photos to calibrate int8 on; of a data set those to train on.

    Raises:
        InputError: see `sample_images`.
    """
    source = calibration_source(runtime, data)
    is_data_set = not runtime.calibration
    return sample_images(source, size, letterbox, count, is_data_set=is_data_set).images


def check_runnable(runtime: Runtime, data: DataSet | None = None) -> None:
    """Refuse an engine that cannot be opened, before anything is read.

    Args:
        runtime: the engine.
        data: a data set whose photos int8 may be calibrated on.

    Raises:
        InputError: the library is not installed, or there are no photos to calibrate on.
    """
    check_installed(runtime.engine, runtime.precision)
    if runtime.precision == "int8" and not calibration_source(runtime, data).data:
        raise InputError("calibration='': expected photos to calibrate on, since precision='int8'")


def load_any_network(
    settings: TrainedNetwork,
    runtime: Runtime,
    asked: Collection[str] = (),
    data: DataSet | None = None,
) -> Network | ExportedNetwork:
    """Open a network of ours or of Darknet's, or an exported file.

    Args:
        settings: the network.
        runtime: what is to run it, which is checked first.
        asked: the names of settings that the user gave; what an exported file says itself goes
            before the defaults of others.
        data: see `open_runtime`.

    Raises:
        InputError: a file is missing or does not fit, or is asked for what it is not; or the engine
            does not compute on the device.
    """
    if is_exported(settings.weights):
        return load_exported(settings, runtime, asked)
    check_runnable(runtime, data)
    return load_network(replace(settings, device=_device_for(settings.device, runtime.engine)))


def _device_for(device: str, engine: str) -> str:
    """Where a network is to be for an engine: not on a card where that computes on CPUs alone."""
    if engine_device(engine, CARD) == CARD or device == "cpu":
        return device
    if device == "auto":
        return "cpu"
    raise InputError(f"device={device!r}: expected auto or cpu: {engine} computes on CPUs alone")


def open_runtime(
    network: Network | ExportedNetwork,
    batch: int,
    runtime: Runtime,
    data: DataSet | None = None,
    report: Callable[[str], None] = say,
) -> Engine:
    """Open a network on an engine.

    Args:
        network: the network.
        batch: images that it runs at once.
        runtime: the engine.
        data: a data set whose training photos int8 is calibrated on, where `runtime` names none.
        report: gets a line of `auto`.

    An exported file runs on the engine that is its own, whatever `runtime` says of that.

    Raises:
        InputError: the library is not installed or cannot compute in that precision, or there are
            no photos to calibrate on.
    """
    if isinstance(network, ExportedNetwork):
        return network.model.open(network.engine, network.precision, runtime.threads, network.size)
    check_runnable(runtime, data)
    calibration = None
    if runtime.precision == "int8":
        photos = calibration_photos(
            runtime, data, network.size, network.letterbox, runtime.calibration_photos
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
