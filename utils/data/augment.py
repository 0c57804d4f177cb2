"""How does one photo become many? Each change is a function from Sample to Sample.

All geometric changes here keep the axes, so a photo's way into the network's input is a
`Transform`: a scale and an offset along x and along y. Fitting, scaling, shifting and a place in a
mosaic are composed first, and each photo is then resampled once. Like Darknet's own resize, which
validation and detection use, a transform samples bilinearly with the centres of corner pixels on
each other, so an unscaled, unshifted photo is what validation sees.

Sizes of the network's input are (width, height) in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from import_param import Augmentation
from utils.boxes import InputTransform, resize
from utils.structures import Batch, Image, Sample

GREY = 127  # what fills the input where no photo lies; Darknet's letterbox has 0.5
MIN_AREA = 0.15  # an object that is cut must keep this share of its box, or it is dropped
MIN_SIDE = 2.0  # pixels of the network's input that an object's sides must have, or it is dropped

NO_AUGMENTATION = Augmentation(**{field.name: 0.0 for field in fields(Augmentation)})


def without_flips(augmentation: Augmentation) -> Augmentation:
    """The same, for data whose mirror images are something else: digits, letters, signs."""
    return replace(augmentation, flip_horizontal=0.0, flip_vertical=0.0)


@dataclass(frozen=True)
class Transform:
    """Where a photo lies on the network's input.

    Attributes:
        scale_x: input pixels per photo pixel along x.
        scale_y: the same along y.
        left: the photo's left edge in pixels of the input, so that x goes to `scale_x·x + left`.
        top: its upper edge.
    """

    scale_x: float
    scale_y: float
    left: float
    top: float

    @staticmethod
    def fitted(size: tuple[int, int], input_size: tuple[int, int], letterbox: bool) -> "Transform":
        """Stretch or letterbox a photo of (width, height) `size` onto the input."""
        placed = InputTransform.of(size, input_size, letterbox)
        return Transform(
            placed.scale_x, placed.scale_y, int(placed.left), int(placed.top)
        )  # as it is painted

    def then(self, scale: float, shift_x: float, shift_y: float) -> "Transform":
        """This transform, enlarged by `scale` from the origin and then shifted by pixels."""
        return Transform(
            self.scale_x * scale,
            self.scale_y * scale,
            self.left * scale + shift_x,
            self.top * scale + shift_y,
        )


def augment(
    sample: Sample,
    others: Callable[[], Sequence[Sample]],
    input_size: tuple[int, int],
    letterbox: bool,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Sample:
    """Make all changes to one photo.

    Args:
        sample: the photo as it is.
        others: draws three more photos for a mosaic.
        input_size: (width, height) of the network's input.
        letterbox: whether photos keep their aspect.
        augmentation: how strong each change is.
        rng: what the changes are drawn from.

    Returns:
        A sample of the input's size.
    """
    if rng.random() < augmentation.mosaic:
        sample = mosaic([sample, *others()], input_size, letterbox, augmentation, rng)
    else:
        sample = scale_translate(sample, input_size, letterbox, augmentation, rng)
    return hsv(flip(sample, augmentation, rng), augmentation, rng)


def fit(sample: Sample, input_size: tuple[int, int], letterbox: bool) -> Sample:
    """Stretch or letterbox a photo onto the network's input."""
    return compose([sample], [_fitted(sample, input_size, letterbox)], input_size)


def scale_translate(
    sample: Sample,
    input_size: tuple[int, int],
    letterbox: bool,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Sample:
    """Fit, enlarge by 1 ± `scale` about the middle, and shift by ± `translate` of the sides."""
    factor = rng.uniform(1 - augmentation.scale, 1 + augmentation.scale)
    shift = rng.uniform(-augmentation.translate, augmentation.translate, 2) * input_size
    shift = shift + (1 - factor) / 2 * np.array(input_size)
    transform = _fitted(sample, input_size, letterbox).then(factor, *shift)
    return compose([sample], [transform], input_size)


def mosaic(
    samples: Sequence[Sample],
    input_size: tuple[int, int],
    letterbox: bool,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Sample:
    """Put four photos around a crossing (YOLOv4, Bochkovskiy et al. 2020, section 3.4).

    Each is fitted as if it were alone and enlarged by the same 1 ± `scale`, so that objects keep
    the sizes that they have without a mosaic. The crossing lies anywhere that leaves no side of
    the input empty, up to half the input (and `translate` more) from its middle.
    """
    factor = rng.uniform(1 - augmentation.scale, 1 + augmentation.scale)
    # Four photos span 2·factor inputs.
    reach = min(0.5 + augmentation.translate, max(0.0, factor - 0.5))
    crossing = (0.5 + rng.uniform(-reach, reach, 2)) * input_size
    transforms = []
    for index, sample in enumerate(samples):
        right, lower = index % 2, index // 2
        corner = crossing - factor * np.array(input_size) * (1 - right, 1 - lower)
        transforms.append(_fitted(sample, input_size, letterbox).then(factor, *corner))
    return compose(samples, transforms, input_size)


def flip(sample: Sample, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    """Mirror left to right, and upside down, each with its probability."""
    if rng.random() < augmentation.flip_horizontal:
        sample = mirror(sample, axis=1)
    if rng.random() < augmentation.flip_vertical:
        sample = mirror(sample, axis=0)
    return sample


def mirror(sample: Sample, axis: int) -> Sample:
    """Mirror left to right (axis 1) or upside down (axis 0)."""
    length = sample.image.shape[axis]
    low, high = (0, 2) if axis == 1 else (1, 3)
    boxes = sample.boxes.copy()
    boxes[:, low], boxes[:, high] = length - sample.boxes[:, high], length - sample.boxes[:, low]
    return replace(sample, image=_image(cv2.flip(sample.image, axis)), boxes=boxes)


def hsv(sample: Sample, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    """Shift hue by ± `hue` of the circle, multiply saturation and value by 1 ± theirs."""
    strengths = (augmentation.hue, augmentation.saturation, augmentation.value)
    turn, *gains = rng.uniform(-1, 1, 3) * strengths
    if not any(strengths):
        return sample
    levels = np.arange(256)
    table = np.stack(
        [
            (levels + round(turn * 180)) % 180,  # OpenCV's hue is in steps of two degrees
            np.clip(levels * (1 + gains[0]), 0, 255),
            np.clip(levels * (1 + gains[1]), 0, 255),
        ],
        axis=-1,
    ).astype(np.uint8)
    changed = cv2.LUT(cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV), table[None])
    return replace(sample, image=_image(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB)))


def multi_scale(
    batch: Batch,
    spread: float,
    rng: np.random.Generator,
    device: torch.device,
    multiple: int = 32,
) -> Batch:
    """Resize a whole batch: the input's sides times 1 ± `spread`.

    Args:
        batch: what the network would see.
        spread: the largest change, as a share.
        rng: what the change is drawn from.
        device: what resizes the images, which then are on it: the one that trains.
        multiple: sides are multiples of so many pixels, the network's largest stride.
    """
    height, width = batch.images.shape[-2:]
    factor = rng.uniform(1 - spread, 1 + spread)
    new_width = max(multiple, round(width * factor / multiple) * multiple)
    new_height = max(multiple, round(height * factor / multiple) * multiple)
    if (new_width, new_height) == (width, height):
        return batch
    ratio = batch.boxes.new_tensor([new_width / width, new_height / height] * 2)
    images = resize(batch.for_network(device).images, new_width, new_height)
    return replace(batch, images=images, boxes=batch.boxes * ratio)


def compose(
    samples: Sequence[Sample], transforms: Sequence[Transform], input_size: tuple[int, int]
) -> Sample:
    """Resample photos onto one input, with what is seen of their boxes.

    Later photos lie over earlier ones. An object cut to less than MIN_AREA of its box, or thinner
    than MIN_SIDE, is dropped.
    """
    width, height = input_size
    canvas = np.full((height, width, 3), GREY, np.uint8)
    boxes, labels = [], []
    for sample, transform in zip(samples, transforms, strict=True):
        _paint(canvas, sample.image, transform)
        visible, kept = _visible(sample.boxes, transform, input_size)
        boxes.append(visible)
        labels.append(sample.labels[kept])
    return Sample(canvas, np.concatenate(boxes), np.concatenate(labels), samples[0].path)


def _fitted(sample: Sample, input_size: tuple[int, int], letterbox: bool) -> Transform:
    height, width = sample.image.shape[:2]
    return Transform.fitted((width, height), input_size, letterbox)


def _paint(canvas: Image, image: Image, transform: Transform) -> None:
    """Draw the photo, resampled, on the part of the canvas that it covers (in place)."""
    height, width = image.shape[:2]
    left, right, x = _span(width, transform.scale_x, transform.left, canvas.shape[1])
    top, bottom, y = _span(height, transform.scale_y, transform.top, canvas.shape[0])
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


def _visible(
    boxes: NDArray[np.float32], transform: Transform, input_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes of the photo as they appear on the input, and which of all [N] were kept."""
    scale = np.array([transform.scale_x, transform.scale_y] * 2)
    whole = boxes * scale + np.array([transform.left, transform.top] * 2)
    cut = np.clip(whole, 0, np.array([*input_size, *input_size]))
    sides = cut[:, 2:] - cut[:, :2]
    area = (whole[:, 2:] - whole[:, :2]).prod(axis=1)
    kept = (sides >= MIN_SIDE).all(axis=1) & (sides.prod(axis=1) >= MIN_AREA * area)
    return cut[kept].astype(np.float32), kept


def _image(array: NDArray[np.generic] | cv2.typing.MatLike) -> Image:
    return np.asarray(array, np.uint8)
