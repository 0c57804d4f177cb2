"""Does a .cfg say what it says, and is every mistake in it told with its line?"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import netdef
from models.darknet import shapes
from models.netdef import NetDef, Section, head_anchors, parse
from tests.conftest import ROOT
from utils.errors import InputError

CONFIGS = sorted((ROOT / "config").glob("*.cfg"))
SMALL = """[net]
width=64
height=32
channels=3

[convolutional]
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=16
size=1
activation=linear

[yolo]
mask=0,1
anchors=10,14, 23,27, 37,58
classes=3
num=3
"""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_is_written_is_what_was_read(path: Path) -> None:
    definition = netdef.load(path)
    assert parse(definition.text()) == definition
    assert not definition.notes


def test_shared_networks_are_read_and_written_back(shared: Path) -> None:
    for path in sorted(shared.glob("weights/*/*.cfg")):
        definition = netdef.load(path)
        assert parse(definition.text()) == definition
        assert not definition.notes


words = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.,-", min_size=1, max_size=12)
sections = st.builds(
    Section, st.sampled_from(sorted(netdef.KEYS)), st.dictionaries(words, words, max_size=5)
)


@given(st.lists(sections, min_size=1, max_size=6))
def test_text_and_sections_are_the_same_thing(layers: list[Section]) -> None:
    definition = NetDef(Section("net", {"width": "32"}), tuple(layers))
    again = netdef._sections(definition.text(), "x.cfg")
    assert tuple(again) == (definition.net, *definition.layers)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[yolo]", "[yolu]", "x.cfg:18: [yolu]: unknown section"),
        ("stride=2", "stride=two", "x.cfg:9: stride='two': expected an integer"),
        ("stride=2", "stride=0", "x.cfg:9: stride='0': expected an integer of at least 1"),
        ("pad=1", "pad=3", "x.cfg:10: pad='3': expected 0 or 1"),
        ("activation=leaky", "activation=lekay", "x.cfg:11: activation='lekay': expected one of"),
        ("filters=16", "filters=17", "x.cfg:21: classes='3': 17 channels before it, expected 2·"),
        ("mask=0,1", "mask=0,3", "x.cfg:19: mask='0,3': expected indices from 0 to 2"),
        ("num=3", "num=0", "x.cfg:22: num='0': expected an integer of at least 1"),
        ("num=3", "num=1001", "x.cfg:22: num='1001': expected at most 1000"),
        ("10,14,", "10,x,", "x.cfg:20: anchors='10,x,23,27,37,58': expected numbers"),
        ("[net]", "[convolutional]", "x.cfg:1: expected a [net] section first"),
        ("size=3", "size", "x.cfg:8: 'size': expected key=value"),
        ("[yolo]", "[yolo", "x.cfg:18: '[yolo': expected a section"),
        ("size=3", "size=3\nxnor=1", "x.cfg:9: xnor='1': not supported"),
        ("size=3", "size=3\ngroups=2", "x.cfg:9: groups='2': expected a divisor of the 3 input"),
        ("width=64", "width=9999999", "x.cfg:1: [net]: expected a width, height and channels"),
        ("width=64", "letter_box=7", "x.cfg:2: letter_box='7': expected 0 or 1"),
        ("filters=8", "filters=99999999", "x.cfg:7: filters='99999999': expected at most"),
        ("stride=2", f"stride_x={2**70}", f"x.cfg:9: stride_x='{2**70}': expected an integer"),
        ("stride=2", "stride_x=9999999", "x.cfg:9: stride_x='9999999': expected at most 1000000"),
        ("stride=2", "groups=9999999", "x.cfg:9: groups='9999999': expected at most 1000000"),
        ("[yolo]", "[yolo]\n" * 10_001, "x.cfg: 10003 layers: expected at most 10000"),
        ("[yolo]", "[net]\n[yolo]", "x.cfg:18: [net]: expected one of it, before all layers"),
        ("[yolo]", "[dropout]\nprobability=2\n[yolo]", "x.cfg:19: probability='2': expected"),
        ("[yolo]", "[route]\nlayers=,\n[yolo]", "x.cfg:19: layers=',': expected at least one"),
        ("width=64", "width=x", "x.cfg:2: width='x': expected an integer"),
        ("[yolo]", "[shortcut]\nfrom=\n[yolo]", "x.cfg:19: from='': expected at least one layer"),
        ("[yolo]", "[sam]\nfrom=0,1\n[yolo]", "x.cfg:19: from='0,1': expected one layer"),
        ("size=3\nstride=2\npad=1", "size=99", "size='99': window 99x99 does not fit into 3x32x64"),
        (
            "[yolo]",
            "[route]\nlayers=7\n[yolo]",
            "x.cfg:19: layers='7': points to layer 7, but only layers 0 to 1 stand before",
        ),
        (
            "[yolo]",
            "[maxpool]\nstride=2\n[shortcut]\nfrom=-2\n[yolo]",
            "x.cfg:21: from='-2': cannot add 16x16x32 to 16x8x16",
        ),
        (
            "[yolo]",
            "[route]\nlayers=-1\ngroups=3\n[yolo]",
            "x.cfg:20: groups='3': expected a divisor of 16",
        ),
        (
            "[yolo]",
            "[route]\nlayers=-1\ngroups=2\ngroup_id=2\n[yolo]",
            "x.cfg:21: group_id='2': expected less than",
        ),
        ("[yolo]", "[upsample]\n[route]\nlayers=-1,0\n[yolo]", "cannot concatenate 8x16x32"),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        _build(SMALL.replace(old, new, 1))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "anchors"),
    [
        ("mask=0,1\nanchors=8,9,3,4\nnum=1", [(8, 9), (3, 4)]),
        ("mask=1,2\nanchors=8,9,3,4\nnum=3", [(3, 4), (0.5, 0.5)]),
        ("mask=1,0\nanchors=8,9,3,4", [(3, 4), (8, 9)]),
        ("anchors=8,9,3,4,5,6\nnum=2", [(8, 9), (3, 4)]),
        ("anchors=8,9,3,4,\n", [(8, 9), (3, 4)]),
        ("anchors=8.123456789,9\nnum=2", [(8.123456789, 9), (0.5, 0.5)]),
    ],
)
def test_num_may_differ_from_the_anchors_as_in_darknet(
    head: str, anchors: list[tuple[float, float]]
) -> None:
    """`make_yolo_layer` fills `num` of them with .5, `parse_yolo` reads over these."""
    _, _, after = SMALL.partition("[yolo]")
    definition = parse(SMALL.replace(after, f"\n{head}\nclasses=3\n"), "x.cfg")
    section = definition.layers[-1]
    assert netdef.head_anchors(section) == anchors
    plain = definition.with_plain_heads()
    assert netdef.head_anchors(plain.layers[-1]) == anchors
    assert plain.layers[-1].integer("num") == len(plain.layers[-1].numbers("anchors")) // 2
    assert "mask" in plain.layers[-1].options
    assert plain.with_plain_heads() == plain


def test_of_many_unknown_keys_some_are_told() -> None:
    """Looking for what was meant takes a millisecond a key."""
    more = "".join(f"key{number}=1\n" for number in range(50_000))
    assert len(parse(SMALL.replace("[yolo]", f"[dropout]\n{more}[yolo]")).notes) == 20


def test_a_file_that_is_no_cfg_by_its_size_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text("#" * 5_000_000)
    with pytest.raises(InputError, match=r"a.cfg: 5000000 bytes: expected at most 4194304"):
        netdef.load(tmp_path / "a.cfg")


def _build(text: str) -> None:
    from models.darknet import Darknet

    Darknet(parse(text, "x.cfg"))


def test_the_small_net_itself_is_sound() -> None:
    _build(SMALL)


def test_a_key_that_nobody_knows_is_noted_with_the_nearest_name() -> None:
    definition = parse(SMALL.replace("filters=8", "filter=8"), "x.cfg")
    assert definition.notes == (
        "x.cfg:7: filter: not a key of [convolutional], not used, did you mean 'filters'?",
    )


def test_a_mistyped_key_of_net_is_noted_too() -> None:
    definition = parse(SMALL.replace("width=64", "widht=64"), "x.cfg")
    assert "x.cfg:2: widht: not a key of [net], not used, did you mean 'width'?" in definition.notes


def test_heads_agree_on_the_classes() -> None:
    second = "[route]\nlayers=0\n[convolutional]\nfilters=14\n" + SMALL[SMALL.index("[yolo]") :]
    with pytest.raises(InputError, match=r"x\.cfg:30: classes='2': expected 3, as on line 21"):
        _build(SMALL + second.replace("classes=3", "classes=2"))


def test_comments_spaces_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    spaced = SMALL.replace("=", " = ").replace("[yolo]", "# heads\n; more\n[yolo] # the only one")
    path = tmp_path / "x.cfg"
    path.write_bytes(b"\xef\xbb\xbf" + spaced.encode())
    assert netdef.load(path) == parse(SMALL)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"no\.cfg: cannot be read: No such file"):
        netdef.load("no.cfg")


def test_reading_from_a_yolo_is_refused() -> None:
    with pytest.raises(InputError, match="reads layer 2, a \\[yolo\\]"):
        parse(SMALL + "[convolutional]\nfilters=8\n")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("classes", [1, 3, 80])
def test_other_classes_change_the_heads_only(path: Path, classes: int) -> None:
    before, after = netdef.load(path), netdef.load(path).with_classes(classes)
    shapes(after)  # raises where a head does not fit
    changed = {
        i for i, (a, b) in enumerate(zip(before.layers, after.layers, strict=True)) if a != b
    }
    heads = set(before.heads)
    assert changed == (set() if classes == 80 else heads | {head - 1 for head in heads})
    assert after.with_classes(80) == before


def test_new_anchors_take_the_places_of_those_used() -> None:
    definition = netdef.load(ROOT / "config/yolov3-lite.cfg")
    assert definition.anchors_used == (3, 4, 5)
    changed = definition.with_anchors([(1, 2), (3, 4), (5.5, 6)])
    head = changed.layers[changed.heads[0]]
    assert netdef.head_anchors(head) == [(1, 2), (3, 4), (5.5, 6)]
    assert head.integers("mask") == [0, 1, 2]
    assert parse(changed.text()) == changed
    shapes(changed)


@pytest.mark.parametrize(
    ("short", "whole"),
    [("network", "net"), ("conv", "convolutional"), ("max", "maxpool"), ("avg", "avgpool")],
)
def test_short_names_are_darknets(short: str, whole: str) -> None:
    texts = [
        f"[net]\n[{name}]\n" if whole != "net" else f"[{name}]\n[avg]\n" for name in (short, whole)
    ]
    assert parse(texts[0]) == parse(texts[1])


@pytest.mark.parametrize("anchors", ["8", "8,8,8", "8,-8", "0,8", "8,8,8,-8"])
def test_anchors_are_positive_pairs(anchors: str) -> None:
    netdef = parse(f"[net]\n[yolo]\nanchors={anchors}\n")
    with pytest.raises(InputError, match="expected positive width,height pairs"):
        head_anchors(netdef.layers[0])
