"""Gradient matching (Yang et al., "Learning to Annotate Part Segmentation with Gradient Matching", ICLR 2022).

A frozen generator G paints images x = G(z) with feature maps h(z). An annotator A_w learns to label what it painted, such that
training a student S_theta on these pairs moves it as the few real labels would:

    y        = softmax A_w(h(z))                                        soft labels of generated pixels
    L_g      = -(1/N) sum_ic y_ic log S_theta(x)_ic                     the student's only loss
    L_l      = cross-entropy of S_theta on the few labelled images      never descended by the student
               (both with the class weights and the focal factor of `Loss`, by which L_g stays linear in y)
    g, g^    = grad L_g, grad L_l with respect to the matched part of theta
    w       <- descend D(g, g^)                                         phase A, `matching`
    theta   <- descend L_g on fresh latents, y held fixed               phase S, `student_terms`

L_g is linear in y, so that dD/dy_ic = -(1/N) d/de log S_{theta + e u}(x)_ic with u = dD/dg: one forward-mode pass of
`segzoo.bilevel` instead of a graph through a gradient. Both updates of a step start from the same (theta, w) and leave through
one returned loss; in the published code the annotator moves first.
"""

import contextlib
import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from segzoo.bilevel import Replayed, any_seed, attach_gradient, frozen_buffers, keeping, pixel_jvp, reusing
from segzoo.bilevel.jvp import whole_norm
from segzoo.checks import check_range
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch, Stream
from segzoo.distributed import average_gradients
from segzoo.errors import ConfigError
from segzoo.losses import class_losses, log_softmax, soft_cross_entropy
from segzoo.losses.matching import GradientMetric, gradient_distance, gradient_distance_derivative
from segzoo.methods.loss import Loss
from segzoo.methods.matched_gradients import MatchedGradients, matched_parameters
from segzoo.methods.optimizer import Optimizer, parameter_group
from segzoo.methods.segmentation import pixel_count, valid_pixels
from segzoo.methods.speed import Speed
from segzoo.models.annotator import Annotator
from segzoo.models.generators import Sample
from segzoo.models.generators.load import PACKAGED
from segzoo.models.layer_inputs import input_moments, weights_with_moments, whitening
from segzoo.models.network import Network
from segzoo.models.norms import replace_norms
from segzoo.models.state_dicts import load_part


class GradientAnnotator(MatchedGradients):
    """A GAN's images, labelled such that a segmenter trained on them suits the few labelled images.

    Published: sgd without weight decay at constant lr 1e-3 for both networks, two images of each kind per step, 150,000 steps.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network, the student, is trained, and from which weights.
        optimizer: Says how the student learns.
        loss: Says by which loss the student learns from labels.
        speed: Says how a step is computed.
        generator: Names the generator, which is never trained: packaged (MiniFaces), a checkpoint of the method gan, the state
            dict of a 64-pixel DCGAN, or a network file (.pkl) of StyleGAN2-ADA or StyleGAN3.
        generator_description: Describes the generator of a checkpoint, which holds its weights; nobody sets it by hand.
        truncation: Sets how far a StyleGAN2's latents go from their mean, from 0 to 1 (psi); smaller values give more usual
            and less varied images.
        truncation_layers: Sets how many of the generator's first layers, which decide coarse shapes, truncation applies to; 7
            or 8 are published, null takes all.
        synthetic_batch: Sets the generated images per step and process, of each phase; null takes as many as labelled ones.
        fit: Chooses how the generator's square images meet the labelled ones' shape: stretch, or crop to their aspect ratio.
        labels: Chooses who labels the generated images: annotator, or as a control teacher, a segmenter that was trained on the
            labelled images alone.
        teacher_checkpoint: Names that segmenter, a checkpoint of target-only with the same network.
        annotator_width: Sets the channels of the annotator.
        annotator_lr: Sets the learning rate of the annotator, which follows no schedule.
        annotator_decay: Sets the weight decay of the annotator.
        labelling_mode: Chooses the statistics of the annotator's norms when it labels images for the student: eval, as
            published, takes the running ones, which lag behind at first, train those of the batch.
        student_steps: Sets how many steps the student makes per step of the annotator; 1 is published.
        scope: Chooses the part of the student whose gradients are compared: decoder (all behind the encoder, as published for
            DeepLab), all (as published for U-Net), head, or a regular expression for whole names of its parameters.
        metric: Chooses the distance of two gradients: cosine (angles of rows, as in the published code), global_cosine (one
            angle, the paper's figure), l2 (squared differences), dotprod (products), or relative (ours: squared differences of
            rows as a share of the labelled gradient's square).
        whiten: Compares what two gradients would do to the layer's output, given the inputs that it sees, instead of their
            entries (ours); small parts then count, too.
        engine: Chooses how the derivative is computed: forward (exact, no second-order graph) or double_backward (exact, for
            reference).
        running_statistics: Chooses what the batch norms of the student, the network that is trained, keep for testing: both,
            as published, the statistics of labelled and generated images, or labelled, those of the labelled images alone.
    """

    slug = "gradient-annotator"
    resources = ("labels",)
    STARTING_POINTS = ("teacher_checkpoint",)

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
        labels: Literal["annotator", "teacher"] = "annotator",
        teacher_checkpoint: str | None = None,
        annotator_width: int = 128,
        annotator_lr: float = 1e-3,
        annotator_decay: float = 0.0,
        labelling_mode: Literal["eval", "train"] = "eval",
        student_steps: int = 1,
        scope: str = "decoder",
        metric: GradientMetric = "cosine",
        whiten: bool = False,
        engine: Literal["forward", "double_backward"] = "forward",
        running_statistics: Literal["both", "labelled"] = "both",
    ) -> None:
        super().__init__(
            label_space=label_space,
            network=network,
            optimizer=optimizer,
            loss=loss,
            speed=speed,
            generator=generator,
            generator_description=generator_description,
            truncation=truncation,
            truncation_layers=truncation_layers,
            synthetic_batch=synthetic_batch,
            fit=fit,
        )
        check_range("`method.student_steps`", student_steps, 1)
        if self.loss.overlap != "none":
            raise ConfigError(
                f"`loss.overlap` {self.loss.overlap}: the generated images have soft labels, pixel by pixel, and no areas; "
                "use `loss.class_balance` or `loss.focal`"
            )
        self.by_teacher, self.teacher_checkpoint = labels == "teacher", teacher_checkpoint
        if self.by_teacher:
            if running_statistics == "labelled":
                raise ConfigError("running_statistics labelled: with `method.labels` teacher no labelled image is seen")
            self.teacher = copy.deepcopy(self.segmenter).eval().requires_grad_(False)
            if teacher_checkpoint:
                load_part(self.teacher, Path(teacher_checkpoint), self.label_space.classes)
        else:
            check_range("`method.annotator_width`", annotator_width, 1)
            self.annotator = Annotator(self.gan.feature_channels, self.num_classes, annotator_width)
            replace_norms(self.annotator, self.network_options.norm)
            self.arrange(self.annotator)
        self.annotator_lr, self.annotator_decay = annotator_lr, annotator_decay
        self.labelling_mode, self.running_statistics = labelling_mode, running_statistics
        self.student_steps, self.metric, self.engine = student_steps, metric, engine
        self.matched = matched_parameters(self.segmenter, scope)
        self.whitened = weights_with_moments(self.segmenter, self.matched) if whiten else []
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def streams(self) -> dict[str, Stream]:
        """The few labelled images; the generator stands for all others."""
        return {"target": Stream("target")}

    def setup(self, stage: str) -> None:
        """Refuses to train with an untrained teacher.

        Raises:
            ConfigError: no teacher.
        """
        super().setup(stage)
        if stage == "fit" and self.by_teacher and not (self.teacher_checkpoint or self.trainer.ckpt_path):
            raise ConfigError("`method.labels` teacher needs `method.teacher_checkpoint`, a checkpoint of target-only")

    def train(self, mode: bool = True) -> Self:
        """Generator and teacher stay in evaluation."""
        super().train(mode)
        if hasattr(self, "teacher"):
            self.teacher.eval()
        return self

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The student's groups and one for the annotator, without schedule."""
        groups = super().optimizer_groups()
        if not self.by_teacher:
            rate, decay = self.annotator_lr, self.annotator_decay
            groups.append(parameter_group("annotator", self.annotator, rate, decay, schedule=False))
        return groups

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """One step of theta and, every K steps, of w; one loss for both."""
        labelled = batch["target"]
        count = self.synthetic_batch or len(labelled["image"])
        carried = self._zero() if not self._annotator_moves() else self.matching(labelled, count)
        return self.total(self.student_terms(count, labelled["image"].shape[-2:])) + carried

    def matching(self, labelled: Batch, count: int) -> Tensor:
        """Phase A: a zero that carries dD/dy to the annotator."""
        real, label = labelled["image"], labelled["label"]
        pixels = pixel_count(valid_pixels(label))
        sample = self.gan.sample(count, self.image_generators("matching latent", count))
        image = self.to_input(sample.image, real.shape[-2:])
        y = self.annotate(sample, real.shape[-2:]).softmax(dim=1)
        fixed = y.detach().requires_grad_(self.engine == "double_backward")
        # One seed: the same dropout masks in g and in its derivative.
        seed, track = any_seed(), self.running_statistics == "both"
        with input_moments(self.segmenter, self.whitened) as moments:
            real_loss, real_gradient = self.matched_gradient(
                real, lambda z: self.pixel_losses(z, label).sum() / pixels, any_seed(), True
            )
            with keeping(self.segmenter, self.matched if self.engine == "forward" else ()) as outputs:
                loss, gradient = self.matched_gradient(image, lambda z: self.soft_loss(z, fixed), seed, track)
        factors = whitening(average_gradients(moments))
        g, h, w = list(gradient.values()), list(real_gradient.values()), [factors.get(name) for name in gradient]
        distance = gradient_distance(g, h, self.metric, w)
        if self.engine == "double_backward":
            (slope,) = torch.autograd.grad(distance, fixed)
        else:
            u = dict(zip(gradient, gradient_distance_derivative(g, h, self.metric, w), strict=True))
            losses = partial(class_losses, class_weight=self.class_weight, focal=self.loss.focal)
            theta, replayed = self.segmenter.parameters_of("all"), Replayed(self.segmenter, image, losses, seed)
            with reusing(outputs):
                slope = pixel_jvp(replayed, theta, u)[1] / fixed[:, 0].numel()
        self.watch(real_loss, loss, distance.detach(), slope, whole_norm(gradient), whole_norm(real_gradient))
        return attach_gradient(loss.new_zeros(()), [y], [slope])

    def student_terms(self, count: int, size: Sequence[int]) -> dict[str, Tensor]:
        """Phase S: L_g on fresh latents, with labels that are held fixed."""
        image, y = self.labelled_images(self.image_generators("student latent", count), size)
        follow = contextlib.nullcontext() if self.running_statistics == "both" else frozen_buffers(self.segmenter)
        with follow:
            logits = self(image)
        self._seen = (image, y, logits.detach())
        return {"synthetic": self.soft_loss(logits, y)}

    def soft_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """L_g of logits with soft labels, both (B, C, H, W)."""
        return soft_cross_entropy(logits, y, self.class_weight, self.loss.focal)

    @property
    def step_pictures(self) -> dict[str, Tensor]:
        """What the student learned from in the last step, by title."""
        if self._seen is None:
            return {}
        image, y, logits = self._seen
        pictures = {"generated": image, "annotation": y.argmax(dim=1), "confidence": y.amax(dim=1)}
        return pictures | {"prediction": logits.argmax(dim=1)}

    @torch.no_grad()
    def labelled_images(
        self, draws: Sequence[torch.Generator], size: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Generated images and their labels.

        Args:
            draws: one random generator per image, which decides what it shows.
            size: (H, W) of the images; None for the generator's own.

        Returns:
            Images (B, 3, H, W) in [0, 1] and class probabilities (B, C, H, W).
        """
        sample = self.gan.sample(len(draws), draws)
        size = size or sample.image.shape[-2:]
        image = self.to_input(sample.image, size)
        if self.by_teacher:
            return image, log_softmax(self.teacher(image)).exp()
        mode = self.annotator.training
        self.annotator.train(mode and self.labelling_mode == "train")
        with frozen_buffers(self.annotator):
            y = self.annotate(sample, size).softmax(dim=1)
        self.annotator.train(mode)
        return image, y

    def annotate(self, sample: Sample, size: Sequence[int]) -> Tensor:
        """The annotator's logits (B, C, H, W) of a sample, at the size (H, W) of the student's input."""
        logits: Tensor = self.annotator(sample.features)
        return self.resized(logits.to(torch.promote_types(logits.dtype, torch.float32)), size)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """While the student alone moves, w rests: without gradients the optimiser leaves it and its momentum alone."""
        super().on_before_optimizer_step(optimizer)
        if not self._annotator_moves() and not self.by_teacher:
            for p in self.annotator.parameters():
                p.grad = None

    def _zero(self) -> Tensor:
        # Distributed training expects a gradient per parameter; they are dropped before the optimiser sees them.
        phi = [] if self.by_teacher else list(self.annotator.parameters())
        return attach_gradient(torch.zeros((), device=self.device), phi, [torch.zeros_like(p) for p in phi])

    def _annotator_moves(self) -> bool:
        return not self.by_teacher and self.global_step % self.student_steps == 0
