"""A device without float64."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class WithoutFloat64(TorchDispatchMode):
    """Refuses what an Apple GPU refuses. Random draws on a CPU are free: generators are always there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        wide = any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(result))
        if wide and (kwargs or {}).get("generator") is None:
            raise TypeError(f"{func}: no float64 here")
        return result
