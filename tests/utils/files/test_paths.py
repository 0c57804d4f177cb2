"""Do paths stay where they belong, and output folders have names that every library takes?"""

from pathlib import Path

import pytest

from utils.errors import InputError
from utils.files.paths import output_folder, same_file, within


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/below"):
        output_folder(str(tmp_path / "file" / "below"))
    assert output_folder(str(tmp_path / "new" / "folder")).is_dir()


def test_an_output_folder_has_a_name_that_every_library_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a name in UTF-8"):
        output_folder(f"{tmp_path}/\udc80")
    assert not list(tmp_path.iterdir())


def test_a_link_below_a_folder_leads_nobody_out_of_it(tmp_path: Path) -> None:
    for name in ("real/inside", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "real")  # where results go, a user may choose
    (tmp_path / "real" / "labels").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real" / "crops").symlink_to(tmp_path / "real" / "inside")
    out = tmp_path / "out"
    for name in ("a.txt", "new/a.txt", "crops/a.txt"):
        assert within(out, name) == out / name
    for name in ("labels/a.txt", "labels/new/a.txt", "../a.txt", "new/../../a.txt"):
        with pytest.raises(InputError, match=r"a link leads to .*: expected a place in"):
            within(out, name)


def test_a_file_is_known_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert same_file(tmp_path / "file", tmp_path / "link")
    assert not same_file(tmp_path / "file", tmp_path / "other")
    assert not same_file(tmp_path / "file", tmp_path / "missing")
