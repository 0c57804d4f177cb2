"""detect_video.py, from its flags to its files."""

import http.server
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import detect_video
from tests.conftest import next_commands
from utils.detection.display import Display
from utils.detection.video import Source, VideoFile
from utils.errors import run
from utils.structures import Image
from utils.visualization.colours import colour
from utils.visualization.draw import draw_counts, draw_detections

ROOT = Path(detect_video.__file__).parent


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def frame(number: int) -> Image:
    """Ten red frames, then blue ones."""
    return np.full((96, 128, 3), (230, 0, 0) if number < 10 else (0, 0, 230), np.uint8)


def clip(path: Path, frames: int = 20, rate: float = 15.0) -> str:
    with VideoFile(path, rate, pytest.fail) as file:
        for number in range(frames):
            file.write(frame(number))
    return str(file.path)


def length(path: Path) -> int:
    return sum(1 for _ in Source(str(path)))


def test_every_frame_of_a_file_is_done(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--weights",
        colour_weights,
        "--source",
        clip(tmp_path / "clip"),
        "--save-json",
        "--save-txt",
    ]
    output = tmp_path / "out"
    detect_video.main([*flags, "--save-crops", "--batch-size", "3", "--output", str(output)])
    assert length(output / "clip.mp4") == 20
    assert Source(str(output / "clip.mp4")).rate == 15
    content = json.loads((output / "detections.json").read_text())
    assert [image["frame"] for image in content["images"]] == list(range(20))
    categories = [each["category"] for each in content["annotations"]]
    assert categories == ["red"] * 40 + ["blue"] * 40
    assert len(list((output / "labels").iterdir())) == 20
    assert (output / "labels" / "clip_000010.txt").read_text().count("2 ") >= 4
    assert (output / "crops" / "blue" / "clip_000010_3.jpg").is_file()
    text = capsys.readouterr().out
    assert "no display" in text
    assert "20 frames in" in text
    assert [script for script, _ in next_commands(text)] == ["export"]
    assert "80 objects: red 40, blue 40" in text
    first = next(iter(Source(str(output / "clip.mp4"))))
    assert (first[:12, :40].max(axis=(0, 1)) > 200).all()  # the speed, in white


def test_classes_are_filtered(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", colour_weights, "--source", clip(tmp_path / "clip"), "--no-show"]
    detect_video.main([*flags, "--classes", "blue", "--output", str(tmp_path / "out")])
    assert "40 objects: blue 40" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["missing.mp4", "9999", "http://127.0.0.1:9/live", "."])
def test_a_source_that_cannot_be_opened_is_one_line(
    tmp_path: Path, colour_weights: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", colour_weights, "--output", str(tmp_path / "out"), "--source", source]
    assert run(lambda: detect_video.main([*flags, "--save-json", "--no-show"])) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_key_ends_the_work_and_completes_the_video(
    tmp_path: Path,
    colour_weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Closed(Display):
        """A window that the user closes after five frames."""

        shown = 0

        def __init__(self) -> None:
            pass

        def show(self, image: Image) -> bool:
            self.shown += 1
            return self.shown < 5

        def close(self) -> None:
            pass

    monkeypatch.setattr("utils.detection.display.open_display", lambda title, say: Closed())
    flags = ["--weights", colour_weights, "--source", clip(tmp_path / "clip")]
    detect_video.main([*flags, "--output", str(tmp_path / "out")])
    assert length(tmp_path / "out" / "clip.mp4") == 5
    assert "stopped by a key" in capsys.readouterr().out


def test_a_damaged_file_ends_with_what_was_done(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (128, 96))
    for seed in range(20):
        writer.write(np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    flags = ["--weights", colour_weights, "--source", str(path), "--output", str(tmp_path / "out")]
    assert run(lambda: detect_video.main([*flags, "--no-show"])) == 0
    assert 3 < length(tmp_path / "out" / "clip.mp4") < 20
    assert "of the 20 frames that it promises" in capsys.readouterr().out


@pytest.fixture
def camera() -> Iterator[str]:
    """The address of a camera on this machine that sends 20 frames a second, and dies after 20."""

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for number in range(20):
                jpeg = cv2.imencode(".jpg", frame(number)[..., ::-1])[1].tobytes()
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://me:secret@127.0.0.1:{server.server_port}/hall"
    server.shutdown()
    server.server_close()


def test_a_stream_that_vanishes_ends_with_what_was_done(
    tmp_path: Path, colour_weights: str, camera: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", colour_weights, "--source", camera, "--output", str(tmp_path / "out")]
    flags += ["--no-show", "--save-json", "--reconnect", "0"]
    assert run(lambda: detect_video.main(flags)) == 0
    videos = list((tmp_path / "out").glob("*.mp4"))
    assert len(videos) == 1
    assert length(videos[0]) > 5
    text = capsys.readouterr().out
    assert "no more frames after 20; it was closed or lost" in text
    assert (
        "secret" not in text + videos[0].name + (tmp_path / "out" / "detections.json").read_text()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_completes_the_video(
    tmp_path: Path,
    colour_weights: str,
    number: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    # A shell's background jobs ignore SIGINT, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    source = clip(tmp_path / "clip", frames=2000)
    output = tmp_path / "out"
    flags = ["--weights", colour_weights, "--source", source, "--output", str(output), "--no-show"]
    drawn = itertools.count(1)

    def draw_and_stop(*arguments: Any) -> Image:
        if next(drawn) == 50:
            os.kill(os.getpid(), number)
        return draw_detections(*arguments)

    monkeypatch.setattr("utils.detection.frames.draw_detections", draw_and_stop)
    assert run(lambda: detect_video.main([*flags, "--save-json"])) == 130
    frames = length(output / "clip.mp4")
    assert 0 < frames < 2000
    assert f"{frames} frames in" in capsys.readouterr().out
    assert len(json.loads((output / "detections.json").read_text())["images"]) == frames
    files = ["clip.mp4", "detections.json", "detections.jsonl"]
    assert sorted(path.name for path in output.iterdir()) == files
    assert len((output / "detections.jsonl").read_text().splitlines()) == frames


@pytest.mark.slow
def test_the_script_runs_by_itself(tmp_path: Path, colour_weights: str) -> None:
    flags = [
        "--weights",
        colour_weights,
        "--source",
        clip(tmp_path / "clip"),
        "--output",
        str(tmp_path),
    ]
    script = [sys.executable, str(ROOT / "detect_video.py"), *flags]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is the source" in done.stderr
    assert "Traceback" not in done.stderr


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_of_json_say_what_was_detected_and_standard_output_holds_nothing_else(
    tmp_path: Path, colour_weights: str, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    flags = ["--weights", colour_weights, "--source", clip(tmp_path / "clip"), "--no-save-video"]
    detect_video.main([*flags, "--jsonl", "-", "--output", str(output)])
    captured = capfd.readouterr()
    lines = lines_of(captured.out)
    assert [line["frame"] for line in lines] == list(range(20))
    assert lines[3]["seconds"] == 0.2
    assert lines[3]["source"] == str(tmp_path / "clip.mp4")
    assert (lines[3]["width"], lines[3]["height"]) == (128, 96)
    assert lines[3]["counts"] == {"red": 4} and lines[15]["counts"] == {"blue": 4}
    first = lines[0]["boxes"][0]
    assert first["class"] == "red" and first["label"] == 0 and len(first["xyxy"]) == 4
    assert abs(datetime.fromisoformat(lines[0]["time"]).timestamp() - time.time()) < 600
    assert "20 frames in" in captured.err
    assert not list(output.iterdir())
    print("again", flush=True)
    assert capfd.readouterr().out == "again\n"


def test_several_sources_take_turns_and_one_that_ends_or_fails_does_not_end_the_others(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    long = clip(tmp_path / "clip", frames=60)
    short = clip(tmp_path / "other" / "clip", frames=5)
    output, target = tmp_path / "out", tmp_path / "all.jsonl"
    flags = ["--weights", colour_weights, "--source", long, "missing.mp4", short, "--no-show"]
    flags += ["--jsonl", str(target), "--output", str(output), "--batch-size", "3"]
    assert run(lambda: detect_video.main(flags)) == 2
    sources = [line["source"] for line in lines_of(target.read_text())]
    assert sources.count(long) == 60 and sources.count(short) == 5
    assert sources[-1] == long, "the short one waited for the end of the long one"
    assert length(output / "clip.mp4") == 60
    assert length(output / "clip-2.mp4") == 5
    captured = capsys.readouterr()
    assert "left out: missing.mp4: no such file" in captured.err
    assert "1 of 3 sources could not be opened" in captured.err
    assert f"{short}: 5 frames" in captured.out
    assert "65 frames in" in captured.out


def test_lines_are_there_while_the_work_goes_on(
    tmp_path: Path, colour_weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.jsonl"
    seen: list[int] = []

    def draw_and_look(*arguments: Any) -> Image:
        seen.append(len(lines_of(target.read_text())) if target.exists() else 0)
        return draw_detections(*arguments)

    monkeypatch.setattr("utils.detection.frames.draw_detections", draw_and_look)
    flags = ["--weights", colour_weights, "--source", clip(tmp_path / "clip"), "--no-show"]
    flags += ["--jsonl", str(target), "--output", str(tmp_path / "out")]
    for _ in range(2):  # a file's lines replace earlier ones
        detect_video.main(flags)
        assert len(lines_of(target.read_text())) == 20
    assert seen[:20] == list(range(20))


def test_who_closes_the_pipe_ends_the_work_and_the_video_is_complete(
    tmp_path: Path, colour_weights: str
) -> None:
    flags = ["--weights", colour_weights, "--source", clip(tmp_path / "clip", frames=2000)]
    flags += ["--jsonl", "-", "--no-show", "--output", str(tmp_path / "out")]
    script = [sys.executable, str(ROOT / "detect_video.py"), *flags]
    with subprocess.Popen(
        script, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(300) == 0
    assert "nobody reads the lines any more" in errors
    assert "Traceback" not in errors
    assert 1 <= length(tmp_path / "out" / "clip.mp4") < 2000


def test_counts_stand_on_the_picture_in_the_colours_of_their_classes() -> None:
    drawn = draw_counts(np.zeros((480, 640, 3), np.uint8), "9 FPS", [2, 0, 2], ("a", "b", "c"))
    rows = [tuple(drawn[row, 1]) for row in range(0, 480)]
    assert rows.index(colour(2)) < rows.index(colour(0))  # most frequent first
    many = draw_counts(np.zeros((480, 640, 3), np.uint8), "9 FPS", range(80), ["name"] * 80)
    assert not many[260:].any()
