"""Where the time of a bilevel step goes: its passes one by one, and what a pass of tangents alone would save.

python -m tests.benchmarks.passes [--size 192] [--batch 2] [--rounds 5]

Prints, per network, the seconds of a forward pass, of forward and backward together, of the dual forward pass that
`segzoo.bilevel.pixel_jvp` is, and of the weight network. The dual pass computes every value a second time, or, with
`segzoo.bilevel.Kept`, takes up those of convolutions and linear layers. The last rows are `torch.func.linearize`'s program of
tangents, which keeps all values of one forward pass, and the tracing that each step would pay.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, linearize
from torch.nn.attention import SDPBackend, sdpa_kernel

from segzoo.bilevel import Kept, Replayed, frozen_buffers, pixel_jvp
from segzoo.losses import pixel_cross_entropy
from segzoo.models.segmenter import create_segmenter
from segzoo.models.weighting import PixelWeightNet

NETWORKS = (("deeplabv3plus", "resnet18"), ("segformer", "mit_b0"))


def seconds(run: Callable[[], Any], rounds: int) -> float:
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


def kept_seconds(
    losses: Replayed, params: dict[str, Tensor], direction: dict[str, Tensor], net: torch.nn.Module
) -> float:
    """Of the second pass; the first one, which keeps, is an ordinary source pass."""
    kept = Kept(losses, net)
    kept()
    start = time.perf_counter()
    pixel_jvp(kept, params, direction)
    return time.perf_counter() - start


def measure(architecture: str, encoder: str, size: int, batch: int, rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    net = create_segmenter(architecture, encoder, 19).train()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif hasattr(module, "drop_prob"):
            module.drop_prob = 0.0  # type: ignore[assignment]
    image, label = torch.rand(batch, 3, size, size), torch.randint(19, (batch, size, size))
    params = {name: p.detach() for name, p in net.named_parameters()}
    direction = {name: torch.randn_like(p) for name, p in params.items()}
    losses = Replayed(net, image, lambda z: pixel_cross_entropy(z, label), 1)

    def loss_map(p: dict[str, Tensor]) -> Tensor:
        return pixel_cross_entropy(functional_call(net, p, (image,)), label)

    def both() -> None:
        torch.autograd.grad(losses().mean(), list(net.parameters()))

    with torch.no_grad():
        found = {"forward": seconds(losses, rounds)}
    found["forward and backward"] = seconds(both, rounds)
    found["dual forward"] = seconds(lambda: pixel_jvp(losses, params, direction), rounds)
    found["dual forward, outputs kept"] = median(kept_seconds(losses, params, direction, net) for _ in range(rounds))
    weighting = PixelWeightNet(19, width=8)
    with torch.no_grad():
        found["weight network forward"] = seconds(lambda: weighting(image, label), rounds)
    found["and with backward"] = seconds(lambda: weighting(image, label).sum().backward(), rounds)
    exact = pixel_jvp(losses, params, direction)[1]
    with frozen_buffers(net), sdpa_kernel(SDPBackend.MATH):
        start = time.perf_counter()
        _, tangents = linearize(loss_map, params)
        found["tracing"] = time.perf_counter() - start
        error = float((tangents(direction) - exact).norm() / exact.norm())
        assert error < 1e-3, error
        found["tangents alone"] = seconds(lambda: tangents(direction), rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 192), ("batch", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    for architecture, encoder in NETWORKS:
        found = measure(architecture, encoder, args.size, args.batch, args.rounds)
        unit = found["forward"]
        print(f"{architecture} on {encoder}")
        for name, value in found.items():
            print(f"  {name:24} {value:7.3f} s  {value / unit:5.2f} forward passes")


if __name__ == "__main__":
    main()
