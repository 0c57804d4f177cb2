"""From a batch to detections in the photos' own pixels, and to their metrics."""

import math

import pytest
import torch
from torch import Tensor

from import_param import Evaluation, Nms, TrainedNetwork
from models.darknet import Darknet
from utils.boxes import InputTransform, network_input
from utils.checkpoint.network import load_network
from utils.errors import InputError
from utils.evaluation.evaluate import detect_all, evaluate, predict
from utils.structures import Batch, Targets

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)
NMS = Nms(conf_thres=0.25, nms_thres=0.45, max_detections=0)
SIZE = (128, 96)  # of the photos, pixels


@pytest.fixture
def model(colour_weights: str) -> Darknet:
    """Finds a box of 20×20 of the input's 64×64 pixels in the middle of each coloured cell."""
    return load_network(TrainedNetwork(weights=colour_weights)).model


def batch(*colours: tuple[int, int, int], letterbox: bool = False) -> Batch:
    """Photos of one colour each."""
    photos = [torch.tensor(rgb, dtype=torch.uint8).expand(SIZE[1], SIZE[0], 3) for rgb in colours]
    images = torch.stack([network_input(photo.numpy(), (64, 64), letterbox) for photo in photos])
    nothing = torch.zeros(0, dtype=torch.int64)
    count = len(colours)
    return Batch(images, torch.zeros(0, 4), nothing, nothing, ("",) * count, (SIZE,) * count)


def in_cells(letterbox: bool) -> Tensor:
    """The four boxes that the network finds on a coloured photo, in the photo's pixels."""
    centres = torch.tensor([[x, y, x, y] for y in (16.0, 48.0) for x in (16.0, 48.0)])
    boxes = centres + torch.tensor([-10.0, -10, 10, 10])
    photo = InputTransform.of(SIZE, (64, 64), letterbox).to_photo(boxes)
    return photo.clamp(min=0).minimum(torch.tensor([*SIZE, *SIZE]))


@pytest.mark.parametrize("letterbox", [False, True])
def test_boxes_are_in_pixels_of_the_photo_and_cut_to_it(model: Darknet, letterbox: bool) -> None:
    images = batch(BLUE, letterbox=letterbox)
    (detections,) = predict(model, images.images, [SIZE], NMS, letterbox=letterbox)
    expected = in_cells(letterbox)
    blue = detections.boxes[detections.labels == 2]
    order = (blue[:, 1].round() * 1000 + blue[:, 0]).argsort()
    torch.testing.assert_close(blue[order], expected, atol=1e-3, rtol=0)


def test_the_input_need_not_be_square(model: Darknet) -> None:
    photo = torch.tensor(RED, dtype=torch.uint8).expand(SIZE[1], SIZE[0], 3).numpy()
    images = network_input(photo, (96, 64), letterbox=False)[None]
    (detections,) = predict(model, images, [SIZE], NMS, letterbox=False)
    widths, heights = (detections.boxes[:, 2:] - detections.boxes[:, :2]).T
    assert len(detections) == 3 * 2  # cells of 32 pixels
    assert widths.tolist() == pytest.approx([20 * 128 / 96] * 6)
    assert heights.tolist() == pytest.approx([20 * 96 / 64] * 6)


def test_photos_keep_their_order_across_batches(model: Darknet) -> None:
    loader = [batch(RED, BLACK), batch(BLUE)]
    detections = detect_all(model, loader, NMS, letterbox=False)
    assert [sorted(each.labels.tolist()) for each in detections] == [[0] * 4, [], [2] * 4]


def test_the_settings_of_nms_reach_it(model: Darknet) -> None:
    images = batch(RED)
    for nms, count in (
        (Nms(0.25, 0.45, 3), 3),
        (Nms(0.25, 0.45, 0), 4),
        (Nms(1.0, 0.45, 0), 0),
        (Nms(0.0, 0.45, 0), 12),  # also of the classes that hardly score
    ):
        (detections,) = predict(model, images.images, [SIZE], nms, letterbox=False)
        assert len(detections) == count


def test_an_engine_computes_the_maps_and_its_end_is_told_before_nms(model: Darknet) -> None:
    told: list[str] = []

    def engine(images: Tensor) -> list[Tensor]:
        assert images.is_contiguous(memory_format=torch.channels_last)
        told.append("maps")
        return [raw.clone() for raw in model(images.flip(1))]  # it sees red as blue

    (detections,) = predict(
        model,
        batch(RED).images,
        [SIZE],
        NMS,
        letterbox=False,
        run=engine,
        on_network_done=lambda: told.append("done"),
    )
    assert told == ["maps", "done"]
    assert detections.labels.tolist() == [2] * 4


def test_nms_is_that_of_the_last_head(model: Darknet) -> None:
    both = torch.zeros(1, 8, 2, 2)
    both[:, 4:6] = 5.0  # red everywhere
    both[:, 2:4] = 1.2  # so large that boxes side by side overlap by 0.35 of their union
    overlapping = Nms(0.25, 0.3, 0)

    def detect() -> int:
        (detections,) = predict(
            model, batch(RED).images, [(64, 64)], overlapping, letterbox=False, run=lambda _: [both]
        )
        return len(detections)

    by_iou = detect()
    object.__setattr__(model.heads[-1], "nms_power", 0.6)
    assert detect() > by_iou  # less the distance between centres, they overlap by less


def test_a_data_set_is_detected_on_and_measured(model: Darknet) -> None:
    boxes = in_cells(letterbox=False)
    labels = torch.tensor([0, 0, 0, 0])
    targets = Targets(boxes, labels, labels > 0, (boxes[:, 2:] - boxes[:, :2]).prod(1))
    loader = [batch(RED), batch(BLUE)]
    metrics, detections = evaluate(
        model, loader, [targets, targets], Evaluation("voc10"), NMS, letterbox=False
    )
    assert [len(each) for each in detections] == [4, 4]
    assert metrics.objects.tolist() == [8, 0, 0]
    assert metrics.ap[0] == pytest.approx(0.5)  # of the blue photo, none is red
    _, through_engine = evaluate(
        model,
        loader,
        [targets, targets],
        Evaluation("voc10"),
        NMS,
        letterbox=True,
        run=lambda images: model(images.flip(1)),
    )
    assert [set(each.labels.tolist()) for each in through_engine] == [{2}, {0}]
    assert not torch.equal(through_engine[0].boxes, detections[0].boxes)  # letterboxed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(model: Darknet, value: float) -> None:
    def run(images: Tensor) -> list[Tensor]:
        return [torch.full_like(raw, value) for raw in model(images)]

    photo = batch((255, 0, 0))
    with pytest.raises(InputError, match=f"computes {value}"):
        predict(model, photo.images, photo.sizes, Nms(), letterbox=False, run=run)
