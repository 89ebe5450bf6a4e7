"""Joint training, recomputed."""

import pytest
import torch
from torch.nn import functional as F

from segzoo.bilevel import frozen_buffers
from segzoo.errors import ConfigError
from tests import tiny
from tests.methods.catching import caught

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("mean", ["valid", "all"])
def test_the_source_has_a_constant_weight(weight: float, mean: str) -> None:
    method, catch = caught("joint", weight=weight, pixel_mean=mean, void=True)
    source, target = catch.batch["source"], catch.batch["target"]
    with frozen_buffers(method.segmenter):
        losses = F.cross_entropy(method(source["image"].double()), source["label"], ignore_index=255, reduction="none")
    valid = source["label"] != 255
    assert bool(valid.any()) and not bool(valid.all()), "void pixels tell the two means apart"
    loss = weight * losses.sum() / (valid.sum() if mean == "valid" else valid.numel())
    (loss + F.cross_entropy(method(target["image"].double()), target["label"])).backward()
    for name, p in method.named_parameters():
        torch.testing.assert_close(catch.gradients[name], p.grad, rtol=1e-8, atol=1e-12, msg=name)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`method\.weight` -1\.0"):
        tiny.method("joint", weight=-1.0)
