"""The settings. Edit a default here, or give the same name as a flag to any script:

    python train.py --epochs 3 --cfg config/yolov3-tiny.cfg

`--help` of each script lists the ones that it uses. A comment says what a value does and its unit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import tyro
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from pruning.strategies import Target, strategy_name
from utils.augment import Augmentation
from utils.errors import InputError
from utils.files import write_text

COCO_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # the overlaps COCO knows


def expect(group: object, **wanted: tuple[bool, str]) -> None:
    """Refuse the named values that are out of range."""
    for name, (good, what) in wanted.items():
        if not good:
            raise InputError(f"{name}={getattr(group, name)!r}: expected {what}")


@dataclass(frozen=True)
class Model:
    """The network to train."""

    cfg: str = "config/yolov3-lite.cfg"  # the network, a Darknet .cfg
    pretrained: bool = False  # start from `weights`; otherwise from random numbers
    weights: str = ""  # .pt of ours, Darknet's .weights or a cut-off file, a torchvision .pth
    img_size: int = 0  # input width and height, pixels; 0 = the .cfg's own
    letterbox: Literal["auto", "yes", "no"] = "auto"  # keep the photos' aspect; auto = as the .cfg
    fit_anchors: bool = True  # fit anchors to the data set where the heads are trained anew
    scale_x_y: float = 2.0  # reach of a cell's centre where the heads are trained anew; 0 = .cfg's
    device: str = "auto"  # cpu, cuda, cuda:1, ...; auto = the graphics card where there is one

    def __post_init__(self) -> None:
        expect(
            self,
            img_size=(self.img_size >= 0, "pixels, or 0 for the .cfg's own size"),
            scale_x_y=(self.scale_x_y == 0 or 1 <= self.scale_x_y <= 3, "0, or from 1 to 3"),
            weights=(bool(self.weights) or not self.pretrained, "a file, since pretrained=True"),
        )


@dataclass(frozen=True)
class Data:
    """The photos and their labels."""

    data: str = "data/demo.data"  # what to train and validate on
    bad_labels: Literal["drop", "refuse"] = "drop"  # what to do with labels that cannot be right
    cache_mb: int = 2048  # memory for decoded photos, MB
    workers: int = (
        -1
    )  # processes that load and augment; 0 = none; -1 = none on two cores, else some

    def __post_init__(self) -> None:
        expect(
            self,
            cache_mb=(self.cache_mb >= 0, "at least 0"),
            workers=(self.workers >= -1, "at least 0, or -1 to choose"),
        )


@dataclass(frozen=True)
class Train:
    """The training."""

    name: str = ""  # of the run's folders in runs/ and weights/; empty = from the .cfg and .data
    resume: str = ""  # a last.pt to go on from; its own settings are used
    epochs: int = 40  # passes over the training photos
    batch_size: int = 8  # photos a step
    accumulate: int = 1  # batches whose gradients make one step of the optimizer
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd wants another learning rate, about 0.01
    lr: float = 2e-3  # learning rate at its highest
    final_lr: float = 0.05  # learning rate at the end, as a share of lr
    warmup_epochs: float = 5.0  # epochs in which the learning rate rises from nothing
    momentum: float = 0.937  # of SGD; AdamW's first beta
    weight_decay: float = 5e-4  # on the convolutions' kernels only
    clip: float = 10.0  # largest norm of the gradient; 0 = any
    ema_decay: float = 0.998  # of the running mean of the weights that is evaluated and saved
    amp: bool = True  # bfloat16 where the machine is fast with it
    multi_scale: float = 0.0  # each batch's size is changed by up to this share
    close_mosaic: int = 5  # last epochs, without mosaics
    freeze: int = 0  # this many first layers keep their weights
    patience: int = 0  # stop after so many evaluations without a better mAP; 0 = never
    eval_every: int = 1  # epochs between evaluations
    seed: int = 0  # of everything random

    def __post_init__(self) -> None:
        expect(
            self,
            epochs=(self.epochs >= 1, "at least 1"),
            batch_size=(self.batch_size >= 1, "at least 1"),
            accumulate=(self.accumulate >= 1, "at least 1"),
            lr=(self.lr > 0, "more than 0"),
            final_lr=(0 <= self.final_lr <= 1, "from 0 to 1"),
            warmup_epochs=(self.warmup_epochs >= 0, "at least 0"),
            momentum=(0 <= self.momentum < 1, "from 0 to below 1"),
            weight_decay=(self.weight_decay >= 0, "at least 0"),
            clip=(self.clip >= 0, "at least 0"),
            ema_decay=(0 <= self.ema_decay < 1, "from 0 to below 1"),
            multi_scale=(0 <= self.multi_scale <= 0.5, "from 0 to 0.5"),
            close_mosaic=(self.close_mosaic >= 0, "at least 0"),
            freeze=(self.freeze >= 0, "at least 0"),
            patience=(self.patience >= 0, "at least 0"),
            eval_every=(self.eval_every >= 1, "at least 1"),
            seed=(self.seed >= 0, "at least 0"),
            name=("/" not in self.name and "\\" not in self.name, "a name without slashes"),
        )


@dataclass(frozen=True)
class Loss:
    """The weights of the loss's parts."""

    box_gain: float = 0.5  # of the box loss (CIoU)
    objectness_gain: float = 1.0  # of the objectness loss
    class_gain: float = 0.1  # of the class loss, a sum over classes
    anchor_ratio: float = 4.0  # an anchor fits an object at most this many times wider or higher

    def __post_init__(self) -> None:
        expect(
            self,
            box_gain=(self.box_gain >= 0, "at least 0"),
            objectness_gain=(self.objectness_gain >= 0, "at least 0"),
            class_gain=(self.class_gain >= 0, "at least 0"),
            anchor_ratio=(self.anchor_ratio > 1, "more than 1"),
        )


@dataclass(frozen=True)
class Cut:
    """What pruning cuts, and how much."""

    pruned_id: int | str = 3  # 1 normal, 2 layer, 3 slim, 4 shortcut, 5 layer_channel, 6 latency
    percent: float = 0.7  # the share to cut, 0 to below 1
    percent_of: Literal["channels", "parameters", "operations"] = "channels"  # a share of what
    layer_keep: float = 0.1  # the share of its channels that every layer keeps at least
    round_to: int = 0  # layers keep a multiple of so many channels; 0 = 8, less in narrow layers
    percent_blocks: float = 0.25  # the share of residual blocks that layer_channel removes

    def __post_init__(self) -> None:
        strategy_name(self.pruned_id)
        expect(
            self,
            percent=(0 <= self.percent < 1, "from 0 to below 1"),
            layer_keep=(0 <= self.layer_keep <= 1, "from 0 to 1"),
            round_to=(self.round_to >= 0, "at least 0"),
            percent_blocks=(0 <= self.percent_blocks <= 1, "from 0 to 1"),
        )

    @property
    def strategy(self) -> str:
        return strategy_name(self.pruned_id)

    @property
    def target(self) -> Target:
        return Target(
            self.percent, self.percent_of, self.layer_keep, self.round_to, self.percent_blocks
        )


@dataclass(frozen=True)
class Latency:
    """A time to cut to, on the engine that runs the network, afterwards or while training:
    pruned_id=6 needs one of the first two; afterwards, for another strategy, it stands in for
    `percent`."""

    target_ms: float = 0.0  # milliseconds an image that the network may take
    target_speedup: float = 0.0  # how many times faster than before it shall be
    cost_table: str = ""  # the file of measured layers; empty = one in runs/latency/

    def __post_init__(self) -> None:
        expect(
            self,
            target_ms=(0 <= self.target_ms < math.inf, "a number, at least 0"),
            target_speedup=(
                self.target_speedup == 0 or 1 <= self.target_speedup < math.inf,
                "a number, at least 1, or 0 where target_ms is given",
            ),
            cost_table=(self.cost_table[-4:] in ("", ".csv"), "a .csv file"),
        )


@dataclass(frozen=True)
class Prune:
    """How prune.py judges, and what it measures."""

    data: str = "data/demo.data"  # the data set, for mAP and for what looks at photos below
    name: str = ""  # of the folders in runs/ and weights/; empty = from the data and the strategy
    score: Literal["gamma", "l1", "taylor", "uniform"] = (
        "gamma"  # a channel's worth: scale, kernel, slope of the loss, or place (a control)
    )
    score_batches: int = 16  # batches of training photos that taylor and latency look at
    bn_batches: int = 32  # batches that batch normalisation is re-estimated on; 0 = it is not
    latency_rounds: int = 20  # how often each network is timed
    batch_size: int = 8  # photos at once
    workers: int = 2  # processes that load photos

    def __post_init__(self) -> None:
        expect(
            self,
            score_batches=(self.score_batches >= 1, "at least 1"),
            bn_batches=(self.bn_batches >= 0, "at least 0"),
            latency_rounds=(self.latency_rounds >= 1, "at least 1"),
            batch_size=(self.batch_size >= 1, "at least 1"),
            workers=(self.workers >= 0, "at least 0"),
            name=("/" not in self.name and "\\" not in self.name, "a name without slashes"),
        )


@dataclass(frozen=True)
class Sparse:
    """Training that makes a network sparse, for prune.py to cut or cut on the way."""

    is_pruned: bool = False  # draw what `pruned_id` may cut to zero while training
    sparse_rate: float = 2.5e-4  # loss that a channel must save to live; more = sparser
    sparse_by: Literal["channels", "parameters", "operations"] = (
        "channels"  # what that loss is in proportion to: each channel alike, or what goes with it
    )
    sparse_step: Literal["proximal", "subgradient"] = "proximal"  # to exact zeros, or near zero
    sparse_decay: Literal["constant", "global", "local"] = "constant"  # let go after half, or not
    prune_while_training: bool = False  # cut during the training, to `percent` or a target_ time
    cut_epochs: tuple[int, ...] = ()  # epochs to cut after; none = whenever the pull has flattened

    def __post_init__(self) -> None:
        expect(
            self,
            sparse_rate=(0 <= self.sparse_rate < math.inf, "a number, at least 0"),
            cut_epochs=(all(epoch >= 1 for epoch in self.cut_epochs), "epochs from 1"),
            prune_while_training=(
                self.is_pruned or not self.prune_while_training,
                "False, or is_pruned=True as well",
            ),
        )
        expect(
            self,
            cut_epochs=(
                self.prune_while_training or not self.cut_epochs,
                "none, or prune_while_training=True as well",
            ),
        )


@dataclass(frozen=True)
class Distill:
    """Training with a larger network as teacher."""

    teacher: str = ""  # its weights, .pt or Darknet's .weights, with the same heads; empty = none
    teacher_cfg: str = ""  # its .cfg; empty = the one beside its .weights with the same name
    teacher_objectness: float = 1.0  # weight of its objectness
    teacher_classes: float = 0.1  # weight of its classes
    teacher_boxes: float = 0.5  # weight of its boxes, where they beat the network's own
    teacher_features: float = 0.0  # weight of where it looks, in the maps that its heads read

    def __post_init__(self) -> None:
        expect(
            self,
            teacher_cfg=(bool(self.teacher) or not self.teacher_cfg, "none, or a teacher as well"),
            teacher_objectness=(self.teacher_objectness >= 0, "at least 0"),
            teacher_classes=(self.teacher_classes >= 0, "at least 0"),
            teacher_boxes=(self.teacher_boxes >= 0, "at least 0"),
            teacher_features=(self.teacher_features >= 0, "at least 0"),
        )


@dataclass(frozen=True)
class Detect:
    """Finding objects in photos and videos."""

    source: str = "data/demo/images"  # photo, folder, glob in quotes; video, camera number, stream
    output: str = "runs/detect"  # folder for the annotated pictures or video
    conf_thres: float = 0.25  # lowest score (objectness times class probability) to keep
    nms_thres: float = 0.45  # of two boxes of a class that overlap more (IoU), the worse goes
    max_detections: int = 300  # at most so many boxes a photo
    classes: tuple[str, ...] = ()  # names or numbers of the classes to keep; none = all
    batch_size: int = 1  # photos or frames at once
    show: bool = True  # a window for videos, where there is a display
    save_txt: bool = False  # a .txt a photo: class, centre and size as shares of the photo, score
    save_json: bool = False  # one detections.json: file, class, score, box in pixels
    save_crops: bool = False  # each object as a picture of its own

    def __post_init__(self) -> None:
        expect(
            self,
            conf_thres=(0 <= self.conf_thres <= 1, "from 0 to 1"),
            nms_thres=(0 <= self.nms_thres <= 1, "from 0 to 1"),
            max_detections=(self.max_detections >= 1, "at least 1"),
            batch_size=(self.batch_size >= 1, "at least 1"),
        )


@dataclass(frozen=True)
class Network:
    """A trained network to use."""

    weights: str = ""  # .pt or Darknet's .weights; empty = the newest weights/*/best.pt
    cfg: str = ""  # the .cfg of .weights; empty = the one beside it with the same name
    names: str = ""  # class names, a line each; empty = the network's own, or the data set's
    img_size: int = 0  # input width and height, pixels; 0 = the network's own
    letterbox: Literal["auto", "yes", "no"] = "auto"  # keep the photos' aspect; auto = as trained
    device: str = "auto"  # cpu, cuda, cuda:1, ...; auto = the graphics card where there is one

    def __post_init__(self) -> None:
        expect(self, img_size=(self.img_size >= 0, "pixels, or 0 for the network's own size"))


@dataclass(frozen=True)
class Runtime:
    """What runs a trained network, and on what its latency is measured."""

    backend: Literal["auto", "torch", "onnxruntime", "openvino", "ncnn", "opencv"] = (
        "auto"  # auto = the fastest that is installed, measured once
    )
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"  # of its arithmetic; fp16 on cards
    threads: int = 0  # on a CPU; 0 = as many as torch finds useful
    calibration: str = ""  # photos like those to come, for int8: a .data file, a folder or a glob
    calibration_photos: int = 200  # at most so many of them; for a cut that is timed, 4 do

    def __post_init__(self) -> None:
        expect(
            self,
            threads=(self.threads >= 0, "at least 0"),
            calibration_photos=(self.calibration_photos >= 1, "at least 1"),
            calibration=(
                bool(self.calibration) or self.precision != "int8",
                "photos to calibrate on, since precision='int8'",
            ),
        )


@dataclass(frozen=True)
class Evaluate:
    """Measuring precision, recall and AP."""

    rule: Literal["coco", "voc10", "voc07", "darknet"] = "coco"  # how AP is taken from a curve
    iou_thres: float = 0.5  # least overlap (IoU) with an object for a hit
    conf_thres: float = 0.001  # lowest score to count
    nms_thres: float = 0.45  # of two boxes of a class that overlap more (IoU), the worse goes
    max_detections: int = 100  # at most so many boxes a photo (COCO: 100); 0 = any number
    plus_one: bool = False  # VOC's old IoU, in which a box's right and bottom pixels count

    def __post_init__(self) -> None:
        expect(
            self,
            iou_thres=(
                self.iou_thres in COCO_IOUS if self.rule == "coco" else 0 < self.iou_thres < 1,
                f"one of {COCO_IOUS}" if self.rule == "coco" else "between 0 and 1",
            ),
            plus_one=(not (self.plus_one and self.rule == "coco"), "no, as rule is coco"),
            conf_thres=(0 <= self.conf_thres <= 1, "from 0 to 1"),
            nms_thres=(0 <= self.nms_thres <= 1, "from 0 to 1"),
            max_detections=(self.max_detections >= 0, "at least 0"),
        )


@dataclass(frozen=True)
class Test:
    """Where and on what test.py measures."""

    data: str = "data/demo.data"  # the data set
    split: Literal["valid", "train"] = "valid"  # which of its photos
    bad_labels: Literal["drop", "refuse"] = "drop"  # what to do with labels that cannot be right
    output: str = "runs/test"  # folder for curves, tables and detections
    batch_size: int = 8  # photos at once
    workers: int = -1  # processes that load photos; 0 = none; -1 = none on 2 cores, else some

    def __post_init__(self) -> None:
        expect(
            self,
            batch_size=(self.batch_size >= 1, "at least 1"),
            workers=(self.workers >= -1, "at least 0, or -1 to choose"),
        )


@dataclass(frozen=True)
class Benchmark:
    """What benchmark.py compares."""

    weights: tuple[str, ...] = (
        "config/yolov3.cfg",
        "config/yolov3-mobilenet.cfg",
        "config/yolov3-mobilenetv2.cfg",
        "config/yolov3-tiny.cfg",
        "config/yolov3-lite.cfg",
        "config/yolov3-tiny-mobilenet.cfg",
    )  # networks: .pt, .weights with a .cfg beside it, or a .cfg; the first is compared with
    engines: tuple[
        str, ...
    ] = ()  # torch, onnxruntime, openvino, ncnn, opencv; none = all installed
    precisions: tuple[str, ...] = ("fp32", "bf16")  # fp32, bf16, int8
    peers: bool = False  # time pytorchyolo's and ultralytics' networks too, where installed
    memory: bool = False  # measure memory as well, each in a process of its own; takes a while
    data: str = ""  # measure mAP as well, on the validation photos of this data set
    batches: tuple[int, ...] = (1,)  # images at once
    img_size: int = 320  # input width and height, pixels; 0 = each network's own
    rounds: int = 30  # in which everything is timed once
    seconds: float = 120.0  # of measuring, about, at most
    threads: int = 0  # 0 = as many as torch finds useful
    calibration: str = ""  # photos for int8: .data file, folder or glob; empty = `data`, or noise
    calibration_photos: int = 200  # at most so many of them
    output: str = "runs/benchmark"  # folder for the table and the plot

    def __post_init__(self) -> None:
        expect(
            self,
            weights=(bool(self.weights), "at least one network"),
            batches=(bool(self.batches) and min(self.batches) >= 1, "numbers from 1"),
            precisions=(bool(self.precisions), "at least one"),
            img_size=(self.img_size >= 0, "pixels, or 0 for each network's own size"),
            rounds=(self.rounds >= 1, "at least 1"),
            seconds=(self.seconds > 0, "more than 0"),
            threads=(self.threads >= 0, "at least 0"),
            calibration_photos=(self.calibration_photos >= 1, "at least 1"),
        )


@dataclass(frozen=True)
class TrainingSpeed:
    """How benchmark_training.py measures."""

    peers: bool = False  # time pytorchyolo's and ultralytics' training too, where installed
    rounds: int = 7  # in which all take turns
    turn: int = 3  # batches a turn
    evaluation: bool = True  # time the evaluation of 5,000 photos with 100 boxes each, too
    threads: int = 0  # 0 = as many as torch finds useful

    def __post_init__(self) -> None:
        expect(
            self,
            rounds=(self.rounds >= 1, "at least 1"),
            turn=(self.turn >= 1, "at least 1"),
            threads=(self.threads >= 0, "at least 0"),
        )


@dataclass(frozen=True)
class Export:
    """What export.py writes, and on what it compares."""

    format: tuple[str, ...] = ("onnx",)  # darknet, onnx, openvino, ncnn, torchscript; several
    precision: Literal["fp32", "int8"] = "fp32"  # int8: onnx and openvino
    dynamic: bool = False  # onnx for any number of images and any size
    nms: bool = False  # onnx with decoding and NMS in the graph
    conf_thres: float = 0.25  # with nms: lowest score to keep
    nms_thres: float = 0.45  # with nms: of two boxes of a class that overlap more, the worse goes
    max_detections: int = 300  # with nms: at most so many boxes a class and photo
    data: str = ""  # a .data file: photos to compare and measure on, and to calibrate int8 on
    source: str = ""  # photos to compare on; empty = the data set's, or the demo set's
    photos: int = 8  # how many to compare on
    calibration_photos: int = 200  # at most so many training photos to calibrate int8 on
    output: str = ""  # folder for the files; empty = export/ beside the weights

    def __post_init__(self) -> None:
        expect(
            self,
            format=(bool(self.format), "at least one"),
            conf_thres=(0 <= self.conf_thres <= 1, "from 0 to 1"),
            nms_thres=(0 <= self.nms_thres <= 1, "from 0 to 1"),
            max_detections=(self.max_detections >= 1, "at least 1"),
            photos=(self.photos >= 1, "at least 1"),
            calibration_photos=(self.calibration_photos >= 1, "at least 1"),
        )


@dataclass(frozen=True)
class Visdom:
    """Live curves."""

    visdom: bool = True  # show curves and pictures in Visdom; files are written in any case
    visdom_url: str = "http://127.0.0.1:8097"  # a server; where none answers here, one is started
    keep_visdom: bool = True  # a server that was started goes on after the run, for its curves


@dataclass(frozen=True)
class TrainSettings:
    """Train a network; see README.md."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    augmentation: Augmentation = field(default_factory=Augmentation)
    evaluate: Evaluate = field(default_factory=Evaluate)
    loss: Loss = field(default_factory=Loss)
    sparse: Sparse = field(default_factory=Sparse)
    cut: Cut = field(default_factory=Cut)
    latency: Latency = field(default_factory=Latency)
    runtime: Runtime = field(default_factory=lambda: Runtime(backend="torch"))  # for `latency`
    distill: Distill = field(default_factory=Distill)
    visdom: Visdom = field(default_factory=Visdom)


@dataclass(frozen=True)
class TestSettings:
    """Measure a network's mAP on a data set; see README.md."""

    network: Network = field(default_factory=Network)
    runtime: Runtime = field(default_factory=lambda: Runtime(backend="torch"))
    test: Test = field(default_factory=Test)
    evaluate: Evaluate = field(default_factory=Evaluate)


@dataclass(frozen=True)
class DetectSettings:
    """Find objects; see README.md."""

    network: Network = field(default_factory=Network)
    runtime: Runtime = field(default_factory=Runtime)
    detect: Detect = field(default_factory=Detect)


@dataclass(frozen=True)
class PruneSettings:
    """Make a trained network smaller; see README.md."""

    network: Network = field(default_factory=Network)
    runtime: Runtime = field(default_factory=lambda: Runtime(backend="torch"))
    cut: Cut = field(default_factory=Cut)
    latency: Latency = field(default_factory=Latency)
    prune: Prune = field(default_factory=Prune)
    evaluate: Evaluate = field(default_factory=Evaluate)


@dataclass(frozen=True)
class Reproduce:
    """The reference experiment of pruning; see reproduce.py."""

    name: str = ""  # with which its runs' names begin; empty = from the .data and .cfg
    cfg: str = "config/yolov3-tiny.cfg"  # the network
    weights: str = "yolov3-tiny.weights"  # what it starts from, as train.py's `weights`
    data: str = "data/custom.data"  # the photos
    img_size: int = 320  # input width and height, pixels
    dense_epochs: int = 0  # of training before the sparse one
    sparse_epochs: int = 20  # of sparse training
    tune_epochs: int = 40  # of fine-tuning; others train for the sum of these three
    lr: float = 3e-3  # learning rate up to a cut
    tune_lr: float = 3e-3  # learning rate from a cut, and of its controls
    sparse_rate: float = 2.5e-4  # as train.py's
    channels: tuple[float, ...] = (0.5, 0.7, 0.85, 0.95)  # shares of them that slim cuts
    speedups: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0)  # times faster, by latency and by its rivals
    only: tuple[str, ...] = ()  # rows whose label has one of these words, and "dense"; none = all
    eval_every: int = 4  # epochs between evaluations
    seeds: int = 3  # of the main rows; the others are run once
    jobs: int = 2  # runs at once, each with its share of the cores

    def __post_init__(self) -> None:
        counts = ("img_size", "sparse_epochs", "tune_epochs", "eval_every", "seeds", "jobs")
        expect(self, **{name: (getattr(self, name) >= 1, "at least 1") for name in counts})
        expect(
            self,
            dense_epochs=(self.dense_epochs >= 0, "at least 0"),
            channels=(all(0 <= share < 1 for share in self.channels), "from 0 to below 1"),
            speedups=(all(1 <= f < math.inf for f in self.speedups), "numbers from 1"),
            name=("/" not in self.name and "\\" not in self.name, "a name without slashes"),
        )


@dataclass(frozen=True)
class ReproduceSettings:
    """Rerun the reference experiment of pruning; see README.md."""

    reproduce: Reproduce = field(default_factory=Reproduce)


@dataclass(frozen=True)
class ExportSettings:
    """Write a network in other programs' formats; see README.md."""

    network: Network = field(default_factory=Network)
    export: Export = field(default_factory=Export)


@dataclass(frozen=True)
class BenchmarkSettings:
    """Compare networks, engines and precisions in speed; see README.md."""

    benchmark: Benchmark = field(default_factory=Benchmark)
    evaluate: Evaluate = field(default_factory=Evaluate)


@dataclass(frozen=True)
class TrainingSpeedSettings:
    """Measure how fast training, its loader and evaluation are; see README.md."""

    speed: TrainingSpeed = field(default_factory=TrainingSpeed)
    model: Model = field(default_factory=lambda: Model(cfg="config/yolov3-tiny.cfg", img_size=320))
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = field(default_factory=Loss)


@dataclass(frozen=True)
class LatencyCheck:
    """How well times are predicted; see check_latency.py."""

    cfgs: tuple[str, ...] = (  # the networks, with any weights: these do not change a time
        "config/yolov3.cfg",
        "config/yolov3-tiny.cfg",
        "config/yolov3-mobilenet.cfg",
        "config/yolov3-mobilenetv2.cfg",
    )
    img_size: int = 320  # input width and height, pixels; 0 = each .cfg's own
    count: int = 20  # random cuts of each that are predicted and measured
    cost_table: str = ""  # the file of measured layers; empty = one in runs/latency/

    def __post_init__(self) -> None:
        expect(
            self,
            img_size=(self.img_size >= 0, "pixels, or 0 for each .cfg's own size"),
            count=(self.count >= 1, "at least 1"),
            cfgs=(bool(self.cfgs), "at least one network"),
            cost_table=(self.cost_table[-4:] in ("", ".csv"), "a .csv file"),
        )


@dataclass(frozen=True)
class LatencyCheckSettings:
    """Predict the times of random cuts, and measure them; see README.md."""

    check: LatencyCheck = field(default_factory=LatencyCheck)
    runtime: Runtime = field(default_factory=lambda: Runtime(backend="torch"))


S = TypeVar("S")


def load(settings: type[S], argv: list[str] | None = None, default: S | None = None) -> S:
    """The settings of one script: the defaults above, or `default`, changed by its flags.

    Raises InputError for a flag that is unknown, or a value that is none of its kind.
    """
    check_kinds(settings)
    start = settings() if default is None else default
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(settings, args=argv, default=start, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_one_line(said.getvalue())) from None


def check_kinds(settings: type[Any]) -> None:
    """Raise InputError where somebody edited a default to what is none of its kind."""
    for group in get_type_hints(settings).values():
        kinds = get_type_hints(group)
        for one in fields(group):
            if one.default is dataclasses.MISSING:
                continue
            kind, every = kinds[one.name], CollectionCheckStrategy.ALL_ITEMS
            try:
                check_type(one.default, kind, collection_check_strategy=every)
            except TypeCheckError:
                wanted = kind.__name__ if isinstance(kind, type) else str(kind)
                wanted = wanted.replace("typing.", "")
                raise InputError(f"{one.name}={one.default!r}: expected {wanted}") from None


def _one_line(box: str) -> str:
    """What tyro says in a box, of a title and parts between rules: its first part, and the flags
    that it proposes in the others."""
    lines = [line.strip("╭╮╰╯│ ") for line in box.splitlines()[1:]]
    parts = [list(part) for is_rule, part in groupby(lines, lambda line: not line.strip("─-"))
             if not is_rule]  # fmt: skip
    said = " ".join(parts[0]).rstrip(".")
    near = [line.split()[0] for part in parts[1:] for line in part if line.startswith("--")]
    return f"{said}; see {', '.join(near)}" if near else f"{said}; --help lists the flags"


def prune_arguments(argv: list[str] | None = None, strategy: str = "") -> dict[str, Any]:
    """What `pruning.steps.prune` takes. strategy: the one that a script is for; empty for any."""
    check_kinds(PruneSettings)  # before the first of them is made
    cut = Cut(pruned_id=strategy) if strategy else Cut()
    p = load(PruneSettings, argv, PruneSettings(cut=cut))
    if strategy and p.cut.strategy != strategy:
        raise InputError(
            f"pruned_id={p.cut.pruned_id!r}: expected {strategy!r}, which this script is for; "
            "prune.py takes any"
        )
    values = dataclasses.asdict(p)
    return {
        "network": values["network"],
        "strategy": p.cut.strategy,
        "target": p.cut.target,
        "runtime": values["runtime"],
        "latency": values["latency"],
        "evaluation": values["evaluate"],
        "settings": values,
        **values["prune"],
    }


def restore(settings: type[S], values: Mapping[str, Mapping[str, Any]]) -> S:
    """The settings that `save` wrote, or a checkpoint holds; what they lack has its default."""
    groups = get_type_hints(settings)
    return settings(
        **{
            name: groups[name](
                **{f.name: _value(group[f.name]) for f in fields(groups[name]) if f.name in group}
            )
            for name, group in values.items()
            if name in groups
        }
    )


def _value(value: Any) -> Any:
    """JSON knows no tuples."""
    return tuple(value) if isinstance(value, list) else value


def save(settings: Any, path: str | Path) -> None:
    """Write resolved settings as JSON."""
    write_text(path, json.dumps(dataclasses.asdict(settings), indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(
        "this file holds the settings; run train.py, test.py, detect_img.py or detect_video.py"
    )
