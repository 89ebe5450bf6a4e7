"""Convolutions with weights of their own for source images: a network whose first layers are there once per domain."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F


class DomainConv2d(nn.Conv2d):
    """A convolution with two sets of weights: one for source images, and one for all others.

    The source's are used inside `as_source`. A state dict without them gives both the same.
    """

    LATE: ClassVar[tuple[str, ...]] = ("source_weight", "source_bias")
    """Entries that the state dict of a plain convolution lacks."""

    source_weight: nn.Parameter
    source_bias: nn.Parameter | None
    of_source = False

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """A convolution that begins as the given one for both domains."""
        bias = conv.bias is not None
        # Its own initial weights would draw random numbers for nothing.
        new = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            bias=bias,
            device="meta",
        )
        new.weight, new.bias = conv.weight, conv.bias
        new.source_weight = nn.Parameter(conv.weight.detach().clone())
        new.source_bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        new.register_load_state_dict_pre_hook(_share)  # type: ignore[no-untyped-call]
        return new

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K, H', W')."""
        if not self.of_source:
            return super().forward(x)
        return F.conv2d(x, self.source_weight, self.source_bias, self.stride, self.padding, self.dilation)


def _share(stem: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(stem, DomainConv2d)
    for name in stem.LATE:
        plain = f"{prefix}{name.removeprefix('source_')}"
        if plain in state_dict:
            state_dict.setdefault(f"{prefix}{name}", state_dict[plain])


@contextmanager
def as_source(network: nn.Module) -> Iterator[None]:
    """Calls of a network inside are of source images; without a `DomainConv2d` in it that changes nothing."""
    stems = [m for m in network.modules() if isinstance(m, DomainConv2d)]
    for stem in stems:
        stem.of_source = True
    try:
        yield
    finally:
        for stem in stems:
            stem.of_source = False
