"""Do processes end with the one that started them?"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.waiting import wait_for

SCRIPT = """
import multiprocessing, os, sys, time
from utils.processes.workers import end_with_parent

def work():
    end_with_parent()
    # In one write: print() writes the line's end on its own where PYTHONUNBUFFERED is set.
    os.write(1, b"%d\\n" % os.getpid())
    while True:  # busy with what does not look up
        sum(range(10**6))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    for _ in range(3):
        context.Process(target=work, daemon=True).start()
    time.sleep(60)
"""


def running(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_end_at_once_when_their_parent_is_killed(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, script, method],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout
        workers = [int(parent.stdout.readline()) for _ in range(3)]
        assert all(map(running, workers))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_for(lambda: not any(map(running, workers)))  # which would go on for ever
