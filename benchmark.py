"""How fast are networks on this machine? Networks x engines x precisions, measured in turns.

    python benchmark.py
    python benchmark.py --weights weights/NAME/best.pt weights/NAME-slim-70/pruned.pt
    python benchmark.py --engines torch openvino --precisions fp32 bf16 int8 --batches 1 8
    python benchmark.py --weights weights/A/best.pt weights/B/best.pt --data data/custom.data
    python benchmark.py --weights config/yolov3.cfg config/yolov3-tiny.cfg --peers --memory

A .cfg stands for the network with random weights, which is as fast as a trained one. Of several
networks, each is compared with the first. Prints a table and leaves benchmark.md, benchmark.csv and
benchmark.png in the output folder. `--seconds` bounds the time that is spent on measuring.
`--peers` lets public PyTorch implementations take turns with ours where they are installed, see
utils/benchmark/peers.py. `--memory` opens everything once more, each in a process of its own.
`--data` measures mAP as well, through every engine, and leaves mean_ap.png, mAP against
milliseconds.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from import_param import Benchmark, BenchmarkSettings, TrainedNetwork
from models import netdef as cfg_files
from models.darknet import Darknet
from utils.backends import ENGINES, PRECISIONS, install_command
from utils.benchmark.accuracy import validation_photos, with_mean_ap
from utils.benchmark.latency import (
    UPSTREAM,
    Candidate,
    csv_table,
    markdown_table,
    measure,
    open_all,
    plot,
    plot_accuracy,
    terminal_table,
)
from utils.benchmark.memory import MEMORY, with_memory
from utils.benchmark.peers import PEERS
from utils.checkpoint import check_for_photos, check_size, load_network
from utils.data.calibration import sample_images
from utils.errors import InputError, run
from utils.files import output_folder, write_text
from utils.settings import load, save
from utils.timing import machine, version

RANDOM_PHOTOS = 8  # that int8 is calibrated on where only its speed is asked for


def main(argv: list[str] | None = None) -> None:
    p = load(BenchmarkSettings, argv)
    if p.benchmark.threads:
        torch.set_num_threads(p.benchmark.threads)
    engines, precisions = choose(p.benchmark)
    candidates = open_networks(p)
    photos = validation_photos(candidates, p.data) if p.data.data else None
    folder = output_folder(p.benchmark.output)
    opened = open_all(candidates, engines, precisions, p.benchmark.batches, p.benchmark.threads)
    found = measure(candidates, opened, p.benchmark.rounds, p.benchmark.seconds)
    if photos:
        found = with_mean_ap(candidates, found, opened, photos, p.evaluation, p.nms)
    if p.benchmark.memory:
        opened.clear()
        found = with_memory(candidates, found, p.benchmark.threads)
    text = about(p, engines)
    print(f"{terminal_table(found)}\n{text}")
    save(p, folder / "settings.json")
    write_text(folder / "benchmark.md", markdown_table(found, text))
    write_text(folder / "benchmark.csv", csv_table(found))
    plot(found, folder / "benchmark.png")
    if photos:
        plot_accuracy(found, folder / "mean_ap.png")
    print(f"benchmark.md, .csv and .png are in {folder}")


def choose(asked: Benchmark) -> tuple[list[str], list[str]]:
    """The engines and precisions to measure; engines that are not installed are told."""
    engines = list(asked.engines)
    if not engines:
        engines = [name for name in ENGINES if not install_command(name)]
        missing = [name for name in ENGINES if name not in engines]
        if missing:
            print(f"not installed: {', '.join(missing)}: pip install -r requirements/engines.txt")
    for name in engines:
        install_command(name)  # refuses what is not known
    for precision in asked.precisions:
        if precision not in PRECISIONS:
            raise InputError(f"precisions={precision!r}: expected some of {', '.join(PRECISIONS)}")
    return [*engines, *(PEERS if asked.peers else ())], list(asked.precisions)


def open_networks(p: BenchmarkSettings) -> list[Candidate]:
    """The networks, with photos to calibrate on where int8 is asked for."""
    asked = p.benchmark
    found = [open_one(path, short(path, asked.weights), asked.img_size) for path in asked.weights]
    if "int8" in asked.precisions:
        found = [dataclasses.replace(one, calibration=photos_for(one, p)) for one in found]
    return found


def photos_for(candidate: Candidate, p: BenchmarkSettings) -> torch.Tensor:
    """What int8 is calibrated on."""
    if path := p.benchmark.calibration or p.data.data:
        source, count = dataclasses.replace(p.data, data=path), p.benchmark.calibration_photos
        return sample_images(source, candidate.size, candidate.letterbox, count)
    return torch.rand(RANDOM_PHOTOS, 3, *reversed(candidate.size))


def open_one(path: str, name: str, img_size: int) -> Candidate:
    """A trained network, or a .cfg with random weights; on the CPU."""
    if Path(path).suffix != ".cfg":
        network = load_network(TrainedNetwork(weights=path, device="cpu", img_size=img_size))
        own, used = ("x".join(map(str, s)) for s in (network.model.netdef.size, network.size))
        if own != used:
            print(f"note: {name}: made for {own} px, measured at {used} (--img_size 0: at its own)")
        return Candidate(name, network.model, network.size, letterbox=network.letterbox)
    netdef = cfg_files.load(path)
    check_for_photos(netdef)
    size = (img_size, img_size) if img_size else netdef.size
    check_size(netdef, size)
    return Candidate(name, Darknet(netdef).eval(), size, None, netdef.letterbox, trained=False)


def short(path: str, others: tuple[str, ...]) -> str:
    """A name for a network: its file's, with as much of its path as sets it apart from others.

    Raises InputError where it is among them twice.
    """
    ways: tuple[Callable[[Path], str], ...] = (
        lambda p: p.stem,
        lambda p: f"{p.parent.name}/{p.stem}",
        str,
    )
    for name in ways:
        if [name(Path(other)) for other in others].count(name(Path(path))) == 1:
            return name(Path(path))
    raise InputError(f"weights={path!r}: expected each network once")


def about(p: BenchmarkSettings, engines: list[str]) -> str:
    """How it was measured, in words."""
    asked, data = p.benchmark, p.data.data
    packages = dict.fromkeys(
        ENGINES[name].packages[0] if name in ENGINES else name
        for name in ("torch", *engines)
        if name not in PEERS or version(name)
    )
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    size = f"{asked.img_size}x{asked.img_size} px" if asked.img_size else "each network's own size"
    int8 = ""
    if "int8" in asked.precisions and not (asked.calibration or data):
        int8 = " int8 was calibrated on noise: for its speed alone."
    peers = f" Peers decode boxes, too; vs {UPSTREAM}: times its speed." if asked.peers else ""
    memory = f" Memory: {MEMORY}." if asked.memory else ""
    mean_ap = f" mAP: of the validation photos of {data}." if data else ""
    return (
        f"{machine()}; {versions}. {size}; from images in memory to raw maps, median and quartiles "
        f"of up to {asked.rounds} rounds in which all took turns; speed-up against the first "
        "network on the same engine; peak: the best of a large float32 convolution in these rounds."
        f"{peers}{int8}{memory}{mean_ap}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
