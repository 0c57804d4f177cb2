"""Does the card compute what the CPU computes? Networks, NMS, and whole detections."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from import_param import Nms
from tools.gpu.findings import Findings
from tools.gpu.networks import config, networks, noise, settled
from tools.gpu.task import Task
from utils.backends import EngineOptions, open_engine
from utils.boxes import cxcywh_to_xyxy
from utils.evaluation.nms import non_maximum_suppression
from utils.structures import Detections, Predictions

LARGEST_DIFFERENCE = 1e-3  # of logits in float32
IMAGES = 2
# Proposals of a photo, the objects that they are about, and classes.
PROPOSALS, OBJECTS, CLASSES = 4000, 40, 5
DISTANCE_POWER = 0.6  # of DIoU, as AlexeyAB's .cfg files have it


def parity(task: Task, findings: Findings) -> None:
    """Logits of the networks in config/ on the card, in eager mode and by the engine, and NMS."""
    exact_float32()
    for name in networks(task):
        model = settled(config(name, task.side))
        images = noise(IMAGES, model.netdef.size)
        with torch.inference_mode():
            expected = model(images)
            rounding = largest_difference(expected, copy.deepcopy(model).double()(images.double()))
            eager = model.to(task.device)(images.to(task.device))
        engine = open_engine("torch", model, EngineOptions(model.netdef.size, batch=IMAGES))
        overwrite_free_memory(task.device)
        differences = {
            "eager": largest_difference(eager, expected),
            "engine": largest_difference(engine(images), expected),
        }
        largest = max(float(each.abs().max()) for each in expected)
        findings.row(
            {
                "network": name,
                **differences,
                "the CPU against float64": rounding,
                "largest logit": largest,
            }
        )
        for how, difference in differences.items():
            findings.expect(
                difference <= LARGEST_DIFFERENCE,  # not so for nan
                f"{name}, {how}: logits differ by {difference:.2g}: expected "
                f"{LARGEST_DIFFERENCE:g} at most; the CPU's differ by {rounding:.2g} from float64",
            )
    for measure, power in (("IoU", None), ("DIoU", DISTANCE_POWER)):
        compare_nms(task.device, measure, power, findings)


def exact_float32() -> None:
    """Compute float32 in float32: not in TF32, which cards are faster with and torch allows."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def overwrite_free_memory(device: torch.device) -> None:
    """Write to what torch keeps of the card's memory: nobody may read it any more."""
    if device.type != "cuda":
        return
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    parts = [torch.full((2**20,), torch.nan, device=device) for _ in range(kept // 2**22)]
    del parts
    torch.cuda.empty_cache()


def largest_difference(maps: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Between the values of maps, wherever these are."""
    pairs = zip(maps, expected, strict=True)
    differences = [(one.double().cpu() - other.double().cpu()).abs().max() for one, other in pairs]
    return float(torch.stack(differences).max())  # nan where one is


def compare_nms(
    device: torch.device, measure: str, power: float | None, findings: Findings
) -> None:
    """The same proposals through NMS on the CPU and on the card."""
    proposals, settings = crowded_photo(), Nms(max_detections=0)
    (expected,) = non_maximum_suppression(proposals, settings, power)
    there = Predictions(
        proposals.boxes.to(device), proposals.objectness.to(device), proposals.classes.to(device)
    )
    (detected,) = non_maximum_suppression(there, settings, power)
    count = differing(detected, expected)
    findings.figure(f"NMS by {measure}", f"{count} of {len(expected)} differ")
    findings.expect(
        not count,
        f"NMS by {measure}: {count} of {len(expected)} detections differ from the CPU's",
    )


def crowded_photo() -> Predictions:
    """Many proposals around few objects, as a network makes them, of one photo."""
    generator = torch.Generator().manual_seed(0)
    objects = torch.rand(OBJECTS, 4, generator=generator) * 200 + 30  # cxcywh
    boxes = objects[torch.randint(OBJECTS, (PROPOSALS,), generator=generator)]
    boxes = boxes * (1 + 0.15 * torch.randn(PROPOSALS, 4, generator=generator))
    return Predictions(
        cxcywh_to_xyxy(boxes.clamp(min=1))[None],
        torch.rand(1, PROPOSALS, generator=generator),
        torch.rand(1, PROPOSALS, CLASSES, generator=generator),
    )


def differing(detected: Detections, expected: Detections) -> int:
    """How many detections only one of the two has."""

    def rows(detections: Detections) -> set[tuple[float, ...]]:
        labels, scores = detections.labels.cpu(), detections.scores.cpu()
        return set(
            map(tuple, torch.column_stack([detections.boxes.cpu(), scores, labels]).tolist())
        )

    return len(rows(detected) ^ rows(expected))
