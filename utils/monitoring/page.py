"""The files of Visdom's web page, which its package lacks: which they are, and whence they come."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from utils.errors import InputError
from utils.files.paths import cache_folder
from utils.files.writing import write_bytes

DOWNLOAD_TIMEOUT = 10.0  # seconds without a byte
NPM_TIMEOUT = 90.0  # seconds in all

CDN = "https://unpkg.com/"  # serves the files of npm packages by their path

# What Visdom's page loads but its package lacks: npm package, file in it, place in static/.
# MathJax, which only texts with formulas need, is left out: it is five times all the rest.
PAGE_FILES = (
    ("jquery@3.1.1", "dist/jquery.min.js", "js/jquery.min.js"),
    ("bootstrap@3.3.7", "dist/js/bootstrap.min.js", "js/bootstrap.min.js"),
    ("bootstrap@3.3.7", "dist/css/bootstrap.min.css", "css/bootstrap.min.css"),
    *(
        ("bootstrap@3.3.7", f"dist/fonts/{font}", f"fonts/{font}")
        for font in (
            "glyphicons-halflings-regular.eot",
            "glyphicons-halflings-regular.svg",
            "glyphicons-halflings-regular.ttf",
            "glyphicons-halflings-regular.woff",
            "glyphicons-halflings-regular.woff2",
        )
    ),
    ("react@16.2.0", "umd/react.production.min.js", "js/react-react.min.js"),
    ("react-dom@16.2.0", "umd/react-dom.production.min.js", "js/react-dom.min.js"),
    ("layout-bin-packer@1.4.0", "dist/layout-bin-packer.js", "js/layout_bin_packer.js"),
    ("plotly.js-dist-min@2.11.1", "plotly.min.js", "js/plotly-plotly.min.js"),
    ("d3@3.5.17", "d3.min.js", "js/d3.v3.min.js"),
    ("d3-selection-multi@1.0.1", "build/d3-selection-multi.js", "js/d3-selection-multi.v1.js"),
    ("save-svg-as-png@1.4.17", "lib/saveSvgAsPng.js", "js/saveSvgAsPng.js"),
    ("sjcl@1.0.7", "sjcl.js", "js/sjcl.js"),
)
PAGE_FILES_OF_0_2 = (
    ("react-resizable@1.4.6", "css/styles.css", "css/react-resizable-styles.css"),
    ("react-grid-layout@0.16.3", "css/styles.css", "css/react-grid-layout-styles.css"),
)
PAGE_FILES_SINCE_0_3 = (
    ("react-resizable@3.1.3", "css/styles.css", "css/react-resizable-styles.css"),
    ("react-grid-layout@2.2.3", "css/styles.css", "css/react-grid-layout-styles.css"),
)
PageFile = tuple[str, str, str]
DOWNLOAD_PROBLEMS = (  # no network, a cut-off reply, not what it should be, no or broken npm
    InputError,  # of a folder that cannot be written
    OSError,
    HTTPException,
    ValueError,
    KeyError,
    tarfile.TarError,
    subprocess.SubprocessError,
)


def static_folder(data: Path) -> Path:
    """The folder that a server serves its page from, made complete but for `PAGE_FILES`.

    It is Visdom's own where someone has completed that already, else a copy in the user's cache
    folder, else one in `data`: the environment's own packages stay as they were installed.
    """
    package = _package_folder() / "static"
    if not missing_page_files(package):
        return package
    name = f"visdom-{importlib.metadata.version('visdom')}"
    for folder in (cache_folder() / name, data / name):
        try:
            for source in package.rglob("*"):
                target = folder / source.relative_to(package)
                if source.is_file() and not target.exists():
                    write_bytes(target, source.read_bytes())
        except (InputError, OSError):  # it cannot be written to, or the package cannot be read
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise RuntimeError(f"neither {cache_folder()} nor {data} can be written")


def _package_folder() -> Path:
    spec = importlib.util.find_spec("visdom")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def missing_page_files(static: Path) -> list[PageFile]:
    """What the page of the installed Visdom loads and the folder `static` lacks."""
    old = importlib.metadata.version("visdom").startswith("0.2.")
    files = PAGE_FILES + (PAGE_FILES_OF_0_2 if old else PAGE_FILES_SINCE_0_3)
    return [file for file in files if not (static / file[2]).exists()]


def fetch_page(static: Path) -> str:
    """Complete `static` from the CDN or from npm packages; return "" or what was in the way.

    Bounded by its time-outs: about two minutes where everything hangs.
    """
    problems = []
    for source in (_from_cdn, _from_npm):
        missing = missing_page_files(static)
        if not missing:
            return ""
        try:
            for target, content in source(missing):
                write_bytes(static / target, content)
        except DOWNLOAD_PROBLEMS as problem:
            problems.append(str(problem) or type(problem).__name__)
    return "" if not missing_page_files(static) else "; ".join(problems)


def _from_cdn(files: list[PageFile]) -> Iterator[tuple[str, bytes]]:
    for package, path, target in files:
        url = f"{CDN}{package}/{path}"
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as reply:
            if "html" in reply.headers.get("Content-Type", ""):  # a hotel's log-in page, say
                raise ValueError(f"{url} is not what it should be")
            yield target, reply.read()


def _from_npm(files: list[PageFile]) -> Iterator[tuple[str, bytes]]:
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError("no npm client")
    packages = sorted({package for package, _, _ in files})
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--fetch-retries=1", "--fetch-timeout=10000", *packages]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=NPM_TIMEOUT
        )
        if done.returncode:
            raise ValueError(f"npm pack ended with {done.returncode}")
        for package, path, target in files:
            with tarfile.open(Path(folder) / f"{package.replace('@', '-')}.tgz") as archive:
                member = archive.extractfile(f"package/{path}")
                assert member is not None
                yield target, member.read()
