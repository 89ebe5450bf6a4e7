"""What methods share that learn from the images of a frozen generator."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from segzoo.checks import check_range
from segzoo.data.label_spaces import LabelSpace
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.segmentation import SegmentationMethod
from segzoo.methods.speed import Speed
from segzoo.models.generators import StyleGAN2
from segzoo.models.generators.base import resize_square
from segzoo.models.generators.load import PACKAGED, describe, load_generator, rebuild
from segzoo.models.network import Network


class GeneratedImagesTraining(SegmentationMethod):
    """Holds the generator: from which file it comes, how it samples, and that a checkpoint needs no further file.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        generator: Names the generator's file.
        generator_description: Describes the generator of a checkpoint, which holds its weights.
        truncation: Sets psi of a StyleGAN2's latents.
        truncation_layers: Sets how many of its first layers psi is for.
        synthetic_batch: Sets the generated images per step and process, of each phase.
        fit: Chooses how square images meet the labelled ones' shape.
    """

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        generator: str = PACKAGED,
        generator_description: dict[str, Any] | None = None,
        truncation: float = 0.7,
        truncation_layers: int | None = 8,
        synthetic_batch: int | None = None,
        fit: Literal["stretch", "crop"] = "stretch",
    ) -> None:
        super().__init__(label_space=label_space, network=network, optimizer=optimizer, loss=loss, speed=speed)
        check_range("`method.synthetic_batch`", 1 if synthetic_batch is None else synthetic_batch, 1)
        # A checkpoint holds the weights: the file that they came from may not be on this machine.
        self.gan = rebuild(generator_description) if generator_description else load_generator(generator)
        if generator == PACKAGED and not generator_description and self.label_space.name != "minifaces":
            rank_zero_warn(
                f"the packaged generator draws the faces of 'minifaces', not what '{self.label_space.name}' labels: "
                "the method 'gan' trains one on your images, for `method.generator`"
            )
        self.gan.eval().requires_grad_(False)
        self.arrange(self.gan)
        self.save_hyperparameters({"generator_description": describe(self.gan)})
        if isinstance(self.gan, StyleGAN2):
            self.gan.truncation, self.gan.cutoff = truncation, truncation_layers
        self.synthetic_batch, self.fit = synthetic_batch, fit

    def train(self, mode: bool = True) -> Self:
        """The generator stays in evaluation."""
        super().train(mode)
        self.gan.eval()
        return self

    def to_input(self, image: Tensor, size: Sequence[int]) -> Tensor:
        """The generator's images, in about [-1, 1], to the segmenter's input (B, 3, H, W) in [0, 1]."""
        return self.resized(((image + 1) / 2).clamp(0, 1), size)

    def resized(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Square maps (B, C, R, R) at the size (H, W) of the segmenter's input, as ``fit`` says."""
        return resize_square(maps, size, crop=self.fit == "crop")
