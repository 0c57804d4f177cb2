"""How many photos make a step, where nobody says?"""

from dataclasses import replace

import pytest
import torch

from import_param import Data, TrainSettings
from models import netdef as cfg_files
from tests.conftest import ROOT
from utils.training.batch_size import bytes_a_photo, with_batch_size

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
