"""Small networks with one thing in them, for those who write networks in other formats."""

from collections.abc import Iterator

from models.netdef import NetDef, parse

NET = "[net]\nwidth=14\nheight=9\n"
HEAD = """[convolutional]
filters=14
size=1
activation=linear
[yolo]
anchors=8,8,4,20
classes=2
"""
# size, stride, padding
POOLS = [(2, 1, 1), (2, 2, 1), (3, 2, 0), (3, 2, 3), (5, 1, 4), (1, 4, 0), (4, 2, 1), (3, 1, 1)]


def activated(name: str) -> NetDef:
    """A convolution and a sum, both with this activation."""
    first = f"[convolutional]\nfilters=5\nactivation={name}\n"
    return parse(f"{NET}{first}{first}[shortcut]\nfrom=-2\nactivation={name}\n{HEAD}")


def pooled(kind: str, size: int, stride: int, padding: int) -> NetDef:
    first = "[convolutional]\nfilters=4\nactivation=leaky\n"
    return parse(f"{NET}{first}[{kind}]\nsize={size}\nstride={stride}\npadding={padding}\n{HEAD}")


def weighted() -> Iterator[NetDef]:
    """Weighted sums of three maps, by every rule."""
    layers = "[convolutional]\nfilters=3\nactivation=mish\n" * 3
    for rule in ("none", "relu", "softmax"):
        for kind in ("per_feature", "per_channel"):
            options = f"from=-2,-3\nweights_type={kind}\nweights_normalization={rule}\n"
            yield parse(f"{NET}{layers}[shortcut]\n{options}activation=leaky\n{HEAD}")
