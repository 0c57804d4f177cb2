"""Frames in and out."""

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import full_disk
from utils.detection import video
from utils.detection.video import RealTime, Source, VideoFile, believable_rate, choose_codec
from utils.errors import InputError
from utils.structures import Image


def frame(value: int, width: int = 64, height: int = 48) -> Image:
    """Red grows with `value`, blue falls."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 2] = value, 255 - value
    return image


def write(stem: Path, values: range, rate: float = 20.0) -> Path:
    with VideoFile(stem, rate, pytest.fail) as file:
        for value in values:
            file.write(frame(value))
    assert file.path is not None
    return file.path


def read(path: Path) -> list[Image]:
    source = Source(str(path))
    frames = list(source)
    source.close()
    return frames


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "v1.2", range(0, 200, 10))
    assert path == tmp_path / "v1.2.mp4"
    source = Source(str(path))
    assert (source.rate, source.frames, source.live) == (20.0, 20, False)
    for value, image in zip(range(0, 200, 10), source, strict=True):
        assert image.shape == (48, 64, 3)
        assert np.abs(image.mean(axis=(0, 1)) - [value, 0, 255 - value]).max() < 12  # RGB, lossy
    assert source.read == 20
    assert source.ending() == ""
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_whatever_ends_the_writing_leaves_a_video(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoFile(tmp_path / "clip", 25, pytest.fail) as file:
        for value in range(7):
            file.write(frame(value))
        raise KeyboardInterrupt
    assert len(read(tmp_path / "clip.mp4")) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "clip", 25, pytest.fail) as file:
        pass
    assert file.path is None
    assert not list(tmp_path.iterdir())


def test_a_video_that_does_not_play_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "_playable", lambda path: False)  # as after a full disk
    with pytest.raises(InputError, match=r"clip\.mp4.*whole"):
        write(tmp_path / "clip", range(3))
    assert not list(tmp_path.iterdir())


def test_frames_of_another_size_are_not_lost(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "clip", 25, pytest.fail) as file:
        file.write(frame(0))
        file.write(frame(100, 96, 20), copies=2)
    assert [image.shape for image in read(tmp_path / "clip.mp4")] == [(48, 64, 3)] * 3


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "clip", range(3))
    before = path.read_bytes()
    file = VideoFile(tmp_path / "clip", 25, pytest.fail, protect=[path])
    with pytest.raises(InputError, match=r"clip\.mp4: is the source"), file:
        file.write(frame(0))
    assert path.read_bytes() == before


def test_the_next_codec_is_taken_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "CODECS", ((".mp4", "zzzz"), (".xyz", "mp4v"), (".avi", "MJPG")))
    said: list[str] = []
    with VideoFile(tmp_path / "clip", 25, said.append) as file:
        file.write(frame(0))
    assert len(said) == 1
    assert "MJPG" in said[0]
    assert len(read(tmp_path / "clip.avi")) == 1
    monkeypatch.setattr(video, "CODECS", ((".xyz", "mp4v"),))
    with pytest.raises(InputError, match=r"tried mp4v in \.xyz"):
        choose_codec((64, 48))


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("missing.mp4", "no such file"),
        ("9999", "no such camera"),
        ("99999999999", "no such file, camera number or stream address"),
        ("9" * 5000, "no such file, camera number or stream address"),
        ("٣", "no such file, camera number or stream address"),
        ("rtsp://user:secret@[::1/live", "not the address of a stream"),
        ("http://user:secret@127.0.0.1:9/live", "http://127.0.0.1:9/live: cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_named(address: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        Source(address)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_videos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(
        write(tmp_path / "whole", range(9)).read_bytes()[:-500]
    )  # its index
    (tmp_path / "empty.avi").touch()
    for name, problem in {
        "clip.mp4": "not a video",
        "empty.avi": "not a video",
        "": "folder",
    }.items():
        with pytest.raises(InputError, match=problem):
            Source(str(tmp_path / name))


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first half of an .avi, whose header still promises all of its 20 frames."""
    monkeypatch.setattr(video, "CODECS", ((".avi", "MJPG"),))
    with VideoFile(tmp_path / "clip", 20.0, pytest.fail) as file:
        for seed in range(20):
            file.write(np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8))
    path = tmp_path / "clip.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_cut_off_file_gives_what_it_has_and_says_so(cut_off: Path) -> None:
    source = Source(str(cut_off))
    assert 3 < len(list(source)) < 20
    assert f"after {source.read} of the 20 frames" in source.ending()


@pytest.mark.parametrize("codec", video.CODECS[:3], ids=lambda codec: codec[1])
def test_wherever_the_disk_is_full_a_video_is_whole_or_not_there(
    codec: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "choose_codec", lambda size: codec)

    def write_noise(folder: Path) -> Path:
        with VideoFile(folder / "clip", 25.0, lambda line: None) as file:
            for seed in range(4):
                pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)
                file.write(pixels)
        assert file.path
        return file.path

    size = write_noise(tmp_path / "whole").stat().st_size
    for limit in (0, 100, size // 2, *range(size - 400, size, 40), size - 1):
        with full_disk(limit), pytest.raises(InputError, match=r"cannot|could not"):
            write_noise(tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())
    with full_disk(size):
        write_noise(tmp_path / "out")


def test_a_disk_that_is_full_ends_the_work_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video that does not grow is looked after: can anything be written beside it?"""
    frame = np.zeros((48, 64, 3), np.uint8)
    with VideoFile(tmp_path / "clip", 5.0, pytest.fail) as file:
        for _ in range(40):
            file.write(frame)  # so like each other that the file hardly grows
        assert len(list(tmp_path.iterdir())) == 1

    def full(path: Path) -> None:
        raise InputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(video, "expect_room", full)
    with (
        pytest.raises(InputError, match="No space left"),
        VideoFile(tmp_path / "other", 5.0, pytest.fail) as file,
    ):
        for _ in range(40):
            file.write(frame)
    assert file.frames < 40


def test_live_sources_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Capture:
        """A source that opens, with a header that says nothing."""

        def isOpened(self) -> bool:
            return True

        def get(self, key: int) -> float:
            return -1.0 if key == cv2.CAP_PROP_FRAME_COUNT else math.nan

    monkeypatch.setattr(video, "_open", lambda address, path: Capture())
    camera = Source("0")
    assert (camera.live, camera.rate, camera.stem) == (True, 25.0, "camera0")
    assert "closed or lost" in camera.ending()
    stream = Source("rtsp://me:secret@10.0.0.7:554/hall/1?key=secret")
    assert (stream.live, stream.stem) == (True, "10.0.0.7_554_hall_1")
    assert "secret" not in stream.name
    assert not Source(str(tmp_path / "file.mp4")).live


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, 1000, 90_000])
def test_a_rate_that_cannot_be_is_replaced(rate: float) -> None:
    assert believable_rate(rate) == 25.0
    assert believable_rate(29.97) == 29.97


def test_a_live_video_runs_as_time_did() -> None:
    pace = RealTime(rate=10)
    # Taken at irregular times over two seconds: as many frames as that takes at 10 per second.
    times = [100.0, 100.31, 100.32, 100.9, 101.0, 102.0]
    assert [pace.copies(seconds) for seconds in times] == [1, 3, 0, 6, 1, 10]


def test_a_long_gap_is_left_out_of_a_live_video() -> None:
    pace = RealTime(rate=10)
    assert [pace.copies(seconds) for seconds in (0.0, 0.1, 3600.0, 3600.1)] == [1, 1, 1, 1]


def test_opencv_is_only_silent_for_a_while() -> None:
    level: Callable[[], int] = cv2.utils.logging.getLogLevel
    before = level()
    with video.quiet():
        assert level() == cv2.utils.logging.LOG_LEVEL_SILENT
    assert level() == before


def test_ctrl_c_ends_the_wait_for_a_pipe_that_nobody_writes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            Source(str(pipe))
    finally:
        signal.signal(signal.SIGALRM, before)
        os.close(os.open(pipe, os.O_WRONLY))  # lets the waiting thread end


class FakeCamera:
    """A capture of three frames; the next one that is opened has others, or cannot be opened."""

    opened = 0
    absent: tuple[int, ...] = ()  # which of them cannot be opened

    def __init__(self) -> None:
        FakeCamera.opened += 1
        self.number, self.left = FakeCamera.opened, 3

    def isOpened(self) -> bool:
        return self.number not in self.absent

    def get(self, key: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, Image | None]:
        self.left -= 1
        return (True, frame(self.number)[..., ::-1]) if self.left >= 0 else (False, None)

    def release(self) -> None:
        pass


@pytest.fixture
def fake_camera(monkeypatch: pytest.MonkeyPatch) -> type[FakeCamera]:
    monkeypatch.setattr(video, "_open", lambda address, path: FakeCamera())
    monkeypatch.setattr(video, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(FakeCamera, "opened", 0)
    return FakeCamera


def test_a_camera_that_is_lost_is_reached_again(
    fake_camera: type[FakeCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_camera, "absent", (2, 3))
    said: list[str] = []
    source = Source("0", reconnect=30, say=said.append)
    images = iter(source)
    values = [int(next(images)[0, 0, 0]) for _ in range(6)]
    assert values == [1, 1, 1, 4, 4, 4]
    assert source.read == 6
    assert said[0].startswith("camera 0: lost after 3 frames; trying for 30 s")
    assert said[1].startswith("camera 0: back after 0.") and len(said) == 2


def test_a_camera_that_stays_lost_ends(
    fake_camera: type[FakeCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_camera, "absent", tuple(range(2, 99)))
    said: list[str] = []
    assert len(list(Source("0", reconnect=0.05, say=said.append))) == 3
    assert len(said) == 1
    FakeCamera.opened = 0
    stopped = Source("rtsp://10.0.0.7/live", reconnect=3600, say=said.append)
    stopped.stop()
    assert len(list(stopped)) == 3
    FakeCamera.opened = 0
    assert len(list(Source("0"))) == 3
