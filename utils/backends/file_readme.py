"""What someone who has only an exported file must read to use it: its README."""

from __future__ import annotations

from utils.backends.description import KEY, Description, HeadDescription, InputDescription

METADATA = {
    "onnx": f"the entry `{KEY}` of the file's metadata "
    f'(`session.get_modelmeta().custom_metadata_map["{KEY}"]`)',
    "openvino": f'the runtime information `{KEY}` (`model.get_rt_info(["{KEY}"]).value`)',
    "ncnn": "the .json beside the two files",
    "torchscript": f"the extra file `{KEY}` (`torch.jit.load(path, _extra_files=...)`)",
}
NOTES = {
    "onnx": "",
    "openvino": "Compile it with `INFERENCE_PRECISION_HINT` `f32`: where the CPU has bfloat16, "
    "OpenVINO takes that otherwise.\n\n",
    "ncnn": "Switch `use_fp16_storage`, `use_fp16_arithmetic` and `use_fp16_packed` off before "
    "`load_param` for the scores that float32 gives.\n\n",
    "torchscript": "",
}


def readme(description: Description, file_format: str, file: str) -> str:
    """The README of an exported file, Markdown.

    Args:
        description: of the file.
        file_format: `onnx`, `openvino`, `ncnn` or `torchscript`.
        file: its name, that of several which others open.
    """
    classes = ", ".join(f"{number} {name}" for number, name in enumerate(description.names))
    return (
        f"# {file}\n\n"
        f"A YOLOv3 network that finds objects of {len(description.names)} classes on photos: "
        f"{description.precision}, {description.parameters:,} parameters, "
        f"{description.operations / 1e9:.3g} billion operations a photo. Written by version "
        f"{description.version} of the project. This page as JSON, for programs: "
        f"{METADATA[file_format]}.\n\n"
        f"## Input\n\n{_input(description.input)}"
        f"## Output\n\n{_output(description)}"
        f"{NOTES[file_format]}"
        f"## Classes\n\n{classes}\n"
    )


def _input(photos: InputDescription) -> str:
    size = f"{photos.height}, {photos.width}"
    varies = (
        f" It takes any number of photos, and any size that is a multiple of {photos.stride}."
        if photos.varies
        else ""
    )
    if photos.fit == "stretch":
        fit = f"stretch it to {photos.width}×{photos.height}, whatever its aspect"
    else:
        fit = (
            f"letterbox: shrink or enlarge it so that it just fits into {photos.width}×"
            f"{photos.height}, put it into the middle, and fill the rest with grey "
            f"({photos.fill} after step 3)"
        )
    return (
        f"`{photos.name}`: float32 [1, 3, {size}], {photos.colours}, from {photos.lowest:g} (black)"
        f" to {photos.highest:g} (white).{varies} Of a photo:\n\n"
        "1. turn it upright (EXIF), its channels into red, green, blue (OpenCV's are reversed);\n"
        f"2. {fit}, bilinear, with the corner pixels on the corner pixels: pixel x of W comes from "
        "x·(w-1)/(W-1) of w (torch: `align_corners=True`; OpenCV's `resize` is half a pixel off, "
        "which changes scores by some hundredths);\n"
        "3. divide by 255; channels first.\n\n"
        "Boxes are in pixels of this input: undo step 2 for those of the photo.\n\n"
    )


def _output(description: Description) -> str:
    nms = description.nms
    limit = nms.max_detections or "any number"
    if nms.inside:
        return (
            "Decoding and NMS are in the graph. Of N detections, in the order of class and falling "
            "score:\n\n"
            "- `image_index` int64 [N]: the photo's place in the batch;\n"
            "- `labels` int64 [N]: the class;\n"
            "- `boxes` float32 [N, 4]: left, top, right, bottom in pixels of the input;\n"
            f"- `scores` float32 [N]: above {nms.conf_thres:g}. Of two boxes of a class that "
            f"overlap by more than {nms.nms_thres:g} (IoU), the one with the lower score is gone; "
            f"a class has at most {limit}.\n\n"
        )
    classes = len(description.names)
    rows = "".join(_row(head, classes) for head in description.heads)
    overlap = (
        "IoU"
        if nms.distance_power is None
        else f"IoU less (d²/c²)^{nms.distance_power:g}, with d between centres and c the diagonal "
        "of the box around both"
    )
    return (
        "Raw maps, one a head. A cell (row, column) of a map has for each anchor in turn "
        f"{5 + classes} channels: x, y, w, h, objectness, and a value a class.\n\n"
        "| map | channels | pixels a cell | s | anchors (width×height in pixels) |\n"
        f"|---|---|---|---|---|\n{rows}\n{_decoding(description.heads[0].new_coords)}"
        f"; kept above {nms.conf_thres:g}.\n"
        f"- NMS in each class: of two boxes whose overlap ({overlap}) is above {nms.nms_thres:g}, "
        f"the lower score goes. A photo keeps at most {limit}. (These thresholds are those that it "
        "was exported with; others do as well.)\n\n"
    )


def _row(head: HeadDescription, classes: int) -> str:
    anchors = ", ".join(f"{width:g}×{height:g}" for width, height in head.anchors)
    channels = len(head.anchors) * (5 + classes)
    return f"| `{head.output}` | {channels} | {head.stride:g} | {head.scale_x_y:g} | {anchors} |\n"


def _decoding(new_coords: bool) -> str:
    if new_coords:
        return (
            "- x, y, w, h, objectness and classes went through the sigmoid already.\n"
            "- centre x = (column + s·x - (s-1)/2) · pixels a cell; y likewise with the row.\n"
            "- width = (2·w)² · the anchor's; height likewise.\n"
            "- score of a class = objectness · class"
        )
    return (
        "- centre x = (column + s·sigmoid(x) - (s-1)/2) · pixels a cell; y likewise with the row.\n"
        "- width = exp(w) · the anchor's; height likewise.\n"
        "- score of a class = sigmoid(objectness) · sigmoid(class)"
    )
