"""Which trainings and cuts make up the reference experiment, and in what order do they run?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from models.netdef import NetDef
from pruning.residual_blocks import residual_blocks
from utils.checkpoint import read_checkpoint
from utils.errors import InputError
from utils.training.runs import Run

TAUGHT = 0.85  # from this share of the channels on, fine-tuning is tried with a teacher, too
SMALL = 0.85  # the share of the operations that the main cut takes away
HALF = 0.5  # the share of the residual blocks that `layer` removes
POLL = 0.5  # seconds between looks at the running processes


@dataclass(frozen=True)
class Recipe:
    """How the networks of an experiment are trained.

    cfg, weights: the network and what it starts from. data: the photos. name: of the experiment,
    with which every run's name begins. channels: shares of the channels that slim cuts. seeds: how
    many times the main rows are run. dense_epochs: of training before the sparse one, for `weights`
    that are too far from the photos. lr, tune_lr: learning rates up to a cut, and of all that
    starts from one.
    """

    name: str
    cfg: str
    weights: str
    data: str
    img_size: int
    dense_epochs: int
    sparse_epochs: int
    tune_epochs: int
    lr: float
    tune_lr: float
    sparse_rate: float
    channels: tuple[float, ...]
    speedups: tuple[float, ...]
    eval_every: int
    seeds: int

    @property
    def total(self) -> int:
        """The epochs of whatever is trained in one go."""
        return self.dense_epochs + self.sparse_epochs + self.tune_epochs


@dataclass(frozen=True)
class Step:
    """A run of train.py or prune.py. after: the steps whose results it starts from."""

    name: str
    script: str
    flags: tuple[str, ...]
    after: tuple[Step, ...] = ()
    epochs: int = 0

    @property
    def run(self) -> Run:
        return Run(self.name)

    @property
    def result(self) -> Path:
        """The network that it leaves: the last epoch's, since the best would be chosen on the
        photos that it is measured on."""
        return self.run.weights / ("pruned.pt" if self.script == "prune.py" else "last.pt")

    @property
    def done(self) -> bool:
        if not self.result.is_file():
            return False
        return not self.epochs or read_checkpoint(self.result).training["epoch"] == self.epochs

    def command(self) -> list[str]:
        """What to run: from the start, or where a training was stopped, on from there."""
        if self.epochs and self.result.is_file():
            return [self.script, "--resume", str(self.result), "--workers", "0", "--no-visdom"]
        return [self.script, "--name", self.name, *self.flags]

    def clear(self) -> None:
        """Remove what a try left that never came to a result."""
        if not self.result.is_file():
            for folder in (self.run.folder, self.run.weights):
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Row:
    """A line of the table. By seed: cut, the cuts, if it has any; trained, the trainings whose last
    epochs count; taught, those with a teacher."""

    label: str
    trained: tuple[Step, ...]
    cut: tuple[Step, ...] = ()
    taught: tuple[Step, ...] = ()


def plan_rows(recipe: Recipe, netdef: NetDef) -> list[Row]:
    """The rows of the table. netdef: of `recipe.cfg`; without residual blocks some rows make no
    sense, and without shortcuts they would be `slim`'s."""
    seeds = range(recipe.seeds)
    dense = [_dense(recipe, seed) for seed in seeds]
    sparse = [_sparse(recipe, seed) for seed in seeds]
    cuts = [_cut(recipe, step, "slim", SMALL, "operations") for step in sparse]
    random = [_after_cut(recipe, cut, "random", seed) for seed, cut in enumerate(cuts)]
    thin = _cut(recipe, dense[0], "slim", SMALL, "operations", score="uniform")
    rows = [
        Row("dense", tuple(dense)),
        Row("sparse, not cut", tuple(sparse)),
        _cut_row(recipe, f"slim, {SMALL:.0%} of operations", cuts, dense),
        Row("control: as the first cut, random weights", tuple(random)),
        Row("control: uniformly thin, random weights", (_after_cut(recipe, thin, "random", 0),)),
        Row(f"cut while training, {SMALL:.0%} of operations", (_gradual(recipe, 0),)),
    ]
    for percent in sorted(recipe.channels, reverse=True):
        cut = _cut(recipe, sparse[0], "slim", percent, "channels")
        teachers = dense[:1] if percent >= TAUGHT else []
        rows.append(_cut_row(recipe, f"slim, {percent:.0%} of channels", [cut], teachers))
    for strategy, percent, of in _others(netdef):
        cut = _cut(recipe, sparse[0], strategy, percent, of)
        what = "blocks" if strategy == "layer" else of
        rows.append(_cut_row(recipe, f"{strategy}, {percent:.0%} of {what}", [cut]))
    for speedup in recipe.speedups:
        for strategy in _rivals(netdef):
            cut = _cut_to_time(recipe, sparse[0], strategy, speedup)
            rows.append(_cut_row(recipe, f"{strategy}, {speedup:g} times faster", [cut]))
    return rows


def _rivals(netdef: NetDef) -> list[str]:
    """Strategies that are compared at one time."""
    return ["latency", "slim", *(["layer_channel"] if residual_blocks(netdef) else [])]


def _others(netdef: NetDef) -> list[tuple[str, float, str]]:
    """(strategy, percent, of what) beside slim."""
    found = []
    if any(section.kind == "shortcut" for section in netdef.layers):
        found += [("normal", SMALL, "operations"), ("shortcut", SMALL, "operations")]
    if residual_blocks(netdef):
        found += [("layer_channel", SMALL, "operations"), ("layer", HALF, "channels")]
    return found


def _cut_row(
    recipe: Recipe, label: str, cuts: Sequence[Step], teachers: Sequence[Step] = ()
) -> Row:
    """Cuts, fine-tuned each, with the teacher of the same seed too where there are teachers."""
    tuned = [_tuned(recipe, cut, seed) for seed, cut in enumerate(cuts)]
    taught = [
        _tuned(recipe, cut, seed, teacher)
        for seed, (cut, teacher) in enumerate(zip(cuts, teachers, strict=False))
    ]
    return Row(label, tuple(tuned), tuple(cuts), tuple(taught))


def _dense(recipe: Recipe, seed: int) -> Step:
    return _from_weights(recipe, "dense", recipe.total, seed)


def _sparse(recipe: Recipe, seed: int) -> Step:
    return _drawn(recipe, "sparse", recipe.sparse_epochs, seed)


def _gradual(recipe: Recipe, seed: int) -> Step:
    flags = ("--prune_while_training", "--cut_epochs", str(recipe.sparse_epochs),
             "--percent", f"{SMALL:g}", "--percent_of", "operations")  # fmt: skip
    return _drawn(recipe, "gradual", recipe.sparse_epochs + recipe.tune_epochs, seed, *flags)


def _drawn(recipe: Recipe, name: str, epochs: int, seed: int, *flags: str) -> Step:
    """Train with a pull on the scales, after `dense_epochs` without."""
    before = recipe.dense_epochs
    start = _from_weights(recipe, "start", before, seed) if before else None
    pull = ("--is_pruned", "--sparse_rate", f"{recipe.sparse_rate:g}")
    return _from_weights(recipe, name, epochs, seed, *pull, *flags, start=start)


def _from_weights(
    recipe: Recipe, name: str, epochs: int, seed: int, *flags: str, start: Step | None = None
) -> Step:
    weights = str(start.result) if start else recipe.weights
    network = ("--cfg", recipe.cfg, "--pretrained", "--weights", weights)
    training = _training(recipe, epochs, seed, recipe.lr)
    after = (start,) if start else ()
    name = f"{recipe.name}-{name}-{seed}"
    return Step(name, "train.py", (*network, *flags, *training), after, epochs)


def _cut(
    recipe: Recipe, start: Step, strategy: str, percent: float, of: str, score: str = "gamma"
) -> Step:
    name = f"{start.name}-{strategy}-{of}-{100 * percent:g}"
    if score != "gamma":
        name = f"{name}-{score}"
    amount = ("--percent", f"{percent:g}", "--percent_of", of, "--importance", score)
    return _prune(recipe, start, name, strategy, *amount)


def _cut_to_time(recipe: Recipe, start: Step, strategy: str, speedup: float) -> Step:
    name = f"{start.name}-{strategy}-{speedup:g}x"
    amount = ("--target_speedup", f"{speedup:g}", "--backend", "torch")
    return _prune(recipe, start, name, strategy, *amount)


def _prune(recipe: Recipe, start: Step, name: str, strategy: str, *amount: str) -> Step:
    flags = ("--weights", str(start.result), "--data", recipe.data, "--pruned_id", strategy,
             *amount, "--workers", "0")  # fmt: skip
    return Step(name, "prune.py", flags, (start,))


def _tuned(recipe: Recipe, cut: Step, seed: int, teacher: Step | None = None) -> Step:
    flags = ("--pretrained", "--weights", str(cut.result))
    if not teacher:
        return _after_cut(recipe, cut, "tuned", seed, *flags)
    step = _after_cut(recipe, cut, "taught", seed, *flags, "--teacher", str(teacher.result))
    return Step(step.name, step.script, step.flags, (cut, teacher), step.epochs)


def _after_cut(recipe: Recipe, cut: Step, how: str, seed: int, *flags: str) -> Step:
    """Train what a cut left, from its weights, or from random ones for all epochs."""
    epochs = recipe.total if how == "random" else recipe.tune_epochs
    cfg = ("--cfg", str(cut.run.weights / "pruned.cfg"))
    training = _training(recipe, epochs, seed, recipe.tune_lr)
    return Step(f"{cut.name}-{how}", "train.py", (*cfg, *flags, *training), (cut,), epochs)


def _training(recipe: Recipe, epochs: int, seed: int, lr: float) -> tuple[str, ...]:
    return ("--data", recipe.data, "--img_size", str(recipe.img_size), "--epochs", str(epochs),
            "--lr", f"{lr:g}", "--seed", str(seed), "--eval_every", str(recipe.eval_every),
            "--workers", "0", "--no-visdom")  # fmt: skip


def in_order(rows: Sequence[Row]) -> list[Step]:
    """Every step of some rows once, each behind those that it starts from."""
    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        for earlier in step.after:
            visit(earlier)
        found.setdefault(step.name, step)

    for row in rows:
        for step in (*row.trained, *row.cut, *row.taught):
            visit(step)
    return list(found.values())


def run_steps(steps: Sequence[Step], scripts: Path, logs: Path, jobs: int) -> None:
    """Run what is not done yet, `jobs` at a time, each with its share of the cores, or as many as
    the environment's OMP_NUM_THREADS says.

    scripts: the folder of train.py and prune.py. logs: a folder for what they print. A step that
    fails ends all with InputError, which names its log; what is done stays, and a training that
    was stopped goes on from its last epoch the next time.
    """
    waiting = [step for step in steps if not step.done]
    finished = {step.name for step in steps} - {step.name for step in waiting}
    running: dict[str, subprocess.Popen[bytes]] = {}
    logs.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(steps), initial=len(finished), desc="runs", dynamic_ncols=True) as progress:
        try:
            while waiting or running:
                for name in [
                    name for name, process in running.items() if process.poll() is not None
                ]:
                    _check(running.pop(name).returncode, logs / f"{name}.log")
                    finished.add(name)
                    progress.update()
                ready = [s for s in waiting if finished.issuperset(a.name for a in s.after)]
                for step in ready[: jobs - len(running)]:
                    waiting.remove(step)
                    running[step.name] = _start(step, scripts, logs, jobs)
                    progress.set_postfix_str(", ".join(running))
                time.sleep(POLL)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()


def _start(step: Step, scripts: Path, logs: Path, jobs: int) -> subprocess.Popen[bytes]:
    step.clear()
    script, *flags = step.command()
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with (logs / f"{step.name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(scripts / script), *flags],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": threads, **os.environ, "TQDM_DISABLE": "1"},
        )


def _check(code: int, log: Path) -> None:
    if code:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        last = text.rpartition("\n")[2] or "nothing printed"
        raise InputError(f"{log}: the run ended with exit code {code}: {last}")
