"""How does a data set become the photos of a split, checked and told about?"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from import_param import DataSet
from utils.console.progress import say
from utils.data.classes import match_classes
from utils.data.definition import DataDefinition
from utils.data.demo_data import make_if_demo
from utils.data.labels.record import Problem, Record
from utils.data.photos import PhotoSet
from utils.data.recognition import recognise
from utils.data.remembered import RememberedPhotos
from utils.data.sources import Entry, Records, find_photos
from utils.data.validation import check, shared_photos
from utils.data.views import View
from utils.errors import InputError
from utils.fonts import missing_letters
from utils.images import MAX_MEGAPIXELS
from utils.processes import distributed

Split = Literal["train", "valid"]

LEAST_REMEMBERED = 500  # photos; fewer are decoded in a second or two


def open_definition(settings: DataSet, splits: Sequence[Split] = ()) -> DataDefinition:
    """What `data` means; the demo set is made where it is asked for and missing.

    Args:
        settings: the data set.
        splits: those that it must name the photos of, which is asked before any are read.

    Raises:
        InputError: it is no data set, or a split has no photos named, or ones that do not exist.
    """
    with distributed.one_a_machine_first():
        make_if_demo(settings.data)
    definition = recognise(Path(settings.data))
    for note in definition.notes:
        say(f"note: {note}")
    for split in splits:
        definition.sources(split)
    if note := missing_letters(definition.names):
        say(f"note: {note}")
    return definition


def open_split(
    settings: DataSet,
    split: Split,
    networks: Mapping[str, Sequence[str]] | None = None,
    expect_objects: bool = False,
    definition: DataDefinition | None = None,
    view: View | None = None,
    decode_all: bool = False,
) -> PhotoSet:
    """Read one split of a data set, check it, and print the report.

    The demo set is made where it is asked for and missing.

    Args:
        settings: the `.data` file, and whether bad labels are left out or refused.
        split: which of its photos.
        networks: that are to see the photos: what each is called in messages, and its class names.
        expect_objects: refuse photos that show no object, since there would be no mAP.
        definition: what `settings.data` means, where that is known already.
        view: what the photos are read for; only that is kept in memory, where it is smaller.
        decode_all: decode also the photos that are remembered.

    Raises:
        InputError: the data set's classes cannot be a network's, no photo can be used, there is
            nothing to train on or to measure, or labels are bad and to be refused.
    """
    definition = definition or open_definition(settings)
    for place, names in (networks or {}).items():
        if note := match_classes(names, definition.names, str(definition.path), place):
            say(f"note: {note}; the data set's names are used")
    photos = load_split(
        definition,
        split,
        settings.cache_mb,
        max_megapixels=settings.max_megapixels,
        view=view,
        decode_all=decode_all,
    )
    say(photos.report.text())
    photos.report.accept(settings.bad_labels)
    if expect_objects and not sum(photos.report.objects):
        raise InputError(f"{settings.data}: no object in the photos to measure: there is no mAP")
    return photos


def open_splits(
    settings: DataSet,
    networks: Mapping[str, Sequence[str]] | None = None,
    views: tuple[View | None, View | None] = (None, None),
    decode_all: bool = False,
) -> tuple[PhotoSet, PhotoSet]:
    """The photos to train and to validate on, as `open_split` gives them.

    They share the memory for decoded photos, which the first fill first; photos that are in both
    are told.
    """
    definition = open_definition(settings, ("train", "valid"))
    with distributed.one_a_machine_first():  # the others find there what it has seen
        train = open_split(
            settings,
            "train",
            networks,
            definition=definition,
            view=views[0],
            decode_all=decode_all,
        )
        left = replace(
            settings, cache_mb=max(0, int(settings.cache_mb - train.report.cached_bytes / 2**20))
        )
        valid = open_split(
            left,
            "valid",
            expect_objects=True,
            definition=definition,
            view=views[1],
            decode_all=decode_all,
        )
    if both := shared_photos(train, valid):
        say(f"note: {len(both)} photos to validate on are trained on too, such as {both[0]}")
    return train, valid


def load_split(
    definition: DataDefinition,
    split: Split,
    cache_mb: float = 0,
    progress: bool = True,
    max_megapixels: float = MAX_MEGAPIXELS,
    view: View | None = None,
    decode_all: bool = False,
) -> PhotoSet:
    """Read and check one split, without a word.

    Raises:
        InputError: no photo is left, or none with an object to train on.
    """
    entries: list[Entry] = []
    names = definition.label_names or definition.names
    for source in definition.sources(split):
        entries += find_photos(source, names, definition.images, definition.format, progress)
    if definition.valid_part:
        entries = of_part(entries, definition.valid_part, split)
    chosen = partial(of_classes, names=names, chosen=definition.names)
    records = Records(entries, names, chosen if definition.label_names else None)
    listed = [entry.image for entry in entries if entry.is_photo]
    photos = check(
        records,
        definition.names,
        split,
        cache_mb,
        progress,
        max_megapixels,
        view,
        _remembered(definition, split, max_megapixels, decode_all)
        if len(listed) >= LEAST_REMEMBERED
        else None,
    )
    if definition.valid_part and not listed:
        other = "valid" if split == "train" else "train"
        raise InputError(
            f"{definition.path}: {split}: no photo is left for it, since the names of all put them "
            f"into {other}: expected more photos, or photos named for each"
        )
    if split == "train" and not sum(photos.report.objects):
        raise InputError(
            f"{definition.path}: no sound label in the {len(listed)} photos to train on"
            + (f", of which the first is {listed[0]}" if listed else "")
            + photos.report.hint()
        )
    if not len(photos):
        raise InputError(
            f"{definition.path}: {split}: none of {len(listed)} photos can be used"
            + photos.report.hint()
        )
    return replace(photos, mirror=definition.mirror)


def _remembered(
    definition: DataDefinition, split: Split, max_megapixels: float, decode_all: bool
) -> RememberedPhotos:
    """What was seen of a split's photos before, or with `decode_all` only what will be."""
    key = (str(definition.path.resolve()), split, max_megapixels)
    return RememberedPhotos.empty(*key) if decode_all else RememberedPhotos.open(*key)


def of_part(records: Sequence[Entry], part: tuple[float, float], split: Split) -> list[Entry]:
    """The photos of one split, where a part of all photos is for validation.

    A photo's name decides, by a hash, so that it stays in its split when others come; copies that a
    tool made of one photo (Roboflow's `name.rf.<hash>.jpg`) stay together. What is told of no photo
    stays with the training photos.
    """
    places = {record.image: _place(record.image) for record in records if record.is_photo}
    start, end = part
    valid = {path for path, place in places.items() if start <= place < end}
    if not valid and not start and len(places) > 1:
        valid = {min(places, key=places.__getitem__)}
    return [record for record in records if (record.image in valid) == (split == "valid")]


def _place(photo: Path) -> float:
    """A number from 0 to below 1 that a photo's name alone decides."""
    name = photo.stem.partition(".rf.")[0]
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:6]) / 2**48


def of_classes(record: Record, names: Sequence[str], chosen: Sequence[str]) -> Record:
    """The record with the labels of the chosen classes alone, numbered anew.

    Args:
        record: with labels that number `names`.
        names: all classes.
        chosen: some of them.
    """
    numbers = {names.index(name): number for number, name in enumerate(chosen)}
    known = (record.labels >= 0) & (record.labels < len(names))
    keep = ~known | np.isin(record.labels, list(numbers))  # what is out of range is told as such
    renumbered = [numbers.get(int(label), len(chosen)) for label in record.labels[keep]]
    problems = [
        Problem("class left out", record.where(index), names[record.labels[index]])
        for index in np.flatnonzero(~keep).tolist()
    ]
    return replace(
        record,
        boxes=record.boxes[keep],
        labels=np.array(renumbered, np.int64),
        ignore=record.ignore[keep],
        area=record.area[keep],
        lines=record.lines[keep],
        problems=(*record.problems, *problems),
        category_ids=None
        if record.category_ids is None
        else tuple(record.category_ids[names.index(name)] for name in chosen),
    )
