"""From pictures to what is found on them: what the detection scripts share around a network."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from import_param import TrainedNetwork
from utils.backends.runtime import open_runtime
from utils.boxes import fit_image
from utils.checkpoint import Network, load_network
from utils.detection.background import Stopwatch
from utils.detection.writer import Found, Picture, class_indices, only_classes
from utils.evaluation.evaluate import Run, predict
from utils.structures import Image
from utils.visualization.draw import undrawable


def open_detector(
    watch: Stopwatch, batch: int, settings: Mapping[str, Mapping[str, Any]]
) -> "Detector":
    """Open what a user asked for. batch: pictures at once. settings: the groups `network`,
    `runtime`, `detection` and `nms` of `import_param.DetectSettings`, as dicts."""
    network, detect = (
        load_network(TrainedNetwork(**settings["network"])),
        {**settings["detection"], **settings["nms"]},
    )
    if hidden := undrawable(network.names):
        print(f"no font here has the letters of {', '.join(hidden)}: pictures show their numbers")
    wanted = ("conf_thres", "nms_thres", "max_detections", "classes")
    return Detector(
        network,
        open_runtime(network, batch, **settings["runtime"]),
        watch,
        **{name: detect[name] for name in wanted},
    )


class Detector:
    """A network on an engine, with the thresholds and classes that a user asked for.

    run: the engine. classes: names or numbers of the classes to keep; none for all. The times of
    the network and of NMS (with the decoding of the boxes before it) go to `watch`.
    """

    def __init__(
        self,
        network: Network,
        run: Run,
        watch: Stopwatch,
        *,
        conf_thres: float,
        nms_thres: float,
        max_detections: int,
        classes: Sequence[str] = (),
    ) -> None:
        self.names = network.names
        self._network, self._run, self._watch = network, run, watch
        self._conf_thres, self._nms_thres = conf_thres, nms_thres
        self._max_detections = max_detections
        self._classes = class_indices(classes, network.names)
        self._device = next(network.model.parameters()).device

    def picture(self, image: Image, key: str, file: str, frame: int | None = None) -> Picture:
        """A photo or frame, made ready for the network."""
        with self._watch.stage("resize"):
            fitted = fit_image(image, self._network.size, self._network.letterbox)
        return Picture(image, fitted, key, file, frame, time.monotonic())

    def detect(self, pictures: Sequence[Picture]) -> list[Found]:
        """Detect on some pictures at once."""
        start = time.perf_counter()
        network_done = start

        def on_network_done() -> None:
            nonlocal network_done
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # a card works on while Python goes ahead
            network_done = time.perf_counter()

        images = torch.stack([picture.input for picture in pictures])
        found = predict(
            self._network.model,
            images.to(self._device, non_blocking=True),
            [picture.size for picture in pictures],
            conf_thres=self._conf_thres,
            nms_thres=self._nms_thres,
            # Objects of other classes must not use up the limit.
            max_detections=None if self._classes else self._max_detections or None,
            letterbox=self._network.letterbox,
            run=self._run,
            on_network_done=on_network_done,
        )
        results = [
            Found(picture, only_classes(detections, self._classes, self._max_detections))
            for picture, detections in zip(pictures, found, strict=True)
        ]
        self._watch.add("network", network_done - start)
        self._watch.add("NMS", time.perf_counter() - network_done)
        return results

    def stream(self, pictures: Iterable[Picture], batch_size: int) -> Iterator[Found]:
        """Detect on pictures as they come, `batch_size` at a time, in their order."""
        batch: list[Picture] = []
        for picture in pictures:
            batch.append(picture)
            if len(batch) == batch_size:
                yield from self.detect(batch)
                batch = []
        if batch:
            yield from self.detect(batch)
