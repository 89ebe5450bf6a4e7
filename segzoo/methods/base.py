"""What every method shares: the segmenter, the optimiser, evaluation, checkpoints, and the checks on a loss."""

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

import segzoo
from segzoo.callbacks.checkpoint_io import last_good, save_together, spoiled
from segzoo.checks import check_range
from segzoo.data.datamodule import DomainDataModule
from segzoo.data.label_spaces import IGNORE_INDEX, LabelSpace
from segzoo.data.sampling import derived_seed, used_batches
from segzoo.data.streams import Stream
from segzoo.distributed import mean_across_ranks
from segzoo.errors import ConfigError, NonFiniteLossError
from segzoo.methods.checkpoints import check_progress, check_weights
from segzoo.methods.length import check_length, training_steps
from segzoo.methods.scoring import ScoredImages
from segzoo.models.norms import Norm
from segzoo.models.segmenter import create_segmenter
from segzoo.models.state_dicts import load_part

OptimizerName = Literal["adamw", "adam", "sgd"]


class SegmentationMethod(ScoredImages):
    """Base of all methods. A method declares its streams and returns one loss from ``training_step``.

    Args:
        label_space: the classes (filled in from the data on the command line).
        architecture: segmentation_models_pytorch architecture: unet, fpn, deeplabv3plus, segformer, ...
        encoder: its encoder: resnet18, mobilenet_v2, mit_b2, tu-convnext_tiny, ...
        encoder_weights: pretrained encoder weights to download by name, e.g. imagenet; null for random ones.
        encoder_checkpoint: a local state dict for the encoder instead.
        initial_checkpoint: start the segmenter from that of another segzoo run, e.g. of ``source-only``.
        norm: batch (per process), sync (over all processes), frozen (fixed statistics) or group. With the last three N
            processes equal one on the whole batch.
        segmenter_options: further arguments of the architecture, e.g. {decoder_channels: [128, 64, 32, 32, 16]}.
        compile: run the segmenter's ordinary passes through torch.compile; needs a C++ compiler or Triton.
        channels_last: keep the segmenter (and generator and annotator, where there are some) in channels-last memory, which
            tensor cores prefer, and CPUs where there are few channels.
        optimizer: adamw, adam or sgd (momentum 0.9).
        lr: learning rate of the segmenter.
        head_lr_factor: times ``lr`` is the learning rate of all that follows the encoder.
        weight_decay: of the segmenter.
        decay_norms: whether it also applies to the segmenter's biases and norms (its one-dimensional parameters).
        schedule: poly (down to 0 at schedule_steps) or constant.
        schedule_steps: length of the schedule; null: the training's. Some published trainings stop before their schedule does.
        poly_power: exponent of the poly schedule.
        warmup_steps: steps over which the scheduled rate is scaled up linearly, from a millionth.
    """

    slug: ClassVar[str]
    supervision: ClassVar[Literal["none", "few"]]
    segments: ClassVar[bool] = True
    """Whether there is a segmenter to be trained, scored and used; else only what `fit` does."""
    STARTING_POINTS: ClassVar[tuple[str, ...]] = ("encoder_checkpoint", "initial_checkpoint")
    """Options that name files of weights, which a trained checkpoint makes superfluous."""

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        architecture: str = "unet",
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        encoder_checkpoint: str | None = None,
        initial_checkpoint: str | None = None,
        norm: Norm = "batch",
        segmenter_options: dict[str, Any] | None = None,
        compile: bool = False,
        channels_last: bool = False,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        head_lr_factor: float = 1.0,
        weight_decay: float = 1e-4,
        decay_norms: bool = True,
        schedule: Literal["poly", "constant"] = "poly",
        schedule_steps: int | None = None,
        poly_power: float = 0.9,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__()
        check_range("--method.warmup_steps", warmup_steps, 0)
        check_range("--method.poly_power", poly_power, 0)
        if schedule_steps is not None:
            check_range("--method.schedule_steps", schedule_steps, 1)
        self.label_space = label_space if isinstance(label_space, LabelSpace) else LabelSpace.from_dict(label_space)
        self.save_hyperparameters(ignore=["label_space"])
        # Plain types only: checkpoints are read with `weights_only`.
        self.save_hyperparameters({"label_space": self.label_space.to_dict()})
        if self.segments:
            self.segmenter = create_segmenter(
                architecture, encoder, self.num_classes, encoder_weights, encoder_checkpoint, norm, segmenter_options
            )
            if initial_checkpoint:
                load_part(self.segmenter, Path(initial_checkpoint), self.label_space.classes)
            self.arrange(self.segmenter)
            if compile:
                # Dropout as without compilation: a derivative that is taken eagerly must drop the same units.
                self.segmenter.compile(options={"fallback_random": True})
        self.optimizer_name, self.lr, self.head_lr_factor = optimizer, lr, head_lr_factor
        self.weight_decay, self.decay_norms = weight_decay, decay_norms
        self.schedule, self.schedule_steps = schedule, schedule_steps
        self.poly_power, self.warmup_steps = poly_power, warmup_steps
        self.prepare_scoring(self.num_classes)
        self.run_config: str | None = None
        self._seed = 0

    @property
    def num_classes(self) -> int:
        """Number of classes, void not counted."""
        return self.label_space.num_classes

    @property
    def streams(self) -> dict[str, Stream]:
        """What a training batch holds; the DataModule gives this and nothing more."""
        return {"source": Stream("source"), "target": Stream("target", labelled=self.supervision != "none")}

    @property
    def starts(self) -> dict[str, int]:
        """The first step of each term that begins late, by its option."""
        return {}

    def arrange(self, network: nn.Module) -> None:
        """Puts a network into the memory format that ``channels_last`` says."""
        if self.hparams.get("channels_last"):
            network.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W), RGB in [0, 1], to logits (B, C, H, W)."""
        logits: Tensor = self.segmenter(image)
        return logits

    # Training

    def setup(self, stage: str) -> None:
        """Refuses what would lose the small steps of averages and weights, cannot count pixels, or takes no such images.

        Says so where a term begins after the last step: a start that suits long runs is easily left in a short one.

        Raises:
            ConfigError: parameters in half precision; training on an Apple GPU; images of a size that the network refuses; a
                training or a schedule without length.
        """
        precision = str(self.trainer.precision)
        if precision in ("bf16-true", "16-true"):
            mixed = precision.replace("true", "mixed")
            raise ConfigError(
                f"--trainer.precision {precision} keeps the parameters in half precision, which rounds their steps away; use "
                f"{mixed}"
            )
        if stage == "fit" and self.trainer.strategy.root_device.type == "mps":
            raise ConfigError("Apple GPUs have no float64, in which pixels are counted; use --trainer.accelerator cpu")
        for option, start in self.starts.items():
            check_range(f"--method.{option}", start, 0)
        if stage == "fit":
            self._set_up_training()
        data = getattr(self.trainer, "datamodule", None)
        if self.segments and isinstance(data, DomainDataModule):
            self.segmenter.check_sizes(self._input_sizes(data, training=stage == "fit"))

    def _set_up_training(self) -> None:
        check_length(self.trainer)
        steps = training_steps(self.trainer)
        for option, start in self.starts.items():
            if steps and steps <= start:
                rank_zero_warn(f"--method.{option} {start} is not reached in {steps} steps")
        if steps is None and self.schedule == "poly" and self.schedule_steps is None:
            raise ConfigError(
                "--method.schedule poly falls to 0 at the last step and nobody knows it: give --trainer.max_steps or "
                "--method.schedule_steps, or --method.schedule constant"
            )
        data = getattr(self.trainer, "datamodule", None)
        # Other loaders than the DataModule's have no seed; what the weights were drawn from stands for it.
        self._seed = self.trainer.strategy.broadcast(torch.initial_seed()) if data is None else data.seed

    def _input_sizes(self, data: DomainDataModule, training: bool) -> dict[str, tuple[int, int]]:
        """The sizes (height, width) of all images that the segmenter will get, by the options that set them."""
        sizes = {"--data.size": data.size}
        for stream in self.streams.values() if training else ():
            if data.crop_size and not stream.whole:
                sizes["--data.crop_size"] = data.crop_size
            else:
                sizes[f"--data.{stream.domain}_size"] = data.train_sizes[stream.domain]
        return sizes

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The sum of the loss's terms, each logged as ``train/<term>``: what one process on the whole batch would log.

        Raises:
            NonFiniteLossError: a term is NaN or infinite.
        """
        means = self.check_finite(terms)
        self.log_dict({f"train/{name}": mean for name, mean in means.items()})
        self.log("train/loss", torch.stack(list(means.values())).sum(), prog_bar=True)
        return torch.stack(list(terms.values())).sum()

    def begins_step(self, batch_idx: int) -> bool:
        """Whether a batch is the first of those that one step of the optimiser accumulates."""
        return batch_idx % self.trainer.accumulate_grad_batches == 0

    def check_finite(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The means of terms over the ranks. One that is NaN or infinite on any rank stops the run.

        Raises:
            NonFiniteLossError: there is one; the last good parameters are kept.
        """
        # The mean is finite where every rank's value is: numbers of less than float64 do not overflow in it.
        means = mean_across_ranks(torch.stack([term.double() for term in terms.values()]))
        values = means.tolist()
        bad = [f"{name} = {value}" for name, value in zip(terms, values, strict=True) if not math.isfinite(value)]
        if bad:
            raise NonFiniteLossError(
                f"non-finite loss at step {self.global_step}: {', '.join(bad)}; {self._save_last_good()}; "
                f"try a smaller --method.lr, --trainer.gradient_clip_val 1 or --trainer.precision 32"
            )
        return {name: mean.to(term.dtype) for (name, term), mean in zip(terms.items(), means, strict=True)}

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Parameter groups; methods with further networks add theirs (key ``schedule``: whether it follows the schedule)."""
        parts: dict[tuple[str, float, float], list[nn.Parameter]] = {}
        for name, p in self.segmenter.parameters_of("all").items():
            behind = self.head_lr_factor != 1 and not name.startswith("network.encoder.")
            decayed = self.decay_norms or p.ndim > 1
            part = "segmenter" + " behind the encoder" * behind + ", norms" * (not decayed)
            lr = self.lr * (self.head_lr_factor if behind else 1)
            parts.setdefault((part, lr, self.weight_decay if decayed else 0.0), []).append(p)
        return [self.group(name, params, lr, decay) for (name, lr, decay), params in parts.items()]

    @staticmethod
    def group(
        name: str, params: nn.Module | list[nn.Parameter], lr: float, weight_decay: float, schedule: bool = True
    ) -> dict[str, Any]:
        """One parameter group of the optimiser.

        Raises:
            ConfigError: a negative learning rate or weight decay.
        """
        check_range(f"the learning rate of the {name}", lr, 0)
        check_range(f"the weight decay of the {name}", weight_decay, 0)
        if isinstance(params, nn.Module):
            params = [p for p in params.parameters() if p.requires_grad]
        return {"name": name, "params": params, "lr": lr, "weight_decay": weight_decay, "schedule": schedule}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser for all networks, and a schedule per step."""
        groups = self.optimizer_groups()
        optimizer: Optimizer
        if self.optimizer_name == "sgd":
            optimizer = SGD(groups, lr=self.lr, momentum=0.9)
        else:
            optimizer = {"adamw": AdamW, "adam": Adam}[self.optimizer_name](groups, lr=self.lr)
        factors = [self._factor if group["schedule"] else lambda step: 1.0 for group in groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factors), "interval": "step"}}

    def _factor(self, step: int) -> float:
        steps, warm = self.schedule_steps or training_steps(self.trainer), 1.0
        if step < self.warmup_steps:
            warm = 1 - (1 - step / self.warmup_steps) * (1 - 1e-6)
        if self.schedule == "constant" or not steps:
            return warm
        return float(warm * (1 - min(step, steps) / steps) ** self.poly_power)

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The scaler of float16, else None. Where it finds an infinite gradient it skips the whole step."""
        scaler: torch.amp.GradScaler | None = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler

    @property
    def loss_scale(self) -> float:
        """The factor that keeps float16 gradients from vanishing, else 1."""
        return float(self.scaler.get_scale()) if self.scaler else 1.0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds dropout per (seed, rank, batch), so that a resumed run continues bit for bit."""
        if self.begins_step(batch_idx):
            self.forget_logged()
        torch.manual_seed(self._step_seed(self.global_rank))

    def generator(self, *parts: int | str) -> torch.Generator:
        """A CPU generator that is a function of (seed, step, parts) alone: the same on every rank and after resuming."""
        return torch.Generator().manual_seed(self._step_seed(*parts))

    def image_generators(self, purpose: str, count: int) -> list[torch.Generator]:
        """One per image of this rank's batch, those that one process would give the images of the whole batch."""
        ranks = [i * self.trainer.world_size + self.global_rank for i in range(count)]
        return [self.generator(purpose, number) for number in ranks]

    def _step_seed(self, *parts: int | str) -> int:
        # As many batches were used before this one, by this process or by those whose checkpoint it resumes.
        return derived_seed(self._seed, *parts, used_batches(self.trainer))

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what `segzoo test` and `segzoo predict` need: method, classes, input size and the run's configuration."""
        data = getattr(self.trainer, "datamodule", None)
        checkpoint["segzoo"] = {
            "method": self.slug,
            "version": segzoo.__version__,
            "label_space": self.label_space.to_dict(),
            "size": list(data.size) if data is not None else None,
            "config": self.run_config,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses one that does not fit, is not finite or, to be continued, is not whole: see `segzoo.methods.checkpoints`."""
        path = self.trainer.ckpt_path if self._trainer else None
        name = f"the checkpoint {path}" if path else "the checkpoint"
        check_weights(self, checkpoint, name)
        if self._trainer is None:
            return
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_progress(self, checkpoint, name)
        else:  # to score them, weights are enough: what else is there need not be whole
            for part in ("loops", "callbacks"):
                checkpoint.pop(part, None)

    def _save_last_good(self) -> str:
        # The forward pass of the step that diverged has moved the batch norms' statistics: they may be spoiled already.
        callback = self.trainer.checkpoint_callback
        folder = Path(getattr(callback, "dirpath", None) or self.trainer.default_root_dir)
        path = folder / "last-good.ckpt"
        if spoiled(self.trainer) is None and save_together(self.trainer, path) is None:
            return f"the parameters before this step are in {path}"
        return last_good(folder / "last.ckpt")


def valid_pixels(label: Tensor) -> Tensor:
    """Which pixels have a label: (B, H, W) bool."""
    return label != IGNORE_INDEX


def pixel_count(mask: Tensor) -> Tensor:
    """The number of True pixels per rank, averaged over the ranks; at least 1.

    With this denominator the mean over the ranks is the mean over all pixels of the global batch.
    """
    return mean_across_ranks(mask.sum().double()).clamp_min(1.0)


def any_seed() -> int:
    """Of dropout, one for a pass and its derivative: both drop the same units."""
    return int(torch.randint(2**31, ()))
