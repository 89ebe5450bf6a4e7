"""What a network makes of an input of some size, found out without computing anything, and which sizes it would take."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

Size = tuple[int, int]


def output_size(network: nn.Module, size: Sequence[int]) -> Size:
    """The size (H, W) of what a network returns for one image of a size (H, W), in evaluation mode.

    Where the meta device fails, a real image decides: some code runs on real tensors alone.

    Raises:
        Exception: what the network raises.
    """
    try:
        return meta_size(network, size)
    except Exception:  # whatever the code of a network raises
        p = next(network.parameters(), torch.empty(0))
        with torch.no_grad(), _evaluating(network):
            return image_size(network(torch.zeros(1, 3, *size, device=p.device, dtype=p.dtype)))


def meta_size(network: nn.Module, size: Sequence[int]) -> Size:
    """The same on the meta device, whose tensors have shapes and no numbers."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    state = {name: torch.empty_like(t, device="meta") for name, t in tensors}
    with torch.no_grad(), _evaluating(network):
        return image_size(functional_call(network, state, (torch.empty(1, 3, *size, device="meta"),)))


def image_size(output: Any) -> Size:
    """The size (H, W) of logits (B, C, H, W); (0, 0) of anything else."""
    if not isinstance(output, Tensor) or output.dim() != 4:
        return 0, 0
    return output.shape[-2], output.shape[-1]


def fitting_size(network: nn.Module, size: Sequence[int], stride: int) -> Size | None:
    """A size (H, W) near the given one whose logits have the size of the input, if one of a few is.

    Those are the next larger ones, and the sizes that the parts of the network were made for.
    """
    steps = [2 * stride, 4 * stride, 8 * stride]
    candidates = [(size[0] + -size[0] % step, size[1] + -size[1] % step) for step in steps]
    candidates += [(max(size[0], side), max(size[1], side)) for side in (*steps, 16 * stride)]
    for candidate in dict.fromkeys(candidates + _made_for(network)):
        with contextlib.suppress(Exception):
            if not any(side % stride for side in candidate) and meta_size(network, candidate) == candidate:
                return candidate
    return None


def _made_for(network: nn.Module) -> list[Size]:
    """The sizes that timm's networks say they are made for."""
    sizes: list[Size] = []
    for module in network.modules():
        config = getattr(module, "pretrained_cfg", None) or {}
        for found in (getattr(module, "img_size", None), tuple(config.get("input_size") or ())[-2:]):
            if isinstance(found, tuple) and len(found) == 2 and all(isinstance(side, int) for side in found):
                sizes.append(found)
    return sizes


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    # Not by `eval`: what modules make of it could not be taken back exactly.
    modes = {module: module.training for module in network.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
