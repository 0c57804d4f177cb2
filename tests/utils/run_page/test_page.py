"""A run's page: well formed, whole beside its files, and harmless whatever names it shows."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from import_param import TrainSettings
from tests.conftest import full_disk
from tests.utils.run_page.runs import cut_run, live_page, measured, sparse_run, trained_run
from utils.errors import InputError
from utils.run_page.folder import RunFiles, read_json
from utils.run_page.page import write_page
from utils.settings.loader import save

VOID = {"meta", "link", "img", "br"}
DRAWN = {"path", "line", "circle", "polygon"}


class Reader(HTMLParser):
    """Whether each element is closed where it should be, and what the page asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def written(folder: Path, name: str) -> Reader:
    """The page of a run, whose every link leads to a file beside it or a place in it."""
    run = folder / "runs" / name
    write_page(run, folder / "weights" / name)
    text = (run / "index.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    page = Reader(text)
    assert "script" not in page.tags
    for link in page.links:
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in text
        elif link != "data:,":
            assert (run / unquote(link)).is_file(), link
    return page


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_of_a_training_has_all_that_it_left(project: Path) -> None:
    trained_run(project)
    with live_page(project) as page:
        measured(page)
    words = written(project, "first").words
    for text in (
        "best, epoch 3", "0.800", "training.", "epochs", "seed", "Loss", "Learning rate",
        '<script>alert("1")</script>', "人 & 车", "Worst misses", "photos/<b>0#?%&.jpg"[10:],
        "3 missed of 3", "1 false", "What is labelled", "4 epochs, finished", "torch",
        "5, with 15 objects of 3 classes",
    ):  # fmt: skip
        assert text in words, text


def test_what_is_wrong_is_shown_worst_first(project: Path) -> None:
    run = trained_run(project)
    with live_page(project) as page:
        measured(page)
    listed = read_json(run / "photos/photos.json")
    wrong = [photo["missed"] + photo["false"] for photo in listed["worst"]]
    assert wrong == sorted(wrong, reverse=True) and min(wrong) > 0
    names = [Path(photo["photo"]).name for photo in listed["examples"]]
    assert names == [f"<b>{n}#?%&.jpg" for n in range(5)]


def test_the_page_of_a_sparse_training_shows_scales_and_how_much_can_be_cut(project: Path) -> None:
    sparse_run(project)
    page = written(project, "sparse")
    for text in ("Size of the penalized scales", "mAP against the share cut",
                 "mAP against milliseconds", "What is left of the network"):  # fmt: skip
        assert text in page.words, text
    assert page.tags.count("polygon") == 4


def test_the_page_of_a_cut_shows_before_and_after(project: Path) -> None:
    sparse_run(project)
    cut_run(project)
    words = written(project, "cut").words
    for text in ("0.8000", "0.7000", "2.25", "gone", "Of the training sparse", "this cut",
                 "latency: <measured>"):  # fmt: skip
        assert text in words, text


def test_a_run_that_went_on_keeps_how_it_began(project: Path) -> None:
    run = trained_run(project, done=2)
    for goes_on in (False, True):
        with live_page(project, goes_on):
            pass
    assert len(read_json(run / "run.json")["starts"]) == 2
    assert "2 of 4 epochs, then stopped" in written(project, "first").words
    with live_page(project):
        pass
    assert len(read_json(run / "run.json")["starts"]) == 1


def test_a_page_in_training_is_fetched_again_and_a_finished_one_is_not(project: Path) -> None:
    run = trained_run(project, done=2)
    page = live_page(project)
    measured(page)
    text = (run / "index.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in text and "2 of 4 epochs, in training" in text
    page.write()
    assert 'http-equiv="refresh"' not in (run / "index.html").read_text(encoding="utf-8")


def test_what_cannot_be_written_only_warns(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_run(project)
    page = live_page(project)
    with full_disk(0):
        measured(page)
    said = capsys.readouterr().out
    assert "warning:" in said and "cannot be written" in said
    (project / "runs/first/run.json").write_text("[1")
    page.write()
    assert "run.json: not a JSON file" in capsys.readouterr().out


@pytest.mark.parametrize("file", [
    "settings.json", "metrics.csv", "run.json", "report.json", "percent.csv", "channels.json",
    "photos/photos.json",
])  # fmt: skip
@pytest.mark.parametrize("text", ["", "{", "[]", '{"starts": 3}', '{"layers": 3, "found": 1}',
                                  "percent\nx", '{"pruning": 3}'])  # fmt: skip
def test_damaged_files_are_one_line(file: str, text: str, project: Path) -> None:
    sparse_run(project)
    run = cut_run(project)
    (run / "photos").mkdir()
    (run / file).write_text(text)
    try:
        write_page(run, project / "weights/cut")
    except InputError as error:
        assert str(run.relative_to(project)) in str(error) and "\n" not in str(error)


def test_the_best_epoch_is_that_of_the_network_that_is_kept(project: Path) -> None:
    """Not the one with the highest mAP, where a network was cut or shrunk since."""
    for epoch in (3, 4):
        trained_run(project, best_epoch=epoch)
        assert RunFiles.read(project / "runs/first", project / "weights/first").best_epoch == epoch
        assert f"best, epoch {epoch}" in written(project, "first").words
    (project / "weights/first/best.pt").unlink()
    assert "best, epoch" not in written(project, "first").words


def test_a_run_without_an_epoch_has_a_page(project: Path) -> None:
    save(TrainSettings(), project / "runs/empty/settings.json")
    assert "0 of 40 epochs" in written(project, "empty").words


# A real browser ------------------------------------------------------------------------------

BROWSER = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--virtual-time-budget=3000", "--force-device-scale-factor=1",
)  # fmt: skip
# The page in a frame as wide as a phone, and what it says of its own width.
FRAME = """<body style="margin:0"><iframe id="f" src="{page}" style="border:0;width:{width}px;
height:900px"></iframe><script>document.getElementById("f").onload = (event) => {{
const root = event.target.contentDocument.documentElement;
const images = [...event.target.contentDocument.images].filter((i) => i.loading != "lazy" ||
i.complete); document.title = root.scrollWidth + "/" + root.clientWidth + "/" +
images.filter((i) => i.complete && !i.naturalWidth).length; }};</script></body>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("make", [trained_run, sparse_run, cut_run])
def test_a_browser_shows_it_without_errors_or_a_network(
    width: int, make: Callable[[Path], Path], project: Path
) -> None:
    browser = next((path for name in BROWSER if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    if make is cut_run:
        sparse_run(project)
    run = make(project)
    if make is trained_run:
        with live_page(project) as page:
            measured(page)
    write_page(run, project / "weights" / run.name)
    frame = run / "frame.html"
    frame.write_text(FRAME.format(page="index.html", width=width))
    log = project / "net.json"
    command = [
        browser, *FLAGS, f"--user-data-dir={project / 'profile'}", f"--log-net-log={log}",
        "--allow-file-access-from-files", f"--window-size={width},900", "--dump-dom",
        frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=300)
    said = done.stderr.decode(errors="replace")
    assert "CONSOLE" not in said, said
    title = re.search(r"<title>(\d+)/(\d+)/(\d+)</title>", done.stdout.decode(errors="replace"))
    assert title, said
    needed, there, broken = map(int, title.groups())
    assert needed <= there == width and broken == 0
    asked = set(re.findall(r"https?://[^\"/]+", log.read_text(errors="replace")))
    assert not asked & hosts(run), asked
    if keep_at := os.environ.get("KEEP_SCREENSHOT"):
        shutil.copytree(run, Path(keep_at) / f"{run.name}-{width}", dirs_exist_ok=True)


def hosts(run: Path) -> set[str]:
    """The servers that the page names anywhere, beside the name of SVG."""
    text = (run / "index.html").read_text(encoding="utf-8")
    return set(re.findall(r"https?://[^\"/]+", text))
