"""Find objects with an exported YOLOv3 network. Needs its engine, OpenCV and NumPy, nothing else.

    python detector.py photo.jpg folder video.mp4        # pictures go into the folder `detected`
    python detector.py 0 --show                          # the first camera, in a window

In a program of your own: `from detector import Detector`, and `Detector()(cv2.imread("a.jpg"))`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
Array = np.ndarray[Any, Any]
Run = Callable[[Array], list[Array]]  # float32 [1, 3, H, W] → what the file computes


class Found(NamedTuple):
    """An object: its class, its score, and its box in pixels (left, top, right, bottom)."""

    name: str
    score: float
    box: tuple[float, ...]


class Detector:
    """An exported network; call it with a picture, uint8 [H, W, 3], BGR as OpenCV reads it.

    Args:
        model: the .onnx, .xml or .param; by default the one beside this script.
        conf_thres: lowest score; by default the one that the network was exported with.
        nms_thres: of two boxes of a class that overlap more, the one with the lower score goes.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        conf_thres: float | None = None,
        nms_thres: float | None = None,
    ) -> None:
        """Open the file; what it carries says how pictures go in and boxes come out."""
        path = Path(model) if model else next(p for p in sorted(HERE.iterdir()) if p.suffix in OPEN)
        text, self.run = OPEN[path.suffix](path)
        about = json.loads(text)
        self.names, self.heads, self.input, self.nms = (
            about[key] for key in ("names", "heads", "input", "nms")
        )
        self.conf_thres = self.nms["conf_thres"] if conf_thres is None else conf_thres
        self.nms_thres = self.nms["nms_thres"] if nms_thres is None else nms_thres

    def __call__(self, picture: Array) -> list[Found]:
        """Detect on one picture; the best first."""
        height, width = picture.shape[:2]
        image, (scale_x, scale_y, left, top) = self.fit(picture)
        outputs = self.run(image)
        if self.nms["inside"]:
            _, labels, boxes, scores = outputs
            order = np.argsort(-scores, kind="stable")
            order = order[scores[order] > self.conf_thres]
        else:
            parts = zip(*map(self.decode, outputs, self.heads), strict=True)
            boxes, scores, labels = (np.concatenate(part) for part in parts)
            order = self.suppress(boxes, scores, labels)
        boxes = (boxes - [left, top, left, top]) / [scale_x, scale_y, scale_x, scale_y]
        boxes = np.clip(boxes, 0, [width, height, width, height])
        return [
            Found(self.names[labels[i]], float(scores[i]), tuple(map(float, boxes[i])))
            for i in order[: self.nms["max_detections"] or None]
        ]

    def fit(self, picture: Array) -> tuple[Array, tuple[float, float, float, float]]:
        """The network's input, and its pixels a picture's pixel and where the picture begins."""
        (h, w), net_w, net_h = picture.shape[:2], self.input["width"], self.input["height"]
        if self.input["fit"] == "stretch":
            width, height = net_w, net_h
        elif net_w / w < net_h / h:
            width, height = net_w, max(1, h * net_w // w)
        else:
            width, height = max(1, w * net_h // h), net_h
        # Bilinear, with the corner pixels on the corner pixels, which OpenCV's resize does not do.
        x, y = (np.linspace(0, n - 1, m, dtype=np.float32) for n, m in ((w, width), (h, height)))
        x0, y0 = x.astype(int), y.astype(int)
        x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
        right, below = (x - x0)[:, None], (y - y0)[:, None, None]
        upper, lower = (
            rows[:, x0] * (1 - right) + rows[:, x1] * right for rows in (picture[y0], picture[y1])
        )
        canvas = np.full((net_h, net_w, 3), self.input["fill"], np.float32)
        left, top = (net_w - width) / 2, (net_h - height) / 2
        rows, columns = slice(int(top), int(top) + height), slice(int(left), int(left) + width)
        canvas[rows, columns] = (upper * (1 - below) + lower * below) / 255
        image = np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1))[None]  # RGB
        return image, (width / w, height / h, left, top)

    def decode(self, raw: Array, head: dict[str, Any]) -> tuple[Array, Array, Array]:
        """The boxes [N, 4], scores and labels [N] above the lowest score in a raw map."""
        anchors = np.array(head["anchors"], np.float32)
        _, _, rows, columns = raw.shape
        cells = raw.reshape(len(anchors), -1, rows, columns).transpose(0, 2, 3, 1)  # [A, h, w, 5+C]
        values = cells if head["new_coords"] else 1 / (1 + np.exp(-cells))
        scores = values[..., 4:5] * values[..., 5:]
        a, row, column, label = np.nonzero(scores > self.conf_thres)
        s, chosen = head["scale_x_y"], values[a, row, column]
        cell = [self.input["width"] / columns, self.input["height"] / rows]
        centre = (chosen[:, :2] * s - (s - 1) / 2 + np.stack([column, row], 1)) * cell
        wh = cells[a, row, column, 2:4]
        extent = ((wh * 2) ** 2 if head["new_coords"] else np.exp(wh.clip(-10, 20))) * anchors[a]
        boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1)
        return boxes, scores[a, row, column, label], label

    def suppress(self, boxes: Array, scores: Array, labels: Array) -> Array:
        """Non-maximum suppression in each class: the indices of the boxes that stay, best first."""
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        order, kept = np.argsort(-scores, kind="stable"), []
        while len(order):
            best, order = order[0], order[1:]
            kept.append(best)
            low = np.maximum(boxes[best, :2], boxes[order, :2])
            high = np.minimum(boxes[best, 2:], boxes[order, 2:])
            shared = (high - low).clip(0).prod(1)
            overlap = shared / (area[best] + area[order] - shared)
            order = order[(overlap <= self.nms_thres) | (labels[order] != labels[best])]
        return np.array(kept, int)


def open_onnx(path: Path) -> tuple[str, Run]:
    """What an .onnx carries, and what runs it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map["yolov3"]
    return about, lambda image: list(session.run(None, {session.get_inputs()[0].name: image}))


def open_openvino(path: Path) -> tuple[str, Run]:
    """What an .xml carries, and what runs it."""
    import openvino

    model = openvino.Core().read_model(path)
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(model, "CPU", options)
    count = len(model.outputs)
    about = str(model.get_rt_info(["yolov3"]).value)
    return about, lambda image: [compiled(image)[n] for n in range(count)]


def open_ncnn(path: Path) -> tuple[str, Run]:
    """What stands beside a .param, and what runs it."""
    import ncnn

    about = path.with_suffix(".json").read_text(encoding="utf-8")
    outputs, net = json.loads(about)["outputs"], ncnn.Net()
    for option in ("use_fp16_storage", "use_fp16_arithmetic", "use_fp16_packed"):
        setattr(net.opt, option, False)
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))

    def run(image: Array) -> list[Array]:
        extractor = net.create_extractor()
        extractor.input("image", ncnn.Mat(image[0]))
        return [np.array(extractor.extract(name)[1])[None] for name in outputs]

    return about, run


OPEN = {".onnx": open_onnx, ".xml": open_openvino, ".param": open_ncnn}


def draw(picture: Array, detections: list[Found], names: list[str]) -> Array:
    """A copy of the picture with its boxes; OpenCV's letters are ASCII, so others show `#3`."""
    drawn, scale = picture.copy(), max(picture.shape[:2]) / 1000
    width = max(1, round(3 * scale))
    for name, score, box in reversed(detections):
        label = names.index(name)
        hue = np.array([[[label * 47 % 180, 255, 230]]], np.uint8)
        colour = [int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0]]
        left, top, right, bottom = (round(value) for value in box)
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, width)
        text = f"{name if name.isascii() else f'#{label}'} {score:.2f}"
        place = (left, max(top - 2 * width, round(25 * scale)))
        for line, ink in ((3 * width, (0, 0, 0)), (width, colour)):  # an outline first
            cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.9 * scale, ink, line)
    return drawn


def pictures(source: str) -> Iterator[tuple[str, Array | None, float]]:
    """The name and pixels of each photo, or frame with its rate, of a file, folder or camera."""
    path = Path(source)
    if path.is_dir() or path.suffix.lower() in PICTURES:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix.lower() in PICTURES:
                data = np.frombuffer(file.read_bytes() or b"0", np.uint8)
                name = str(file.relative_to(path)) if path.is_dir() else file.name
                yield name, cv2.imdecode(data, cv2.IMREAD_COLOR), 0  # upright, as EXIF says
        return
    video = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not video.isOpened():
        sys.exit(f"{source}: cannot be opened: expected a photo, folder, video or camera number")
    while (frame := video.read()[1]) is not None:
        yield f"{path.stem}.mp4", frame, video.get(cv2.CAP_PROP_FPS) or 25


def main() -> None:
    """Detect on what the command line names; print, and write annotated pictures."""
    parser = argparse.ArgumentParser(description="Find objects; see README.md.")
    parser.add_argument("sources", nargs="+", help="photos, folders, videos, camera numbers")
    parser.add_argument("--model", help="the exported file; by default the one beside this script")
    parser.add_argument("--conf_thres", type=float, help="lowest score")
    parser.add_argument("--nms_thres", type=float, help="most overlap of two boxes of a class")
    parser.add_argument("--output", default="detected", help="folder for pictures; '' = none")
    parser.add_argument("--show", action="store_true", help="a window (needs opencv-python)")
    flags = parser.parse_args()
    detector = Detector(flags.model, flags.conf_thres, flags.nms_thres)
    videos: dict[str, cv2.VideoWriter] = {}
    for name, picture, rate in (each for source in flags.sources for each in pictures(source)):
        if picture is None:
            print(f"{name}: cannot be read", flush=True)
            continue
        detections = detector(picture)
        told = [f"{d.name} {d.score:.2f} {[round(v) for v in d.box]}" for d in detections]
        print(f"{name}: {'; '.join(told) or 'nothing'}", flush=True)
        drawn, target = draw(picture, detections, detector.names), Path(flags.output) / name
        if flags.output:
            target.parent.mkdir(parents=True, exist_ok=True)
        if flags.output and not rate:
            target.write_bytes(cv2.imencode(target.suffix, drawn)[1].tobytes())
        elif flags.output:
            size, code = drawn.shape[1::-1], cv2.VideoWriter.fourcc(*"mp4v")
            if name not in videos:
                videos[name] = cv2.VideoWriter(str(target), code, rate, size)
            videos[name].write(drawn)
        if flags.show:
            cv2.imshow("detector", drawn)
            if cv2.waitKey(1) in (27, ord("q")):
                break
    for video in videos.values():
        video.release()


if __name__ == "__main__":
    main()
