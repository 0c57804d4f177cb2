"""How good are detections? Precision, recall, average precision and confusions.

Rules (`RULES`); all rank the detections of a class by score, over all photos:

- ``coco``: of the objects of its class that are still free, a detection claims the one that it
  overlaps most; AP is the mean of the precision envelope at 101 recalls; the best 100 detections of
  a class and photo count. Objects to ignore are COCO's crowds: any number of detections may lie in
  one, by intersection over the *detection's* area, and none of them counts.
- ``voc10`` (area under the envelope, VOC 2010 and later) and ``voc07`` (mean envelope at the 11
  recalls 0, .1, … 1): a detection claims only the object that it overlaps most, and a second hit
  on one object is a false positive. Detections of an object to ignore (`difficult`) do not count.
- ``darknet``: what Darknet's `detector map` prints: voc10, but the overlap must be *above* the
  threshold and classes without objects count as 0 in the mean. It runs at confidence 0.005 and
  NMS 0.45. What is not imitated: older Darknets lost the first detection of the whole ranking (with
  n objects of its class and C classes, their mAP is 1 / (n·C) lower), and its list of difficult
  objects is looked at only where no other object is hit.

Sources: Everingham et al., The PASCAL VOC Challenge (IJCV 2010), section 4.2, and its devkit;
cocoapi's cocoeval.py; AlexeyAB/darknet, src/detector.c, validate_detector_map.

COCO's figures come from hotcoco. On 5,000 photos × 100 detections × 80 classes it takes 0.3 s where
faster-coco-eval takes 7.5 s (4.7 of them to build its dictionaries); both give the 12 numbers of
coco_fake100. It is MIT, needs only numpy, and has wheels for every Python from 3.10. It is also
young and one person's work: so only `_coco_library` knows it, and tests hold its AP@.5 against
our own matching and its 12 numbers against published ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from terminaltables import AsciiTable

from import_param import COCO_IOUS, Evaluation
from utils.errors import InputError
from utils.evaluation.matching import (
    Bools,
    CandidatePairs,
    Floats,
    GroundTruth,
    Ints,
    Matches,
    MatchingRule,
    RankedDetections,
    candidate_pairs,
    match,
)
from utils.structures import Detections, Targets

RULES = {
    "coco": MatchingRule(second_choice=True, crowds=True),
    "voc10": MatchingRule(),
    "voc07": MatchingRule(),
    "darknet": MatchingRule(strict=True),
}
IOUS = np.linspace(0.5, 0.95, 10)  # COCO's thresholds, .50:.95
COCO_LIMIT = 100  # detections of one class on one photo that COCO looks at
COCO_NAMES = (
    *("AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge"),
    *("AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge"),
)


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of one class as the confidence falls, a point for each detection.

    Attributes:
        recall, precision, scores: float64 [K], best score first. recall is NaN without objects.
    """

    recall: Floats
    precision: Floats
    scores: Floats


@dataclass(frozen=True, eq=False)
class Metrics:
    """How good detections are. Arrays are [C], one entry a class, NaN where nothing is defined.

    Attributes:
        rule, iou_thres: how they were measured.
        conf: the confidence that a detection must be above for `precision`, `recall`, `f1`, the
            positives and `confusion`.
        chosen: whether `conf` was chosen as the one with the highest mean F1, or given.
        objects: int64, how many there are to find, without those to ignore.
        true_positives, false_positives: int64, at `conf`. precision, recall, f1: at `conf`;
            precision is 0 where nothing was detected.
        ap: average precision at `iou_thres`; ap_50_95: its mean over IoU .50, .55, … .95.
        curves: C curves at `iou_thres`, over all detections given.
        confusion: int64 [C + 1, C + 1], rows the ground truth, columns the prediction; the last of
            each is the background: missed objects, and detections of nothing.
        coco: COCO's 12 figures by name (NaN where no object is in the range) with the rule `coco`,
            else empty.
    """

    rule: str
    iou_thres: float
    conf: float
    chosen: bool
    objects: Ints
    true_positives: Ints
    false_positives: Ints
    precision: Floats
    recall: Floats
    f1: Floats
    ap: Floats
    ap_50_95: Floats
    curves: tuple[Curve, ...]
    confusion: Ints
    coco: dict[str, float]

    @property
    def mean_precision(self) -> float:
        """Over the classes with objects."""
        return mean(self.precision)

    @property
    def mean_recall(self) -> float:
        """Over the classes with objects."""
        return mean(self.recall)

    @property
    def mean_f1(self) -> float:
        """Over the classes with objects."""
        return mean(self.f1)

    @property
    def mean_ap(self) -> float:
        """The mAP at `iou_thres`."""
        return mean(self.ap)

    @property
    def mean_ap_50_95(self) -> float:
        """The mAP over IoU .50, .55, … .95."""
        return mean(self.ap_50_95)


def mean(values: Floats) -> float:
    """The mean over the classes for which a value is defined; NaN where there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def compute_metrics(
    targets: Sequence[Targets],
    detections: Sequence[Detections],
    num_classes: int,
    evaluation: Evaluation,
    conf: float | None = None,
) -> Metrics:
    """Measure the detections of photos against the ground truth, both in the photos' pixels.

    Give all detections down to a confidence of 0.001: a higher threshold lowers AP.

    Args:
        targets: the ground truth of each photo.
        detections: the detections of each photo, in the same order.
        num_classes: how many classes there are; labels are below it.
        evaluation: the rule (explained at the head of this module) and the overlap for a hit.
            `plus_one` is VOC's own overlap, which takes both corners as pixels inside the box and
            so counts a width as right - left + 1. It is only for boxes that are given so: ours,
            where pixel i reaches from i to i + 1, already have the full width.
        conf: where to state precision, recall, F1 and confusions. None chooses the confidence at
            which the F1 score, averaged over the classes with objects, is highest: half-way between
            the last detection that it lets in and the next.

    Raises:
        InputError: a label is no class, a box or score no number, or a photo has no detections.
    """
    rule, iou_thres = evaluation.rule, evaluation.iou_thres
    matching = replace(RULES[rule], plus_one=evaluation.plus_one)
    truth = GroundTruth.of(targets, num_classes)
    if len(detections) != len(targets):
        raise InputError(f"detections of {len(detections)} photos: expected {len(targets)}")
    ranked = RankedDetections.of(detections, num_classes)
    if rule == "coco":
        ranked = ranked.limit(num_classes, COCO_LIMIT)
    pairs = candidate_pairs(ranked, truth, matching, num_classes)
    matches = match(pairs, ranked, truth, iou_thres, matching)
    objects = np.bincount(truth.labels[~truth.ignore], minlength=num_classes)
    curves = _curves(ranked, matches, objects)
    coco: dict[str, float] = {}
    if rule == "coco":
        ap_by_iou, coco = _coco_library(truth, ranked, len(targets), num_classes)
        ap = ap_by_iou[COCO_IOUS.index(iou_thres)]
    else:
        ap_by_iou = np.stack(
            [_ap(pairs, ranked, truth, objects, iou, rule, matching) for iou in IOUS]
        )
        ap = _average_precisions(curves, objects, rule)
    threshold = _best_confidence(ranked, matches, objects) if conf is None else conf
    taken = ranked.scores > threshold
    hits = np.bincount(ranked.labels[taken & matches.hit], minlength=num_classes)
    counted = np.bincount(ranked.labels[taken & ~matches.ignored], minlength=num_classes)
    return Metrics(
        rule=rule,
        iou_thres=iou_thres,
        conf=threshold,
        chosen=conf is None,
        objects=objects,
        true_positives=hits,
        false_positives=counted - hits,
        precision=np.where(objects > 0, hits / np.maximum(counted, 1), np.nan),
        recall=np.where(objects > 0, hits / np.maximum(objects, 1), np.nan),
        f1=np.where(objects > 0, 2 * hits / np.maximum(objects + counted, 1), np.nan),
        ap=ap,
        ap_50_95=ap_by_iou.mean(0),
        curves=curves,
        confusion=_confusion(ranked.select(taken), truth, iou_thres, matching, num_classes),
        coco=coco,
    )


def _curves(ranked: RankedDetections, matches: Matches, objects: Ints) -> tuple[Curve, ...]:
    counted = np.flatnonzero(~matches.ignored)
    counted = counted[np.argsort(ranked.labels[counted], kind="stable")]
    ends = np.searchsorted(ranked.labels[counted], np.arange(len(objects)), "right")
    classes = np.split(counted, ends)[: len(objects)]
    return tuple(
        _curve(matches.hit[members], ranked.scores[members], total)
        for members, total in zip(classes, objects.tolist(), strict=True)
    )


def _curve(hit: Bools, scores: Floats, objects: int) -> Curve:
    hits = np.cumsum(hit)
    recall = hits / objects if objects else np.full(len(hits), np.nan)
    return Curve(recall, hits / np.arange(1, len(hits) + 1), scores)


def envelope(precision: Floats) -> Floats:
    """The highest precision at this recall or a higher one."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def _area(curve: Curve) -> float:
    return float(np.diff(curve.recall, prepend=0) @ envelope(curve.precision))


def _eleven_points(curve: Curve) -> float:
    # linspace's 0.6 lies above 9 / 15. So it does in the code that published numbers come from.
    reached = np.searchsorted(curve.recall, np.linspace(0, 1, 11))
    return float(np.append(envelope(curve.precision), 0.0)[reached].mean())


AVERAGE_PRECISION = {"voc10": _area, "voc07": _eleven_points, "darknet": _area}


def _average_precisions(curves: tuple[Curve, ...], objects: Ints, rule: str) -> Floats:
    average = AVERAGE_PRECISION[rule]
    absent = 0.0 if rule == "darknet" else float("nan")
    classes = zip(curves, objects.tolist(), strict=True)
    return np.array([average(curve) if n else absent for curve, n in classes], np.float64)


def _ap(
    pairs: CandidatePairs,
    ranked: RankedDetections,
    truth: GroundTruth,
    objects: Ints,
    iou_thres: float,
    rule: str,
    matching: MatchingRule,
) -> Floats:
    matches = match(pairs, ranked, truth, iou_thres, matching)
    return _average_precisions(_curves(ranked, matches, objects), objects, rule)


def _coco_library(
    truth: GroundTruth, ranked: RankedDetections, photos: int, num_classes: int
) -> tuple[Floats, dict[str, float]]:
    """By hotcoco: AP [10 overlaps, C] and the 12 figures."""
    import hotcoco

    real = hotcoco.COCO.from_arrays(
        [{"id": photo} for photo in range(photos)],
        [{"id": label, "name": str(label)} for label in range(num_classes)],
        truth.photo,
        truth.labels,
        _xywh(truth.boxes),
        area=truth.area,
        iscrowd=truth.ignore.astype(np.int64),
    )
    boxes = _xywh(ranked.boxes)
    table = np.column_stack([ranked.photo, boxes, ranked.scores, ranked.labels])  # [D, 7]
    evaluation = hotcoco.COCOeval(real, real.load_res(table), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summary_lines()  # computes `stats`, and unlike summarize() prints nothing
    computed = evaluation.eval
    if computed is None:
        raise RuntimeError("hotcoco gave no result")
    precision = computed["precision"][:, :, :, 0, -1].mean(1)  # objects of any area
    figures = zip(COCO_NAMES, (float(figure) for figure in evaluation.stats), strict=True)
    # hotcoco says -1 where there is no object.
    return (
        np.where(precision < 0, np.nan, precision),
        {name: float("nan") if figure < 0 else figure for name, figure in figures},
    )


def _xywh(boxes: Floats) -> Floats:
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def _best_confidence(ranked: RankedDetections, matches: Matches, objects: Ints) -> float:
    """The confidence at which F1, averaged over the classes with objects, is highest.

    Exact, over all detections: letting in one more changes only the F1 of its own class.
    """
    counted = ~matches.ignored & (objects[ranked.labels] > 0)
    labels, hit, scores = ranked.labels[counted], matches.hit[counted], ranked.scores[counted]
    if not len(scores):
        return 0.0
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])  # where the class begins
    place = np.arange(len(order)) - first
    running = np.append(0, np.cumsum(hit[order]))
    f1 = 2 * (running[1:] - running[first]) / (objects[labels[order]] + place + 1)
    change = np.empty(len(order))
    change[order] = f1 - np.where(place == 0, 0, np.roll(f1, 1))
    below = np.append(scores[1:], 0.0)
    total = np.where(scores > below, np.cumsum(change), -np.inf)  # equal scores come in together
    best = int(total.argmax())
    return float(scores[best] + below[best]) / 2


def _confusion(
    ranked: RankedDetections,
    truth: GroundTruth,
    iou_thres: float,
    matching: MatchingRule,
    num_classes: int,
) -> Ints:
    """[C + 1, C + 1]: a detection claims the free object, of any class, that it overlaps most."""
    matching = replace(matching, second_choice=True)
    pairs = candidate_pairs(ranked, truth, matching, None)
    matches = match(pairs, ranked, truth, iou_thres, matching)
    true_labels = np.full(len(ranked.labels), num_classes)
    true_labels[matches.hit] = truth.labels[matches.truth[matches.hit]]
    counted = ~matches.ignored
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(matrix, (true_labels[counted], ranked.labels[counted]), 1)
    missed = ~truth.ignore
    missed[matches.truth[matches.hit]] = False
    matrix[:num_classes, num_classes] = np.bincount(truth.labels[missed], minlength=num_classes)
    return matrix


def format_metrics(metrics: Metrics, names: Sequence[str]) -> str:
    """A table: a row for each class, and their mean; "-" where nothing is defined."""
    check_names(metrics, names)
    iou = f"{metrics.iou_thres:g}".removeprefix("0")
    header = ["class", "objects", "precision", "recall", "F1", f"AP@{iou}", "AP@.5:.95"]
    columns = [metrics.precision, metrics.recall, metrics.f1, metrics.ap, metrics.ap_50_95]
    rows = [
        [name, str(objects), *(_figure(column[label]) for column in columns)]
        for label, (name, objects) in enumerate(zip(names, metrics.objects, strict=True))
    ]
    last = [_mean_name(metrics), str(metrics.objects.sum()), *(_figure(mean(c)) for c in columns)]
    table = AsciiTable([header, *rows, last])
    table.inner_footing_row_border = True
    table.justify_columns = dict.fromkeys(range(1, len(header)), "right")
    how = "of the best mean F1" if metrics.chosen else "as asked"
    return (
        f"{table.table}\n{metrics.rule} rule; precision, recall and F1 at IoU {iou} and "
        f"confidence {metrics.conf:.3f} ({how})"
    )


def check_names(metrics: Metrics, names: Sequence[str]) -> None:
    """Refuse names of which there are not as many as classes."""
    if len(names) != len(metrics.objects):
        raise InputError(f"{len(names)} class names: expected {len(metrics.objects)}")


def _figure(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _mean_name(metrics: Metrics) -> str:
    present, total = int((metrics.objects > 0).sum()), len(metrics.objects)
    if present == total:
        return "mean"
    if metrics.rule == "darknet":
        return f"mean of the {present} with objects (AP: of all {total})"
    return f"mean of the {present} with objects"


def coco_json(
    detections: Sequence[Detections], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Detections in COCO's results format: boxes as left, top, width, height in pixels.

    Boxes are rounded to a thousandth of a pixel, which is finer than float32 is for large photos.

    Args:
        detections: those of each photo.
        image_ids: one for each photo.
        category_ids: COCO's id of each of our classes.

    Raises:
        InputError: there are not as many ids as photos, or detections that are none.
    """
    if len(image_ids) != len(detections):
        raise InputError(f"{len(image_ids)} image ids: expected {len(detections)}")
    ranked = RankedDetections.of(detections, len(category_ids))
    ranked = ranked.select(np.argsort(ranked.photo, kind="stable"))
    columns = (ranked.photo, ranked.labels, _xywh(ranked.boxes).round(3), ranked.scores)
    return [
        {
            "image_id": image_ids[photo],
            "category_id": category_ids[label],
            "bbox": box,
            "score": score,
        }
        for photo, label, box, score in zip(*(c.tolist() for c in columns), strict=True)
    ]
