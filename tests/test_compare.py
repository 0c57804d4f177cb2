"""compare.py, from names of runs to tables, a .csv file and a picture."""

import csv
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import compare
from import_param import Evaluation, PruneSettings, Training, TrainSettings
from models.darknet import Darknet
from models.netdef import parse
from tests.conftest import COLOUR_CFG, COLOURS, ROOT
from tests.utils.run_page.runs import DENSE, cut_run, sparse_run, trained_run
from utils.checkpoint.checkpoint import Origin, save_with_pair
from utils.comparison.groups import differences, grouped, notes
from utils.comparison.runs import Result, find_runs, result_of
from utils.comparison.tables import result_table, setting_table
from utils.errors import run
from utils.run_page.folder import SETTINGS


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seeded(seed: int, **training: float) -> TrainSettings:
    return replace(DENSE, training=replace(DENSE.training, seed=seed, **training))  # type: ignore[arg-type]


def results(*names: str) -> list[Result]:
    return [result_of(found) for found in find_runs(names)]


def chain(project: Path, seed: int, best: float) -> None:
    """A sparse training, its cut, and what was trained of that."""
    sparse = sparse_run(project, f"sparse-s{seed}")
    values = json.loads((sparse / SETTINGS).read_text())
    values["training"]["seed"] = seed
    (sparse / SETTINGS).write_text(json.dumps(values))
    cut_run(project, f"sparse-s{seed}", f"cut-s{seed}")
    source = f"weights/cut-s{seed}/pruned"
    model = replace(DENSE.model, cfg=f"{source}.cfg", weights=f"{source}.pt", pretrained=True)
    trained_run(project, f"small-s{seed}", replace(seeded(seed), model=model), best)


def test_runs_that_differ_by_their_seed_are_one_row(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # in fewer, the row would be two
    for seed, best in enumerate((0.6, 0.7, 0.8)):
        trained_run(project, f"dense-s{seed}", seeded(seed), best)
    trained_run(project, "other", seeded(0, lr=0.01), 0.5)
    compare.main(["dense-s*", "other"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    (row,) = [line for line in said.splitlines() if line.startswith("| dense-s* |") and "±" in line]
    assert "0.700 ± 0.100" in row
    assert "| seed" in said and "0, 1, 2" in said and "0.01" in said
    assert "other photos" not in said
    rows = list(csv.DictReader((project / "runs/compare/compare.csv").read_text().splitlines()))
    assert [row["group"] for row in rows] == ["dense-s*"] * 3 + ["other"]
    assert [float(row["mAP@.5"]) for row in rows] == pytest.approx([0.6, 0.7, 0.8, 0.5])
    assert [row["seed"] for row in rows] == ["0", "1", "2", "0"]
    assert [row["lr"] for row in rows] == ["0.002"] * 3 + ["0.01"]
    assert (project / "runs/compare/compare.png").stat().st_size > 5000


def test_chains_of_runs_that_differ_by_their_seed_are_one_row(project: Path) -> None:
    for seed, best in enumerate((0.6, 0.8)):
        chain(project, seed, best)
    groups = grouped(results("sparse-s*", "cut-s*", "small-s*"))
    assert [(group.name, len(group.results)) for group in groups] == [
        ("sparse-s*", 2), ("cut-s*", 2), ("small-s*", 2),
    ]  # fmt: skip
    assert groups[2].mean(lambda result: result.best) == pytest.approx(0.7)


def test_the_ends_of_a_chain_are_others_where_its_beginnings_are(project: Path) -> None:
    for seed in (0, 1):
        chain(project, seed, 0.5)
    path = project / "runs/sparse-s1" / SETTINGS
    values = json.loads(path.read_text())
    values["sparsity"]["sparse_rate"] = 1.0
    path.write_text(json.dumps(values))
    assert len(grouped(results("small-s*"))) == 2


def test_a_cut_tells_its_time_and_so_does_what_was_trained_of_it(project: Path) -> None:
    chain(project, 0, 0.5)
    path = project / "runs/cut-s0/report.json"
    (sparse,) = results("sparse-s0")
    report = json.loads(path.read_text())
    report["after"]["parameters"] = sparse.run.costs.parameters
    path.write_text(json.dumps(report))
    cut, small, dense = (results(name)[0] for name in ("cut-s0", "small-s0", "sparse-s0"))
    assert cut.ms == small.ms == 2.25 and math.isnan(dense.ms)
    assert (cut.best, cut.asked) == (0.7, 0)


def test_a_run_is_found_by_name_folder_and_glob_and_counts_once(project: Path) -> None:
    trained_run(project, "first")
    (project / "runs/visdom").mkdir()
    places = ("first", "runs/first", "weights/first", str(project / "runs/first"), "f*", "runs/f*")
    for place in places:
        assert [found.name for found in find_runs([place])] == ["first"]
    assert len(find_runs(["first", "runs/first", "f*"])) == 1


def test_without_its_folder_in_runs_a_run_is_read_from_its_checkpoint(project: Path) -> None:
    netdef = parse(COLOUR_CFG)
    for name, settings in (("best", TrainSettings()), ("pruned", PruneSettings())):
        path = project / "weights" / name / name
        origin = Origin(epoch=3, best=0.4 if name == "best" else -1.0)
        save_with_pair(path, netdef, COLOURS, Darknet(netdef), settings, origin)
    trained, cut = results("best", "weights/pruned")
    assert trained.parameters == cut.parameters > 0
    assert trained.best == 0.4 and math.isnan(cut.ms)


def test_other_photos_rules_and_an_early_end_are_told(project: Path) -> None:
    trained_run(project, "a", DENSE, done=2)
    trained_run(project, "b", replace(DENSE, data=replace(DENSE.data, data="x.data")))
    trained_run(project, "c", replace(DENSE, evaluation=Evaluation(rule="voc10")))
    told = "\n".join(notes(results("a", "b", "c")))
    assert "other photos" in told and "data=x.data in b" in told
    assert "other rules" in told and "rule=voc10 in c" in told
    assert "a stopped after 2 of 4 epochs" in told
    groups = grouped(results("a", "b", "c"))
    assert len(groups) == 3 and "2/4" in result_table(groups, 100)


def test_a_run_that_ended_out_of_patience_did_not_stop_early(project: Path) -> None:
    trained_run(project, "a", seeded(0, epochs=40, patience=1), done=4)
    assert results("a")[0].finished


def test_tables_fold_where_they_are_too_wide(project: Path) -> None:
    names = [f"run-with-a-very-long-name-indeed-{n}" for n in range(9)]
    for n, name in enumerate(names):
        trained_run(project, name, seeded(0, lr=0.01 * (n + 1)))
    groups = grouped(results(*names))
    for table in (result_table(groups, 80), setting_table(groups, differences(
            [r for g in groups for r in g.results]), 80)):  # fmt: skip
        assert max(map(len, table.splitlines())) <= 80
        assert "indeed-0" in table and "indeed-8" in table


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "expected names of runs"),
        (["firts"], "no such run: expected first"),
        (["none*"], "no run has such a name"),
        (["runs/visdom"], "no run of train.py"),
        (["damaged"], "not a JSON file"),
        (["older"], "batch_size=-3"),
        (["first\0"], ""),
        (["x" * 5000], "no such run"),
    ],
)
def test_bad_input_is_one_line(
    given: list[str], told: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_run(project, "first")
    (project / "runs/visdom").mkdir()
    for name, text in (("damaged", "{"), ("older", '{"training": {}, "data": {"batch_size": -3}}')):
        shutil.copytree(project / "runs/first", project / "runs" / name)
        (project / "runs" / name / SETTINGS).write_text(text)
    assert run(lambda: compare.main(given)) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_measured_networks_take_turns(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netdef = parse(COLOUR_CFG)
    torch.manual_seed(0)
    for name in ("a", "b"):
        trained_run(project, name, replace(DENSE, training=Training(epochs=4, lr=0.1)))
        settings = replace(TrainSettings(), data=replace(TrainSettings().data))
        path = project / "weights" / name / "best"
        save_with_pair(path, netdef, COLOURS, Darknet(netdef), settings, Origin())
    compare.main(["a", "b", "--measure", "--rounds", "2"])
    assert "rounds in which they took turns" in capsys.readouterr().out
    rows = list(csv.DictReader((project / "runs/compare/compare.csv").read_text().splitlines()))
    assert all(float(row["ms"]) > 0 for row in rows)


def test_flags_are_answered_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys, compare\ntry: compare.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "compare" in loaded and not {"torch", "numpy", "cv2", "matplotlib"} & set(loaded)
