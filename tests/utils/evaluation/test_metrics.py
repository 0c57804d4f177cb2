"""Average precision against worked cases and published numbers; its corners; its outputs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from import_param import Evaluation
from utils.errors import InputError
from utils.evaluation.metrics import (
    COCO_NAMES,
    RULES,
    Metrics,
    coco_json,
    compute_metrics,
    format_metrics,
    mean,
)
from utils.structures import Detections, Targets

Box = tuple[float, float, float, float]


def truth(*objects: tuple[int, Box], ignore: tuple[int, ...] = ()) -> Targets:
    boxes = torch.tensor([box for _, box in objects], dtype=torch.float32).reshape(-1, 4)
    return Targets(
        boxes,
        torch.tensor([label for label, _ in objects], dtype=torch.int64),
        torch.tensor([i in ignore for i in range(len(objects))], dtype=torch.bool),
        (boxes[:, 2:] - boxes[:, :2]).prod(1),
    )


def detected(*found: tuple[int, float, Box]) -> Detections:
    return Detections(
        torch.tensor([box for _, _, box in found], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([score for _, score, _ in found], dtype=torch.float32),
        torch.tensor([label for label, _, _ in found], dtype=torch.int64),
    )


def measure(
    targets: Sequence[Targets],
    detections: Sequence[Detections],
    classes: int,
    conf: float | None = None,
    **evaluation: Any,
) -> Metrics:
    return compute_metrics(targets, detections, classes, Evaluation(**evaluation), conf)


def at(place: float) -> Box:
    """A box of its own, ten pixels wide, overlapping no other integer place."""
    return (20 * place, 0.0, 20 * place + 10, 10.0)


# ---------------------------------------------------------------- worked cases


@pytest.mark.parametrize(
    ("rule", "ap"), [("coco", 11 / 101), ("voc10", 1 / 10), ("voc07", 2 / 11), ("darknet", 1 / 10)]
)
def test_one_hit_of_ten_objects(rule: str, ap: float) -> None:
    ten = truth(*((0, at(i)) for i in range(10)))
    metrics = measure([ten], [detected((0, 0.9, at(3)))], 1, rule=rule)
    assert metrics.ap[0] == pytest.approx(ap, abs=1e-12)
    assert metrics.ap_50_95[0] == pytest.approx(ap, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_perfect_is_one(rule: str) -> None:
    two = truth((0, at(0)), (1, at(1)))
    metrics = measure([two], [detected((0, 0.9, at(0)), (1, 0.8, at(1)))], 2, rule=rule)
    assert [metrics.mean_ap, metrics.mean_ap_50_95, metrics.mean_f1] == pytest.approx([1, 1, 1])
    assert metrics.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("rule", ["voc10", "voc07", "coco"])
def test_a_second_hit_is_a_false_positive(rule: str) -> None:
    found = detected((0, 0.9, at(0)), (0, 0.8, at(0)), (0, 0.7, at(1)))
    metrics = measure([truth((0, at(0)), (0, at(1)))], [found], 1, rule=rule, conf=0.1)
    assert (metrics.true_positives[0], metrics.false_positives[0]) == (2, 1)
    assert metrics.curves[0].precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert metrics.curves[0].recall.tolist() == [0.5, 0.5, 1]
    wanted = {"voc10": (1 + 2 / 3) / 2, "voc07": (6 + 5 * 2 / 3) / 11, "coco": (51 + 100 / 3) / 101}
    assert metrics.ap[0] == pytest.approx(wanted[rule], abs=1e-12)


def test_only_coco_lets_a_detection_take_its_second_choice() -> None:
    close = truth((0, (0, 0, 10, 10)), (0, (2, 0, 12, 10)))
    both = detected((0, 0.9, (0, 0, 10, 10)), (0, 0.8, (0.5, 0, 10.5, 10)))
    assert measure([close], [both], 1, rule="coco").mean_recall == 1
    voc = measure([close], [both], 1, rule="voc10", conf=0.1)
    assert voc.mean_recall == 0.5
    assert voc.confusion.tolist() == [[2, 0], [0, 0]]  # nothing is confused here


@pytest.mark.parametrize("rule", ["voc10", "coco"])
def test_objects_to_ignore_count_neither_way(rule: str) -> None:
    hard = truth((0, at(0)), (0, at(1)), ignore=(1,))
    found = detected((0, 0.9, at(1)), (0, 0.8, at(1)), (0, 0.7, at(0)))
    metrics = measure([hard], [found], 1, rule=rule, conf=0.1)
    assert metrics.objects[0] == 1
    assert (metrics.true_positives[0], metrics.false_positives[0]) == (1, 0)
    assert metrics.ap[0] == pytest.approx(1)
    assert metrics.confusion.tolist() == [[1, 0], [0, 0]]


def test_an_overlap_at_the_threshold() -> None:
    one, half = truth((0, (0, 0, 4, 4))), detected((0, 0.9, (0, 0, 4, 2)))
    for rule, ap in {"coco": 1, "voc10": 1, "darknet": 0}.items():
        assert measure([one], [half], 1, rule=rule).ap[0] == pytest.approx(ap)
    assert measure([one], [half], 1, rule="voc10", iou_thres=0.51).ap[0] == 0


@pytest.mark.parametrize("rule", RULES)
def test_ap_50_95_is_the_mean_over_ten_overlaps(rule: str) -> None:
    one, close = truth((0, (0, 0, 100, 10))), detected((0, 0.9, (0, 0, 72, 10)))  # IoU 0.72
    metrics = measure([one], [close], 1, rule=rule)
    assert metrics.ap_50_95[0] == pytest.approx(5 / 10)  # of .50, .55, .60, .65, .70


def test_a_detection_must_be_above_the_confidence() -> None:
    found = detected((0, 0.5, at(0)), (0, 0.25, at(1)))
    metrics = measure([truth((0, at(0)), (0, at(1)))], [found], 1, conf=0.25)
    assert metrics.true_positives[0] == 1
    assert metrics.confusion.tolist() == [[1, 1], [0, 0]]


def test_absent_classes_are_left_out_of_the_mean_but_not_by_darknet() -> None:
    one, found = truth((0, at(0))), detected((0, 0.9, at(0)), (1, 0.8, at(1)))
    for rule, ap in {"coco": 1, "voc10": 1, "darknet": 1 / 4}.items():
        metrics = measure([one], [found], 4, rule=rule, conf=0.1)
        assert metrics.mean_ap == pytest.approx(ap)
        assert math.isnan(metrics.precision[1])
        assert metrics.false_positives.tolist() == [0, 1, 0, 0]


def test_the_confidence_is_where_mean_f1_is_highest() -> None:
    objects = truth((0, at(0)), (0, at(1)), (1, at(2)))
    found = detected(
        *((0, 0.9, at(0)), (1, 0.8, at(2)), (0, 0.6, at(1)), (0, 0.4, at(5)), (1, 0.3, at(6)))
    )
    metrics = measure([objects], [found], 2)
    assert metrics.conf == pytest.approx(0.5)  # between the last hit and the first miss
    assert metrics.chosen
    assert metrics.f1.tolist() == [1, 1]
    given = measure([objects], [found], 2, conf=0.35)
    assert not given.chosen
    assert given.precision.tolist() == pytest.approx([2 / 3, 1])
    assert given.f1.tolist() == pytest.approx([4 / 5, 1])


@pytest.mark.parametrize(("count", "ap"), [(12, 1), (100, 1), (101, 100 / 101)])
def test_coco_looks_at_a_hundred_detections_of_a_class_and_photo(count: int, ap: float) -> None:
    crowded = truth(*((0, at(place)) for place in range(count)))
    metrics = measure([crowded], [detected(*((0, 0.9, at(place)) for place in range(count)))], 1)
    assert metrics.ap[0] == pytest.approx(ap)


def test_f1_counts_every_detection_down_to_the_confidence() -> None:
    """One hit alone: 2·1 / (3 + 1) = 0.5. Seven misses and two hits more: 2·3 / (3 + 10) = 0.46."""
    objects = truth(*((0, at(place)) for place in range(3)))
    hits = ((0, 0.95, at(0)), (0, 0.2, at(1)), (0, 0.1, at(2)))
    misses = tuple((0, 0.9 - number / 20, at(9 + number)) for number in range(7))
    metrics = measure([objects], [detected(*hits, *misses)], 1)
    assert metrics.conf == pytest.approx((0.95 + 0.9) / 2)
    assert metrics.mean_f1 == pytest.approx(0.5)


def test_confusions_cross_classes_and_the_background() -> None:
    objects = truth((0, at(0)), (1, at(1)), (1, at(2)))
    found = detected((1, 0.9, at(0)), (1, 0.8, at(1)), (0, 0.7, at(9)), (0, 0.1, at(2)))
    metrics = measure([objects], [found], 2, conf=0.5)
    assert metrics.confusion.tolist() == [[0, 1, 0], [0, 1, 1], [1, 0, 0]]


# ---------------------------------------------------------------- properties


def random_case(seed: int, classes: int, photos: int) -> tuple[list[Targets], list[Detections]]:
    random = np.random.default_rng(seed)
    targets, detections = [], []
    for _ in range(photos):
        corners = random.uniform(0, 60, (random.integers(0, 6), 2))
        boxes = np.hstack([corners, corners + random.uniform(8, 40, corners.shape)])
        labels = random.integers(0, classes, len(boxes))
        pick = random.integers(0, max(len(boxes), 1), random.integers(0, 12) if len(boxes) else 0)
        shifted = boxes[pick] + random.normal(0, 2, (len(pick), 4))
        shifted[:, 2:] = np.maximum(shifted[:, :2], shifted[:, 2:])  # at worst without area
        other = random.integers(0, classes, len(pick))
        guessed = np.where(random.random(len(pick)) < 0.7, labels[pick], other)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        crowd = random.random(len(boxes)) < 0.1
        targets.append(Targets(*map(torch.tensor, (boxes, labels, crowd, area))))
        scores = random.integers(1, 20, len(pick)) / 20
        detections.append(Detections(*map(torch.tensor, (shifted, scores, guessed))))
    return targets, detections


@given(seed=st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_our_matching_gives_the_librarys_ap(seed: int) -> None:
    metrics = measure(*random_case(seed, 3, 4), 3, rule="coco")
    for curve, objects, ap in zip(metrics.curves, metrics.objects, metrics.ap, strict=True):
        if not objects:
            assert math.isnan(ap)
            continue
        hits = np.rint(curve.recall * objects)
        points = [
            curve.precision[hits / objects >= recall].max(initial=0)
            for recall in np.linspace(0, 1, 101)
        ]
        assert np.mean(points) == pytest.approx(ap, abs=1e-12)
    assert metrics.mean_ap == pytest.approx(metrics.coco["AP50"], nan_ok=True)
    assert metrics.mean_ap_50_95 == pytest.approx(metrics.coco["AP"], nan_ok=True)


@given(seed=st.integers(0, 2**20), rule=st.sampled_from(list(RULES)))
@settings(max_examples=60, deadline=None)
def test_the_chosen_confidence_beats_every_other(seed: int, rule: str) -> None:
    targets, detections = random_case(seed, 3, 3)
    best = measure(targets, detections, 3, rule=rule)
    for conf in (0.0, 0.12, 0.33, 0.52, 0.71, 0.93):
        other = measure(targets, detections, 3, rule=rule, conf=conf)
        if not math.isnan(best.mean_f1):
            assert other.mean_f1 <= best.mean_f1 + 1e-12


@given(seed=st.integers(0, 2**20), conf=st.sampled_from([0.0, 0.3, 0.6]))
@settings(max_examples=40, deadline=None)
def test_confusions_account_for_every_object(seed: int, conf: float) -> None:
    metrics = measure(*random_case(seed, 3, 3), 3, rule="voc10", conf=conf)
    assert metrics.confusion[:3].sum(1).tolist() == metrics.objects.tolist()


def darknet_map(targets: list[Targets], detections: list[Detections], classes: int) -> float:
    """`detector map` of AlexeyAB's Darknet, its loops in plain words."""
    ranked, objects, total = [], [0] * classes, 0
    for truths, found in zip(targets, detections, strict=True):
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            best, hit = 0.5, -1
            for j, (other, real) in enumerate(zip(truths.boxes, truths.labels, strict=True)):
                inside = (torch.minimum(box, other)[2:] - torch.maximum(box, other)[:2]).clamp(0)
                both = (box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod()
                iou = float(inside.prod() / (both - inside.prod()))
                if real == label and iou > best:
                    best, hit = iou, total + j
            ranked.append((float(score), int(label), hit))
        for label in truths.labels.tolist():
            objects[label] += 1
        total += len(truths.labels)
    ranked.sort(key=lambda detection: -detection[0])
    area = 0.0
    for label in range(classes):
        curve, seen, hits, count = [(0.0, 0.0)], set(), 0, 0
        for _, which, hit in ranked:
            if which == label:
                hits, count = hits + (hit >= 0 and hit not in seen), count + 1
                seen.add(hit)
            recall = hits / objects[label] if objects[label] else 0.0
            curve.append((recall, hits / count if count else 0.0))
        last, highest = curve[-1]
        for recall, precision in reversed(curve[:-1]):
            highest = max(highest, precision)
            area += (last - recall) * highest
            last = recall
    return area / classes


@given(seed=st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_darknets_rule_is_darknets(seed: int) -> None:
    targets, detections = random_case(seed, 3, 3)
    targets = [Targets(t.boxes, t.labels, torch.zeros_like(t.ignore), t.area) for t in targets]
    metrics = measure(targets, detections, 3, rule="darknet")
    assert metrics.mean_ap == pytest.approx(darknet_map(targets, detections, 3), abs=1e-12)


# ---------------------------------------------------------------- published numbers


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def from_coco(
    annotations: list[dict[str, Any]], results: list[dict[str, Any]], images: list[int]
) -> tuple[list[Targets], list[Detections], list[int]]:
    """COCO's dictionaries → ours, and the category id of each class."""
    categories = sorted({a["category_id"] for a in annotations + results})
    label = {category: i for i, category in enumerate(categories)}

    def corners(rows: list[dict[str, Any]]) -> torch.Tensor:
        boxes = torch.tensor([r["bbox"] for r in rows], dtype=torch.float64).reshape(-1, 4)
        return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).float()

    targets, detections = [], []
    for image in images:
        real = [a for a in annotations if a["image_id"] == image]
        found = [r for r in results if r["image_id"] == image]
        targets.append(
            Targets(
                corners(real),
                torch.tensor([label[a["category_id"]] for a in real], dtype=torch.int64),
                torch.tensor([bool(a["iscrowd"]) for a in real]),
                torch.tensor([a["area"] for a in real]),
            )
        )
        scores = torch.tensor([r["score"] for r in found])
        labels = torch.tensor([label[r["category_id"]] for r in found], dtype=torch.int64)
        detections.append(Detections(corners(found), scores, labels))
    return targets, detections, categories


def test_coco_fake100(shared: Path) -> None:
    folder = shared / "peers/coco_fake100"
    real = read(folder / "instances_val2014_100.json")
    images = sorted(image["id"] for image in real["images"])  # pycocotools' order
    results = read(folder / "instances_val2014_fakebbox100_results.json")
    targets, detections, categories = from_coco(real["annotations"], results, images)
    metrics = measure(targets, detections, len(categories))
    expected = read(folder / "expected.json")
    assert tuple(expected) == COCO_NAMES
    assert metrics.coco == pytest.approx(expected, abs=1e-9)
    assert metrics.mean_ap == pytest.approx(expected["AP50"], abs=1e-9)
    assert metrics.mean_ap_50_95 == pytest.approx(expected["AP"], abs=1e-9)


def padilla(folder: Path) -> tuple[list[Targets], list[Detections]]:
    targets, detections = [], []
    for path in sorted((folder / "gts").glob("*.txt")):
        rows = [[float(x) for x in line.split()[1:]] for line in path.read_text().splitlines()]
        # Inclusive corners, as VOC's: left, top, left + width, top + height.
        targets.append(truth(*((0, (x, y, x + w, y + h)) for x, y, w, h in rows)))
        lines = (folder / "dets" / path.name).read_text().splitlines()
        scored = [[float(x) for x in line.split()[1:]] for line in lines]
        detections.append(detected(*((0, s, (x, y, x + w, y + h)) for s, x, y, w, h in scored)))
    return targets, detections


def test_padilla_case1(shared: Path) -> None:
    folder = shared / "peers/padilla_case1"
    expected = read(folder / "expected.json")
    targets, detections = padilla(folder)
    for rule, figures in (("voc10", "all_points"), ("voc07", "eleven_points")):
        for iou, ap in zip(expected["iou"], expected[figures], strict=True):
            metrics = measure(targets, detections, 1, rule=rule, iou_thres=iou, plus_one=True)
            assert metrics.ap[0] == pytest.approx(ap, abs=5e-7)  # given to six digits


def test_podm_sample(shared: Path) -> None:
    folder = shared / "peers/podm_sample"
    real = read(folder / "groundtruths_coco.json")
    results = read(folder / "detections_coco.json")
    images = sorted({row["image_id"] for row in real["annotations"] + results})
    targets, detections, categories = from_coco(real["annotations"], results, images)
    metrics = measure(targets, detections, len(categories), rule="voc10", plus_one=True, conf=0.0)
    names = {category["id"]: category["name"] for category in real["categories"]}
    expected = read(folder / "expected0_5.json")
    for i, category in enumerate(categories):
        one = expected[names[category]]
        assert metrics.objects[i] == one["num_groundtruth"]
        assert metrics.true_positives[i] == one["tp"]
        assert metrics.false_positives[i] == one["fp"]
        assert metrics.ap[i] == pytest.approx(one["ap"], abs=1e-12, nan_ok=True)
        if one["num_groundtruth"]:
            assert metrics.curves[i].precision.tolist() == pytest.approx(one["precision"])
            assert metrics.curves[i].recall.tolist() == pytest.approx(one["recall"])
    assert metrics.mean_ap == pytest.approx(expected["mAP"], abs=1e-12)


# ---------------------------------------------------------------- nothing at all


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", ["no detections", "no objects", "neither", "no photos"])
@pytest.mark.filterwarnings("error")
def test_empty_cases(rule: str, case: str) -> None:
    objects = [truth((0, at(0)))] if case == "no detections" else [truth()]
    found = [detected((0, 0.9, at(0)))] if case == "no objects" else [detected()]
    if case == "no photos":
        objects, found = [], []
    metrics = measure(objects, found, 2, rule=rule)
    table = format_metrics(metrics, ["a", "b"])
    assert "nan" not in table
    assert metrics.confusion.shape == (3, 3)
    if case == "no detections":
        assert [metrics.recall[0], metrics.precision[0], metrics.ap[0]] == [0, 0, 0]
        assert metrics.confusion[0, 2] == 1
    else:
        assert math.isnan(metrics.mean_recall)
        assert math.isnan(metrics.mean_ap) or rule == "darknet"


def test_mean_of_nothing_is_not_a_number() -> None:
    assert math.isnan(mean(np.array([])))
    assert mean(np.array([1, math.nan, 0])) == 0.5


# ---------------------------------------------------------------- errors


def test_photos_and_names_are_counted() -> None:
    with pytest.raises(InputError, match="detections of 1 photos: expected 2"):
        measure([truth(), truth()], [detected()], 1)
    with pytest.raises(InputError, match="targets of photo 0: label 3: expected 0 to 2"):
        measure([truth((3, at(0)))], [detected()], 3)
    with pytest.raises(InputError, match="1 class names: expected 2"):
        format_metrics(measure([truth()], [detected()], 2), ["a"])
    with pytest.raises(InputError, match="0 image ids: expected 1"):
        coco_json([detected()], [], [1])


# ---------------------------------------------------------------- outputs


def measured() -> Metrics:
    return measure([truth((0, at(0)))], [detected((0, 0.9, at(0)))], 2)


def test_the_table_says_what_it_means() -> None:
    table = format_metrics(measured(), ["cat", "dog"])
    lines = table.splitlines()
    assert [cell.strip() for cell in lines[1].strip("|").split("|")] == [
        *("class", "objects", "precision", "recall", "F1", "AP@.5", "AP@.5:.95")
    ]
    assert "1.000" in lines[3] and "cat" in lines[3]
    assert lines[4].count("-") == 5 and "dog" in lines[4]
    assert "mean of the 1 with objects" in lines[6]
    assert "coco rule" in lines[-1] and "confidence 0.450 (of the best mean F1)" in lines[-1]


def test_coco_json_reads_back(shared: Path) -> None:
    folder = shared / "peers/coco_fake100"
    real = read(folder / "instances_val2014_100.json")
    images = sorted(image["id"] for image in real["images"])
    results = read(folder / "instances_val2014_fakebbox100_results.json")
    _, detections, categories = from_coco(real["annotations"], results, images)
    written = json.loads(json.dumps(coco_json(detections, images, categories)))
    library = hotcoco.COCO(str(folder / "instances_val2014_100.json"))
    evaluation = hotcoco.COCOeval(library, library.load_res(written), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summary_lines()
    expected = read(folder / "expected.json")
    assert list(evaluation.stats) == pytest.approx(list(expected.values()), abs=1e-9)


def test_coco_json_is_left_top_width_height() -> None:
    (one,) = coco_json([detected(), detected((1, 0.5, (1, 2, 4, 8)))], [7, 9], [1, 90])
    assert one == {"image_id": 9, "category_id": 90, "bbox": [1, 2, 3, 6], "score": 0.5}
