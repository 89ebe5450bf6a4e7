"""Second moments of what layers see: the input factor of K-FAC (Martens and Grosse, 2015), and the whitening it gives."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.compat.tensors import conv_padding
from segzoo.errors import ConfigError

MAX_POSITIONS = 2**13
"""About how many positions the moments of a convolution are taken over; of a larger batch an even grid."""

DAMPING = 1e-3
"""Added to the moments' diagonal, as a share of its mean: directions that the inputs hardly take stay harmless."""


def has_moments(layer: nn.Module) -> bool:
    """Whether rows of the layer's weight can be whitened: linear layers and convolutions without groups."""
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    )


def weights_with_moments(module: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the named parameters that have rows.

    Raises:
        ConfigError: a layer whose rows cannot be whitened.
    """
    parameters = dict(module.named_parameters())
    found = [name for name in names if parameters[name].dim() > 1]
    for name in found:
        if not has_moments(_layer(module, name)):
            raise ConfigError(
                f"`method.whiten` true: {name} is not the weight of a linear layer or of a convolution without groups; "
                "leave it out of `method.scope`"
            )
    return found


@contextlib.contextmanager
def input_moments(module: nn.Module, weights: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Watches a module's calls.

    Args:
        module: what is called inside the context.
        weights: names of weights of its layers, see `has_moments`.

    Yields:
        A dict that holds, after the calls, E[h h^T] (n, n) by name, in float32 at least: the mean over all positions of all
        calls, for inputs h of n entries in the order of a row of the weight.
    """
    moments: dict[str, Tensor] = {}
    positions: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            with torch.no_grad(), torch.autocast(args[0].device.type, enabled=False):
                h = _patches(layer, args[0].detach())
                positions[name] = positions.get(name, 0) + len(h)
                found = h.T @ h / positions[name]
                before = moments.get(name)
                moments[name] = found if before is None else found + before * (1 - len(h) / positions[name])

        return hook

    handles = [_layer(module, name).register_forward_pre_hook(watch(name)) for name in weights]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()


def whitening(moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W with W W^T = (A + damping)^{-1} for moments A (n, n) by name."""
    found = {}
    for name, a in moments.items():
        eye = torch.eye(len(a), dtype=a.dtype, device=a.device)
        # All inputs zero (a dead layer): the gradient is zero as well, and any factor will do.
        scale = a.diagonal().mean().clamp_min(torch.finfo(a.dtype).tiny)
        lower = torch.linalg.cholesky(a / scale + DAMPING * eye)
        found[name] = torch.linalg.solve_triangular(lower, eye, upper=False).T / scale.sqrt()
    return found


def _layer(module: nn.Module, weight: str) -> nn.Module:
    return module.get_submodule(weight.rpartition(".")[0])


def _patches(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer multiplies with its rows (positions, n)."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2)
    assert isinstance(layer, nn.Conv2d)
    x = F.pad(x, conv_padding(layer))
    # Odd, or every position would have the same phase behind upsampling by two.
    apart = int((len(x) * x[0, 0].numel() / MAX_POSITIONS) ** 0.5) | 1
    stride = tuple(step * apart for step in layer.stride)
    return F.unfold(x, layer.kernel_size, layer.dilation, 0, stride).transpose(1, 2).flatten(0, 1)
