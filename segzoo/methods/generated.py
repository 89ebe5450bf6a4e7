"""What methods share that learn from the images of a frozen generator."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from segzoo.checks import check_range
from segzoo.methods.base import SegmentationMethod
from segzoo.models.generators import StyleGAN2
from segzoo.models.generators.base import resize_square
from segzoo.models.generators.load import PACKAGED, describe, load_generator, rebuild
from segzoo.yaml_files import dump_yaml, parse_yaml


class GeneratedImagesTraining(SegmentationMethod):
    """Holds the generator: from which file it comes, how it samples, and that a checkpoint needs no further file.

    Args:
        generator: ``packaged`` (MiniFaces), or a path: a checkpoint of the method ``gan``, the state dict of a 64-pixel DCGAN,
            or a network file (.pkl) of the StyleGAN2-ADA and StyleGAN3 releases. It is never trained.
        generator_description: filled in from a checkpoint, which holds the generator's weights.
        truncation: psi of a StyleGAN2's latents,
        truncation_layers: for as many of its first layers; null: all. Published: 7 or 8, by category.
        synthetic_batch: generated images per step and process, of each phase; null: as many as labelled ones.
        fit: how the generator's square images meet the labelled ones' shape: stretch, or crop to their aspect ratio.
        kwargs: see `SegmentationMethod`.
    """

    def __init__(
        self,
        *,
        generator: str = PACKAGED,
        generator_description: dict[str, Any] | None = None,
        truncation: float = 0.7,
        truncation_layers: int | None = 8,
        synthetic_batch: int | None = None,
        fit: Literal["stretch", "crop"] = "stretch",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_range("--method.synthetic_batch", 1 if synthetic_batch is None else synthetic_batch, 1)
        # A checkpoint holds the weights: the file that they came from may not be on this machine.
        self.gan = rebuild(generator_description) if generator_description else load_generator(generator)
        if generator == PACKAGED and not generator_description and self.label_space.name != "minifaces":
            rank_zero_warn(
                f"the packaged generator draws the faces of 'minifaces', not what '{self.label_space.name}' labels: "
                "`segzoo fit --method gan` trains one on your images, for --method.generator"
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the generator is made of: its weights are in the checkpoint, and the file is no longer needed."""
        super().on_save_checkpoint(checkpoint)
        if self.run_config is not None:
            config = parse_yaml(self.run_config, "the configuration")
            config["model"]["generator_description"] = describe(self.gan)
            checkpoint["segzoo"]["config"] = dump_yaml(config)
