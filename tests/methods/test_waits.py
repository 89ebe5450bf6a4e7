"""No step lets the host wait for a GPU, and none mixes devices: on a GPU that is not there."""

from typing import Any

import pytest
import torch

from segzoo.distributed import sum_across_ranks
from segzoo.methods.joint import JointTraining
from segzoo.nonblocking import Fetched, sent
from tests import tiny
from tests.fake_gpu import waits_of_a_step

pytestmark = pytest.mark.filterwarnings("ignore:the packaged generator")
KNOWN = {"sepico": {"labelled_cells aten::nonzero": 2}}
"""What is left, by method: the number of labelled cells, of the source and of the target."""
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("joint", {"overlap": "lovasz", "class_balance": 0.5, "focal": 1.0}),
    ("joint", {"overlap": "dice"}),
    ("metapix", {"update": "fused"}),
    ("metapix", {"update": "paper", "normalize": "softmax"}),
    ("metapix", {"scope": "head", "overlap": "lovasz"}),
    ("metapix", {"micro_batches": 2}),
    ("metapix", {"keep_outputs": False}),
    ("region-selection", {"outputs": "shared", "held_out": 0.5}),
    ("self-training", {"masked": 1.0, "fourier": 0.05}),
    ("ssda", {"masked": 1.0, "fourier": 0.05}),
    ("sepico", {"contrast": "proto", "fast": True}),
    ("maxsquare", {"image_weighting": False}),
]
NETWORKS = [
    ("segformer", "mit_b0"),
    ("fpn", "tu-tf_efficientnet_lite0"),
    *(
        pytest.param(network, marks=pytest.mark.slow)
        for network in [
            ("deeplabv3plus", "resnet18"),
            ("daformer", "mit_b0"),
            ("fcn8s", "vgg11"),
            ("upernet", "tu-convnext_atto"),
        ]
    ),
]
"""Whose layers the forward mode has rules for."""


@pytest.mark.parametrize("slug", tiny.METHODS)
@pytest.mark.parametrize(("half", "ranks"), [(False, 1), (True, 2)])
def test_a_step_does_not_wait(slug: str, half: bool, ranks: int) -> None:
    assert waits_of_a_step(slug, half, ranks) == KNOWN.get(slug, {})


@pytest.mark.parametrize("network", NETWORKS)
def test_nor_do_passes_with_tangents(network: tuple[str, str]) -> None:
    architecture, encoder = network
    options = {"architecture": architecture, "encoder": encoder, "options": {}}
    assert not waits_of_a_step("metapix", network=options, data_options={"size": (64, 64)})


@pytest.mark.parametrize(("slug", "options"), VARIANTS)
def test_nor_do_its_variants(slug: str, options: dict[str, Any]) -> None:
    assert waits_of_a_step(slug, **options) == KNOWN.get(slug, {})


@pytest.mark.parametrize(
    ("spoil", "noticed"),
    [
        (lambda x: x * float(x.detach()), "training_step reads a number"),
        (lambda x: x * Fetched(x.detach()).read().item(), "training_step reads a number"),
        (lambda x: x * torch.tensor(2.0).to(x.device), "training_step copies ()"),
        (lambda x: x * torch.tensor(2.0).to(x.device, non_blocking=True), "training_step copies ()"),
        (lambda x: x * sent(torch.tensor(2.0), x.device), None),
        (lambda x: x * x[None][x[None] > 0].sum(), "training_step indexes by a mask"),
        (lambda x: x * x[None].index_put((x[None] > 0,), x).sum(), "training_step indexes by a mask"),
        (lambda x: x * x[None][torch.tensor([0, 0])].sum(), "training_step indexes by what is on the host"),
        (lambda x: x * torch.ones(3).sum(), None),  # torch lets a number of the host take part
        (lambda x: (x * torch.ones(3)).sum(), RuntimeError),
        (lambda x: torch.stack([x, torch.ones(())]).sum(), RuntimeError),
        (lambda x: x * sent(x.detach(), x.device), None),
        (lambda x: x * x.detach().pin_memory(), RuntimeError),
    ],
)
def test_what_is_noticed(spoil: Any, noticed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    total = JointTraining.total

    def spoiled(self: Any, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        return total(self, terms | {"source": spoil(terms["source"])})

    monkeypatch.setattr(JointTraining, "total", spoiled)
    if noticed is RuntimeError:
        with pytest.raises(RuntimeError, match=r"cuda|GPU"):
            waits_of_a_step("joint")
    else:
        assert waits_of_a_step("joint") == ({noticed: 1} if noticed else {})


def test_collectives_are_of_what_is_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    total = JointTraining.total

    def spoiled(self: Any, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        sum_across_ranks(torch.ones(1))
        return total(self, terms)

    monkeypatch.setattr(JointTraining, "total", spoiled)
    with pytest.raises(RuntimeError, match="NCCL"):
        waits_of_a_step("joint", ranks=2)
