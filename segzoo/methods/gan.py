"""A generative adversarial network (Goodfellow et al., 2014), trained on unlabelled images: what `gradient-annotator` labels.

A generator G makes images of latents z ~ N(0, I), a critic C says how real an image looks (its logit):

    L_C = E softplus(C(G(z))) + E softplus(-C(x)) + (gamma/2) E |grad_x C(x)|^2      the last term: R1 (Mescheder et al., 2018),
                                                                     every ``r1_interval`` steps with that many times its weight
    L_G = E softplus(-C(G(z)))                                       the non-saturating loss

Both leave through one returned loss: L_G sees the critic's parameters as constants, L_C the images G(z). What is kept is the
running average of G's weights.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from segzoo.adaptation.teacher import EmaTeacher
from segzoo.checks import check_range
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch, Stream
from segzoo.distributed import mean_across_ranks
from segzoo.errors import ConfigError
from segzoo.methods.base import Method
from segzoo.methods.optimizer import Optimizer, parameter_group
from segzoo.methods.speed import Speed
from segzoo.models.discriminators import frozen
from segzoo.models.generators import StyleGAN2
from segzoo.models.generators.base import Draws, Sample, normal
from segzoo.models.generators.critic import ImageCritic
from segzoo.models.generators.load import create_generator

BETAS = (0.0, 0.99)
"""Adam's betas. The first is 0: momentum would carry each player past the other's last move."""
ROWS, COLUMNS = 4, 8
"""Size of the grid of pictures."""


class GAN(Method):
    """Trains a generator on the source's images, without their labels. It has no segmenter and no scores.

    Args:
        label_space: Names the classes of the data, which the generator does not need.
        optimizer: Says how generator and critic learn; the betas of Adam are those of GANs.
        speed: Says how a step is computed.
        generator: Chooses the generator: dcgan for 64 pixels, or stylegan2 for any power of two.
        generator_options: Passes arguments to its class, such as {channels: 48} or {resolution: 128, channel_base: 8192}.
        critic_width: Sets the channels of the critic behind its first convolution.
        critic_lr_factor: Multiplies the generator's learning rate for the critic.
        r1: Sets the weight of the critic's gradient penalty (gamma); a larger one steadies the training on few images.
        r1_interval: Computes the gradient penalty every so many steps, with that many times its weight.
        ema_decay: Sets how slowly the averaged generator, the one that is kept, follows the trained one.
        augment: Sets the strength, 0 to 1, of random shifts and colours of what the critic sees, real or not; for few images.
    """

    slug = "gan"
    resources = ("source",)
    SPEED = ()

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        optimizer: Optimizer | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        generator: Literal["dcgan", "stylegan2"] = "dcgan",
        generator_options: dict[str, Any] | None = None,
        critic_width: int = 32,
        critic_lr_factor: float = 1.0,
        r1: float = 0.1,
        r1_interval: int = 16,
        ema_decay: float = 0.999,
        augment: float = 0.0,
    ) -> None:
        super().__init__(label_space=label_space, optimizer=optimizer, speed=speed)
        check_range("`method.r1`", r1, 0)
        check_range("`method.r1_interval`", r1_interval, 1)
        check_range("`method.augment`", augment, 0, 1)
        self.network = create_generator(generator, generator_options)
        check_range("`method.critic_width`", critic_width, 1)
        self.critic = ImageCritic(self.network.resolution, critic_width)
        self.average = EmaTeacher(self.network, ema_decay, buffers=True)
        self.critic_lr_factor, self.r1, self.r1_interval, self.augment = critic_lr_factor, r1, r1_interval, augment

    @property
    def streams(self) -> dict[str, Stream]:
        """Whole source images without labels."""
        return {"source": Stream("source", labelled=False, whole=True)}

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """One group per player."""
        options = self.optimizer_options
        players = {"generator": (self.network, options.lr), "critic": (self.critic, options.lr * self.critic_lr_factor)}
        return [
            parameter_group(name, network, lr, options.weight_decay) | {"betas": BETAS}
            for name, (network, lr) in players.items()
        ]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """L_G + L_C."""
        if self.begins_step(batch_idx):
            self.average.update(self.network)
        real = self.to_resolution(batch["source"]["image"])
        fake = self.generate(len(real)).image
        seen = self.augmented(fake, "generated")
        terms = {"generator": F.softplus(-frozen(self.critic, seen)).mean()}
        terms["critic generated"] = F.softplus(self.critic(seen.detach())).mean()
        penalised = self.r1 > 0 and self.global_step % self.r1_interval == 0
        shown = self.augmented(real, "real").requires_grad_(penalised)
        logits = self.critic(shown)
        terms["critic real"] = F.softplus(-logits).mean()
        if penalised:
            (slope,) = torch.autograd.grad(logits.sum(), shown, create_graph=True)
            penalty = slope.to(torch.promote_types(slope.dtype, torch.float32)).square().sum(dim=(1, 2, 3)).mean()
            terms["r1"] = 0.5 * self.r1 * self.r1_interval * penalty
        return self.total(terms)

    def forward(self, image: Tensor) -> Tensor:
        """There are no logits.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("the method 'gan' makes images and labels none; its checkpoints are for `method.generator`")

    def to_resolution(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to the generator's (B, 3, R, R) in [-1, 1]."""
        side = self.network.resolution
        if image.shape[-2:] != (side, side):
            image = F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        return 2 * image - 1

    def generate(self, count: int) -> Sample:
        """Images of this step's latents, with a graph."""
        draws: Draws = self.image_generators("latent", count)
        weight = next(self.network.parameters())
        z = normal((count, self.network.latent_dim), weight, draws)
        if not isinstance(self.network, StyleGAN2):
            sample: Sample = self.network(z)
            return sample
        sample = self.network(z, noise="random", generator=draws)
        w_avg = self.network.mapping.w_avg
        w_avg.copy_(mean_across_ranks(w_avg))
        return sample

    def augmented(self, image: Tensor, purpose: str) -> Tensor:
        """Each image (B, 3, R, R) shifted by up to an eighth, and with another brightness and contrast; differentiable."""
        if not self.augment:
            return image
        reach = int(self.augment * image.shape[-1] / 8)
        results = []
        for one, draws in zip(
            F.pad(image, [reach] * 4, mode="replicate"), self.image_generators(purpose, len(image)), strict=True
        ):
            brightness, contrast, *shift = torch.rand(4, generator=draws).tolist()
            top, left = (int(u * (2 * reach + 1)) for u in shift)
            part = one[:, top : top + image.shape[-2], left : left + image.shape[-1]]
            mean = part.mean()
            results.append(
                (part - mean) * (1 + self.augment * (contrast - 0.5)) + mean + self.augment * (brightness - 0.5)
            )
        return torch.stack(results)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing to score; without this method Lightning warns that there are images to validate on."""

    @property
    def step_pictures(self) -> dict[str, Tensor]:
        """A grid of the averaged generator's images, of the same latents throughout the training."""
        draws = [torch.Generator().manual_seed(i) for i in range(ROWS * COLUMNS)]
        images = self.average.network.sample(len(draws), draws).image
        columns = ((images + 1) / 2).clamp(0, 1).view(COLUMNS, ROWS, *images.shape[1:])
        return {f"generated {i + 1}": column for i, column in enumerate(columns)}
