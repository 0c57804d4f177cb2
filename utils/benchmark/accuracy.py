"""What mAP do networks reach on each engine, in each precision?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from import_param import Data, DataSet, Evaluation, Nms
from utils.backends.base import Engine
from utils.benchmark.latency import Candidate, Key, Row, Run, key_of
from utils.benchmark.peers import PEERS
from utils.data.datasets import ValidationDataset, validation_loader
from utils.data.photos import PhotoSet
from utils.data.splits import open_split
from utils.errors import InputError
from utils.evaluation.evaluate import evaluate


def validation_photos(candidates: Sequence[Candidate], data: DataSet) -> PhotoSet:
    """The photos that networks are measured on: a .data file's `valid`.

    Raises InputError where no network is trained, one has not as many classes, or no photo shows an
    object.
    """
    trained = [candidate for candidate in candidates if candidate.trained]
    if not trained:
        raise InputError(f"data={data.data}: expected a trained network; a .cfg has random weights")
    classes = [candidate.model.heads[0].classes for candidate in trained]
    return open_split(data, "valid", classes, expect_objects=True)


def with_mean_ap(
    candidates: Sequence[Candidate],
    found: Sequence[Row],
    opened: Mapping[Key, Run],
    photos: PhotoSet,
    evaluation: Evaluation,
    nms: Nms,
) -> list[Row]:
    """The rows with their mAP, measured through each engine.

    Networks with random weights and peers have none.
    """
    trained = {candidate.name: candidate for candidate in candidates if candidate.trained}
    measured: dict[tuple[str, ...], float] = {}  # another batch changes nothing
    for row in found:
        known = kind_of(row) in measured or row.engine in PEERS
        if row.network in trained and not known:
            candidate = trained[row.network]
            validation = ValidationDataset(photos, candidate.size, candidate.letterbox)
            metrics, _ = evaluate(
                candidate.model,
                validation_loader(validation, Data(batch_size=row.batch, workers=0)),
                validation.targets,
                evaluation,
                nms,
                letterbox=candidate.letterbox,
                run=cast(Engine, opened[key_of(row)]),
            )
            measured[kind_of(row)] = metrics.mean_ap
    return [replace(row, mean_ap=measured.get(kind_of(row), math.nan)) for row in found]


def kind_of(row: Row) -> tuple[str, ...]:
    return row.network, row.engine, row.precision
