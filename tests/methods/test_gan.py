"""The GAN: what each player is told, recomputed; the average; and what it refuses."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segzoo.data.sampling import derived_seed
from segzoo.errors import ConfigError
from segzoo.methods.gan import GAN
from segzoo.methods.segmentation import SegmentationMethod
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")


class Catch(L.Callback):
    """Batch and gradients of the last step."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, _: int) -> None:
        self.batch = batch

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.gradients = {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None}


def step(**options: Any) -> tuple[GAN, Catch]:
    """An untrained copy in float64, and what the first step was."""
    catch = Catch()
    tiny.fit("gan", 1, trainer_options={"callbacks": [catch], "precision": "64-true"}, **options)
    method = tiny.method("gan", **options).double().train()
    assert isinstance(method, GAN)
    return method, catch


def fakes(method: GAN) -> Tensor:
    """Two images of step 0: latents and noise, one image after the other."""
    images = []
    for i in range(2):
        draws = torch.Generator().manual_seed(derived_seed(0, "latent", i, 0))
        z = torch.randn(1, method.network.latent_dim, generator=draws).double()
        images.append(method.network(z, noise="random", generator=draws).image)
    return torch.cat(images)


@pytest.mark.parametrize("r1", [0.0, 3.0])
def test_each_player_gets_its_own_loss(r1: float) -> None:
    method, catch = step(r1=r1, r1_interval=4)
    side = method.network.resolution
    real = 2 * F.interpolate(catch.batch["source"]["image"].double(), size=side, mode="bilinear", antialias=True) - 1
    fake, critic = fakes(method), method.critic
    told = torch.autograd.grad(-F.logsigmoid(critic(fake)).mean(), list(method.network.parameters()))
    for (name, _), gradient in zip(method.network.named_parameters(), told, strict=True):
        torch.testing.assert_close(catch.gradients[f"network.{name}"], gradient, rtol=1e-8, atol=1e-13)
    x = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    loss = -F.logsigmoid(-critic(fake.detach())).mean() - F.logsigmoid(critic(real)).mean()
    loss = loss + 4 * r1 / 2 * slope.square().sum((1, 2, 3)).mean()
    told = torch.autograd.grad(loss, list(critic.parameters()))
    for (name, _), gradient in zip(critic.named_parameters(), told, strict=True):
        torch.testing.assert_close(catch.gradients[f"critic.{name}"], gradient, rtol=1e-8, atol=1e-13)
    assert not any(name.startswith("average") for name in catch.gradients)


def test_the_penalty_is_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    penalised: list[bool] = []
    total = GAN.total

    def watch(self: GAN, terms: dict[str, Tensor]) -> Tensor:
        penalised.append("r1" in terms)
        return total(self, terms)

    monkeypatch.setattr(GAN, "total", watch)
    tiny.fit("gan", 4, r1_interval=3)
    assert penalised == [True, False, False, True]


def test_the_average_is_frozen() -> None:
    trained = tiny.fit("gan", 2)
    assert isinstance(trained, GAN)
    assert int(trained.average.step) == 2 and not trained.average.network.training
    assert not any(p.requires_grad for p in trained.average.network.parameters())


@pytest.mark.parametrize("generator", ["dcgan", "stylegan2"])
def test_augmentation_reaches_both_kinds_of_images(generator: str) -> None:
    options: dict[str, Any] = {"generator": generator}
    if generator == "dcgan":
        options["generator_options"] = {"latent_dim": 4, "channels": 2}
    plain, augmented = (step(augment=strength, **options)[1] for strength in (0.0, 1.0))
    for player in ("network", "critic"):
        names = [name for name in plain.gradients if name.startswith(player)]
        assert any((plain.gradients[n] - augmented.gradients[n]).abs().max() > 1e-9 for n in names)
        assert all(torch.isfinite(augmented.gradients[n]).all() for n in names)


def test_an_augmented_image_is_a_shifted_image() -> None:
    method = tiny.fit("gan", 1, augment=1.0)
    assert isinstance(method, GAN)
    image = torch.linspace(-1, 1, 64).view(1, 1, 1, 64).expand(2, 3, 64, 64).contiguous().requires_grad_()
    seen = method.augmented(image, "real")
    assert seen.shape == image.shape and not torch.equal(seen[0], seen[1])
    torch.testing.assert_close(method.augmented(image, "real"), seen)  # the step's draws, again
    seen.sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_pictures_are_of_the_same_latents_throughout() -> None:
    method = tiny.method("gan")
    assert isinstance(method, GAN)
    one, two = method.step_pictures, method.step_pictures
    assert len(one) == 8 and all(torch.equal(one[name], two[name]) for name in one)
    assert all(len(column) == 4 and 0 <= float(column.min()) <= float(column.max()) <= 1 for column in one.values())


def test_it_labels_nothing() -> None:
    method = tiny.method("gan")
    assert not isinstance(method, SegmentationMethod) and not hasattr(method, "segmenter")
    with pytest.raises(ConfigError, match="labels none"):
        method(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r1": -1.0}, "r1"),
        ({"augment": 2.0}, "augment"),
        ({"generator": "biggan"}, "expected one of dcgan, stylegan2"),
        ({"generator_options": {"depth": 3}}, "generator_options"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.method("gan", **options)
