"""How does a figure become a file?"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import InputError
from utils.files import write_bytes
from utils.fonts import use_fonts_

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Raises:
        InputError: the name does not end in .png, or the file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: expected a name that ends in .png")
    use_fonts_(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    write_bytes(path, data.getvalue())
