"""What is measured: networks of ours on engines, and other projects' networks (peers)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from import_param import Benchmark, DataSet, TrainedNetwork
from models import netdef as cfg_files
from models.costs import count_parameters
from models.darknet import Darknet
from utils.backends import EngineOptions, engine_device, open_engine
from utils.backends.exported import ExportedFile, input_size, is_exported, open_file
from utils.checkpoint.network import check_for_photos, check_size, load_network
from utils.console.progress import say, track
from utils.data.calibration import sample_images
from utils.devices import CPU, choose_device, on_device, wait_for
from utils.errors import InputError
from utils.timing import machine

NOISE_IMAGES = 8  # that int8 is calibrated on where only its speed is asked for
Run = Callable[[Tensor], object]  # an engine, or a peer's network


@dataclass(frozen=True)
class Candidate:
    """A network of ours, and how it sees photos."""

    name: str
    model: Darknet | ExportedFile
    size: tuple[int, int]  # of its input, (width, height) in pixels
    calibration: Tensor | None = None  # photos [N, 3, H, W] to calibrate int8 on
    letterbox: bool = False  # whether photos keep their aspect
    trained: bool = True  # or else its weights are random
    int8_loss: float | None = None  # that is allowed; None = int8 is not compared with float
    names: tuple[str, ...] = ()  # of its classes


class Key(NamedTuple):
    """One thing that is measured."""

    network: str
    engine: str  # of `utils.backends.ENGINES`, or a peer
    precision: str
    batch: int
    device: str = "cpu"  # as torch calls it


@dataclass(frozen=True)
class Peer:
    """Another project."""

    module: str  # where it has its networks
    open: Callable[[Darknet, str], nn.Module]  # its network for one of ours and its name


class PeerNetwork:
    """Another project's network in eager PyTorch, in float32.

    Unlike an engine of ours it decodes the raw maps to boxes, as its `forward` does in inference.
    """

    def __init__(
        self, module: nn.Module, size: tuple[int, int], device: torch.device = CPU
    ) -> None:
        """Count its parameters, and its operations for an image of (width, height)."""
        self._module, self._device = module.eval().to(device), device
        self.parameters = count_parameters(module)
        counter = FlopCounterMode(display=False)
        with counter:
            self(torch.rand(1, 3, size[1], size[0], device=device))
        self.operations: int = counter.get_total_flops()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> object:
        """Images [B, 3, H, W] on its device → whatever it gives."""
        return self._module(images)

    def synchronize(self) -> None:
        """Wait for the card."""
        wait_for(self._device)


def choose_devices(names: Sequence[str], report: Callable[[str], None] = say) -> list[str]:
    """The devices to measure on; of those that nobody asked for, a line tells.

    Raises:
        InputError: torch has no such device here.
    """
    for name in names:
        choose_device(name)
    chosen = [str(choose_device(name)) if name == "auto" else name for name in names]
    if chosen:
        return list(dict.fromkeys(chosen))
    if not torch.cuda.is_available():
        return ["cpu"]
    report(f"on the CPU and on {machine(torch.device('cuda'))}; --device cpu: on the CPU alone")
    return ["cpu", "cuda"]


def open_candidates(
    settings: Benchmark, data: DataSet, asked: Collection[str] = ()
) -> list[Candidate]:
    """The networks that are asked for, with photos to calibrate on where int8 is.

    Args:
        settings: what is asked for.
        data: photos to calibrate on, where `settings` names none.
        asked: the names of settings that the user gave.
    """
    paths = settings.weights
    by_user = "img_size" in asked
    candidates = [open_candidate(p, short_name(p, paths), settings, by_user) for p in paths]
    if "int8" not in settings.precision:
        return candidates
    compared = bool(settings.calibration or data.data)  # noise shows no objects
    return [
        dataclasses.replace(
            candidate,
            calibration=_calibration(candidate, settings, data),
            int8_loss=settings.int8_loss if compared and candidate.trained else None,
        )
        if isinstance(candidate.model, Darknet)
        else candidate
        for candidate in candidates
    ]


def open_candidate(
    path: str, name: str, settings: Benchmark, size_is_asked: bool = False
) -> Candidate:
    """A trained network, an exported file, or a .cfg with random weights; on the CPU.

    Args:
        path: of the weights, the file or the .cfg.
        name: what the tables call it.
        settings: the size of its input, and how large it may be.
        size_is_asked: whether the size was, so that a file of another size is refused.
    """
    img_size = settings.img_size
    if is_exported(path):
        return _exported_candidate(open_file(path), name, img_size, size_is_asked)
    if Path(path).suffix != ".cfg":
        network = load_network(
            TrainedNetwork(
                max_network_gb=settings.max_network_gb,
                max_network_gflops=settings.max_network_gflops,
                weights=path,
                device="cpu",
                img_size=img_size,
            )
        )
        say(network.origin)
        own, used = ("x".join(map(str, s)) for s in (network.model.netdef.size, network.size))
        if own != used:
            say(f"note: {name}: made for {own} px, measured at {used} (--img_size 0: at its own)")
        return Candidate(
            name,
            network.model,
            network.size,
            letterbox=network.letterbox,
            names=network.names,
        )
    netdef = cfg_files.load(path)
    check_for_photos(netdef)
    size = (img_size, img_size) if img_size else netdef.size
    check_size(netdef, size, settings)
    return Candidate(name, Darknet(netdef).eval(), size, None, netdef.letterbox, trained=False)


def _exported_candidate(
    file: ExportedFile, name: str, img_size: int, size_is_asked: bool
) -> Candidate:
    about = file.description
    can_differ = about.input.varies or size_is_asked
    size = input_size(file, img_size if can_differ else 0)
    if img_size and size != (img_size, img_size):
        say(f"note: {name}: measured at {size[0]}x{size[1]} px, the only size of the file")
    return Candidate(name, file, size, letterbox=about.letterbox, names=about.names)


def short_name(path: str, paths: Sequence[str]) -> str:
    """A name for a network: its file's, with as much of its path as sets it apart from others.

    Raises:
        InputError: it is among the paths twice.
    """
    name_makers: tuple[Callable[[Path], str], ...] = (
        lambda p: p.stem,
        lambda p: p.name,
        lambda p: f"{p.parent.name}/{p.stem}",
        str,
    )
    for make_name in name_makers:
        if [make_name(Path(other)) for other in paths].count(make_name(Path(path))) == 1:
            return make_name(Path(path))
    raise InputError(f"weights={path!r}: expected each network once")


def _calibration(candidate: Candidate, settings: Benchmark, data: DataSet) -> Tensor:
    path = settings.calibration or data.data
    if not path:
        return torch.rand(NOISE_IMAGES, 3, *reversed(candidate.size))
    source, count = dataclasses.replace(data, data=path), settings.calibration_photos
    return sample_images(
        source,
        candidate.size,
        candidate.letterbox,
        count,
        is_data_set=not settings.calibration,
    ).images


def open_all(
    candidates: Sequence[Candidate],
    engines: Sequence[str],
    settings: Benchmark,
    peers: Mapping[str, Peer],
    report: Callable[[str], None] = say,
    devices: Sequence[str] = ("cpu",),
) -> dict[Key, Run]:
    """Open every combination that can be; the others are told with their reason.

    Args:
        candidates: the networks.
        engines: of `utils.backends.ENGINES`.
        settings: its `precision`, `batch_size` and `threads` count.
        peers: other projects by name, which compute in fp32 only.
        report: gets a line for each that is left out, but each reason once.
        devices: where; engines that compute on CPUs alone are opened there only.

    Raises:
        InputError: none can.
    """
    opened: dict[Key, Run] = {}
    reasons: set[str] = set()
    kinds = [(engine, precision) for engine in engines for precision in settings.precision]
    kinds += [(peer, "fp32") for peer in peers]
    places = [
        (candidate, *kind, device)
        for candidate in candidates
        for kind in _kinds(candidate, engines, kinds)
        for device in devices
    ]
    for candidate, engine, precision, device in track(places, "opening networks"):
        if not _computes_on(device, engine, candidate, peers):
            if engine not in reasons:
                report(f"not on {device}: {engine}, which computes on CPUs alone")
            reasons.add(engine)
            continue
        for batch in settings.batch_size:
            key = Key(candidate.name, engine, precision, batch, device)
            try:
                opened[key] = open_one(candidate, key, settings.threads, peers)
            except InputError as error:
                if str(error) not in reasons:
                    report(f"left out: {candidate.name}: {error}")
                reasons.add(str(error))
                break  # another batch changes nothing
    if not opened:
        raise InputError("no engine can run what was asked for, see above")
    return opened


def _computes_on(device: str, engine: str, candidate: Candidate, peers: Mapping[str, Peer]) -> bool:
    """Whether an engine or a peer runs a network on a device."""
    place = torch.device(device)
    if isinstance(candidate.model, ExportedFile):
        return place == CPU
    return engine in peers or engine_device(engine, place) == place


def _kinds(
    candidate: Candidate, engines: Sequence[str], kinds: Sequence[tuple[str, str]]
) -> Sequence[tuple[str, str]]:
    """The engines and precisions of a candidate: of an exported file its own."""
    file = candidate.model
    if isinstance(file, Darknet):
        return kinds
    own = [engine for engine in file.engines if engine in engines]
    return [(engine, file.description.precision) for engine in own or file.engines]


def open_one(candidate: Candidate, key: Key, threads: int, peers: Mapping[str, Peer]) -> Run:
    """A network on an engine, or as a peer has it."""
    if isinstance(candidate.model, ExportedFile):
        return candidate.model.open(key.engine, key.precision, threads, candidate.size)
    device = choose_device(key.device)
    if key.engine in peers:
        peer = peers[key.engine].open(candidate.model, key.network)
        return PeerNetwork(peer, candidate.size, device)
    calibration = None if candidate.calibration is None else [candidate.calibration]
    options = EngineOptions(
        candidate.size, key.precision, key.batch, threads, calibration, candidate.int8_loss
    )
    return open_engine(key.engine, on_device(candidate.model, device), options)
