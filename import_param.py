"""Every setting. Edit a default here, or give the same name as a flag to a script:

    python train.py --epochs 3 --cfg config/yolov3-tiny.cfg

`--help` of each script lists those that matter first, `--help_all` all that it uses. A comment says what a value does and its unit; the type says
which values are allowed. Nothing here imports the project, so any module may name a group as a type.
"""

# fmt: off

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, Predicate

Count = Annotated[int, Ge(1)]
Whole = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
RunName = Annotated[str, Predicate(lambda name: name not in (".", "..") and not {"/", "\\"} & set(name)), "a name without slashes"]
Reach = Annotated[float, Predicate(lambda reach: reach == 0 or 1 <= reach <= 3), "0, or from 1 to 3"]
Speedup = Annotated[float, Predicate(lambda factor: factor == 0 or factor >= 1), "0, or at least 1"]
JsonLines = Annotated[str, Predicate(lambda path: path in ("", "-") or path[-6:] == ".jsonl"), "a .jsonl file, or -"]
CsvFile = Annotated[str, Predicate(lambda path: path[-4:] in ("", ".csv")), "a .csv file"]

LayerShare = Annotated[str, Predicate(lambda text: bool(re.fullmatch(r"\d{1,4}:(0|0?\.\d{1,9})", text))), "LAYER:SHARE, a share from 0 to below 1, such as 4:0.5"]

IMPORTANCES = ("gamma", "l1", "taylor", "uniform")
STRATEGIES = {1: "normal", 2: "layer", 3: "slim", 4: "shortcut", 5: "layer_channel", 6: "latency"}
OWN = re.compile(r".+\.py:[A-Za-z_]\w*")  # FILE.py:FUNCTION, see docs/research.md


def is_own(name: int | str) -> bool:
    """Whether a strategy or importance is a function of the user's own."""
    return isinstance(name, str) and bool(OWN.fullmatch(name))


ImportanceName = Annotated[str, Predicate(lambda name: name in IMPORTANCES or is_own(name)), "gamma, l1, taylor, uniform, or a function of yours, FILE.py:FUNCTION"]
StrategyName = Annotated[int | str, Predicate(lambda name: name in (*STRATEGIES, *STRATEGIES.values()) or is_own(name)), "1 normal, 2 layer, 3 slim, 4 shortcut, 5 layer_channel, 6 latency (number or name), or a function of yours, FILE.py:FUNCTION"]
COCO_IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # the overlaps that COCO's rule measures at

# --- what train.py, test.py, prune.py and the detect scripts share ---

@dataclass(frozen=True)
class DataSet:
    """The photos and their labels."""
    data: str = "data/demo.data"  # the data set: a folder, data.yaml, .json, .xml or .data file
    bad_labels: Literal["drop", "refuse"] = "drop"  # what to do with labels that cannot be right
    cache_mb: Whole = 2048  # memory for decoded photos, MB
    max_megapixels: Positive = 120.0  # larger photos are not decoded, which takes about 10 MB of memory a megapixel


@dataclass(frozen=True)
class Data(DataSet):
    """The photos and their labels, and how they are loaded."""
    batch_size: Whole = 0  # photos a step of training, or at once; 0 = 8, and to train on a card up to 64, as its memory and the number of photos allow
    workers: Annotated[int, Interval(ge=-1, le=256)] = -1  # processes that load photos; 0 = none; -1 = none on two cores, else some

    @property
    def photos_at_once(self) -> int:
        return self.batch_size or 8


@dataclass(frozen=True, kw_only=True)
class NetworkLimits:
    """How large a network may be; a .cfg of a few lines may ask for any amount of memory and time."""
    max_network_gb: Positive = 8.0  # memory for its weights, and its maps of one photo, GB; a larger network is refused
    max_network_gflops: Positive = 10_000.0  # operations for one photo, in 10^9; more are refused


@dataclass(frozen=True)
class NetworkFiles(NetworkLimits):
    """A network: its files, and how it sees photos."""
    cfg: str = ""  # a Darknet .cfg; empty = the one beside .weights with the same name (a .pt holds its own)
    weights: str = ""  # .pt of ours or Darknet's .weights; empty = the newest weights/*/best.pt
    img_size: Whole = 0  # input width and height, pixels; 0 = the network's own
    letterbox: Literal["auto", "yes", "no"] = "auto"  # keep the photos' aspect; auto = as the .cfg says
    device: str = "auto"  # cpu, cuda, cuda:1, ...; auto = the graphics card where there is one


@dataclass(frozen=True)
class TrainedNetwork(NetworkFiles):
    """A trained network to use."""
    names: str = ""  # class names, a line each; empty = the network's own, or the data set's


@dataclass(frozen=True)
class Nms:
    """Which of a network's proposals become detections (non-maximum suppression)."""
    conf_thres: Share = 0.25  # lowest score (objectness times class probability) to keep
    nms_thres: Share = 0.45  # of two boxes of a class that overlap more (IoU), the one with the lower score goes
    max_detections: Whole = 300  # at most so many boxes a photo; 0 = any number


EVALUATION_NMS = Nms(conf_thres=0.001, max_detections=100)  # AP needs low scores, too; COCO counts 100 boxes a photo


@dataclass(frozen=True)
class Evaluation:
    """How precision, recall and AP are measured."""
    rule: Literal["coco", "voc10", "voc07", "darknet"] = "coco"  # how AP is taken from a precision-recall curve
    iou_thres: Annotated[float, Interval(gt=0, lt=1)] = 0.5  # least overlap (IoU) with an object for a hit
    plus_one: bool = False  # VOC's old IoU, in which a box's right and bottom pixels count

    def check(self) -> None:
        if self.rule == "coco" and self.iou_thres not in COCO_IOUS:
            raise ValueError(f"iou_thres={self.iou_thres}: expected one of {COCO_IOUS}, as rule is coco")
        if self.rule == "coco" and self.plus_one:
            raise ValueError("plus_one=True: expected no, as rule is coco")


@dataclass(frozen=True)
class Runtime:
    """What runs a trained network, and on what its latency is measured."""
    engine: Literal["auto", "torch", "onnxruntime", "openvino", "ncnn", "opencv"] = "auto"  # the library that runs it; auto = the fastest that is installed, measured once
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "fp32"  # of its arithmetic; fp16 on cards; auto = the fastest but for int8, measured once
    threads: Annotated[int, Interval(ge=0, le=1024)] = 0  # on a CPU; 0 = as many as torch finds useful
    calibration: str = ""  # photos like those to come, for int8: a data set, a folder or a glob; empty = those of `data`
    calibration_photos: Count = 200  # at most so many of them; for a cut that is timed, 4 do
    int8_loss: Share = 0.05  # refuse int8 that loses more AP of the network's own float detections on these photos


TORCH = Runtime(engine="torch")


# --- training ---

@dataclass(frozen=True)
class Model(NetworkFiles):
    """The network to train."""
    cfg: str = "config/yolov3-lite.cfg"  # the network, a Darknet .cfg
    weights: str = ""  # what `pretrained` starts from: .pt of ours, Darknet's file, also cut off, or torchvision's .pth; empty = the published file that fits the .cfg, fetched into weights/
    pretrained: bool = False  # start from `weights`; otherwise from random numbers
    fit_anchors: bool = True  # fit anchors to the data set where the heads are trained anew
    bn_epsilon: Literal["cfg", "opencv", "darknet"] = "cfg"  # whose batch normalisation: the .cfg's `bn_epsilon`, OpenCV's 1e-6 (also where it says nothing), or AlexeyAB's Darknet's 1e-5
    scale_x_y: Reach = 2.0  # reach of a cell's centre where the heads are trained anew; 0 = the .cfg's


@dataclass(frozen=True)
class Training:
    """The training."""
    name: RunName = ""  # the name of the run's folders in runs/ and weights/; empty = from the .cfg and .data
    resume: str = ""  # a last.pt to go on from; its own settings are used
    epochs: Count = 40  # passes over the training photos
    accumulate: Count = 1  # batches whose gradients make one step of the optimizer
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd wants another learning rate, about 0.01
    lr: Positive = 2e-3  # learning rate at its highest
    final_lr: Share = 0.05  # learning rate at the end, as a share of lr
    warmup_epochs: Annotated[float, Interval(ge=0, le=1e6)] = 5.0  # epochs in which the learning rate rises from nothing
    momentum: BelowOne = 0.937  # of SGD; AdamW's first beta
    weight_decay: NotNegative = 5e-4  # on the convolutions' kernels only
    clip: NotNegative = 10.0  # largest norm of the gradient; 0 = any
    ema_decay: BelowOne = 0.998  # of the running mean of the weights that is evaluated and saved
    amp: bool = True  # 16-bit arithmetic where the machine is fast with it
    amp_dtype: Literal["auto", "bf16", "fp16"] = "auto"  # of amp; auto = bf16 where the machine is fast with it, else fp16 on a card; for fp16 the loss is scaled
    deterministic: bool = True  # on a card: of cuDNN's algorithms only those that repeat to the bit; no = the fastest
    sync_bn: bool = True  # with torchrun: batch normalisation by the photos of all processes, not by each one's own
    multi_scale: Annotated[float, Interval(ge=0, le=0.5)] = 0.0  # each batch's size is changed by up to this share
    close_mosaic: Whole = 5  # last epochs, without mosaics
    freeze: Whole = 0  # this many first layers keep their weights
    patience: Whole = 0  # stop after so many evaluations without a better mAP; 0 = never
    eval_every: Count = 1  # epochs between evaluations
    seed: Whole = 0  # of everything random


@dataclass(frozen=True)
class Augmentation:
    """How strongly training photos are changed; 0 switches a change off."""
    mosaic: Share = 0.7  # probability of a picture composed of four photos
    scale: Annotated[float, Interval(ge=0, le=0.9)] = 0.5  # enlarged or shrunk by up to this share
    translate: Share = 0.1  # shifted by up to this share of the input's sides
    hue: Share = 0.015  # turned by up to this share of the colour circle
    saturation: Share = 0.5  # changed by up to this share
    value: Share = 0.4  # brightness, changed by up to this share
    flip_horizontal: Share = 0.5  # probability
    flip_vertical: Share = 0.0  # probability


@dataclass(frozen=True)
class Loss:
    """The weights of the loss's parts."""
    box_gain: NotNegative = 0.5  # of the box loss (CIoU)
    objectness_gain: NotNegative = 1.0  # of the objectness loss
    class_gain: NotNegative = 0.1  # of the class loss, a sum over classes
    anchor_ratio: Annotated[float, Gt(1)] = 4.0  # an anchor fits an object at most this many times wider or higher


@dataclass(frozen=True)
class Distillation:
    """Training with a larger network as teacher."""
    teacher: str = ""  # a larger trained network to learn from, .pt or Darknet's .weights, with the same heads; empty = none
    teacher_cfg: str = ""  # its .cfg; empty = the one beside its .weights with the same name
    teacher_objectness: NotNegative = 1.0  # weight of its objectness
    teacher_classes: NotNegative = 0.1  # weight of its classes
    teacher_boxes: NotNegative = 0.5  # weight of its boxes, where they beat the network's own
    teacher_features: NotNegative = 0.0  # weight of where it looks, in the maps that its heads read

    def check(self) -> None:
        if self.teacher_cfg and not self.teacher:
            raise ValueError(f"teacher_cfg={self.teacher_cfg!r}: expected none, or a teacher as well")


@dataclass(frozen=True)
class Monitoring:
    """Live curves, and what is printed."""
    monitor: Literal["visdom", "tensorboard", "none"] = "visdom"  # what shows curves and pictures while it trains; files are written in any case; --no_visdom = none
    visdom_url: str = "http://127.0.0.1:8097"  # a server; where none answers here, one is started
    keep_visdom: bool = True  # a server that was started goes on after the run, for its curves
    class_table: bool = False  # print the table of classes after each evaluation, not only at the end


# --- pruning ---

@dataclass(frozen=True)
class Sparsity:
    """Sparse training: a penalty on BN scales, so that prune.py, or a cut on the way, can take whole channels."""
    is_pruned: bool = False  # train what `pruned_id` may cut towards zero
    sparse_rate: Annotated[float, Interval(ge=0, le=1e6)] = 2.5e-4  # loss that a channel must save to stay; more = sparser
    sparse_by: Literal["channels", "parameters", "operations"] = "channels"  # the penalty is alike for each channel, or in proportion to what goes with it
    sparse_step: Literal["proximal", "subgradient"] = "proximal"  # to exact zeros, or near zero (Network Slimming's own)
    sparse_decay: Literal["constant", "global", "local"] = "constant"  # after half the training: keep the penalty | scale it by 0.01 | keep it for all but the 15 % largest scales
    prune_while_training: bool = False  # cut during the training, to `percent` or a target_ time
    cut_epochs: tuple[Count, ...] = ()  # epochs to cut after; none = whenever hardly any more channels die

    def check(self) -> None:
        if self.prune_while_training and not self.is_pruned:
            raise ValueError("prune_while_training=True: expected False, or is_pruned=True as well")
        if self.cut_epochs and not self.prune_while_training:
            raise ValueError(f"cut_epochs={self.cut_epochs}: expected none, or prune_while_training=True as well")


@dataclass(frozen=True)
class Pruning:
    """What is cut, and how much: a share, or what a time allows (pruned_id 6 needs a target_ time)."""
    pruned_id: StrategyName = 3  # the strategy: 1 normal, 2 layer, 3 slim, 4 shortcut, 5 layer_channel, 6 latency, or yours, FILE.py:FUNCTION
    percent: BelowOne = 0.7  # the share to cut, 0 to below 1
    percent_of: Literal["channels", "parameters", "operations"] = "channels"  # what the share is counted in
    layer_keep: Share = 0.1  # the share of its channels that every layer keeps at least
    protected: tuple[Whole, ...] = ()  # numbers of layers (0 = the first of the .cfg) of which no channel is cut
    layer_shares: tuple[LayerShare, ...] = ()  # the share to cut of single layers, LAYER:SHARE such as 4:0.5; the others make up the rest
    round_to: Whole = 0  # layers keep a multiple of so many channels; 0 = 8, less in narrow layers
    percent_blocks: Share = 0.25  # the share of residual blocks that layer_channel removes
    target_ms: NotNegative = 0.0  # milliseconds an image that the network may take; 0 = not asked
    target_speedup: Speedup = 0.0  # how many times faster than before it shall be; 0 = not asked
    latency_batch_size: Count = 1  # images at once when networks and layers are timed; milliseconds are those of one: with 16, target_ms 2 means 32 ms for all 16
    latency_table: CsvFile = ""  # the file of measured layers; empty = one in runs/latency/

    @property
    def strategy(self) -> str:
        return STRATEGIES[self.pruned_id] if isinstance(self.pruned_id, int) else self.pruned_id

    @property
    def shares_by_layer(self) -> dict[int, float]:
        return {int(layer): float(share) for layer, share in (text.split(":") for text in self.layer_shares)}

    def check(self) -> None:
        if self.layer_shares and self.strategy == "layer":
            raise ValueError(f"layer_shares={self.layer_shares}: expected none with pruned_id=layer, which cuts no single channels")
        if len(self.shares_by_layer) < len(self.layer_shares):
            raise ValueError(f"layer_shares={self.layer_shares}: expected each layer once")


@dataclass(frozen=True)
class PruningRun:
    """How prune.py judges channels, and what it measures."""
    name: RunName = ""  # the name of the folders in runs/ and weights/; empty = from the weights and the strategy
    importance: ImportanceName = "gamma"  # what a channel is judged by: gamma (its scale), l1 (its kernel), taylor (the slope of the loss), uniform (a control), or yours, FILE.py:FUNCTION
    importance_batches: Count = 16  # batches of training photos that taylor and latency look at
    bn_batches: Whole = 32  # batches that batch normalisation is re-estimated on; 0 = it is not
    latency_rounds: Count = 20  # how often each network is timed


# --- detection, testing, export, benchmark ---

@dataclass(frozen=True)
class Detection:
    """Finding objects in photos and videos."""
    source: tuple[str, ...] = ("data/demo/images",)  # photos, folders, globs; videos, camera numbers, streams; several at once
    output: str = "runs/detect"  # folder for the annotated pictures or video
    classes: tuple[str, ...] = ()  # names or numbers of the classes to keep; none = all
    batch_size: Count = 1  # photos or frames at once
    max_megapixels: Positive = 120.0  # larger photos are not decoded, which takes about 10 MB of memory a megapixel
    show: bool = True  # a window for videos, where there is a display
    save_images: bool = True  # the annotated photos
    save_video: bool = True  # the annotated videos
    jsonl: JsonLines = ""  # a line of JSON a photo or frame, as it is done: a .jsonl file, or - for standard output; empty = none
    reconnect: NotNegative = 30.0  # seconds to try to reach a camera or stream again that was lost; 0 = it ends
    save_txt: bool = False  # a .txt a photo: class, centre and size as shares of the photo, score
    save_json: bool = False  # one detections.json: file, class, score, box in pixels
    save_crops: bool = False  # each object as a picture of its own

    def check(self) -> None:
        if not self.source:
            raise ValueError("source=(): expected at least one")


@dataclass(frozen=True)
class Test:
    """What test.py measures on."""
    split: Literal["valid", "train"] = "valid"  # which of the data set's photos
    output: str = "runs/test"  # folder for curves, tables and detections


@dataclass(frozen=True)
class Export:
    """What export.py writes, and on what it compares."""
    format: tuple[Literal["darknet", "onnx", "openvino", "ncnn", "torchscript"], ...] = ("onnx",)  # one or several
    precision: Literal["fp32", "int8"] = "fp32"  # int8: onnx and openvino
    dynamic: bool = False  # onnx for any number of images and any size
    bn_epsilon: Literal["cfg", "opencv", "darknet"] = "cfg"  # whose batch normalisation darknet's pair is to agree with: the network's own, OpenCV's or AlexeyAB's Darknet's
    nms: bool = False  # decoding and NMS in the graph, of onnx and openvino
    standalone: bool = False  # a folder that runs without this project: the file, a detector for it, requirements and README; onnx, openvino, ncnn
    source: str = ""  # photos to compare on; empty = the data set's, or the demo set's
    photos: Count = 8  # how many to compare on
    calibration_photos: Count = 200  # at most so many training photos to calibrate int8 on
    int8_loss: Share = 0.05  # refuse int8 that loses more AP of the network's own float detections on these photos
    output: str = ""  # folder for the files; empty = export/ beside the weights

    def check(self) -> None:
        if not self.format:
            raise ValueError("format=(): expected at least one")
        if self.dynamic and self.format != ("onnx",):
            raise ValueError(f"dynamic=True: expected format=('onnx',), found {self.format}")
        if self.standalone and not {"onnx", "openvino", "ncnn"} >= set(self.format):
            raise ValueError(f"standalone=True: expected format onnx, openvino or ncnn, found {self.format}")
        if self.nms and not {"onnx", "openvino"} >= set(self.format):
            raise ValueError(f"nms=True: expected format onnx or openvino, found {self.format}")
        if self.precision == "int8" and self.dynamic:
            raise ValueError("precision='int8': expected dynamic=False")
        if self.precision == "int8" and not {"onnx", "openvino"} >= set(self.format):
            raise ValueError(f"precision='int8': expected format onnx or openvino, found {self.format}")


@dataclass(frozen=True)
class Benchmark(NetworkLimits):
    """What benchmark.py compares."""
    weights: tuple[str, ...] = ("config/yolov3.cfg", "config/yolov3-mobilenet.cfg", "config/yolov3-mobilenetv2.cfg", "config/yolov3-tiny.cfg", "config/yolov3-lite.cfg", "config/yolov3-tiny-mobilenet.cfg")  # .pt, .weights with a .cfg beside it, or a .cfg; the first is compared with
    engine: tuple[str, ...] = ()  # torch, onnxruntime, openvino, ncnn, opencv; none = all installed
    device: tuple[str, ...] = ()  # cpu, cuda, cuda:1, ...; none = the CPU, and the graphics card where there is one
    precision: tuple[Literal["fp32", "fp16", "bf16", "int8"], ...] = ("fp32", "bf16")  # of the arithmetic
    peers: bool = False  # time pytorchyolo's and ultralytics' networks too, where installed
    memory: bool = False  # measure memory as well, each in a process of its own; takes a while
    batch_size: tuple[Count, ...] = (1,)  # images at once
    img_size: Whole = 320  # input width and height, pixels; 0 = each network's own
    rounds: Count = 30  # in which everything is timed once
    seconds: Positive = 120.0  # of measuring, about, at most
    threads: Annotated[int, Interval(ge=0, le=1024)] = 0  # 0 = as many as torch finds useful
    calibration: str = ""  # photos for int8: .data file, folder or glob; empty = `data`, or noise
    calibration_photos: Count = 200  # at most so many of them
    int8_loss: Share = 0.05  # leave int8 out that loses more AP of the network's own float detections on these photos
    output: str = "runs/benchmark"  # folder for the table and the plot

    def check(self) -> None:
        for name in ("weights", "precision", "batch_size"):
            if not getattr(self, name):
                raise ValueError(f"{name}=(): expected at least one")


@dataclass(frozen=True)
class DataCheck:
    """Looking at a data set."""
    photos: Count = 24  # of them on the contact sheet
    output: str = "runs/check_data"  # folder for the pictures and lists
    write: str = ""  # a new .data file, with lists of the photos; empty = none


@dataclass(frozen=True)
class Comparison:
    """Which runs compare.py compares."""
    runs: tuple[str, ...] = ()  # names or folders of runs; globs in quotes
    measure: bool = False  # time the networks now, taking turns; otherwise milliseconds are those in the reports of cuts
    rounds: Count = 20  # how often each network is timed
    output: str = "runs/compare"  # folder for the table and the picture


# --- which groups each script takes ---

@dataclass(frozen=True)
class TrainSettings:
    """Train a network; see README.md."""
    model: Model = Model()
    data: Data = Data()
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    loss: Loss = Loss()
    distillation: Distillation = Distillation()
    sparsity: Sparsity = Sparsity()
    pruning: Pruning = Pruning()
    runtime: Runtime = TORCH  # what a cut to a time is measured on
    evaluation: Evaluation = Evaluation()
    nms: Nms = EVALUATION_NMS
    monitoring: Monitoring = Monitoring()


@dataclass(frozen=True)
class TestSettings:
    """Measure a network's mAP on a data set; see README.md."""
    network: TrainedNetwork = TrainedNetwork()
    data: Data = Data()
    test: Test = Test()
    evaluation: Evaluation = Evaluation()
    nms: Nms = EVALUATION_NMS
    runtime: Runtime = TORCH


@dataclass(frozen=True)
class DetectSettings:
    """Find objects; see README.md."""
    network: TrainedNetwork = TrainedNetwork()
    detection: Detection = Detection()
    nms: Nms = Nms()
    runtime: Runtime = Runtime()


@dataclass(frozen=True)
class PruneSettings:
    """Make a trained network smaller; see README.md."""
    network: TrainedNetwork = TrainedNetwork()
    data: Data = Data()
    pruning: Pruning = Pruning()
    run: PruningRun = PruningRun()
    evaluation: Evaluation = Evaluation()
    nms: Nms = EVALUATION_NMS
    runtime: Runtime = TORCH


@dataclass(frozen=True)
class ExportSettings:
    """Write a network in other programs' formats; see README.md."""
    network: TrainedNetwork = TrainedNetwork()
    export: Export = Export()
    data: DataSet = DataSet(data="")  # to compare and measure on, and to calibrate int8 on
    nms: Nms = Nms()  # in the graph, with `nms`; max_detections is a class's and photo's there


@dataclass(frozen=True)
class CheckDataSettings:
    """Look at a data set before training on it; see README.md."""
    check: DataCheck = DataCheck()
    data: DataSet = DataSet()


@dataclass(frozen=True)
class CompareSettings:
    """Compare runs: settings, mAP, size and milliseconds; see README.md."""
    comparison: Comparison = Comparison()
    runtime: Runtime = TORCH  # what the networks are timed on, with `measure`


@dataclass(frozen=True)
class BenchmarkSettings:
    """Compare networks, engines and precisions in speed; see README.md."""
    benchmark: Benchmark = Benchmark()
    data: DataSet = DataSet(data="")  # measure mAP as well, on its validation photos
    evaluation: Evaluation = Evaluation()
    nms: Nms = EVALUATION_NMS


if __name__ == "__main__":
    raise SystemExit("this file holds the settings; run train.py, test.py, detect_img.py or detect_video.py")
