"""Which operators of torch does a program call? A card is given each, and waited for at some."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal")
FROM_PYTHON = "lift_fresh"  # what torch.tensor and new_tensor do with numbers of Python


class Calls(TorchDispatchMode):
    """Counts the operators that are called, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten":
            with self:  # what is made of other operators in inference mode
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs)

    @property
    def waits(self) -> dict[str, int]:
        """Those for which a card would be waited for."""
        return {
            name: count
            for name, count in self.names.items()
            if name.startswith(WAITS) or name == FROM_PYTHON
        }
