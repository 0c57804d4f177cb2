"""Nothing works on Linux alone; docs/platforms.md says what was tried where."""

import ast
import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.data.demo_data import DemoSettings, make_demo

FOLDERS = ("models", "pruning", "tools", "utils", "yolov3")
MODULES = sorted([*ROOT.glob("*.py"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.py"))])
SCRIPTS = [path for path in MODULES if path.parent in (ROOT, ROOT / "tools")]

# What Windows lacks, and some of it macOS, too.
LINUX_ONLY = {
    "fcntl", "resource", "pwd", "grp", "termios", "tty", "pty",  # modules
    "fork", "forkpty", "getpgid", "killpg", "setsid", "getuid", "geteuid", "mkfifo", "nice",
    "sched_getaffinity", "sched_setaffinity", "statvfs", "uname", "O_NONBLOCK", "O_DIRECTORY",
    "SIGKILL", "SIGHUP", "SIGALRM", "SIGPIPE", "SIGCHLD", "setitimer", "symlink_to", "symlink",
    "SO_REUSEPORT", "preexec_fn", "malloc_trim",
}  # fmt: skip
FOLDERS_OF_LINUX = ("/proc/", "/dev/", "/sys/", "/tmp", "/bin/", "/usr/", "/etc/", "/home/")
# Where one of these is right, and why.
ALLOWED = {
    ("utils/files/temporary.py", "fcntl"): "not on Windows, where an open file cannot be renamed",
    ("utils/files/temporary.py", "O_NONBLOCK"): "beside it",
    ("utils/data/datasets.py", "fork"): "compared with how processes start",
    ("utils/processes/workers.py", "sched_getaffinity"): "where there is one",
    ("utils/errors.py", "SIGHUP"): "where there is one",
    ("utils/timing.py", "/proc/cpuinfo"): "where there is one",
    ("utils/benchmark/memory.py", "malloc_trim"): "on Linux, where the library has it",
    ("tools/fuzz.py", ""): "says that it is for Linux",
    ("tools/experiment.py", "preexec_fn"): "of jobs of a Slurm cluster, which is Linux; else None",
    ("tools/check_kills.py", ""): "says that it is for Linux",
    ("tools/fuzz_targets.py", "/tmp/x"): "a text to be mutated",
    ("tools/peers.py", "symlink_to"): "for other projects' loaders, among the temporary files",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def used(path: Path) -> Iterator[str]:
    """The names and texts in a module that stand for something of Linux."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.keyword) and node.arg:
            names = [node.arg]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
            if node.value.startswith(FOLDERS_OF_LINUX) and " " not in node.value:
                yield node.value
        yield from set(names) & LINUX_ONLY


def test_what_only_linux_has_is_used_where_it_is_known() -> None:
    found = {
        (name_of(path), name)
        for path in MODULES
        if (name_of(path), "") not in ALLOWED
        for name in used(path)
    }
    assert found <= ALLOWED.keys()


TEXT_READERS = {"read_text", "write_text", "open"}


def unnamed_encodings(path: Path) -> Iterator[int]:
    """Lines that open a text file in the encoding of the machine."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        if any(word.arg in ("text", "universal_newlines") for word in node.keywords):
            yield node.lineno
        if isinstance(node.func, ast.Attribute) and node.func.attr in TEXT_READERS:
            owner = getattr(node.func.value, "id", "")
            texts = [value.value for value in node.args if isinstance(value, ast.Constant)]
            is_text = node.func.attr != "open" or any(t in ("r", "w", "a", "x") for t in texts)
            named = any(word.arg == "encoding" for word in node.keywords)
            if is_text and not named and owner not in ("os", "Pillow"):
                yield node.lineno
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            yield node.lineno


def test_each_text_file_names_its_encoding() -> None:
    odd = [f"{name_of(p)}:{line}" for p in MODULES for line in unnamed_encodings(p)]
    assert not odd


HARMLESS = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign),
)


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_script_does_nothing_when_a_new_process_imports_it(path: Path) -> None:
    """As processes do that are spawned, which are all on Windows and macOS."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) in (
                "__name__ == '__main__'", "TYPE_CHECKING", "sys.platform != 'win32'",
            )  # fmt: skip
        elif isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant)  # a docstring
        else:
            assert isinstance(node, HARMLESS), ast.unparse(node)


CFG = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=8
pad=1
activation=leaky
[convolutional]
filters=45
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=8,8, 16,16, 32,32
classes=10
num=3
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_demo(tmp_path / "demo", DemoSettings(train=6, valid=4, side=64))
    names = "".join(f"{digit}\n" for digit in range(10))
    (tmp_path / "demo.names").write_text(names, encoding="utf-8")
    (tmp_path / "demo.data").write_text(
        "names = demo.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n", encoding="utf-8"
    )
    (tmp_path / "tiny.cfg").write_text(CFG, encoding="utf-8")
    return tmp_path


def run(project: Path, program: str) -> str:
    """Run a program in a process of its own; what it prints."""
    script = project / "program.py"
    script.write_text(program, encoding="utf-8")
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['program.py']\n"
    script.write_text(path + program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=project, capture_output=True, encoding="utf-8", timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return done.stdout


TRAIN = (
    "['--cfg', 'tiny.cfg', '--data', 'demo.data', '--batch_size', '4', '--epochs', '2', "
    "'--monitor', 'none', '--name', {name!r}, '--workers', {workers!r}]"
)
WITHOUT_LINUX = """
import filelock, matplotlib.figure, matplotlib.font_manager, cv2, scipy.optimize, torchvision
import PIL.Image, torch.utils.data, psutil, terminaltables, tqdm, tyro
import contextlib, importlib, multiprocessing, os, signal, socket, subprocess, tempfile, shutil
from pathlib import Path

OPTIONAL = ("openvino", "onnx", "onnxruntime", "ncnn", "nncf")
for name in OPTIONAL:  # libraries know where they are
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "pwd", "grp", "termios"):
            raise ModuleNotFoundError(name)

for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
for module, names in (
    (os, "fork forkpty getpgid killpg setsid mkfifo nice sched_getaffinity"),  # libraries use more
    (signal, "SIGKILL SIGHUP SIGALRM SIGPIPE SIGCHLD setitimer"),
):
    for name in names.split():
        vars(module).pop(name, None)
sys.platform = "win32"

def expect_to_import(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL:
            raise
"""


def test_all_modules_can_be_imported_and_a_training_runs_without_what_only_linux_has(
    project: Path,
) -> None:
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in MODULES]
    names = [name.removesuffix(".__init__") for name in names if name != "setup"]
    flags = TRAIN.format(name="elsewhere", workers="0")
    program = (
        WITHOUT_LINUX
        + f"for name in {names!r}:\n    expect_to_import(name)\n"
        + "import train, test, detect_img, check_data\nfrom utils import errors\n"
        + f"assert errors.run(lambda: train.main({flags})) == 0\n"
        + "data = ['--data', 'demo.data']\n"
        + "assert errors.run(lambda: test.main(data)) == 0\n"
        + "assert errors.run(lambda: check_data.main(data)) == 0\n"
        + "source = ['--source', 'demo/images/valid', '--engine', 'torch']\n"
        + "assert errors.run(lambda: detect_img.main(source)) == 0\n"
    )
    run(project, program)
    assert b"\r" not in (project / "runs/elsewhere/metrics.csv").read_bytes()


def figures(project: Path, name: str) -> list[dict[str, str]]:
    text = (project / "runs" / name / "metrics.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in rows]


@pytest.mark.slow
def test_spawned_workers_load_the_same_photos(project: Path) -> None:
    """Training and validation with workers that are started anew, as on Windows and macOS."""
    program = (
        "import multiprocessing, train\nfrom utils import errors\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    sys.exit(errors.run(lambda: train.main({})))\n"
    )
    for name, workers in (("alone", "0"), ("spawned", "2")):
        run(project, program.format(TRAIN.format(name=name, workers=workers)))
    assert figures(project, "spawned") == figures(project, "alone")
