"""How does a data set become the photos of a split, checked and told about?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from import_param import DataSet
from utils.data.classes import match_classes
from utils.data.definition import DataDefinition, read_data
from utils.data.demo_data import make_if_demo
from utils.data.labels.record import Record
from utils.data.photos import PhotoSet
from utils.data.sources import read_source
from utils.data.validation import check, shared_photos
from utils.errors import InputError
from utils.images import MAX_MEGAPIXELS

Split = Literal["train", "valid"]


def open_split(
    settings: DataSet,
    split: Split,
    networks: Mapping[str, Sequence[str]] | None = None,
    expect_objects: bool = False,
) -> PhotoSet:
    """Read one split of a data set, check it, and print the report.

    The demo set is made where it is asked for and missing.

    Args:
        settings: the `.data` file, and whether bad labels are left out or refused.
        split: which of its photos.
        networks: that are to see the photos: what each is called in messages, and its class names.
        expect_objects: refuse photos that show no object, since there would be no mAP.

    Raises:
        InputError: the data set's classes cannot be a network's, no photo can be used, there is
            nothing to train on or to measure, or labels are bad and to be refused.
    """
    make_if_demo(settings.data)
    definition = read_data(settings.data)
    for place, names in (networks or {}).items():
        if note := match_classes(names, definition.names, str(definition.path), place):
            print(f"note: {note}; the data set's names are used")
    photos = load_split(
        definition, split, settings.cache_mb, max_megapixels=settings.max_megapixels
    )
    print(photos.report.text())
    photos.report.accept(settings.bad_labels)
    if expect_objects and not sum(photos.report.objects):
        raise InputError(f"{settings.data}: no object in the photos to measure: there is no mAP")
    return photos


def open_splits(
    settings: DataSet, networks: Mapping[str, Sequence[str]] | None = None
) -> tuple[PhotoSet, PhotoSet]:
    """The photos to train and to validate on, as `open_split` gives them.

    They share the memory for decoded photos, which the first fill first; photos that are in both
    are told.
    """
    train = open_split(settings, "train", networks)
    left = settings.cache_mb - train.report.cached_bytes / 2**20
    valid = open_split(replace(settings, cache_mb=max(0, int(left))), "valid", expect_objects=True)
    if both := shared_photos(train, valid):
        print(f"note: {len(both)} photos to validate on are trained on too, such as {both[0]}")
    return train, valid


def load_split(
    definition: DataDefinition,
    split: Split,
    cache_mb: float = 0,
    progress: bool = True,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> PhotoSet:
    """Read and check one split, without a word.

    Raises:
        InputError: no photo is left, or none with an object to train on.
    """
    records: list[Record] = []
    for source in definition.sources(split):
        records += read_source(
            source, definition.names, definition.images, definition.format, progress
        )
    photos = check(records, definition.names, split, cache_mb, progress, max_megapixels)
    listed = [record for record in records if record.is_photo]
    if split == "train" and not sum(photos.report.objects):
        raise InputError(
            f"{definition.path}: no sound label in the {len(listed)} photos to train on, of which"
            f" the first is {listed[0].image}" + photos.report.hint()
        )
    if not len(photos):
        raise InputError(
            f"{definition.path}: {split}: none of {len(listed)} photos can be used"
            + photos.report.hint()
        )
    return replace(photos, mirror=definition.mirror)
