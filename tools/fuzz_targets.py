"""What is fuzzed: each format's sound inputs, and what the project does with a file of it."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tools.mutations import NUMBERS, TOKENS, mutate, mutate_value

NAMES = ("cat", "dog", "motor bike")
CFG = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=8
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=4
size=1
activation=linear
[shortcut]
from=-2
activation=linear
[maxpool]
size=2
stride=2
[upsample]
stride=2
[route]
layers=-1,2
[convolutional]
filters=16
size=1
activation=linear
[yolo]
mask=0,1
anchors=8,9, 20,21
classes=3
num=2
scale_x_y=1.05
"""
OTHER_CFG = """[net]
width=32
height=64
[conv]
filters=8
size=3
stride_x=4
stride_y=8
pad=1
groups=1
activation=mish
[convolutional]
filters=8
groups=8
size=3
padding=1
activation=swish
[avgpool]
[convolutional]
filters=8
size=1
activation=logistic
[scale_channels]
from=-3
[reorg]
stride=2
[local_avgpool]
size=2
stride=2
[dropout]
probability=.5
[route]
layers=-3
groups=2
group_id=1
"""


@dataclass(frozen=True)
class Target:
    """A format.

    Attributes:
        make: from a random generator to the bytes of an input.
        use: what the project does with a file of them; anything but a return or InputError is a
            fault.
        file: the name of that file.
    """

    make: Callable[[random.Random], bytes]
    use: Callable[[Path], object]
    file: str


def _text(file: str, use: Callable[[Path], object], *seeds: str, words: str = "") -> Target:
    """A text, changed byte by byte and word by word."""
    encoded = [seed.encode() for seed in seeds]
    tokens = [word.encode() for word in words.split(" ") if word]
    return Target(partial(mutate, seeds=encoded, tokens=tokens), use, file)


def _json(file: str, use: Callable[[Path], object], *seeds: Any) -> Target:
    """A JSON file: its text is changed, or the values in it."""
    texts = [json.dumps(seed).encode() for seed in seeds]
    values = [json.loads(text) for text in texts]

    def make(rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return mutate(rng, texts)
        return json.dumps(mutate_value(rng, rng.choice(values), JSON_VALUES)).encode()

    return Target(make, use, file)


JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 0.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63,
    2**70, 10**400, "", "a", "1", "cat", "\0", "\ud800", "../../x", "/tmp/x", "a\nb", "x" * 3000,
    [], {}, [[]], [0], [None], [1, 2, 3, 4], ["a"], {"a": 1}, {"": []}, [0] * 1000,
)  # fmt: skip


def _nested(depth: int) -> list[Any]:
    tree: list[Any] = []
    for _ in range(depth):
        tree = [tree]
    return tree


def _every(n: int, path: Path) -> bool:
    """Whether the file is one of every n, for what takes much longer than reading it."""
    return zlib.crc32(path.read_bytes()) % n == 0


def cfg() -> Target:
    """Darknet's .cfg: read, its maps sized, the network built without memory."""
    import torch

    from models import netdef
    from models.costs import count_operations
    from models.darknet import Darknet, shapes

    def use(path: Path) -> None:
        net = netdef.load(path)
        assert netdef.parse(net.text()) == net
        shapes(net)
        count_operations(net)
        if _every(4, path):
            with torch.device("meta"):
                Darknet(net)

    words = "[net] [convolutional] [route] [shortcut] [yolo] [maxpool] [upsample] [sam] [reorg] "
    words += "stride=2 stride_x=3 groups=4 filters=100000000 size=1000 size=0 from=-1 layers=0,1 "
    words += "dilation=2 padding=5 width=1 width=99999999 classes=80 classes=0 num=1 mask=0 "
    words += "anchors=1,2 scale_x_y=0 activation=relu weights_type=per_channel new_coords=1"
    return _text("a.cfg", use, CFG, OTHER_CFG, words=words)


def weights() -> Target:
    """Darknet's .weights, read for a network and put into it."""
    from models import netdef
    from models.darknet import Darknet
    from models.weights import Header, fill_, read_weights, to_bytes

    net = netdef.parse(CFG)
    model = Darknet(net)
    seeds = [
        to_bytes(model),
        to_bytes(model, layers=2),
        to_bytes(model, Header((0, 1, 0), 9)),
    ]

    def use(path: Path) -> None:
        state, _ = read_weights(path, net)
        fill_(model, state, path)

    return Target(partial(mutate, seeds=seeds), use, "a.weights")


def names() -> Target:
    """Class names."""
    from utils.data.definition import read_names

    return _text("a.names", read_names, "cat\ndog\nmotor bike\n", "\ufeffa\r\nb\r\n\r\n")


def data() -> Target:
    """A `.data` file, and whether its photos are there."""
    from utils.data.definition import read_data

    def use(path: Path) -> None:
        (path.parent / "a.names").write_text("cat\ndog\nmotor bike\n", encoding="utf-8")
        (path.parent / "train.txt").write_text("images/a.png\n", encoding="utf-8")
        definition = read_data(path)
        for split in ("train", "valid"):
            definition.sources(split)

    seed = "classes = 3\nnames = a.names\ntrain = train.txt, a.names\nvalid = ./train.txt # some\n"
    words = "classes names train valid images format mirror yolo voc auto yes no backup 3 a.names"
    return _text("a.data", use, seed, f"{seed}mirror = no\nformat = voc\nimages = .\n", words=words)


def _checked(records: Callable[[Path], list[Any]]) -> Callable[[Path], None]:
    """What a data set's check does with labels."""
    from PIL import Image as Pillow

    from utils.data.validation import check

    def use(path: Path) -> None:
        photo = path.parent / "a.png"
        if not photo.exists():
            Pillow.new("RGB", (8, 6)).save(photo)
        read = records(path)
        if _every(8, path):
            check(read, NAMES, progress=False).report.text()

    return use


def yolo() -> Target:
    """YOLO's labels, a .txt a photo."""
    from utils.data.labels import read_labels

    def records(path: Path) -> list[Any]:
        return [read_labels(path.parent / "a.png", path, NAMES)]

    seed = "0 0.5 0.5 0.25 0.25\n2 0.1 0.9 0.1 0.2\n"
    return _text("a.txt", _checked(records), seed, "1 0.5 0.5 1 1 0.9\r\n\r\n" + seed)


def voc() -> Target:
    """VOC's labels, an .xml a photo."""
    from utils.data.labels import read_labels

    def records(path: Path) -> list[Any]:
        return [read_labels(path.parent / "a.png", path, NAMES)]

    box = "<bndbox><xmin>1</xmin><ymin>2.0</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
    seed = (
        "<annotation><filename>a.png</filename><size><width>8</width><height>6</height>"
        f"<depth>3</depth></size><object><name>cat</name><difficult>1</difficult>{box}</object>\n"
        f"<object><name> dog</name><truncated>0</truncated>{box}</object></annotation>"
    )
    words = "<object> </object> <name> <bndbox> <xmin> <size> <annotation> </annotation> <!--a--> "
    words += '<![CDATA[a]]> &amp; &#0; &#x110000; <?xml version="1.0" encoding="utf-16"?> '
    words += '<!DOCTYPE a[<!ENTITY b "bb">]> &b; <!DOCTYPE a SYSTEM "file:///etc/passwd">'
    return _text("a.xml", _checked(records), seed, f'<?xml version="1.0"?>\n{seed}', words=words)


def coco() -> Target:
    """COCO's labels, one .json for all photos."""
    from utils.data.labels.coco import read_coco

    seed = {
        "images": [{"id": 7, "file_name": "a.png", "width": 8, "height": 6}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 3], "area": 9.5},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 8.0, 6], "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
    }

    def records(path: Path) -> list[Any]:
        return read_coco(path, NAMES, [path.parent])

    return _json("a.json", _checked(records), seed)


def labelme() -> Target:
    """Labelme's labels, a .json a photo, and the names of its classes."""
    from utils.data.labels import read_labels
    from utils.data.labels.labelme import class_names

    shape = {"label": "cat", "points": [[1, 2], [5, 4.5]], "shape_type": "rectangle"}
    polygon = {"label": "dog", "points": [[1, 1], [5, 1], [3, 5]], "shape_type": "polygon"}
    circle = {"label": "cat", "points": [[4, 3], [5, 3]], "shape_type": "circle"}
    seed = {
        "version": "5.5.0", "shapes": [shape, polygon, circle], "imagePath": "a.png",
        "imageData": None, "imageWidth": 8, "imageHeight": 6,
    }  # fmt: skip

    def records(path: Path) -> list[Any]:
        class_names(path)
        return [read_labels(path.parent / "a.png", path, NAMES)]

    return _json("a.json", _checked(records), seed)


def label_studio() -> Target:
    """Label Studio's labels, one .json for all photos, in its two forms."""
    from utils.data.labels.json_files import class_names, is_data_set, read_json

    box = {"x": 10, "y": 20.5, "width": 50, "height": 30, "rotation": 0}
    size = {"original_width": 8, "original_height": 6}
    shapes = [
        {**size, "type": "rectanglelabels", "value": {**box, "rectanglelabels": ["cat"]}},
        {
            **size, "type": "polygonlabels",
            "value": {"points": [[1, 1], [50, 9], [9, 90]], "polygonlabels": ["dog"]},
        },
    ]  # fmt: skip
    photo = "/data/upload/1/1a2b3c4d-a.png"
    whole = {
        "id": 1, "data": {"image": photo},
        "annotations": [{"id": 1, "was_cancelled": False, "result": shapes}],
    }  # fmt: skip
    least = {"image": photo, "id": 1, "label": [{**box, **size, "rectanglelabels": ["cat"]}]}

    def records(path: Path) -> list[Any]:
        is_data_set(path)
        class_names(path)
        return read_json(path, NAMES, [path.parent])

    return _json("a.json", _checked(records), [whole], [least])


def cvat() -> Target:
    """CVAT's labels, one .xml for all photos."""
    from utils.data.labels.cvat import class_names, is_cvat, read_cvat

    seed = (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><job>'
        "<labels><label><name>cat</name></label><label><name>dog</name></label></labels></job>"
        '</meta><image id="0" name="a.png" width="8" height="6"><box label="cat" occluded="0" '
        'xtl="1" ytl="2" xbr="5.5" ybr="4"/><polygon label="dog" points="1,1;5,1;3,5"/>'
        '<ellipse label="dog" cx="3" cy="3" rx="2" ry="1"/></image></annotations>'
    )
    words = '<image </image> <box <polygon label="cat" points=" xtl="nan" width="8" <label> '
    words += '<![CDATA[a]]> &amp; <!DOCTYPE a[<!ENTITY b "bb">]> &b; <task> <track> <job>'

    def records(path: Path) -> list[Any]:
        is_cvat(path)
        class_names(path)
        return read_cvat(path, NAMES, [path.parent])

    return _text("a.xml", _checked(records), seed, words=words)


def data_yaml() -> Target:
    """Roboflow's and Ultralytics' data.yaml, and whether its photos are there."""
    from utils.data.yaml_definition import read_yaml

    def use(path: Path) -> None:
        (path.parent / "train/images").mkdir(parents=True, exist_ok=True)
        definition = read_yaml(path)
        for split in ("train", "valid"):
            definition.sources(split)

    listed = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n"
    mapped = "path: .\ntrain: train/images\nval: [train/images]\nnames:\n  0: cat\n  1: dog\n"
    words = "path: train: val: test: names: nc: - [ ] { } & * ! | > ? : # --- ... !!python/name "
    words += "!!binary <<: &a *a ~ null yes 0x1 1e9 2001-01-01 ../train/images"
    return _text("data.yaml", use, listed, mapped, words=words)


def latency_table() -> Target:
    """Measured layers, read and asked for the time of one."""
    from pruning.latency.table import Conditions, LatencyTable, LayerSpec, read_table

    conditions = Conditions("torch", "fp32", "torch 2", "a machine", 1)
    spec = LayerSpec("convolutional size=3 stride=1", 0, 0, 8, 8)
    table = LatencyTable(conditions, channel_step=8)
    for inputs in (4, 16):
        for outputs in (4, 8, 16):
            table.add(spec, inputs, outputs, inputs * outputs * 1e-3)
    with tempfile.TemporaryDirectory() as folder:
        table.write(Path(folder, "a.csv"))
        seed = Path(folder, "a.csv").read_text(encoding="utf-8")

    def use(path: Path) -> None:
        read_table(path, conditions)

    return _text("a.csv", use, seed, seed[:-9], words="# convolutional maxpool size=3 step format")


def metrics() -> Target:
    """A run's figures by epoch."""
    from utils.monitoring.history import read_history

    seed = "epoch,loss/box,mAP/mAP@.5\n1,0.5,\n2,0.25,0.125\n3,nan,1e-3\n"
    return _text("a.csv", read_history, seed, words='"a,b" epoch')


def engines() -> Target:
    """Which engine was the fastest: a cache of ours, told and made anew where it is damaged."""
    from utils.backends.auto import read_measurements

    seed = {
        "c0ffee": {
            "chosen": "torch",
            "milliseconds": {"torch": 1.5, "onnxruntime": 2.5},
            "size": [64, 64],
            "precision": "fp32",
            "batch": 1,
            "machine": "a machine",
            "versions": {"torch": "2"},
        }
    }
    return _json("engines.json", read_measurements, seed, {**seed, "d": seed["c0ffee"]})


def settings() -> Target:
    """What a run was started with."""
    from import_param import PruneSettings, TrainSettings
    from utils.settings.loader import restore

    def use(path: Path) -> None:
        try:
            values = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return
        if isinstance(values, dict):
            restore(PruneSettings if _every(4, path) else TrainSettings, values)

    changed = asdict(TrainSettings())
    changed["sparsity"] |= {"is_pruned": True, "prune_while_training": True, "cut_epochs": [2, 3]}
    return _json("settings.json", use, asdict(TrainSettings()), changed)


def flags() -> Target:
    """What a user types, for each script."""
    import import_param
    from utils.settings import loader

    scripts = [kind for name, kind in vars(import_param).items() if name.endswith("Settings")]
    texts = [value.decode("utf-8", "surrogateescape") for value in (*NUMBERS, *TOKENS)]
    names = [
        (f"--{name}", str(value))
        for kind in scripts
        for group in asdict(kind()).values()
        for name, value in group.items()
    ]

    def make(rng: random.Random) -> bytes:
        argv = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            flag, value = rng.choice(names)
            flag = rng.choice((flag,) * 8 + (flag.replace("--", "--no-"), flag[:-1], flag[1:]))
            argv += [
                flag,
                *(rng.choice((*texts, value)) for _ in range(rng.choice((1, 1, 1, 2, 0)))),
            ]
        return json.dumps([rng.randrange(len(scripts)), argv]).encode()

    def use(path: Path) -> None:
        number, argv = json.loads(path.read_text(encoding="utf-8"))
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            loader.load(scripts[number], argv)

    return Target(make, use, "flags.json")


def photos() -> Target:
    """Pictures of the formats that Pillow reads most."""
    from PIL import Image as Pillow

    from utils.images import read_photo

    picture = Pillow.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 20)
    seeds = []
    for suffix, mode in (
        ("png", "RGB"), ("png", "P"), ("png", "RGBA"), ("png", "I;16"), ("jpeg", "RGB"),
        ("jpeg", "L"), ("jpeg", "CMYK"), ("bmp", "RGB"), ("gif", "P"), ("webp", "RGB"),
        ("tiff", "RGB"), ("tiff", "1"), ("ppm", "RGB"), ("ppm", "L"), ("avif", "RGB"),
        ("jpeg2000", "RGB"), ("mpo", "RGB"),
    ):  # fmt: skip
        exif = Pillow.Exif()
        exif[0x0112] = 6
        file = io.BytesIO()
        options = {"exif": exif} if suffix in ("jpeg", "webp") else {}
        picture.convert("L").convert(mode).save(file, suffix, **options)
        seeds.append(file.getvalue())
    for compression in ("tiff_lzw", "tiff_deflate", "group4"):
        file = io.BytesIO()
        picture.convert("1" if compression == "group4" else "RGB").save(
            file, "tiff", compression=compression
        )
        seeds.append(file.getvalue())
    tokens = [
        bytes(4),
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        b"\xff\xd8",
        b"\xff\xc0",
        b"IHDR",
        b"IDAT",
    ]
    return Target(partial(mutate, seeds=seeds, tokens=tokens), read_photo, "a.png")


def _resumed(folder: Path) -> tuple[dict[str, Any], Callable[[Path], None]]:
    """A checkpoint's content, and what going on with it and detecting with it does."""
    import torch

    from import_param import TrainedNetwork, Training, TrainSettings
    from models import netdef
    from models.darknet import Darknet
    from pruning.iterative.schedule import read_state
    from pruning.surgeon import keep_everything
    from utils.checkpoint.checkpoint import TrainingState, read_checkpoint, save_checkpoint
    from utils.checkpoint.network import load_network
    from utils.settings.loader import restore
    from utils.training.fit import load_
    from utils.training.loop import Trainer, TrainerFactory

    net = netdef.parse(CFG)
    run_settings = TrainSettings(training=Training(name="a"))

    def step(trainer: Trainer) -> None:
        for parameter in trainer.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        trainer.optimizer.step()
        trainer.schedule.step()

    def new() -> Trainer:
        return TrainerFactory(run_settings, 5, Path())(Darknet(net))

    trainer = new()
    step(trainer)
    pruning = {
        "original_cfg": net.text(),
        "keep": torch.from_numpy(keep_everything(net).keep),
        "blocks": [],
        "dead": 0.25,
        "reached": False,
        "target": {},
    }
    state = TrainingState(
        1, 0.5, 0, "a", trainer.model.state_dict(), trainer.optimizer.state_dict(),
        trainer.schedule.state_dict(), 1, pruning,
    )  # fmt: skip
    path = folder / "seed.pt"
    averaged = trainer.averaged.state_dict()
    save_checkpoint(path, net, NAMES, averaged, run_settings, state)
    content = torch.load(path, weights_only=True)
    goes_on = new()

    def use(path: Path) -> None:
        checkpoint = read_checkpoint(path)
        restore(TrainSettings, checkpoint.settings)
        training = checkpoint.training
        if training:
            read_state(training.pruning, checkpoint.netdef, str(path))
            load_(goes_on, checkpoint.model, training, str(path))
            step(goes_on)
        with contextlib.redirect_stderr(io.StringIO()):  # notes
            load_network(TrainedNetwork(weights=str(path), device="cpu"))

    return content, use


def _strange_tensors() -> list[Any]:

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds that are about to go
        return [
            torch.zeros(0),
            torch.zeros(()),
            torch.zeros(3, dtype=torch.float64),
            torch.zeros(2, 3, dtype=torch.int8),
            torch.zeros(4, dtype=torch.bool),
            torch.zeros(4, 3, 3, 3, dtype=torch.bfloat16),
            torch.full((4,), torch.nan),
            torch.full((4,), -1.0),
            torch.zeros(1).expand(10**6, 10**6),
            torch.zeros(3, device="meta"),
            torch.zeros(3, dtype=torch.complex64),
            torch.eye(4).to_sparse(),
            torch.eye(4).to_sparse_csr(),
            torch.quantize_per_tensor(torch.zeros(4), 1.0, 0, torch.quint8),
            torch.nn.Parameter(torch.zeros(4)),
            torch.zeros(4, 3, 3, 3).transpose(0, 1),
            torch.zeros(4, 3, 3, 3, dtype=torch.float32)[:, :, ::2],
            torch.empty(4, dtype=torch.uint16),
        ]


def checkpoint_values() -> Target:
    """Checkpoints whose entries have changed, opened and gone on with."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        content, use = _resumed(Path(folder))
    extra = [b"", (), (1,), {1, 2}, {}, torch.Size([1]), torch.float32, _nested(90)]
    strange = [*JSON_VALUES, *extra, *_strange_tensors() * 2, CFG, OTHER_CFG]

    def make(rng: random.Random) -> bytes:
        file = io.BytesIO()
        torch.save(mutate_value(rng, content, strange), file)
        return file.getvalue()

    return Target(make, use, "a.pt")


def checkpoint() -> Target:
    """Checkpoints whose bytes have changed: of the file, or of what is pickled in it."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        content, use = _resumed(Path(folder))
    seeds = []
    for archive in (True, False):  # as since version 1.6 of torch, and before
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=archive)
        seeds.append(file.getvalue())

    def make(rng: random.Random) -> bytes:
        kind = rng.random()
        if kind < 0.3:
            return _mutated_pickle(rng, seeds[0])
        data = rng.choice(seeds)
        if kind > 0.95:
            return data  # some are to be read to their end
        return mutate(rng, [data]) if rng.random() < 0.7 else data[: rng.randrange(len(data))]

    return Target(make, use, "a.pt")


def _mutated_pickle(rng: random.Random, archive: bytes) -> bytes:
    """The archive with another pickle in it, and the right checksums."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(packed, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(".pkl") or rng.random() < 0.02:
                content = mutate(rng, [content])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of names that are there twice
                new.writestr(_name(rng, entry.filename), content)
    return packed.getvalue()


def _name(rng: random.Random, name: str) -> str:
    """Mostly the name as it is."""
    return name if rng.random() < 0.999 else rng.choice(("../x", "/tmp/x", "x", "a/data.pkl"))


def state_dict() -> Target:
    """Torchvision's .pth, to start a network from."""
    import torch

    from models import netdef
    from utils.checkpoint.pretrained import read_pretrained

    net = netdef.parse(CFG)
    content: dict[str, Any] = {"features.0.0.weight": torch.randn(4, 3, 3, 3)}
    for name in ("weight", "bias", "running_mean", "running_var"):
        content[f"features.0.1.{name}"] = torch.rand(4)
    content["features.0.1.num_batches_tracked"] = torch.tensor(3)
    content["features.1.weight"] = torch.randn(4, 4, 1, 1)
    strange = [*JSON_VALUES, *_strange_tensors() * 3]

    def make(rng: random.Random) -> bytes:
        file = io.BytesIO()
        values = mutate_value(rng, content, strange)
        torch.save(values, file, _use_new_zipfile_serialization=rng.random() < 0.5)
        return file.getvalue() if rng.random() < 0.7 else mutate(rng, [file.getvalue()])

    return Target(make, lambda path: read_pretrained(path, net), "a.pth")


TARGETS: dict[str, Callable[[], Target]] = {
    "cfg": cfg,
    "weights": weights,
    "names": names,
    "data": data,
    "yolo": yolo,
    "voc": voc,
    "coco": coco,
    "labelme": labelme,
    "label_studio": label_studio,
    "cvat": cvat,
    "data_yaml": data_yaml,
    "latency_table": latency_table,
    "metrics": metrics,
    "engines": engines,
    "settings": settings,
    "flags": flags,
    "photos": photos,
    "checkpoint": checkpoint,
    "checkpoint_values": checkpoint_values,
    "state_dict": state_dict,
}
