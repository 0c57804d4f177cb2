"""What does the check of a data set say, and which of it is an error?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from utils.data.labels.record import Problem
from utils.errors import InputError

# The kinds of problems in the order of the report, each with what becomes of it. A label or photo
# with an error is left out, or with `bad_labels` = "refuse" the whole data set is refused.
ERRORS = {
    "missing photo": "photos left out",
    "unreadable folder": "left out",
    "unreadable photo": "photos left out",
    "unreadable label file": "photos left out",
    "malformed label": "labels left out",
    "not a finite number": "labels left out",
    "class out of range": "labels left out",
    "zero area": "labels left out",
    "outside the photo": "labels left out",
    "duplicate": "labels left out",
}
WARNINGS = {
    "no sound label": "photos left out, since none of their labels is right",
    "photo without .xml": "photos left out",
    "other files": "kinds of files left out",
    "partly outside": "boxes cut to the photo",
    "no label file": "taken as photos without objects",
    "second label file": "left out, since one counts",
    "scores": "label files read without them",
    "polygon": "shapes taken as their bounding boxes",
    "class left out": "labels left out, since `classes` does not name their class",
    "path of Windows": "photos found by the end of the path",
    "odd file": "photos read all the same",
    "other size than stated": "the photo's own size counts",
    "turned by EXIF": "photos set upright",
    "grey or palette": "photos read as RGB",
    "transparent": "alpha left out",
    "deeper than 8 bits": "photos read as 8 bits a channel",
    "listed again": "photos that count more than once",
}
KINDS = ERRORS | WARNINGS
MOST_KEPT = 1000  # problems of each kind that are told with their places; more are only counted
LABEL_ERRORS = tuple(kind for kind, result in ERRORS.items() if result == "labels left out")


class Problems:
    """Problems as they are found: of each kind the first MOST_KEPT, and how many there are."""

    def __init__(self) -> None:
        self.first: list[Problem] = []
        self.counts: dict[str, int] = {}

    def add(self, problems: Iterable[Problem]) -> None:
        """Add some, in the order of the photos."""
        for problem in problems:
            count = self.counts.get(problem.kind, 0) + 1
            self.counts[problem.kind] = count
            if count <= MOST_KEPT:
                self.first.append(problem)


@dataclass(frozen=True)
class Report:
    """What the check of some photos says. Print it once; then accept or refuse its errors.

    Attributes:
        title: what the photos are called, such as "train".
        names: the classes in order.
        photos: how many photos can be used.
        empty: how many of them have no label.
        objects: how many objects each class has, without those to ignore.
        ignored: how many labels are VOC's `difficult` or COCO's crowd.
        cached: how many photos are kept in memory.
        cached_bytes: the memory that they take.
        problems: errors and warnings, photo by photo; of each kind the first MOST_KEPT.
        counts: how many problems of each kind there are.
    """

    title: str
    names: tuple[str, ...]
    photos: int
    empty: int
    objects: tuple[int, ...]
    ignored: int
    cached: int
    cached_bytes: int
    problems: tuple[Problem, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Of the problems, those for which a photo or label is left out."""
        return tuple(problem for problem in self.problems if problem.kind in ERRORS)

    def text(self, first: int = 3) -> str:
        """Write the report, with the `first` few places of each kind of problem."""
        lines = [
            f"{self.title}: {self.photos} photos, {sum(self.objects)} objects"
            + (f" (and {self.ignored} difficult or crowd)" if self.ignored else "")
            + f", {self.empty} without any; {self.cached} photos kept in memory"
            + f" ({self.cached_bytes / 2**20:.0f} MiB)",
            "  " + self._classes(),
        ]
        for kind in (kind for kind in KINDS if kind in self.counts):
            lines.append(f"  {self.counts[kind]} × {kind}: {KINDS[kind]}")
            problems = [problem for problem in self.problems if problem.kind == kind]
            lines += [f"    {problem.where}: {problem.detail}" for problem in problems[:first]]
            if self.counts[kind] > first:
                lines.append(f"    … and {self.counts[kind] - first} more")
        # a file's name may hold bytes that are no text, which printing would refuse
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()

    def _classes(self, most: int = 20) -> str:
        """Objects per class; of many classes, those with the fewest."""
        counted = list(zip(self.objects, self.names, strict=True))
        shown = counted if len(counted) <= most else sorted(counted)[:most]
        start = "" if len(counted) <= most else f"fewest of {len(counted)} classes: "
        return start + ", ".join(f"{name} {count}" for count, name in shown)

    def accept(self, bad_labels: Literal["drop", "refuse"]) -> None:
        """Go on without what has errors, or refuse it.

        Raises:
            InputError: there is an error, and `bad_labels` is "refuse".
        """
        if self.errors and bad_labels == "refuse":
            first = self.errors[0]
            count = sum(self.counts[kind] for kind in ERRORS if kind in self.counts)
            others = f" (and {count - 1} more)" if count > 1 else ""
            raise InputError(
                f"{first.where}: {first.kind}: {first.detail}{others}; bad_labels=drop goes on"
            )

    def hint(self) -> str:
        """Name the most frequent kind of problem, for a message; empty where there is none."""
        if not self.counts:
            return ""
        kind, count = max(self.counts.items(), key=lambda item: item[1])
        example = next(problem for problem in self.problems if problem.kind == kind)
        return f"; {count} × {kind}, such as {example.where}: {example.detail}"
