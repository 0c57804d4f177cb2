"""Libraries that run a network, and the files that they read.

    engine = open_engine("onnxruntime", model, EngineOptions(size=(320, 320)))
    maps = engine(images)  # as model(images), several times faster

Every library but torch is an optional install: `requirements/engines.txt`. `registry` lists them.
"""

from utils.backends.base import PRECISIONS, Engine, EngineOptions
from utils.backends.registry import (
    ENGINES,
    EngineEntry,
    engine_device,
    install_command,
    open_engine,
)

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "EngineEntry",
    "EngineOptions",
    "engine_device",
    "install_command",
    "open_engine",
]
