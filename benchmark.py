"""How fast are networks on this machine? Networks x engines x precisions, measured in turns.

    python benchmark.py --weights weights/A/best.pt weights/B/pruned.pt --data my_photos
    python benchmark.py --engine torch openvino --precision fp32 bf16 int8 --batch_size 1 8
    python benchmark.py --weights config/yolov3.cfg config/yolov3-tiny.cfg --peers --memory
    python benchmark.py --device cpu cuda --engine torch --precision fp32

A .cfg stands for the network with random weights, which is as fast as a trained one. Of several
networks, each is compared with the first. Prints a table and leaves benchmark.md, benchmark.csv and
benchmark.png in the output folder. `--seconds` bounds the time that is spent on measuring.
`--peers` lets public PyTorch implementations take turns with ours where they are installed, see
tools/peers.py. `--memory` opens everything once more, each in a process of its own.
`--data` measures mAP as well, through every engine, and leaves mean_ap.png, mAP against
milliseconds. Where it is stopped, what was measured so far is in unfinished.csv.
"""

from __future__ import annotations

import sys

from import_param import Benchmark, BenchmarkSettings
from utils.console.progress import say
from utils.errors import run
from utils.settings.loader import given, load, save

FIRST_FLAGS = (  # of --help; --help_all has the others
    *("weights", "engine", "device", "precision"),
    *("batch_size", "img_size", "data", "output"),
)


def main(argv: list[str] | None = None) -> None:
    """Read the flags, open the networks, time them in turns, and write tables and plots."""
    settings = load(BenchmarkSettings, argv, about=__doc__, first=FIRST_FLAGS)
    # Imported after the flags are read, so that --help and a mistyped flag need no torch.
    import torch

    from tools.peers import PEERS
    from utils.benchmark.accuracy import validation_photos, with_mean_ap
    from utils.benchmark.latency import measure
    from utils.benchmark.memory import with_memory
    from utils.benchmark.networks import choose_devices, open_all, open_candidates
    from utils.benchmark.tables import (
        csv_table,
        markdown_table,
        plot,
        plot_accuracy,
        terminal_table,
        unfinished,
    )
    from utils.console.next_steps import after_benchmark
    from utils.devices import choose_device, give_memory_back
    from utils.files.paths import output_folder
    from utils.files.writing import write_text

    benchmark = settings.benchmark
    if benchmark.threads:
        torch.set_num_threads(benchmark.threads)
    engines, peers = choose_engines(benchmark), PEERS if benchmark.peers else {}
    devices = choose_devices(benchmark.device)
    candidates = open_candidates(benchmark, settings.data, given(argv))
    photos = validation_photos(candidates, settings.data) if settings.data.data else None
    folder = output_folder(benchmark.output)
    opened = open_all(candidates, engines, benchmark, peers, devices=devices)
    with unfinished(folder / "unfinished.csv") as keep:
        rows = measure(candidates, opened, benchmark, keep)
        machines = machines_text(devices)  # now, since an idle card lowers its clock
        if photos:
            rows = with_mean_ap(
                candidates, rows, opened, photos, settings.evaluation, settings.nms, keep
            )
        if benchmark.memory:
            opened.clear()
            give_memory_back()
            rows = with_memory(candidates, rows, benchmark.threads, peers, keep)
        method = method_text(settings, engines, list(peers), devices, machines)
        say(f"{terminal_table(rows)}\n{method}")
        save(settings, folder / "settings.json")
        write_text(folder / "benchmark.md", markdown_table(rows, method))
        write_text(folder / "benchmark.csv", csv_table(rows))
        plot(rows, folder / "benchmark.png")
        if photos:
            plot_accuracy(rows, folder / "mean_ap.png")
    say(f"benchmark.md, .csv and .png are in {folder}")
    files = dict(zip((each.name for each in candidates), benchmark.weights, strict=True))
    trained = [each.name for each in candidates if each.trained] or list(files)
    if own := [row for row in rows if row.engine in engines and row.network in trained]:
        fastest = min(own, key=lambda row: row.ms / row.batch)
        folder_of_photos = photos.photos[0].path.parent if photos else None
        after_benchmark(
            settings,
            files[fastest.network],
            fastest.engine,
            fastest.precision,
            "" if fastest.device == str(choose_device("auto")) else fastest.device,
            folder_of_photos,
        )


def choose_engines(settings: Benchmark) -> list[str]:
    """The engines to measure; of all engines, those that are not installed are told."""
    from utils.backends import ENGINES, install_command

    for name in settings.engine:
        install_command(name)  # refuses what is not known
    if settings.engine:
        return list(settings.engine)
    installed = [name for name in ENGINES if not install_command(name)]
    if missing := [name for name in ENGINES if name not in installed]:
        say(f"not installed: {', '.join(missing)}: pip install -r requirements/engines.txt")
    return installed


def machines_text(devices: list[str]) -> str:
    """What computed, in words, and how fast its clock is."""
    from utils.devices import choose_device
    from utils.timing import clocks, machine

    places = [choose_device(device) for device in devices]
    return "; ".join(", ".join(filter(None, (machine(p), clocks(p)))) for p in places)


def method_text(
    settings: BenchmarkSettings,
    engines: list[str],
    peers: list[str],
    devices: list[str],
    machines: str,
) -> str:
    """How it was measured, in words."""
    from utils.backends import ENGINES
    from utils.benchmark.latency import UPSTREAM
    from utils.benchmark.memory import CARD_METHOD, METHOD
    from utils.timing import version

    benchmark, data = settings.benchmark, settings.data.data
    packages = [ENGINES[name].packages[0] for name in ("torch", *engines)]
    packages = list(dict.fromkeys([*packages, *filter(version, peers)]))
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    side = benchmark.img_size
    size = f"{side}x{side} px" if side else "each network's own size"
    on_noise = "int8" in benchmark.precision and not (benchmark.calibration or data)
    on_card = devices != ["cpu"]
    return (
        f"{machines}; {versions}. {size}; from images in memory to raw maps, median and quartiles "
        f"of up to {benchmark.rounds} rounds in which all took turns; speed-up against the first "
        "network on the same engine; peak: the best of a large float32 convolution in these rounds."
        + (" On a card, images are in its memory, and it is waited for." if on_card else "")
        + (f" Peers decode boxes, too; vs {UPSTREAM}: times its speed." if peers else "")
        + (" int8 was calibrated on noise: for its speed alone." if on_noise else "")
        + (f" Memory: {METHOD}" if benchmark.memory else "")
        + (f"; {CARD_METHOD}" if benchmark.memory and on_card else "")
        + ("." if benchmark.memory else "")
        + (f" mAP: of the validation photos of {data}." if data else "")
    )


if __name__ == "__main__":
    sys.exit(run(main))
