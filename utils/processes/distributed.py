"""How do several processes, which torchrun started, work on one training?

A process that works alone, which is the usual case, is the main one of one: for it, everything here
does nothing. Only the main process prints and writes. Gradients are torch's own
DistributedDataParallel's to reduce; what is added here are numbers, and objects that one process
has and others need.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
# For the main process, which may measure and solve for hours. One that is gone is noticed at once,
# since its connections close.
PATIENCE = timedelta(days=7)
TELL_TIMEOUT = timedelta(seconds=5)  # for the one who counts who has told an end already
MEETING_POLL = 0.02  # seconds between looks at who has come
SEEDS = 2**32  # between the seeds of two processes


@dataclass(frozen=True)
class _Group:
    """The processes that have joined.

    Attributes:
        messages: a group for objects and for waiting, apart from that of the gradients.
        store: what all can read and write.
        launcher: the same of torchrun, which outlives the processes that it starts.
    """

    messages: ProcessGroup
    store: Store
    launcher: Store


_group: _Group | None = None


def launched() -> int:
    """How many processes torchrun has started, of which this is one; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in LAUNCHED) else 1


def is_main() -> bool:
    """Whether this process is the one that prints and writes; alone, it is."""
    return launched() == 1 or os.environ["RANK"] == "0"


def rank() -> int:
    """This process's number among those that have joined; 0 is the main one."""
    return int(os.environ["RANK"]) if _group else 0


def world() -> int:
    """How many processes work together; 1 until they have joined."""
    return launched() if _group else 1


def local_rank() -> int:
    """This process's number on its machine, and that of its card."""
    return int(os.environ["LOCAL_RANK"]) if _group else 0


def local_world() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if _group else 1


def join(card: int | None = None, problem: str = "") -> str:
    """Wait for the other processes that torchrun has started, where it has, and work with them.

    Args:
        card: the number on this machine of the card that this process computes on; None for a CPU.
        problem: why this process cannot take part.

    Returns:
        Why they do not work together, the same in all of them; empty where they do.
    """
    global _group
    if launched() == 1 or _group:
        return ""
    from torch import cuda, distributed
    from torch.distributed import rendezvous  # type: ignore[attr-defined]

    if card is not None and not problem:
        cuda.set_device(card)
    launcher, number, count = next(rendezvous("env://"))
    store = _meet(launcher, number, count)
    if problem := _common_problem(store, number, count, card, problem):
        return problem
    # Numbers stay on the CPU; without NCCL, as on Windows, gloo takes a card's tensors as well.
    with_cards = card is not None and distributed.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if with_cards else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=count)
    messages = distributed.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(messages, distributed.ProcessGroup)
    _group = _Group(messages, store, launcher)
    return ""


def _meet(launcher: Store, number: int, count: int) -> Store:
    """The part of torchrun's store that these processes share, and none of those before them.

    When some are started anew, what those before have left is there still. torchrun's count of
    restarts does not tell them apart: on several machines, each counts its own. So whoever comes
    leaves a word that nobody else has, and the main process answers it with the meeting's.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    own = uuid4().hex
    if number:
        launcher.set(f"here {number}", own)
        launcher.wait([f"welcome {own}"])
        meeting = launcher.get(f"welcome {own}").decode()
        launcher.set(f"{meeting} {number}", "")
        return PrefixStore(meeting, launcher)
    missing = set(range(1, count))
    while missing:
        for other in missing.copy():
            if launcher.check([f"{own} {other}"]):
                missing.remove(other)
            elif launcher.check([f"here {other}"]):
                launcher.set(f"welcome {launcher.get(f'here {other}').decode()}", own)
        time.sleep(MEETING_POLL)
    return PrefixStore(own, launcher)


def _common_problem(store: Store, number: int, count: int, card: int | None, problem: str) -> str:
    """The first problem of any process; none of them goes before all know."""
    store.set(f"device {number}", problem or ("a CPU" if card is None else "a card"))
    devices = [store.get(f"device {n}").decode() for n in range(count)]
    problems = [device for device in devices if device not in ("a CPU", "a card")]
    if not problems and len(set(devices)) > 1:
        problems = [f"torchrun: {', '.join(devices)}: expected a card for each process, or "
                    "--device cpu"]  # fmt: skip
    if problems:
        store.set(f"read {number}", "")
        store.wait([f"read {n}" for n in range(count)])
    return next(iter(problems), "")


def go_on_alone() -> None:
    """End the other processes here, with success; what follows is the main one's."""
    global _group
    if not _group:
        return
    from torch import distributed

    wait_for_main()
    main = is_main()
    _group = None
    distributed.destroy_process_group()
    if not main:
        raise SystemExit(0)


@contextlib.contextmanager
def only_main_prints() -> Iterator[None]:
    """In the block, what other processes print or draw as a bar goes nowhere."""
    if is_main():
        yield
        return
    with contextlib.redirect_stdout(_Nowhere()), contextlib.redirect_stderr(_Nowhere()):
        yield


class _Nowhere(io.TextIOBase):
    """A stream that forgets what is written to it."""

    def write(self, text: str) -> int:
        return len(text)


def first_to_tell() -> bool:
    """Whether no other process has told yet why all end: one line is enough.

    What goes wrong before the processes have joined goes wrong in all; then it is the main one's.
    """
    if not _group:
        return is_main()
    try:
        _group.store.set_timeout(TELL_TIMEOUT)
        return bool(_group.store.add("told", 1) == 1)
    except RuntimeError:  # whoever counted is gone, too
        return True


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    if not _group or not isinstance(error, RuntimeError):
        return False
    from torch.distributed import DistError

    told = str(error)
    if "out of memory" in told:  # NCCL, too, takes some of a card's
        return False
    return isinstance(error, DistError) or "gloo" in told or "NCCL" in told


def from_main(make: Callable[[], T]) -> T:
    """What the main process makes, in all of them; others wait for it."""
    if not _group:
        return make()
    from torch import distributed

    made = [make() if is_main() else None]
    distributed.broadcast_object_list(made, 0, _group.messages)
    return made[0]  # type: ignore[return-value]


def on_main(make: Callable[[], T]) -> T | None:
    """What the main process makes, in it alone; None in others, which go on meanwhile."""
    return make() if rank() == 0 else None


def wait_for_main() -> None:
    """Wait until the main process, too, has come here, however long that takes."""
    from_main(lambda: None)


@contextlib.contextmanager
def one_a_machine_first() -> Iterator[None]:
    """On each machine, let one process through first; it may leave files for the others."""
    if _group and local_rank():
        gather(None)
    yield
    if _group and not local_rank():
        gather(None)


def gather(own: T) -> list[T]:
    """What each process has, by its number, in all of them."""
    if not _group:
        return [own]
    from torch import distributed

    everyones: list[T] = [own] * world()
    distributed.all_gather_object(everyones, own, _group.messages)
    return everyones


def totals(own: Sequence[int]) -> list[int]:
    """By place, the sum of all processes' numbers."""
    if not _group:
        return list(own)
    import torch
    from torch import distributed

    numbers = torch.tensor(own, dtype=torch.int64)
    distributed.all_reduce(numbers)
    summed: list[int] = numbers.tolist()
    return summed


def total(own: Tensor) -> Tensor:
    """The sum of all processes' tensors; its gradient is that of this process's own alone."""
    if not _group:
        return own
    from torch import distributed

    summed = own.detach().clone()
    distributed.all_reduce(summed)
    return own + (summed - own.detach())


def stacked(own: Tensor) -> Tensor:
    """[processes, ...]: all processes' tensors of one shape, without gradients."""
    import torch
    from torch import distributed

    everyones = [torch.empty_like(own) for _ in range(world())]
    distributed.all_gather(everyones, own.detach().contiguous())
    return torch.stack(everyones)


def average_(tensors: Sequence[Tensor]) -> None:
    """Make tensors the means of all processes'."""
    if not _group or not tensors:
        return
    import torch
    from torch import distributed

    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    parts = (flat / world()).split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def parallel(module: nn.Module, some_idle: bool) -> nn.Module:
    """The module, whose gradients are the means of all processes' after each backward pass.

    some_idle: there are parameters that no loss depends on.
    """
    if not _group:
        return module
    from torch.nn.parallel import DistributedDataParallel

    with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # of 2.14's new names
        return DistributedDataParallel(
            module, broadcast_buffers=False, find_unused_parameters=some_idle
        )


def without_reducing(module: nn.Module, active: bool) -> contextlib.AbstractContextManager[None]:
    """For batches whose gradients are only added up: where `active`, nothing is sent."""
    from torch.nn.parallel import DistributedDataParallel

    if active and isinstance(module, DistributedDataParallel):
        unreduced: contextlib.AbstractContextManager[None] = module.no_sync()
        return unreduced
    return contextlib.nullcontext()


def own_seed(seed: int) -> int:
    """A seed that no other process has; the main one's is the one given."""
    return seed + SEEDS * rank()


def remember(name: str, value: str) -> None:
    """Keep a word for the processes that torchrun starts when these have ended."""
    if _group and is_main():
        _group.launcher.set(f"yolov3/{name}", value)


def recall(name: str) -> str:
    """What `remember` kept before torchrun started its processes anew; empty for nothing."""
    key = f"yolov3/{name}"
    return _group.launcher.get(key).decode() if _group and _group.launcher.check([key]) else ""
