"""How many photos make a step, where nobody says?"""

from dataclasses import replace

import pytest
import torch

from import_param import Data, TrainSettings
from models import netdef as cfg_files
from tests.conftest import ROOT
from utils.errors import InputError
from utils.training.batch_size import bytes_a_photo, with_batch_size, within_memory

LITE = cfg_files.load(ROOT / "config" / "yolov3-lite.cfg")
CPU, CARD = torch.device("cpu"), torch.device("cuda")


def test_a_cpu_takes_8_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_batch_size(TrainSettings(), CPU, LITE, 10**6).data.batch_size == 8
    assert capsys.readouterr().out == ""


def test_what_is_asked_for_is_used() -> None:
    settings = TrainSettings(data=Data(batch_size=5))
    for device in (CPU, CARD):
        assert with_batch_size(settings, device, LITE, 10**6) == settings


def test_a_card_takes_more_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainSettings()
    settings = replace(settings, training=replace(settings.training, amp=False))
    twenty = 20.5 / 0.7 * bytes_a_photo(settings, LITE, CARD)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(twenty), 0))
    assert with_batch_size(settings, CARD, LITE, 10**6).data.batch_size == 16
    line = capsys.readouterr().out
    assert line.startswith("batch_size=16: 1000000 photos") and "about 20 at once" in line


@pytest.mark.parametrize(
    ("photos", "resume", "less"),
    [
        (8, "", "--batch_size 4 --accumulate 6 needs about half"),
        (1, "", "a smaller --img_size or another --cfg needs less"),
        (8, "last.pt", "the same command goes on from the checkpoint once more is free"),
    ],
)
def test_where_memory_runs_out_a_line_says_what_to_give(
    photos: int, resume: str, less: str
) -> None:
    settings = TrainSettings(data=Data(batch_size=photos))
    settings = replace(settings, training=replace(settings.training, accumulate=3, resume=resume))
    with pytest.raises(InputError) as told, within_memory(settings, CPU):
        torch.empty(10**17)
    assert str(told.value).startswith("out of memory on cpu, which other") and less in str(
        told.value
    )
    with pytest.raises(InputError, match=r" 2 GiB\.\)$"), within_memory(settings, CARD):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore")
    with pytest.raises(RuntimeError, match="shapes"), within_memory(settings, CPU):
        raise RuntimeError("shapes")


def test_memory_that_is_not_the_devices_is_not_told_as_its() -> None:
    loader = MemoryError("Caught MemoryError in DataLoader worker process 0.")
    with pytest.raises(MemoryError), within_memory(TrainSettings(), CPU):
        raise loader
    with pytest.raises(MemoryError), within_memory(TrainSettings(), CARD):
        raise MemoryError
