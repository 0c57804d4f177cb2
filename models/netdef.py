"""What does a .cfg file say? Its sections, their typed keys, and which layer reads which."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.errors import InputError
from utils.files.numbers import to_float, to_int
from utils.files.reading import encoding_of, read_bytes
from utils.files.writing import write_text

# Short names that Darknet accepts → the name that this project uses.
ALIASES = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool"}

# The keys that mean something for inference, by section. Darknet's own training keys stand in
# TRAINING_KEYS: they are kept and written back, but do not change what a network computes.
KEYS = {
    "net": {"width", "height", "channels", "letter_box", "bn_epsilon"},
    "convolutional": {
        "batch_normalize", "filters", "size", "stride", "stride_x", "stride_y", "pad", "padding",
        "dilation", "groups", "activation", "protected",
    },
    "maxpool": {"size", "stride", "stride_x", "stride_y", "padding"},
    "local_avgpool": {"size", "stride", "stride_x", "stride_y", "padding"},
    "avgpool": set(),
    "route": {"layers", "groups", "group_id"},
    "shortcut": {"from", "activation", "weights_type", "weights_normalization"},
    "scale_channels": {"from", "activation"},
    "sam": {"from", "activation"},
    "upsample": {"stride", "scale"},
    "reorg": {"stride", "reverse"},
    "dropout": {"probability"},
    "yolo": {
        "mask", "anchors", "classes", "num", "scale_x_y", "new_coords", "nms_kind", "beta_nms",
    },
}  # fmt: skip

TRAINING_KEYS = {
    "net": {
        "batch", "subdivisions", "time_steps", "track", "augment_speed", "inputs", "learning_rate",
        "learning_rate_min", "burn_in", "max_batches", "policy", "step", "steps", "scale", "scales",
        "seq_scales", "gamma", "power", "momentum", "decay", "adam", "b1", "b2", "B1", "B2", "eps",
        "batches_per_cycle", "batches_cycle_mult", "sequential_subdivisions", "try_fix_nan",
        "loss_scale", "dynamic_minibatch", "optimized_memory", "workspace_size_limit_MB",
        "max_crop", "min_crop", "flip", "blur", "gaussian_noise", "mixup", "cutmix", "mosaic",
        "mosaic_bound", "contrastive", "contrastive_jit_flip", "contrastive_color",
        "unsupervised", "label_smooth_eps", "resize_step", "attention", "adversarial_lr",
        "max_chart_loss", "angle", "aspect", "saturation", "exposure", "hue", "ema_alpha",
        "use_cuda_graph", "show_receptive_field", "weights_reject_freq", "equidistant_point",
        "badlabels_rejection_percentage", "num_sigmas_reject_badlabels", "rotate", "crop",
        "hue_shift", "letter_box_fill", "max_batches_per_epoch",
    },
    "convolutional": {
        "learning_rate_scale", "burnin_update", "train_only_bn", "dontload", "dontloadscales",
        "dontsave", "stopbackward", "onlyforward", "assisted_excitation", "wait_stream",
        "stream", "sequential_subdivisions",
    },
    "dropout": {"dropblock", "dropblock_size_rel", "dropblock_size_abs"},
    "yolo": {
        "jitter", "ignore_thresh", "truth_thresh", "random", "iou_thresh", "iou_loss",
        "iou_normalizer", "cls_normalizer", "obj_normalizer", "resize",
        "max", "max_delta", "objectness_smooth", "label_smooth_eps", "focal_loss",
        "counters_per_class", "iou_thresh_kind", "uc_normalizer", "track_history_size",
        "sim_thresh", "dets_for_track", "dets_for_show", "embedding_layer", "map", "thresh",
        "delta_normalizer",
    },
}  # fmt: skip

# Keys that would change what a network computes in ways that are not built here.
REFUSED_KEYS = {
    "convolutional": {
        "xnor", "binary", "bin_output", "flipped", "antialiasing", "share_index", "deform",
        "rotate", "stretch", "sway", "stretch_sway", "grad_centr", "coordconv",
    },
    "scale_channels": {"scale_wh"},
    "maxpool": {"maxpool_depth", "out_channels", "antialiasing"},
}  # fmt: skip

MOST_ANCHORS = 1000  # of a [yolo]: published ones have 9 to 20
UNLISTED_ANCHOR = (0.5, 0.5)  # what Darknet takes where `num` is more than the anchors

# Measured on real networks: with 1e-6 a forward pass equals OpenCV's logits within 1e-4, with 1e-5
# it differs by up to 0.17 where variances are small.
BN_EPSILON = 1e-6
DARKNET_BN_EPSILON = 1e-5  # AlexeyAB's Darknet

# The sections that read a second layer beside the one before them, and the key that names it.
SECOND_INPUT = {"shortcut": "from", "scale_channels": "from", "sam": "from"}


@dataclass(frozen=True)
class Section:
    """One section of a .cfg file. Values are kept as written, without spaces.

    Two sections are equal when their kinds and options are; where they came from is not compared.
    The methods that read a key raise InputError, with file, line and value, where it is not of the
    kind asked for, or is absent and has no default.

    Attributes:
        kind: such as `convolutional`.
        options: values by key.
        path: of the file; empty where there is none.
        line: of its [kind], from 1; 0 where there is no file.
        lines: of the keys.
    """

    kind: str
    options: Mapping[str, str]
    path: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __hash__(self) -> int:
        return hash((self.kind, frozenset(self.options.items())))

    def error(self, message: str, key: str | None = None) -> InputError:
        """An error that names the file, the line, and the key with its value."""
        line, subject = self.line, f"[{self.kind}]"
        if key is not None and key in self.options:
            line, subject = self.lines.get(key, line), f"{key}={self.options[key]!r}"
        return InputError(f"{self.path or 'cfg'}:{line}: {subject}: {message}")

    def integer(self, key: str, default: int | None = None, *, at_least: int | None = None) -> int:
        """The whole number of a key, `at_least` so large."""
        text = self._text(key, default)
        try:
            value = to_int(text)
        except ValueError:
            raise self.error("expected an integer", key) from None
        if at_least is not None and value < at_least:
            raise self.error(f"expected an integer of at least {at_least}", key)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The finite number of a key."""
        text = self._text(key, default)
        try:
            value = to_float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error("expected a number", key)
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """Whether a key is 1; only 0 and 1 are allowed."""
        value = self.integer(key, int(default))
        if value not in (0, 1):
            raise self.error("expected 0 or 1", key)
        return bool(value)

    def integers(self, key: str) -> list[int]:
        """The whole numbers of a key, with commas between them."""
        try:
            return [to_int(part) for part in self._parts(key)]
        except ValueError:
            raise self.error("expected integers with commas between them", key) from None

    def numbers(self, key: str) -> list[float]:
        """The finite numbers of a key, with commas between them."""
        try:
            values = [to_float(part) for part in self._parts(key)]
        except ValueError:
            values = [math.nan]
        if not all(map(math.isfinite, values)):
            raise self.error("expected numbers with commas between them", key)
        return values

    def choice(self, key: str, default: str, allowed: Iterable[str]) -> str:
        """The word of a key, one of those that are allowed."""
        value = self.options.get(key, default)
        if value not in allowed:
            raise self.error(f"expected one of {', '.join(sorted(allowed))}", key)
        return value

    def with_options(self, **options: object) -> Section:
        """The same section with some values changed or added."""
        changed = {key: str(value) for key, value in options.items()}
        return replace(self, options={**self.options, **changed})

    def _text(self, key: str, default: object) -> str:
        if key in self.options:
            return self.options[key]
        if default is None:
            raise self.error(f"needs a value for {key!r}")
        return str(default)

    def _parts(self, key: str) -> list[str]:
        return [part for part in self._text(key, None).split(",") if part]


@dataclass(frozen=True)
class NetDef:
    """A network as its .cfg file defines it.

    Attributes:
        net: the [net] section.
        layers: the sections after it; a layer's index is its place among them, from 0.
        notes: lines about keys that were not understood, for a script to print.
    """

    net: Section
    layers: tuple[Section, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """What messages call the network: its file."""
        return self.net.path or "the network"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the input in pixels."""
        return (
            self.net.integer("width", 416, at_least=1),
            self.net.integer("height", 416, at_least=1),
        )

    @property
    def channels(self) -> int:
        """Of the input: 3 for colour photos."""
        return self.net.integer("channels", 3, at_least=1)

    @property
    def letterbox(self) -> bool:
        """Whether the net asks for photos at their own aspect (Darknet's `letter_box=1`)."""
        return self.net.flag("letter_box")

    @property
    def bn_epsilon(self) -> float:
        """What batch normalisation adds to a variance: 1e-6 as OpenCV, or as `bn_epsilon` says.

        A key of ours, which other programs overlook: AlexeyAB's Darknet always adds 1e-5.
        """
        value = self.net.number("bn_epsilon", BN_EPSILON)
        if not 1e-9 <= value <= 1e-2:
            raise self.net.error("expected a number from 1e-9 to 0.01", "bn_epsilon")
        return value

    @property
    def heads(self) -> tuple[int, ...]:
        """The indices of the [yolo] layers."""
        return tuple(i for i, section in enumerate(self.layers) if section.kind == "yolo")

    def sources(self, index: int) -> tuple[int, ...]:
        """The absolute indices of the layers that a layer reads; -1 is the image."""
        section = self.layers[index]
        if section.kind == "route":
            numbers = section.integers("layers")
            if not numbers:
                raise section.error("expected at least one layer", "layers")
            return tuple(self._absolute(index, "layers", n) for n in numbers)
        if section.kind in SECOND_INPUT:
            key = SECOND_INPUT[section.kind]
            others = section.integers(key)
            if not others:
                raise section.error("expected at least one layer", key)
            if section.kind != "shortcut" and len(others) > 1:
                raise section.error("expected one layer", key)
            return (index - 1, *(self._absolute(index, key, n) for n in others))
        return (index - 1,)

    def _absolute(self, index: int, key: str, number: int) -> int:
        source = index + number if number < 0 else number
        if not 0 <= source < index:
            before = f"layers 0 to {index - 1} stand" if index else "no layer stands"
            raise self.layers[index].error(
                f"points to layer {source}, but only {before} before this one", key
            )
        return source

    def with_net_options(self, **options: object) -> NetDef:
        """The same net with values changed or added in [net]."""
        return replace(self, net=self.net.with_options(**options))

    def with_bn_epsilon_of(self, program: str) -> NetDef:
        """The same net with the epsilon of `opencv` or `darknet`; of `cfg`, its own."""
        if program == "cfg":
            return self
        epsilon = {"opencv": BN_EPSILON, "darknet": DARKNET_BN_EPSILON}[program]
        return self.with_net_options(bn_epsilon=epsilon)

    def with_protected(self, layers: Sequence[int], setting: str = "protected") -> NetDef:
        """The same net, in which no channel of these layers may be cut: `protected=1` says so.

        Raises:
            InputError: one is no [convolutional] of this net.
        """
        sections = list(self.layers)
        for layer in layers:
            self.expect_convolutional(layer, setting)
            sections[layer] = sections[layer].with_options(protected=1)
        return replace(self, layers=tuple(sections))

    def expect_convolutional(self, layer: int, setting: str) -> None:
        """Refuse a layer's number that is no [convolutional]'s, naming the setting."""
        if not 0 <= layer < len(self.layers):
            wanted = f"a layer of {self.name}, from 0 to {len(self.layers) - 1}"
            raise InputError(f"{setting}: layer {layer}: expected {wanted}")
        if self.layers[layer].kind != "convolutional":
            kind = self.layers[layer].kind
            raise InputError(
                f"{setting}: layer {layer} of {self.name} is a [{kind}]: expected a [convolutional]"
            )

    def with_classes(self, classes: int) -> NetDef:
        """The same net for another number of classes: each [yolo] and the filters before it."""
        layers = list(self.layers)
        for index in self.heads:
            source = self._head_convolution(index)
            masks = len(head_mask(layers[index]))
            layers[index] = layers[index].with_options(classes=classes)
            layers[source] = layers[source].with_options(filters=masks * (5 + classes))
        return replace(self, layers=tuple(layers))

    def _head_convolution(self, index: int) -> int:
        """The convolution that writes what the [yolo] at `index` reads."""
        section = self.layers[index]
        source = index - 1
        if source < 0 or self.layers[source].kind != "convolutional":
            raise section.error("expected a [convolutional] just before it")
        return source

    @property
    def anchors_used(self) -> tuple[int, ...]:
        """The indices of the anchors that some head uses, ascending."""
        return tuple(sorted({m for index in self.heads for m in head_mask(self.layers[index])}))

    def with_anchors(self, anchors: Sequence[tuple[float, float]]) -> NetDef:
        """The same net with other anchors in pixels, one for each of `anchors_used`, in order."""
        used = self.anchors_used
        if len(anchors) != len(used):
            raise ValueError(f"{len(anchors)} anchors for a net that uses {len(used)}")
        text = ",".join(f"{w:g},{h:g}" for w, h in anchors)
        layers = list(self.layers)
        for index in self.heads:
            mask = ",".join(str(used.index(m)) for m in head_mask(layers[index]))
            layers[index] = layers[index].with_options(anchors=text, mask=mask, num=len(used))
        return replace(self, layers=tuple(layers))

    def with_plain_heads(self) -> NetDef:
        """The same net, each [yolo] with a `mask` and a `num` of all anchors: OpenCV wants both."""
        layers = list(self.layers)
        for index in self.heads:
            section = layers[index]
            count = len(listed_anchors(section))
            missing = count - len(section.numbers("anchors")) // 2
            if missing or "mask" not in section.options or section.options.get("num") != str(count):
                layers[index] = section.with_options(
                    anchors=section.options["anchors"].rstrip(",") + missing * ",0.5,0.5",
                    mask=",".join(map(str, head_mask(section))),
                    num=count,
                )
        return replace(self, layers=tuple(layers))

    def with_head_options(self, **options: object) -> NetDef:
        """The same net with values changed or added in every [yolo]."""
        layers = list(self.layers)
        for index in self.heads:
            layers[index] = layers[index].with_options(**options)
        return replace(self, layers=tuple(layers))

    def text(self) -> str:
        """The .cfg file. Parsing it gives an equal NetDef."""
        return "\n".join(
            f"[{section.kind}]\n"
            + "".join(f"{key}={value}\n" for key, value in section.options.items())
            for section in (self.net, *self.layers)
        )

    def write(self, path: str | Path) -> None:
        """Write the .cfg file.

        Raises:
            InputError: it cannot be written.
        """
        write_text(path, self.text())


def head_mask(section: Section) -> list[int]:
    """Which of a [yolo]'s anchors it uses: `mask`, or where that is absent the first `num`."""
    count = len(listed_anchors(section))
    if "mask" not in section.options:
        return list(range(section.integer("num", count, at_least=1)))
    mask = section.integers("mask")
    if not mask or not all(0 <= m < count for m in mask):
        raise section.error(f"expected indices from 0 to {count - 1}, one for each anchor", "mask")
    return mask


def listed_anchors(section: Section) -> list[tuple[float, float]]:
    """The (width, height) in pixels of the input that `mask` points to.

    `num` need not be their number: as in Darknet, those that it counts beyond the last are half a
    pixel wide and high.
    """
    numbers = section.numbers("anchors")
    if len(numbers) % 2 or not numbers or min(numbers) <= 0:
        raise section.error("expected positive width,height pairs", "anchors")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    count = section.integer("num", len(pairs), at_least=1)
    if count > MOST_ANCHORS:
        raise section.error(f"expected at most {MOST_ANCHORS}", "num")
    return pairs + [UNLISTED_ANCHOR] * (count - len(pairs))


def head_anchors(section: Section) -> list[tuple[float, float]]:
    """The anchors that a [yolo] uses: (width, height) in pixels of the input."""
    pairs = listed_anchors(section)
    return [pairs[m] for m in head_mask(section)]


def load(path: str | Path) -> NetDef:
    """Read a .cfg file.

    Raises:
        InputError: it cannot be read, or is wrong; with file and line.
    """
    content = read_bytes(path, LARGEST_FILE)
    # Comments may be in any encoding; what counts is ASCII.
    return parse(content.decode(encoding_of(content), errors="replace"), str(path))


def parse(text: str, path: str = "cfg") -> NetDef:
    r"""Parse the text of a .cfg file.

    >>> netdef = parse("[net]\nwidth=64\nheight=32\n[conv]\nfilters=8\n[route]\nlayers=-1")
    >>> netdef.size, [layer.kind for layer in netdef.layers], netdef.sources(1)
    ((64, 32), ['convolutional', 'route'], (0,))

    Args:
        text: the file's.
        path: names it in errors.

    Raises:
        InputError: it is wrong; with file and line.
    """
    sections = _sections(text, path)
    if not sections or sections[0].kind != "net":
        raise InputError(f"{path}:1: expected a [net] section first")
    if len(sections) == 1:
        raise InputError(f"{path}:1: expected layers after the [net] section")
    if len(sections) - 1 > MOST_LAYERS:
        raise InputError(f"{path}: {len(sections) - 1} layers: expected at most {MOST_LAYERS}")
    for section in sections[1:]:
        if section.kind == "net":
            raise section.error("expected one of it, before all layers")
    notes: list[str] = []
    for section in sections:
        notes += _check_keys(section, MOST_NOTES - len(notes))
    netdef = NetDef(sections[0], tuple(sections[1:]), tuple(notes))
    _check_net(netdef)
    _check_sources(netdef)
    return netdef


def _sections(text: str, path: str) -> list[Section]:
    sections: list[Section] = []
    options: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = "".join(raw.partition("#")[0].split())  # Darknet drops every space
        if not line or line[0] == ";":
            continue
        if line[0] == "[":
            if not line.endswith("]"):
                raise InputError(f"{path}:{number}: {line!r}: expected a section such as [route]")
            kind = line[1:-1]
            options, lines = {}, {}
            sections.append(Section(ALIASES.get(kind, kind), options, path, number, lines))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not sections:
            raise InputError(f"{path}:{number}: {raw.strip()!r}: expected key=value in a section")
        if key not in options:  # of two lines with one key, Darknet takes the first
            options[key], lines[key] = value, number
    return sections


def _check_keys(section: Section, most: int) -> list[str]:
    """Refuse what is not built; note up to `most` keys that nobody knows."""
    if section.kind not in KEYS:
        raise section.error(f"unknown section; known are {', '.join(sorted(KEYS))}")
    known = KEYS[section.kind] | TRAINING_KEYS.get(section.kind, set())
    notes: list[str] = []
    for key in section.options:
        if key in REFUSED_KEYS.get(section.kind, ()):
            if section.number(key) != 0:
                raise section.error("not supported here", key)
        elif key not in known and len(notes) < most:
            near = difflib.get_close_matches(key, known, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            notes.append(
                f"{section.path}:{section.lines[key]}: {key}: not a key of [{section.kind}], "
                f"not used{hint}"
            )
    return notes


LARGEST = 1_000_000  # pixels a side, filters, classes: more can only be a slip of the hand
MOST_LAYERS = 10_000  # published networks have up to a thousand
LARGEST_FILE = 4 * 2**20  # bytes of a .cfg; published ones have up to 50 kB
MOST_NOTES = 20  # about keys of one file
COUNTS = (
    "filters", "classes", "size", "stride", "stride_x", "stride_y", "padding", "dilation",
    "groups", "group_id",
)  # fmt: skip


def _check_net(netdef: NetDef) -> None:
    """Read [net] now, so that a mistake in it is told at once, and refuse absurd sizes anywhere."""
    netdef.net.flag("letter_box")
    _ = netdef.bn_epsilon
    if max(*netdef.size, netdef.channels) > LARGEST:
        raise netdef.net.error(f"expected a width, height and channels of at most {LARGEST}")
    for section in netdef.layers:
        for key in COUNTS:
            if key in section.options and section.integer(key, at_least=0) > LARGEST:
                raise section.error(f"expected at most {LARGEST}", key)


def _check_sources(netdef: NetDef) -> None:
    for index, section in enumerate(netdef.layers):
        for source in netdef.sources(index):
            if source >= 0 and netdef.layers[source].kind == "yolo":
                raise section.error(
                    f"reads layer {source}, a [yolo]: its boxes are no input for a layer"
                )
