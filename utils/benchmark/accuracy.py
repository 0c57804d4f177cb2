"""What mAP do networks reach on each engine, in each precision?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from import_param import Data, DataSet, Evaluation, Nms
from utils.backends.base import Engine
from utils.backends.exported import thresholds
from utils.benchmark.latency import Row
from utils.benchmark.networks import Candidate, Key, PeerNetwork, Run
from utils.console.progress import track
from utils.data.datasets import ValidationDataset, validation_loader
from utils.data.photos import PhotoSet
from utils.data.splits import open_split
from utils.errors import InputError
from utils.evaluation.evaluate import evaluate


def validation_photos(candidates: Sequence[Candidate], data: DataSet) -> PhotoSet:
    """The photos that networks are measured on: a .data file's `valid`.

    Raises:
        InputError: no network is trained, one has not as many classes, or no photo shows an object.
    """
    trained = [candidate for candidate in candidates if candidate.trained]
    if not trained:
        raise InputError(f"data={data.data}: expected a trained network; a .cfg has random weights")
    names = {candidate.name: candidate.names for candidate in trained}
    return open_split(data, "valid", names, expect_objects=True)


def with_mean_ap(
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    opened: Mapping[Key, Run],
    photos: PhotoSet,
    evaluation: Evaluation,
    nms: Nms,
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> list[Row]:
    """The rows with their mAP; networks with random weights and peers have none.

    Args:
        candidates: the networks that the rows are about.
        rows: what was measured before.
        opened: what runs the network of each row.
        photos: with their labels.
        evaluation: how AP is taken.
        nms: which proposals become detections.
        keep: gets the rows after each evaluation.
    """

    def known() -> list[Row]:
        return [replace(row, mean_ap=mean_aps.get(_without_batch(row), math.nan)) for row in rows]

    trained = {candidate.name: candidate for candidate in candidates if candidate.trained}
    mean_aps: dict[tuple[str, ...], float] = {}  # another batch changes nothing
    for row in track(rows, "mAP of each network"):
        run = opened[row.key]
        is_known = _without_batch(row) in mean_aps or isinstance(run, PeerNetwork)
        if row.network in trained and not is_known:
            candidate = trained[row.network]
            validation = ValidationDataset(photos, candidate.size, candidate.letterbox)
            metrics, _ = evaluate(
                candidate.model,
                validation_loader(validation, Data(batch_size=row.batch, workers=0)),
                validation.targets,
                evaluation,
                thresholds(candidate.model, nms),
                letterbox=candidate.letterbox,
                run=cast(Engine, run),
            )
            mean_aps[_without_batch(row)] = metrics.mean_ap
            keep(known())
    return known()


def _without_batch(row: Row) -> tuple[str, ...]:
    return row.network, row.engine, row.precision, row.device
