"""Which trainings and cuts make up the reference experiment, and in what order do they run?"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from import_param import (
    BelowOne,
    Count,
    ImportanceName,
    NotNegative,
    Positive,
    Pruning,
    RunName,
    Speedup,
    StrategyName,
    Whole,
)
from utils.console.progress import Wait, say
from utils.errors import InputError
from utils.files.reading import read_text
from utils.files.writing import write_text

if TYPE_CHECKING:
    from models.netdef import NetDef
    from utils.training.runs import Run

TEACHER_FROM = 0.85  # from this share of the channels on, fine-tuning is tried with a teacher, too
BLOCKS_CUT = 0.5  # the share of the residual blocks that `layer` removes
NO_WORKERS = 0  # processes that load photos for a step here, where several may run at once
POLL_SECONDS = 0.5  # between looks at the running processes


@dataclass(frozen=True)
class Reproduce:
    """The reference experiment of pruning."""

    name: RunName = ""  # with which its runs' names begin; empty = from the .data and .cfg
    cfg: str = "config/yolov3-tiny.cfg"  # the network
    weights: str = "yolov3-tiny.weights"  # what it starts from; empty = random weights
    data: str = "data/custom.data"  # the photos
    img_size: Count = 320  # input width and height, pixels
    dense_epochs: Whole = 0  # of training before the sparse one
    sparse_epochs: Count = 20  # of sparse training
    tune_epochs: Count = 40  # of fine-tuning; others train for the sum of these three
    lr: Positive = 3e-3  # learning rate up to a cut
    tune_lr: Positive = 3e-3  # learning rate from a cut, and of its controls
    sparse_rate: NotNegative = 2.5e-4  # as train.py's
    # strategies to compare, or yours, FILE.py:FUNCTION; none = the reference experiment's
    strategy: tuple[StrategyName, ...] = ()
    # what channels are judged by, each with each strategy, or yours, FILE.py:FUNCTION
    importance: tuple[ImportanceName, ...] = ("gamma",)
    percent: BelowOne = 0.85  # the share of the operations that the main cuts take away
    channels: tuple[BelowOne, ...] = (0.5, 0.7, 0.85, 0.95)  # shares of them that slim cuts
    # times faster, by latency and by its rivals
    speedups: tuple[Speedup, ...] = (1.5, 2.0, 3.0, 4.0)
    only: tuple[str, ...] = ()  # rows whose label has one of these words, and "dense"; none = all
    # parts that the training photos are split into, by their names: each row is trained for each
    # part, to be validated on it; 0 = the data set's own photos to validate on
    folds: Whole = 0
    eval_every: Count = 4  # epochs between evaluations
    seed: tuple[Whole, ...] = (0, 1, 2)  # of the main rows; the others take the first alone
    # what runs them: this machine, or the jobs of a Slurm cluster
    launcher: Literal["local", "slurm"] = "local"
    jobs: Count = 2  # runs at once on this machine, each with its share of the cores
    dry_run: bool = False  # print the commands and what each waits for; nothing is started

    def check(self) -> None:
        """Raises ValueError where nothing is asked for, or the same twice."""
        for name in ("seed", "importance"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}={values}: expected at least one, and each once")
        if self.folds == 1:
            raise ValueError("folds=1: expected 0, or two and more")

    @property
    def compared(self) -> tuple[str, ...]:
        """The strategies to compare, by name; none for the reference experiment's."""
        names = [Pruning(pruned_id=strategy).strategy for strategy in self.strategy]
        if not names and self.importance != ("gamma",):
            names = ["slim"]
        return tuple(dict.fromkeys(names))

    @property
    def run_name(self) -> str:
        """The name of the experiment, with which its runs' names begin."""
        return self.name or f"{Path(self.data).stem}-{Path(self.cfg).stem}"

    @property
    def total_epochs(self) -> int:
        """The epochs of whatever is trained in one go."""
        return self.dense_epochs + self.sparse_epochs + self.tune_epochs


@dataclass(frozen=True)
class Step:
    """A run of train.py or prune.py."""

    name: str
    script: str
    flags: tuple[str, ...]
    after: tuple[Step, ...] = ()  # the steps whose results it starts from
    epochs: int = 0  # of a training

    @property
    def run(self) -> Run:
        """Its folders."""
        from utils.training.runs import Run

        return Run(self.name)

    @property
    def result(self) -> Path:
        """The network that it leaves.

        Of a training the last epoch's: the best would be chosen on the photos that it is measured
        on.
        """
        return self.run.weights / ("pruned.pt" if self.script == "prune.py" else "last.pt")

    @property
    def done(self) -> bool:
        """Whether it came to its result."""
        from utils.checkpoint.checkpoint import read_checkpoint

        if not self.result.is_file():
            return False
        if not self.epochs:
            return True
        training = read_checkpoint(self.result).training
        return training is not None and training.epoch == self.epochs

    @property
    def asked(self) -> str:
        """What decides its result, as a command."""
        return shlex.join([self.script, *self.flags])

    def command(self, workers: int) -> list[str]:
        """What to run: from the start, or where a training was stopped, on from there.

        workers: processes that load photos.
        """
        loading = ("--workers", str(workers))
        if self.epochs and self.result.is_file():
            return [self.script, "--resume", str(self.result), "--no_visdom", *loading]
        return [self.script, "--name", self.name, *self.flags, *loading]

    @property
    def in_use(self) -> bool:
        """Whether a process works on it, such as one that a kill of this program left behind."""
        from utils.training.runs import RunInUseError

        run = self.run
        try:
            if run.folder.exists():
                with run.claim():
                    pass
        except RunInUseError:
            return True
        return False


@dataclass(frozen=True)
class Row:
    """A line of the table; its steps are by fold, if there are folds, and by seed."""

    label: str
    trained: tuple[Step, ...]  # the trainings whose last epochs count
    cut: tuple[Step, ...] = ()  # the cuts, if it has any
    taught: tuple[Step, ...] = ()  # the trainings with a teacher


def plan_folds(settings: Reproduce, netdef: NetDef, data: Sequence[Path]) -> list[Row]:
    """The rows of the table, each with its steps for every fold.

    data: the folds' `.data` files; none for the data set as it is.
    """
    if not data:
        return plan_rows(settings, netdef)
    folds = [
        plan_rows(
            replace(settings, data=str(file), name=f"{settings.run_name}-fold{number}"), netdef
        )
        for number, file in enumerate(data, start=1)
    ]
    return [
        Row(
            rows[0].label,
            tuple(step for row in rows for step in row.trained),
            tuple(step for row in rows for step in row.cut),
            tuple(step for row in rows for step in row.taught),
        )
        for rows in zip(*folds, strict=True)
    ]


def plan_rows(settings: Reproduce, netdef: NetDef) -> list[Row]:
    """The rows of the table.

    Args:
        settings: the experiment.
        netdef: of `settings.cfg`; without residual blocks some rows make no sense, and without
            shortcuts they would be `slim`'s.
    """
    seeds = settings.seed
    dense = [_dense(settings, seed) for seed in seeds]
    sparse = [_sparse(settings, seed) for seed in seeds]
    if settings.compared:
        rows = [Row("dense", tuple(dense)), Row("sparse, not cut", tuple(sparse))]
        return rows + _compared_rows(settings, sparse)
    percent = settings.percent
    cuts = [_cut(settings, step, "slim", percent, "operations") for step in sparse]
    random = [
        _after_cut(settings, cut, "random", seed) for seed, cut in zip(seeds, cuts, strict=True)
    ]
    thin = _cut(settings, dense[0], "slim", percent, "operations", importance="uniform")
    rows = [
        Row("dense", tuple(dense)),
        Row("sparse, not cut", tuple(sparse)),
        _cut_row(settings, f"slim, {percent:.0%} of operations", cuts, dense),
        Row("control: as the first cut, random weights", tuple(random)),
        Row(
            "control: uniformly thin, random weights",
            (_after_cut(settings, thin, "random", seeds[0]),),
        ),
        Row(f"cut while training, {percent:.0%} of operations", (_gradual(settings, seeds[0]),)),
    ]
    for share in sorted(settings.channels, reverse=True):
        cut = _cut(settings, sparse[0], "slim", share, "channels")
        teachers = dense[:1] if share >= TEACHER_FROM else []
        rows.append(_cut_row(settings, f"slim, {share:.0%} of channels", [cut], teachers))
    for strategy, share, of in _other_strategies(netdef, settings.percent):
        cut = _cut(settings, sparse[0], strategy, share, of)
        unit = "blocks" if strategy == "layer" else of
        rows.append(_cut_row(settings, f"{strategy}, {share:.0%} of {unit}", [cut]))
    for speedup in settings.speedups:
        for strategy in _timed_strategies(netdef):
            cut = _cut_to_time(settings, sparse[0], strategy, speedup)
            rows.append(_cut_row(settings, f"{strategy}, {speedup:g} times faster", [cut]))
    return rows


def _compared_rows(settings: Reproduce, sparse: Sequence[Step]) -> list[Row]:
    """The strategies that the user compares, with each importance and all seeds."""
    rows = []
    for strategy in settings.compared:
        for importance in settings.importance:
            by = f" by {_short(importance)}" if settings.importance != ("gamma",) else ""
            if strategy == "latency":
                for speedup in settings.speedups:
                    cuts = [
                        _cut_to_time(settings, step, strategy, speedup, importance)
                        for step in sparse
                    ]
                    rows.append(_cut_row(settings, f"latency{by}, {speedup:g} times faster", cuts))
                continue
            is_layer = strategy == "layer"
            share, of = (BLOCKS_CUT, "channels") if is_layer else (settings.percent, "operations")
            cuts = [_cut(settings, step, strategy, share, of, importance) for step in sparse]
            label = f"{_short(strategy)}{by}, {share:.0%} of {'blocks' if is_layer else of}"
            rows.append(_cut_row(settings, label, cuts))
    return rows


def _short(name: str) -> str:
    """What a strategy or an importance is called in names: of a user's file, the function."""
    return name.rpartition(":")[2]


def _timed_strategies(netdef: NetDef) -> list[str]:
    """Strategies that are compared at one time."""
    from pruning.residual_blocks import residual_blocks

    return ["latency", "slim", *(["layer_channel"] if residual_blocks(netdef) else [])]


def _other_strategies(netdef: NetDef, percent: float) -> list[tuple[str, float, str]]:
    """(strategy, percent, of what) beside slim."""
    from pruning.residual_blocks import residual_blocks

    cuts = []
    if any(section.kind == "shortcut" for section in netdef.layers):
        cuts += [("normal", percent, "operations"), ("shortcut", percent, "operations")]
    if residual_blocks(netdef):
        cuts += [("layer_channel", percent, "operations"), ("layer", BLOCKS_CUT, "channels")]
    return cuts


def _cut_row(
    settings: Reproduce, label: str, cuts: Sequence[Step], teachers: Sequence[Step] = ()
) -> Row:
    """Cuts, fine-tuned each, with the teacher of the same seed too where there are teachers."""
    tuned = [_tuned(settings, cut, seed) for seed, cut in zip(settings.seed, cuts, strict=False)]
    taught = [
        _tuned(settings, cut, seed, teacher)
        for seed, cut, teacher in zip(settings.seed, cuts, teachers, strict=False)
    ]
    return Row(label, tuple(tuned), tuple(cuts), tuple(taught))


def _dense(settings: Reproduce, seed: int) -> Step:
    return _from_weights(settings, "dense", settings.total_epochs, seed)


def _sparse(settings: Reproduce, seed: int) -> Step:
    return _sparse_training(settings, "sparse", settings.sparse_epochs, seed)


def _gradual(settings: Reproduce, seed: int) -> Step:
    flags = ("--prune_while_training", "--cut_epochs", str(settings.sparse_epochs),
             "--percent", f"{settings.percent:g}", "--percent_of", "operations")  # fmt: skip
    return _sparse_training(
        settings, "gradual", settings.sparse_epochs + settings.tune_epochs, seed, *flags
    )


def _sparse_training(settings: Reproduce, name: str, epochs: int, seed: int, *flags: str) -> Step:
    """Train with a penalty on the scales, after `dense_epochs` without."""
    before = settings.dense_epochs
    start = _from_weights(settings, "start", before, seed) if before else None
    penalty = ("--is_pruned", "--sparse_rate", f"{settings.sparse_rate:g}")
    return _from_weights(settings, name, epochs, seed, *penalty, *flags, start=start)


def _from_weights(
    settings: Reproduce, name: str, epochs: int, seed: int, *flags: str, start: Step | None = None
) -> Step:
    weights = str(start.result) if start else settings.weights
    pretrained = ("--pretrained", "--weights", weights) if weights else ()
    network = ("--cfg", settings.cfg, *pretrained)
    training = _training(settings, epochs, seed, settings.lr)
    after = (start,) if start else ()
    name = f"{settings.run_name}-{name}-{seed}"
    return Step(name, "train.py", (*network, *flags, *training), after, epochs)


def _cut(
    settings: Reproduce,
    start: Step,
    strategy: str,
    percent: float,
    of: str,
    importance: str = "gamma",
) -> Step:
    name = f"{start.name}-{_short(strategy)}-{of}-{100 * percent:g}"
    if importance != "gamma":
        name = f"{name}-{_short(importance)}"
    amount = ("--percent", f"{percent:g}", "--percent_of", of, "--importance", importance)
    return _prune(settings, start, name, strategy, *amount)


def _cut_to_time(
    settings: Reproduce, start: Step, strategy: str, speedup: float, importance: str = "gamma"
) -> Step:
    name = f"{start.name}-{_short(strategy)}-{speedup:g}x"
    amount = ["--target_speedup", f"{speedup:g}", "--engine", "torch"]
    if importance != "gamma":
        name = f"{name}-{_short(importance)}"
        amount += ["--importance", importance]
    return _prune(settings, start, name, strategy, *amount)


def _prune(settings: Reproduce, start: Step, name: str, strategy: str, *amount: str) -> Step:
    flags = ("--weights", str(start.result), "--data", settings.data, "--pruned_id", strategy,
             *amount)  # fmt: skip
    return Step(name, "prune.py", flags, (start,))


def _tuned(settings: Reproduce, cut: Step, seed: int, teacher: Step | None = None) -> Step:
    flags = ("--pretrained", "--weights", str(cut.result))
    if not teacher:
        return _after_cut(settings, cut, "tuned", seed, *flags)
    step = _after_cut(settings, cut, "taught", seed, *flags, "--teacher", str(teacher.result))
    return Step(step.name, step.script, step.flags, (cut, teacher), step.epochs)


def _after_cut(settings: Reproduce, cut: Step, how: str, seed: int, *flags: str) -> Step:
    """Train what a cut left, from its weights, or from random ones for all epochs."""
    epochs = settings.total_epochs if how == "random" else settings.tune_epochs
    cfg = ("--cfg", str(cut.run.weights / "pruned.cfg"))
    training = _training(settings, epochs, seed, settings.tune_lr)
    return Step(f"{cut.name}-{how}", "train.py", (*cfg, *flags, *training), (cut,), epochs)


def _training(settings: Reproduce, epochs: int, seed: int, lr: float) -> tuple[str, ...]:
    return ("--data", settings.data, "--img_size", str(settings.img_size), "--epochs", str(epochs),
            "--lr", f"{lr:g}", "--seed", str(seed), "--eval_every", str(settings.eval_every),
            "--no_visdom")  # fmt: skip


def in_order(rows: Sequence[Row]) -> list[Step]:
    """The steps of all rows, each once and behind those that it starts from."""
    steps: dict[str, Step] = {}

    def visit(step: Step) -> None:
        for earlier in step.after:
            visit(earlier)
        steps.setdefault(step.name, step)

    for row in rows:
        for step in (*row.trained, *row.cut, *row.taught):
            visit(step)
    return list(steps.values())


def remember_asked(step: Step, logs: Path) -> None:
    """Keep beside a step's log what is asked of it now."""
    write_text(_asked_file(step, logs), f"{step.asked}\n")


def expect_same_asked(
    steps: Sequence[Step], logs: Path, queued: Collection[str] = frozenset()
) -> None:
    """Refuse what was begun under a step's name with other flags: it would pass for what is asked.

    Args:
        steps: of an experiment.
        logs: the folder of their logs.
        queued: the names of those that a job in a queue will run.

    Raises:
        InputError: a step is done, stopped on its way, at work or in the queue with other flags.
    """
    for step in steps:
        file = _asked_file(step, logs)
        if not file.exists() or not (step.name in queued or step.result.is_file() or step.in_use):
            continue
        if (begun := read_text(file).strip()) != step.asked:
            raise InputError(
                f"{step.name}: was begun as `{begun}`, and `{step.asked}` is asked for: expected "
                "the same flags or another --name"
            )


def _asked_file(step: Step, logs: Path) -> Path:
    return logs / f"{step.name}.command"


def run_steps(steps: Sequence[Step], scripts: Path, logs: Path, jobs: int) -> None:
    """Run what is not done yet; what is done stays, and a stopped training goes on where it was.

    Args:
        steps: in an order in which each is behind those that it starts from. One that another
            process works on is waited for.
        scripts: the folder of train.py and prune.py.
        logs: a folder for what they print.
        jobs: how many run at a time, each with its share of the cores, or as many as the
            environment's OMP_NUM_THREADS says.

    Raises:
        InputError: a step failed, and the message names its log; or see `expect_same_asked`.
    """
    expect_same_asked(steps, logs)
    waiting = [step for step in steps if not step.done]
    finished = {step.name for step in steps} - {step.name for step in waiting}
    running: dict[str, subprocess.Popen[bytes]] = {}
    awaited: set[str] = set()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    logs.mkdir(parents=True, exist_ok=True)
    with Wait("runs", len(steps)) as wait:
        wait.advance(len(finished))
        try:
            while waiting or running:
                for name in [
                    name for name, process in running.items() if process.poll() is not None
                ]:
                    if code := running.pop(name).returncode:
                        log = logs / f"{name}.log"
                        raise InputError(
                            f"{log}: the run ended with exit code {code}: {last_line(log)}"
                        )
                    finished.add(name)
                    wait.advance()
                ready = [s for s in waiting if finished.issuperset(a.name for a in s.after)]
                for step in ready[: jobs - len(running)]:
                    if step.in_use:
                        if step.name not in awaited:
                            say(f"{step.name}: another process works on it: waiting for it")
                            awaited.add(step.name)
                        continue
                    waiting.remove(step)
                    if step.name in awaited and step.done:
                        finished.add(step.name)
                        wait.advance()
                        continue
                    remember_asked(step, logs)
                    running[step.name] = start_step(step, scripts, logs, threads)
                    wait.advance(0, ", ".join(running))
                time.sleep(POLL_SECONDS)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()


def start_step(
    step: Step,
    scripts: Path,
    logs: Path,
    threads: int,
    before: Callable[[], None] | None = None,
    workers: int = NO_WORKERS,
) -> subprocess.Popen[bytes]:
    """Start a step's command; what it prints is added to its log.

    Args:
        step: what to run.
        scripts: the folder of train.py and prune.py.
        logs: the folder of logs, which is there.
        threads: unless the environment's OMP_NUM_THREADS says otherwise.
        before: called in the new process, where there is something to do.
        workers: processes that load photos.
    """
    script, *flags = step.command(workers)
    with log_of(step, logs).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(scripts / script), *flags],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": str(threads), **os.environ, "TQDM_DISABLE": "1"},
            preexec_fn=before,
        )


def log_of(step: Step, logs: Path) -> Path:
    """The file that takes what a step prints."""
    return logs / f"{step.name}.log"


def last_line(log: Path) -> str:
    """The end of what a step printed."""
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
    return text.rpartition("\n")[2] or "nothing printed"


def planned(
    steps: Sequence[Step],
    scripts: Path,
    workers: int = NO_WORKERS,
    also: Callable[[Step, Sequence[str]], str] | None = None,
) -> str:
    """What would be run, and what each step waits for.

    Args:
        steps: in their order.
        scripts: the folder of train.py and prune.py.
        workers: processes that load photos for a step.
        also: what is to be said beside a step's command, of the step and those it waits for by
            name.
    """
    lines = []
    left = {step.name for step in steps if not step.done}
    for step in steps:
        if step.name not in left:
            lines.append(f"{step.name}: done")
            continue
        after = [earlier.name for earlier in step.after if earlier.name in left]
        lines.append(step.name + (f", after {', '.join(after)}" if after else ""))
        script, *flags = step.command(workers)
        lines.append("    " + shlex.join(["python", str(scripts / script), *flags]))
        lines += [f"    {also(step, after)}"] if also else []
    return "\n".join([*lines, f"{len(left)} of {len(steps)} runs are left to do"])
