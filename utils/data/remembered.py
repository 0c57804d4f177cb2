"""What did photos hold when they were decoded before? A file that did not change still holds it.

A file is taken for the same by its path, its size and the time when it was written. Only what a
sound photo holds is remembered: one that cannot be read is tried again each time.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from utils.files import cache
from utils.images import DecodedPhoto

FOLDER = "photos"  # in the cache folder
VERSION = 1  # of the files there
ROW = np.dtype(
    [
        ("file", "<u8"),  # a hash of path, size and time
        ("width", "<u4"),
        ("height", "<u4"),
        ("bytes", "<u8"),
        ("mode", "S8"),
        ("orientation", "u1"),
        ("note", "<u2"),  # its place in the list of notes
    ]
)
MOST_NOTES = 1000  # different ones; photos with others are decoded again


@dataclass(frozen=True)
class PhotoFacts:
    """What is to be known of a sound photo beside its pixels.

    Attributes:
        size: (width, height) of the upright photo.
        file_bytes: the length of the file.
        mode: see `utils.images.DecodedPhoto`.
        orientation: see there.
        note: what is odd about the file; empty for nothing.
    """

    size: tuple[int, int]
    file_bytes: int
    mode: str
    orientation: int
    note: str

    @staticmethod
    def of(photo: DecodedPhoto) -> PhotoFacts:
        """Those of a decoded photo."""
        height, width = photo.image.shape[:2]
        return PhotoFacts(
            (width, height),
            photo.file_bytes,
            photo.mode,
            photo.orientation,
            "".join(photo.notes[:1]),
        )


@dataclass
class RememberedPhotos:
    """The photos of one data set, as they were seen last time, and as they are seen now.

    Attributes:
        key: what the facts depend on beside the photos' files; None to remember nothing.
    """

    key: tuple[object, ...] | None = None
    _before: NDArray[Any] = field(default_factory=lambda: np.zeros(0, ROW))  # sorted
    _files: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    _notes: list[str] = field(default_factory=lambda: [""])
    _now: bytearray = field(default_factory=bytearray)

    @staticmethod
    def empty(*key: object) -> RememberedPhotos:
        """Nothing yet, of the data set with this key."""
        return RememberedPhotos((*key, VERSION, PIL.__version__))

    @staticmethod
    def open(*key: object) -> RememberedPhotos:
        """What was kept for the data set with this key; nothing where that cannot be read."""
        remembered = RememberedPhotos.empty(*key)
        content = cache.recall(FOLDER, remembered.key)
        if content is not None:
            notes, _, rows = content.partition(b"\n")
            remembered._notes = json.loads(notes)
            remembered._before = np.frombuffer(rows, ROW)
            remembered._files = remembered._before["file"].copy()  # searched in one piece
        return remembered

    def find(self, file: int) -> PhotoFacts | None:
        """What was seen in a file, if it was."""
        place = int(self._files.searchsorted(np.uint64(file)))
        if place == len(self._files) or int(self._files[place]) != file:
            return None
        row = self._before[place]
        return PhotoFacts(
            size=(int(row["width"]), int(row["height"])),
            file_bytes=int(row["bytes"]),
            mode=row["mode"].decode(),
            orientation=int(row["orientation"]),
            note=self._notes[row["note"]],
        )

    def add(self, file: int, facts: PhotoFacts) -> None:
        """Remember a photo of now."""
        if facts.note not in self._notes:
            if len(self._notes) > MOST_NOTES:
                return
            self._notes.append(facts.note)
        place = self._notes.index(facts.note)
        mode = facts.mode.encode()
        row = (file, *facts.size, facts.file_bytes, mode, facts.orientation, place)
        self._now += np.array(row, ROW).tobytes()

    def keep(self, complete: bool) -> None:
        """Keep the photos of now; and those of before, where these are not `complete`."""
        rows = np.frombuffer(self._now, ROW)
        rows = rows if complete else np.concatenate([rows, self._before])
        _, first = np.unique(rows["file"], return_index=True)
        rows = rows[first]
        if self.key is not None and not np.array_equal(rows, self._before):
            notes = json.dumps(self._notes).encode()
            cache.keep(FOLDER, self.key, notes + b"\n" + rows.tobytes())


def fingerprint_of(path: Path) -> int | None:
    """A hash of a file's path, size and time; None where it cannot be told."""
    try:
        state = os.stat(path)  # noqa: PTH116  Path.stat is slower
    except (OSError, ValueError):
        return None
    name = os.fsencode(os.path.abspath(path))  # noqa: PTH100  so is Path.absolute
    text = b"%s\0%d\0%d" % (name, state.st_size, state.st_mtime_ns)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
