"""What the batch norm over several processes has no derivative for is an error, and no wrong number.

python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.second_order; fails where a number comes out.
"""

import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segzoo.bilevel import MissingDerivativeError, Replayed, SGDStep, hypergradient
from segzoo.models.sync_norm import SyncBatchNorm


def refused(compute: Callable[[], object]) -> None:
    try:
        compute()
    except MissingDerivativeError as error:
        assert "`network.norm` group" in str(error)
    else:
        raise AssertionError("a derivative that does not exist was computed")


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    net = nn.Sequential(nn.Conv2d(3, 4, 3), SyncBatchNorm(4), nn.Tanh(), nn.Conv2d(4, 5, 1)).double()
    params = dict(net.named_parameters())
    image, weights = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 6, 6, dtype=torch.float64)

    def pixels(z: Tensor) -> Tensor:
        return z.square().mean(1)

    source = Replayed(net, image, pixels, 1)
    target = Replayed(net, image, lambda z: pixels(z).mean(), 2)
    found = hypergradient(net, [source], [target], params, weights, 72.0, SGDStep(0.1), "forward").weights
    assert torch.isfinite(found).all()
    refused(lambda: hypergradient(net, [source], [target], params, weights, 72.0, SGDStep(0.1), "double_backward"))
    dist.barrier()
    os._exit(0)  # all is computed, and gloo's threads abort now and then while a process ends


if __name__ == "__main__":
    main()
