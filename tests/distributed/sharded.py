"""The engine 'finite_difference' on parameters that FSDP2 shards, against the same on whole ones.

python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.sharded; fails where they differ.
"""

import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

from segzoo.bilevel import Engine, Hypergradient, Replayed, SGDStep, ShardedParametersError, hypergradient
from segzoo.losses import pixel_cross_entropy


def solve(net: nn.Module, engine: Engine, mine: slice) -> Hypergradient:
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.rand(4, 3, 8, 8, generator=generator, dtype=torch.float64)[mine] for _ in range(2))
    labels = [torch.randint(5, (4, 8, 8), generator=generator)[mine] for _ in range(2)]
    weights = torch.rand(4, 8, 8, generator=generator, dtype=torch.float64)[mine]

    def target_loss(z: Tensor) -> Tensor:
        return F.cross_entropy(z, labels[1])

    return hypergradient(
        net,
        [Replayed(net, source, lambda z: pixel_cross_entropy(z, labels[0]), 1)],
        [Replayed(net, target, target_loss, 1)],
        dict(net.named_parameters()),
        weights,
        float(weights.numel()),
        SGDStep(0.5),
        engine,
        radius=1e-3,
    )


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Tanh(), nn.Conv2d(8, 5, 1)).double()
    sharded = copy.deepcopy(whole)
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    shards = dict(sharded.named_parameters())
    before = {name: p.full_tensor().clone() for name, p in shards.items()}
    mine = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)

    found = solve(sharded, "finite_difference", mine).weights
    # Means over half the pixels each: a rank's gradient is `world` times that of the whole.
    expected = solve(whole, "double_backward", slice(0, 4)).weights[mine] * dist.get_world_size()
    error = float((found - expected).norm() / expected.norm())
    assert error < 1e-4, error
    for name, p in shards.items():
        assert torch.equal(p.full_tensor(), before[name]), name
    sharded.reshard()
    for engine in ("forward", "double_backward"):
        try:
            solve(sharded, engine, mine)  # type: ignore[arg-type]
        except ShardedParametersError as refusal:
            assert "finite_difference" in str(refusal)
        else:
            raise AssertionError(f"{engine} was not refused")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
