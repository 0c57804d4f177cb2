"""Look at a data set before training on it: what is in it, and which labels look wrong.

    python check_data.py --data my_export
    python check_data.py --data my_export/data.yaml --write data/mine.data

Prints the report that training prints, and writes into the output folder: labels.png (classes, box
sizes, where they lie), contact_sheet.jpg (photos with their boxes), suspicious.jpg with
suspicious.txt (labels that look wrong, worst first) and report.txt. `--write` leaves a `.data` file
with lists of the photos, to edit and to train on. The exit code is 2 where nothing can be trained.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from import_param import CheckDataSettings
from utils.console.progress import say
from utils.errors import InputError, run
from utils.settings.loader import load

if TYPE_CHECKING:
    from utils.data.photos import PhotoSet

MOST_SUSPICIONS = 200  # lines of suspicious.txt
MOST_DRAWN = 24  # of them, on suspicious.jpg


FIRST_FLAGS = (  # of --help; --help_all has the others
    *("data", "write"),
    *("photos", "output", "bad_labels"),
)


def main(argv: list[str] | None = None) -> None:
    """Read the flags, open and check the photos, draw, and report."""
    settings = load(CheckDataSettings, argv, about=__doc__, first=FIRST_FLAGS)
    # Imported after the flags are read, so that --help and a mistyped flag need no numpy.
    from utils.console.next_steps import after_check
    from utils.data.splits import open_splits
    from utils.files.paths import output_folder
    from utils.files.writing import write_text
    from utils.visualization.draw import write_image
    from utils.visualization.label_plots import contact_sheet, plot_labels

    target = Path(settings.check.write) if settings.check.write else None
    if target and (target.suffix != ".data" or target.exists()):
        wanted = "a name that ends in .data" if target.suffix != ".data" else "a new file"
        raise InputError(f"write={str(target)!r}: expected {wanted}")
    train, valid = open_splits(settings.data, decode_all=True)
    folder = output_folder(settings.check.output)
    splits = [("train", train), ("valid", valid)]
    plot_labels(splits, folder / "labels.png")
    write_image(folder / "contact_sheet.jpg", contact_sheet(train, settings.check.photos))
    reports = [photos.report.text(first=1000) for _, photos in splits]
    write_text(folder / "report.txt", "\n".join(reports) + "\n")
    odd = write_suspicions(train, folder)
    say(f"{odd} training labels look odd; see {folder / 'suspicious.txt'}, worst first")
    say(f"classes, sizes and photos are in {folder}")
    if target:
        write_data_file(target, train, valid)
        say(f"wrote {target}")
    after_check(settings, str(target or settings.data.data))


def write_suspicions(photos: "PhotoSet", folder: Path) -> int:
    """Write the labels that look wrong, as a list and drawn; how many there are."""
    from utils.data.suspicious import suspicious_labels
    from utils.files.writing import write_text
    from utils.visualization.draw import write_image
    from utils.visualization.label_plots import suspicious_sheet

    suspicions = suspicious_labels(photos.photos, photos.names)
    lines = []
    for number, each in enumerate(suspicions[:MOST_SUSPICIONS], 1):
        photo = photos.photos[each.photo]
        box = " ".join(f"{value:.0f}" for value in photo.boxes[each.label].tolist())
        name = photos.names[photo.labels[each.label]]
        lines.append(f"{number}. {photo.path}: {name} at {box}: {each.reason}")
    if len(suspicions) > MOST_SUSPICIONS:
        lines.append(f"… and {len(suspicions) - MOST_SUSPICIONS} more")
    write_text(folder / "suspicious.txt", "".join(f"{line}\n" for line in lines))
    if suspicions:
        sheet = suspicious_sheet(photos, suspicions[:MOST_DRAWN])
        write_image(folder / "suspicious.jpg", sheet)
    return len(suspicions)


def write_data_file(target: Path, train: "PhotoSet", valid: "PhotoSet") -> None:
    """Write a `.data` file with its names and a list of the photos of each split."""
    from utils.files.writing import write_text

    lists = {"train": train, "valid": valid}
    for split, photos in lists.items():
        paths = "".join(f"{photo.path.resolve()}\n" for photo in photos.photos)
        write_text(target.with_name(f"{target.stem}-{split}.txt"), paths)
    write_text(target.with_suffix(".names"), "".join(f"{name}\n" for name in train.names))
    write_text(
        target,
        f"classes = {len(train.names)}\nnames = {target.stem}.names\n"
        + "".join(f"{split} = {target.stem}-{split}.txt\n" for split in lists)
        + f"mirror = {'yes' if train.mirror else 'no'}\n",
    )


if __name__ == "__main__":
    sys.exit(run(main))
