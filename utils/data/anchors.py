"""Which anchors suit a data set, and how many of its objects can they reach?

Sizes and anchors are (width, height) in pixels of the network's input. The IoU of two sizes is
that of boxes with the same centre.
"""

import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError

Sizes = NDArray[np.float64]  # [N, 2]

MAX_SIZES = 10_000  # of a larger data set, so many objects are drawn at random
RESTARTS = 8  # of k-means, which finds a local optimum only
LLOYD_ITERATIONS = 30  # of k-means, at most
GENERATIONS = 600  # of the genetic search


def fit_anchors(sizes: Sizes, count: int, seed: int = 0) -> Sizes:
    """Fit anchors to the objects of a data set.

    The best of several k-means++ with 1 − IoU as the distance (YOLOv2, Redmon and Farhadi 2016,
    section 2), from there a genetic search (mutate, keep if better) for the largest mean
    best IoU. The same sizes and seed give the same anchors. Fewer different sizes than anchors are
    filled up with halved and doubled ones.

    Args:
        sizes: [N, 2], the objects' (width, height) in pixels of the network's input.
        count: how many anchors.
        seed: of all that is random.

    Returns:
        float64 [count, 2], sorted by area.

    Raises:
        InputError: there is no object, or `count` is below 1.
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    sizes = sizes[np.isfinite(sizes).all(axis=1) & (sizes > 0).all(axis=1)]
    if count < 1:
        raise InputError(f"count={count}: expected at least 1 anchor")
    if not len(sizes):
        raise InputError("anchors: no object of any size to fit them to")
    rng = np.random.default_rng(seed)
    if len(sizes) > MAX_SIZES:
        sizes = sizes[rng.choice(len(sizes), MAX_SIZES, replace=False)]
    distinct = np.unique(sizes, axis=0)
    if len(distinct) <= count:
        return _sorted(_filled_up(distinct, count))
    starts = [_k_means(sizes, distinct, count, rng) for _ in range(RESTARTS)]
    start = max(starts, key=lambda anchors: mean_best_iou(sizes, anchors))
    return _sorted(_evolve(start, sizes, rng))


def reachable_recall(sizes: Sizes, anchors: Sizes, ratio: float = 4.0) -> float:
    """Measure the share of objects that an anchor fits: within `ratio`, either way, on both sides.

    With the assignment by ratio, the others can never be learnt. NaN without objects.
    """
    if not len(sizes):
        return float("nan")
    factor = sizes[:, None] / anchors[None]  # [N, count, 2]
    worst = np.maximum(factor, 1 / factor).max(axis=2)
    return float((worst.min(axis=1) < ratio).mean())


def mean_best_iou(sizes: Sizes, anchors: Sizes) -> float:
    """Average the IoU of each object with the anchor nearest to it. NaN without objects."""
    return float(_iou(sizes, anchors).max(axis=1).mean()) if len(sizes) else float("nan")


def _iou(sizes: Sizes, anchors: Sizes) -> NDArray[np.float64]:
    """Of each object with each anchor, [N, count]."""
    common = np.minimum(sizes[:, None, 0], anchors[None, :, 0])
    common = common * np.minimum(sizes[:, None, 1], anchors[None, :, 1])
    return np.asarray(common / (sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - common))


def _k_means(sizes: Sizes, distinct: Sizes, count: int, rng: np.random.Generator) -> Sizes:
    """Cluster means, in logarithms since sizes differ by factors; an empty cluster stays put."""
    anchors = distinct[rng.integers(len(distinct), size=1)]
    while len(anchors) < count:  # k-means++: far ones are likelier; none is drawn twice
        far = (1 - _iou(distinct, anchors).max(axis=1)).clip(min=0) ** 2 + 1e-12
        anchors = np.vstack([anchors, distinct[rng.choice(len(distinct), p=far / far.sum())]])
    logs = np.log(sizes)
    for _ in range(LLOYD_ITERATIONS):
        nearest = _iou(sizes, anchors).argmax(axis=1)
        members = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, logs[:, i], count) for i in (0, 1)], axis=1)
        means = np.exp(sums / members.clip(min=1)[:, None])
        moved = np.where(members[:, None] > 0, means, anchors)
        if np.allclose(moved, anchors):
            break
        anchors = moved
    return anchors


def _evolve(anchors: Sizes, sizes: Sizes, rng: np.random.Generator) -> Sizes:
    """Mutate half of the sides by 2 or 10 per cent, and keep what raises the mean best IoU."""
    best = mean_best_iou(sizes, anchors)
    for _ in range(GENERATIONS):
        changed = rng.random(anchors.shape) < 0.5
        mutant = anchors * np.exp(changed * rng.normal(0, rng.choice([0.02, 0.1]), anchors.shape))
        fitness = mean_best_iou(sizes, mutant)
        if fitness > best:
            anchors, best = mutant, fitness
    return anchors


def _filled_up(distinct: Sizes, count: int) -> Sizes:
    """All the sizes there are, then all of them doubled, halved, four times as large, and so on."""
    octaves = [0, *(sign * step for step in range(1, count) for sign in (1, -1))]
    return np.concatenate([distinct * 2.0**octave for octave in octaves])[:count]


def _sorted(anchors: Sizes) -> Sizes:
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
