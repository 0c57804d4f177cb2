"""Are a run's folders made, or refused in one line?"""

from pathlib import Path

import pytest

from utils.errors import InputError
from utils.training.runs import new_run


@pytest.mark.parametrize("name", ["run", "a" * 300])
def test_folders_that_cannot_be_made_are_bad_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot make this folder"):
        new_run(name, "")
