"""From pictures to their detections: what the detection scripts share around a network."""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from import_param import DetectSettings, Nms
from utils.backends.exported import ExportedNetwork, thresholds
from utils.backends.runtime import load_any_network, open_runtime
from utils.boxes import network_input
from utils.checkpoint.network import Network
from utils.console.progress import say
from utils.detection.background import StageTimer
from utils.detection.writer import DetectedPicture, Picture, class_indices, only_classes
from utils.devices import to_device
from utils.evaluation.evaluate import Run, predict
from utils.fonts import missing_letters
from utils.structures import Image
from utils.timing import synchronize


def open_detector(
    timer: StageTimer, batch: int, settings: DetectSettings, asked: Collection[str] = ()
) -> "Detector":
    """Open the network and the engine that a user asked for.

    Args:
        timer: see `Detector`.
        batch: pictures at once.
        settings: the network and what runs it.
        asked: the names of settings that the user gave.
    """
    network = load_any_network(settings.network, settings.runtime, asked)
    say(network.origin)
    nms = thresholds(network.model, settings.nms, asked)
    if note := missing_letters(network.names):
        say(note)
    run = open_runtime(network, batch, settings.runtime)
    return Detector(network, run, timer, nms, settings.detection.classes)


class Detector:
    """A network on an engine, with the thresholds and classes that a user asked for.

    Args:
        network: the network, with its class names and the size of its input.
        run: the engine.
        timer: takes the times of the network and of NMS, with the decoding of boxes before it.
        nms: the thresholds, and how many boxes of the kept classes a picture may have.
        classes: names or numbers of the classes to keep; none for all.
    """

    def __init__(
        self,
        network: Network | ExportedNetwork,
        run: Run,
        timer: StageTimer,
        nms: Nms,
        classes: Sequence[str] = (),
    ) -> None:
        self.names, self.path = network.names, network.path
        self._network, self._run, self._timer = network, run, timer
        self._classes = class_indices(classes, network.names)
        self._max_detections = nms.max_detections or None
        # Objects of other classes must not use up the limit.
        self._nms = replace(nms, max_detections=0) if self._classes else nms
        self._device = network.model.device

    def picture(
        self,
        image: Image,
        key: str,
        file: str,
        frame: int | None = None,
        position: float | None = None,
        source: int = 0,
    ) -> Picture:
        """A photo or frame, made ready for the network; see `Picture`."""
        with self._timer.stage("resize"):
            fitted = network_input(image, self._network.size, self._network.letterbox)
        return Picture(
            image, fitted, key, file, frame, time.monotonic(), time.time(), position, source
        )

    def detect(self, pictures: Sequence[Picture]) -> list[DetectedPicture]:
        """Detect on a batch of pictures."""
        start = time.perf_counter()
        network_done = start

        def on_network_done() -> None:
            nonlocal network_done
            synchronize(self._run)
            network_done = time.perf_counter()

        images = torch.stack([picture.input for picture in pictures])
        detections = predict(
            self._network.model,
            to_device(images, self._device),
            [picture.size for picture in pictures],
            self._nms,
            letterbox=self._network.letterbox,
            run=self._run,
            on_network_done=on_network_done,
        )
        results = [
            DetectedPicture(picture, only_classes(each, self._classes, self._max_detections))
            for picture, each in zip(pictures, detections, strict=True)
        ]
        self._timer.add("network", network_done - start)
        self._timer.add("NMS", time.perf_counter() - network_done)
        return results

    def stream(self, pictures: Iterable[Picture], batch_size: int) -> Iterator[DetectedPicture]:
        """Detect on pictures as they come, `batch_size` at a time, in their order."""
        if self._device.type == "cuda":
            # cuDNN keeps for each thread which of its kernels were fastest: the thread that opened
            # the engine was another one.
            width, height = self._network.size
            with torch.inference_mode():
                self._run(torch.zeros(batch_size, 3, height, width))
        batch: list[Picture] = []
        for picture in pictures:
            batch.append(picture)
            if len(batch) == batch_size:
                yield from self.detect(batch)
                batch = []
        if batch:
            yield from self.detect(batch)
