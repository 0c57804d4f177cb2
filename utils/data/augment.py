"""How does one photo become many? Each change is a function from Sample to Sample.

Every geometric change here keeps the axes, so a photo's way into the network's input is a `View`:
a scale and an offset along x and along y. Fitting, scaling, shifting and a place in a mosaic are
composed as views first, and each photo is then resampled once. Like Darknet's own resize, which
validation and detection use, a view samples bilinearly with the centres of corner pixels on each
other, so an unscaled, unshifted photo is what validation sees.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from import_param import Augmentation
from utils.boxes import Fit, resize
from utils.structures import Batch, Image, Sample

GREY = 127  # what fills the input where no photo lies; Darknet's letterbox has 0.5
LEAST_AREA = 0.15  # the share of its box that an object must keep, when it is cut, to be one still
LEAST_SIDE = 2.0  # pixels of the network's input


NO_AUGMENTATION = Augmentation(**{field.name: 0.0 for field in fields(Augmentation)})


def without_flips(augmentation: Augmentation) -> Augmentation:
    """The same, for data whose mirror images are something else: digits, letters, signs."""
    return replace(augmentation, flip_horizontal=0.0, flip_vertical=0.0)


@dataclass(frozen=True)
class View:
    """Where a photo lies on the network's input: its pixel edge x is at `scale_x·x + left`."""

    scale_x: float
    scale_y: float
    left: float
    top: float

    @staticmethod
    def fitted(size: tuple[int, int], net: tuple[int, int], letterbox: bool) -> "View":
        fit = Fit.of(size, net, letterbox)
        return View(fit.scale_x, fit.scale_y, int(fit.left), int(fit.top))  # as it is painted

    def then(self, scale: float, shift_x: float, shift_y: float) -> "View":
        """This view, enlarged by `scale` from the origin and then shifted by pixels."""
        return View(
            self.scale_x * scale,
            self.scale_y * scale,
            self.left * scale + shift_x,
            self.top * scale + shift_y,
        )


def fit(sample: Sample, net: tuple[int, int], letterbox: bool) -> Sample:
    """Stretched, or letterboxed, onto an input of (width, height) `net`."""
    height, width = sample.image.shape[:2]
    return compose([sample], [View.fitted((width, height), net, letterbox)], net)


def scale_translate(
    sample: Sample,
    net: tuple[int, int],
    letterbox: bool,
    scale: float,
    translate: float,
    rng: np.random.Generator,
) -> Sample:
    """Fitted, enlarged by 1 ± `scale` about the middle, shifted by ± `translate` of the sides."""
    height, width = sample.image.shape[:2]
    factor = rng.uniform(1 - scale, 1 + scale)
    shift = rng.uniform(-translate, translate, 2) * net + (1 - factor) / 2 * np.array(net)
    view = View.fitted((width, height), net, letterbox).then(factor, *shift)
    return compose([sample], [view], net)


def mosaic(
    samples: Sequence[Sample],
    net: tuple[int, int],
    letterbox: bool,
    scale: float,
    translate: float,
    rng: np.random.Generator,
) -> Sample:
    """Four photos around a crossing (YOLOv4, Bochkovskiy et al. 2020, section 3.4).

    Each is fitted as if it were alone and enlarged by the same 1 ± `scale`, so that objects keep
    the sizes that they have without a mosaic. The crossing lies anywhere that leaves no side of
    the input empty, up to half the input (and `translate` more) from its middle.
    """
    factor = rng.uniform(1 - scale, 1 + scale)
    reach = min(0.5 + translate, max(0.0, factor - 0.5))  # four photos span 2·factor inputs
    crossing = (0.5 + rng.uniform(-reach, reach, 2)) * net
    views = []
    for index, sample in enumerate(samples):
        height, width = sample.image.shape[:2]
        shift = crossing - factor * np.array(net) * ((index + 1) % 2, (index // 2 + 1) % 2)
        views.append(View.fitted((width, height), net, letterbox).then(factor, *shift))
    return compose(samples, views, net)


def flip(sample: Sample, horizontal: float, vertical: float, rng: np.random.Generator) -> Sample:
    """Mirrored left to right, and upside down, each with its probability."""
    if rng.random() < horizontal:
        sample = mirror(sample, axis=1)
    if rng.random() < vertical:
        sample = mirror(sample, axis=0)
    return sample


def mirror(sample: Sample, axis: int) -> Sample:
    """Left to right (axis 1) or upside down (axis 0)."""
    length = sample.image.shape[axis]
    low, high = (0, 2) if axis == 1 else (1, 3)
    boxes = sample.boxes.copy()
    boxes[:, low], boxes[:, high] = length - sample.boxes[:, high], length - sample.boxes[:, low]
    return replace(sample, image=_image(cv2.flip(sample.image, axis)), boxes=boxes)


def hsv(
    sample: Sample, hue: float, saturation: float, value: float, rng: np.random.Generator
) -> Sample:
    """Hue shifted by ± `hue` of the circle, saturation and value multiplied by 1 ± theirs."""
    turn, *gains = rng.uniform(-1, 1, 3) * (hue, saturation, value)
    if not hue and not saturation and not value:
        return sample
    steps = np.arange(256)
    table = np.stack(
        [
            (steps + round(turn * 180)) % 180,  # OpenCV's hue is in steps of two degrees
            np.clip(steps * (1 + gains[0]), 0, 255),
            np.clip(steps * (1 + gains[1]), 0, 255),
        ],
        axis=-1,
    ).astype(np.uint8)
    changed = cv2.LUT(cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV), table[None])
    return replace(sample, image=_image(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB)))


def augment(
    sample: Sample,
    others: Callable[[], Sequence[Sample]],
    net: tuple[int, int],
    letterbox: bool,
    strengths: Augmentation,
    rng: np.random.Generator,
) -> Sample:
    """Everything, at the network's size. `others` draws three more photos for a mosaic."""
    if rng.random() < strengths.mosaic:
        four = [sample, *others()]
        sample = mosaic(four, net, letterbox, strengths.scale, strengths.translate, rng)
    else:
        sample = scale_translate(sample, net, letterbox, strengths.scale, strengths.translate, rng)
    sample = flip(sample, strengths.flip_horizontal, strengths.flip_vertical, rng)
    return hsv(sample, strengths.hue, strengths.saturation, strengths.value, rng)


def multi_scale(batch: Batch, spread: float, rng: np.random.Generator, multiple: int = 32) -> Batch:
    """The whole batch at another size: the input's sides times 1 ± `spread`.

    Sides are multiples of `multiple` pixels, the network's largest stride.
    """
    height, width = batch.images.shape[-2:]
    factor = rng.uniform(1 - spread, 1 + spread)
    new_width = max(multiple, round(width * factor / multiple) * multiple)
    new_height = max(multiple, round(height * factor / multiple) * multiple)
    if (new_width, new_height) == (width, height):
        return batch
    ratio = batch.boxes.new_tensor([new_width / width, new_height / height] * 2)
    return replace(
        batch, images=resize(batch.images, new_width, new_height), boxes=batch.boxes * ratio
    )


def compose(samples: Sequence[Sample], views: Sequence[View], net: tuple[int, int]) -> Sample:
    """Photos resampled onto one input of (width, height) `net`, with what is seen of their boxes.

    Later photos lie over earlier ones. An object cut to less than LEAST_AREA of its box, or
    thinner than LEAST_SIDE, is dropped.
    """
    canvas = np.full((net[1], net[0], 3), GREY, np.uint8)
    boxes, labels = [], []
    for sample, view in zip(samples, views, strict=True):
        _paint(canvas, sample.image, view)
        seen, kept = _seen(sample.boxes, view, net)
        boxes.append(seen)
        labels.append(sample.labels[kept])
    return Sample(canvas, np.concatenate(boxes), np.concatenate(labels), samples[0].path)


def _paint(canvas: Image, image: Image, view: View) -> None:
    """Draw the photo, resampled, on the part of the canvas that it covers (in place)."""
    height, width = image.shape[:2]
    left, right, x = _span(width, view.scale_x, view.left, canvas.shape[1])
    top, bottom, y = _span(height, view.scale_y, view.top, canvas.shape[0])
    if right <= left or bottom <= top:
        return
    cv2.warpAffine(
        image,
        np.array([[x[0], 0, x[1]], [0, y[0], y[1]]]),
        (right - left, bottom - top),
        dst=canvas[top:bottom, left:right],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _span(
    length: int, scale: float, offset: float, limit: int
) -> tuple[int, int, tuple[float, float]]:
    """Along one axis: the first and last + 1 pixel that a photo covers, and where they come from.

    The map (a, b) says that covered pixel i shows the photo at index a·i + b, so that the photo's
    first and last pixel lie on the first and last of its span.
    """
    first = max(0, round(offset))
    last = min(limit, round(offset + scale * length))
    span = max(scale * length - 1, 1e-6)
    step = (length - 1) / span
    return first, last, (step, (first - offset) * step)


def _seen(
    boxes: NDArray[np.float32], view: View, net: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes of the photo as they appear on the input, and which of all were kept."""
    scale = np.array([view.scale_x, view.scale_y] * 2)
    whole = boxes * scale + np.array([view.left, view.top] * 2)
    cut = np.clip(whole, 0, np.array([*net, *net]))
    sides = cut[:, 2:] - cut[:, :2]
    area = (whole[:, 2:] - whole[:, :2]).prod(axis=1)
    kept = (sides >= LEAST_SIDE).all(axis=1) & (sides.prod(axis=1) >= LEAST_AREA * area)
    return cut[kept].astype(np.float32), kept


def _image(array: NDArray[np.generic] | cv2.typing.MatLike) -> Image:
    return np.asarray(array, np.uint8)


def to_tensor(images: Image) -> torch.Tensor:
    """uint8 [B, H, W, 3] → float32 [B, 3, H, W], 0 to 1."""
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
