"""What `pip install .` installs: the Python API and what it needs, all below the one name `yolov3`.

In the project's folder `utils` and `models` stand at the top level. Beside a user's own modules of
these names they must not, so the copies that are installed are `yolov3.utils` and `yolov3.models`,
and their imports say so.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PACKAGE = "yolov3"
BELOW_IT = ("import_param", "models", "utils")
IMPORT = re.compile(rf"^(\s*)(?:from|import) (?=({'|'.join(BELOW_IT)})\b)(.*)", re.MULTILINE)


def installed_source(text: str) -> str:
    """A module's source with the project's own imports below the package's name.

    >>> installed_source("from utils.boxes import iou")
    'from yolov3.utils.boxes import iou'
    >>> installed_source("import import_param")
    'from yolov3 import import_param'
    """
    return IMPORT.sub(
        lambda found: (
            f"{found[1]}from {PACKAGE} import {found[3]}"
            if found[0].lstrip().startswith("import ")
            else f"{found[1]}from {PACKAGE}.{found[3]}"
        ),
        text,
    )


def build(folder: Path) -> list[Path]:
    """Write the package below `folder`; the files written."""
    sources = [ROOT / "import_param.py", ROOT / PACKAGE / "py.typed"]
    for name in (PACKAGE, "models", "utils"):
        sources += sorted((ROOT / name).rglob("*.py"))
    shutil.rmtree(folder / PACKAGE, ignore_errors=True)  # modules of an earlier build
    written = []
    for source in sources:
        relative = source.relative_to(ROOT)
        target = folder / (relative if relative.parts[0] == PACKAGE else PACKAGE / relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(installed_source(source.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(target)
    return written


class BuildBelowOneName(build_py):
    """setuptools' step that puts a package's modules together."""

    def run(self) -> None:
        """Write the package into the build folder."""
        if self.editable_mode:
            raise SystemExit("an editable install has no `utils` below `yolov3`: pip install .")
        self.written = build(Path(self.build_lib))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files that `run` wrote."""
        return [str(path) for path in getattr(self, "written", [])]


if __name__ == "__main__":
    setup(packages=[PACKAGE], cmdclass={"build_py": BuildBelowOneName})
