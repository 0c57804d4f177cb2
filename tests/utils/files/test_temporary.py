"""Is what a kill left half-written removed, and nothing else?"""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from utils.files.temporary import PARTIAL, remove_partial_files
from utils.files.writing import write_text


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    write_text(tmp_path / "below/a.txt", "whole")
    (tmp_path / f"below/{PARTIAL}a-x1.txt").write_text("ha")
    (tmp_path / f"{PARTIAL}last-x2.pt").write_text("ha")
    remove_partial_files(tmp_path)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["a.txt"]


def test_what_another_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    """It holds a lock, which ends with it; so the process that comes next removes what it left."""
    script = (
        "import sys, time; from utils.files.writing import atomic, atomic_folder\n"
        "with atomic('a.txt') as file, atomic_folder('b') as folder:\n"
        "    (folder / 'c').touch(); print('ready', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        write_text(tmp_path / "other.txt", "")
        remove_partial_files(tmp_path)
        assert len(list(tmp_path.glob(f"{PARTIAL}*"))) == 2
        process.kill()
    next_one = "from utils.files.writing import write_text; write_text('other.txt', 'new')"
    subprocess.run([sys.executable, "-c", next_one], cwd=tmp_path, env=environment, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]
