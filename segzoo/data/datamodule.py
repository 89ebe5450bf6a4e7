"""The one DataModule: a source and a target domain, and for each method no more than it declares."""

import copy
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
from albumentations import Compose
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

from segzoo.checks import check_range
from segzoo.compat.training import shards_data
from segzoo.data.data_options import check_domains, check_options, check_stream
from segzoo.data.domain_images import DomainImages
from segzoo.data.domains import Domain, ImageSet, Split
from segzoo.data.label_check import doubts, look_at_labels
from segzoo.data.label_shares import Looked
from segzoo.data.order import training_batches
from segzoo.data.several import by_domain
from segzoo.data.shared_images import shared_images
from segzoo.data.splits import evenly
from segzoo.data.streams import Batch, EvaluationDataset, Stream, StreamDataset, collate, without_labels
from segzoo.data.transforms import CropRule, evaluation_transform, training_transform
from segzoo.data.turning import turned_images
from segzoo.data.views import SECTION, Views
from segzoo.data.workers import loader_processes, start_worker
from segzoo.errors import ConfigError, SegzooError
from segzoo.options import resolve


class DomainDataModule(DomainImages, L.LightningDataModule):
    """Feeds ``{"source": batch, "target": batch}`` (or the streams a method asks for) and evaluates on the target.

    Training loaders have no end: ``max_steps`` rules, and batch ``t`` is a function of (seed, t) alone, in whatever epoch and
    after whatever resume. The trainer counts the batches that were used, and its checkpoints keep the count. With
    ``overfit_batches`` N the first N come again and again.

    Args:
        source: Gives the synthetic images with their labels. A list gives several sources, each with a weight beside its class
            (default 1); images are drawn in proportion to the weights.
        target: Gives the real images that the network will segment; its val and test splits are used for scores.
        name: Names the pair of domains in run folders and in tables of scores.
        root: Names the folder to which the paths of both domains are relative, such as a disk with data sets.
        size: Sets the network's input as height and width in pixels. Images are resized to it, and scores are taken at their
            own size. Larger sizes show smaller objects; time and memory grow with the area.
        source_size: Sets another height and width for source images in training, before the crop; null takes size. MaxSquare
            and SePiCo resize GTA5 to 720 1280 and SYNTHIA to 760 1280.
        target_size: Sets another height and width for target images in training, before the crop; null takes size. MaxSquare
            resizes Cityscapes to 512 1024, SePiCo to 640 1280.
        batch_size: Sets the number of images of each domain per training step and process; lower it if memory runs out.
        eval_batch_size: Sets how many images, or windows of an image (on a CPU at most two), each process scores at once; it
            does not change the scores.
        target_labels: Limits the number of labelled target images that a method may use; null gives all of them. All seeds use
            the same images, and a smaller budget is a subset of a larger one.
        labelled_order: Chooses the labelled target images if their number is limited: random draws them from the whole set,
            sorted takes the first ones by name, as benchmarks with published lists do.
        crop_scale: Sets the smallest and the largest share of an image's area, both in (0, 1], for a training crop, which is
            then resized to the domain's size; 1 1 takes whole images.
        crop_size: Sets the height and width in pixels of a training crop of the resized image, instead of crop_scale; SePiCo
            takes 640 640.
        crop_max_class_share: Draws a training crop again, up to ten times, if one class fills this share of its labelled pixels
            or more; 1 accepts every crop, SePiCo uses 0.75.
        rare_class_temperature: Sets T of P(class) ~ exp((1 - frequency) / T), with which some methods draw source images by
            their rare classes: a smaller T draws the rarest classes more often; 0.01 is published. Null draws all images alike.
        rare_class_min_share: Sets the share of an image, from 0 to 1, that a class must fill for the image to be drawn for this
            class; 3000 pixels of 1280x720 are published.
        rare_class_min_crop_ratio: Sets how much of the class a crop must hold, as a multiple of rare_class_min_share of the
            image's pixels; a crop with less is drawn again, up to ten times.
        ignore_top: Leaves out the pseudo labels of this number of pixel rows at the top of target training images, where
            rectified images have artefacts; DAFormer leaves out 15 of 512.
        ignore_bottom: Leaves out the pseudo labels of this number of pixel rows at the bottom of target training images, where
            the bonnet of the car is; DAFormer leaves out 120 of 512.
        flip: Mirrors a training image with probability 1/2; switch it off if left and right matter.
        color_jitter: Sets the strength, from 0 to 1, of random changes of brightness, contrast and saturation in training; 0
            leaves colours as they are.
        blur: Sets the probability, from 0 to 1, that a training image is blurred by a Gaussian with a standard deviation of 0
            to 1 pixels; MaxSquare has 0.5.
        num_workers: Sets the number of processes that load the images of each stream; more help if loading is slower than
            training. Null takes one or two, by the number of cores. It does not change which images are drawn.
        seed: Sets the seed for the order and augmentation of images and for the random draws of the method; None takes the seed
            of ``lightning.seed_everything``, or 0 without one.
        protocol: Says how the network gets the images of a test; the command has it as a section of its own.

    Raises:
        ConfigError: an option outside its range, a crop larger than the images, two domains with different label spaces,
            or a label space of one class.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        name: str = "custom",
        root: str = ".",
        size: tuple[int, int] = (192, 256),
        source_size: tuple[int, int] | None = None,
        target_size: tuple[int, int] | None = None,
        batch_size: int = 4,
        eval_batch_size: int = 8,
        target_labels: int | None = None,
        labelled_order: Literal["random", "sorted"] = "random",
        crop_scale: tuple[float, float] = (0.5, 1.0),
        crop_size: tuple[int, int] | None = None,
        crop_max_class_share: float = 1.0,
        rare_class_temperature: float | None = 0.01,
        rare_class_min_share: float = 3000 / (1280 * 720),
        rare_class_min_crop_ratio: float = 0.5,
        ignore_top: int = 0,
        ignore_bottom: int = 0,
        flip: bool = True,
        color_jitter: float = 0.2,
        blur: float = 0.0,
        num_workers: int | None = None,
        seed: int | None = None,
        protocol: Views | dict[str, Any] | None = None,
    ) -> None:
        check_domains(source, target)
        super().__init__(source, target, Path(root), target_labels, labelled_order)
        self.name, self.size, self.batch_size, self.eval_batch_size = name, size, batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.train_sizes = {"source": source_size or size, "target": target_size or size}
        self.crop_scale, self.crop_size, self.crop_max_class_share = crop_scale, crop_size, crop_max_class_share
        self.rare_class_temperature, self.rare_class_min_share = rare_class_temperature, rare_class_min_share
        self.rare_class_min_crop_ratio = rare_class_min_crop_ratio
        self.ignore_top, self.ignore_bottom = ignore_top, ignore_bottom
        self.flip, self.color_jitter, self.blur = flip, color_jitter, blur
        self.protocol = resolve(Views, protocol, SECTION)
        check_options(self)
        self._eval_transform = evaluation_transform(size)
        self.looked: dict[str, Looked] = {}

    @property
    def seed(self) -> int:
        """The seed of the next training. It is asked for then, so that ``seed_everything`` may come after this object."""
        return int(os.environ.get("PL_GLOBAL_SEED") or 0) if self._seed is None else self._seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        if seed is not None:
            check_range("`data.seed`", seed, 0, 2**32 - 1)
        self._seed = seed

    @property
    def views(self) -> Views:
        """How the network gets the images that are scored now: within a training whole and resized, which takes the least."""
        return Views() if self.trainer is not None and self.trainer.state.fn == "fit" else self.protocol

    def check_labels(self, streams: Mapping[str, Stream], scored: Sequence[Split]) -> list[str]:
        """Looks at the labels that these streams and splits use, once; see `segzoo.data.label_check`.

        Args:
            streams: what a training uses; target labels only where one of them is labelled, and then those of the budget.
            scored: splits of the target that are scored.

        Returns:
            Warnings, a line each.

        Raises:
            DataError: labels that cannot be right.
        """
        sets: dict[str, tuple[ImageSet, Sequence[int]]] = {}
        learnt = {stream.domain for stream in streams.values() if stream.labelled}
        # What there is none of is an error of the streams.
        if "source" in learnt and (images := self.images("source", "train")).has_labels:
            sets |= {name: (part, range(len(part))) for name, part in by_domain("source/train", images)}
        if "target" in learnt and self.target_labels != 0 and (images := self.images("target", "train")).has_labels:
            sets["target/train"] = images, self._labelled_target()
        for split in scored:
            if (found := self.scored(split)) is not None:
                sets[f"target/{split}"] = found, range(len(found))
        domains = sorted({stream.domain for stream in streams.values()})
        for domain in domains:
            if f"{domain}/train" not in sets and (pictures := self.images(domain, "train")).names:
                pictures.image(0)  # without labels there is only this to look at
        new = {name: content for name, content in sets.items() if name not in self.looked}
        looked = look_at_labels(new, self.label_space)
        warnings = doubts(looked, self.label_space)
        trained = {f"{domain}/train": self.images(domain, "train").files for domain in domains}
        if (further := self.further_images() if without_labels(streams) else None) is not None:
            further.image(0)
            trained["target/unlabelled"] = further.files
        tested = {f"target/{split}": self.images("target", split).files for split in scored if f"target/{split}" in new}
        warnings += turned_images(new, as_they_should=False) + (shared_images(trained, tested) if tested else [])
        self.looked |= {one.name: one for one in looked}
        return warnings

    def setup(self, stage: str) -> None:
        """Looks at the labels, on the first process; all of them end when they cannot be right.

        Raises:
            DataError: labels that cannot be right.
            ConfigError: a Trainer of several processes that would divide the images among them a second time.
        """
        trainer, error = self.trainer, None
        if trainer and trainer.world_size > 1 and shards_data(trainer):
            raise ConfigError("the DataModule shards by itself: create the Trainer with use_distributed_sampler=False")
        if trainer is None or stage == "predict":
            return
        if trainer.is_global_zero:
            module: Any = trainer.lightning_module
            fitting = stage == "fit"
            split: Split = "test" if stage == "test" else "val"
            scored: list[Split] = [] if fitting and trainer.limit_val_batches == 0 else [split]
            try:
                scores = is_overridden("test_step", module)  # a GAN has none
                warnings = self.check_labels(module.streams if fitting else {}, scored if scores else [])
            except SegzooError as problem:
                error = problem
            else:
                for warning in warnings:
                    rank_zero_warn(warning)
        error = trainer.strategy.broadcast(error)
        if error is not None:
            raise error

    def train_dataloader(self) -> CombinedLoader:
        """One endless loader per stream of the method.

        Raises:
            ConfigError: the method needs target labels and there are none.
            DataError: files are missing or inconsistent, or the budget is larger than the set.
        """
        method = self._method()
        streams: dict[str, Stream] = method.streams
        loaders = {name: self._train_loader(name, stream) for name, stream in streams.items()}
        return CombinedLoader(loaders, mode="min_size")

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The target's val split, or nothing when there is none or it has no labels."""
        images = self.scored("val")
        if images is None and self.trainer is not None and self.trainer.state.fn == "validate":
            raise ConfigError(f"{self.lacking('val')} to score against; use `segzoo predict` for images alone")
        return [] if images is None else self._eval_loader(images, "limit_val_batches")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The target's test split."""
        images = self.scored("test")
        if images is None:
            raise ConfigError(f"{self.lacking('test')} to score against; use `segzoo predict` for images alone")
        return self._eval_loader(images, "limit_test_batches")

    def panel_batch(self, domain: str, count: int = 4) -> Batch:
        """A fixed batch to draw, evenly spread and not augmented: source training images, or target validation images.

        Without a val split, target training images, and not their labels.
        """
        split: Split = "val" if domain == "target" and self.target.has_split("val", self.root) else "train"
        images = self.images(domain, split)
        if domain == "target" and split == "train":
            images = copy.copy(images if len(images) else self.further_images() or images)
            images.has_labels = False
        dataset = EvaluationDataset(images, self._eval_transform, evenly(len(images), count))
        return collate([dataset[i] for i in range(len(dataset))])

    def _train_loader(self, name: str, stream: Stream) -> DataLoader[Batch]:
        labelled_target = stream.domain == "target" and stream.labelled
        unlabelled_target = stream.domain == "target" and not stream.labelled
        images = self._unlabelled_target() if unlabelled_target else self.images(stream.domain, "train")
        check_stream(stream, images, self.target_labels, getattr(self, stream.domain).has_split("train", self.root))
        indices = stream.select(self._labelled_target() if labelled_target else range(len(images)))
        if not indices:
            raise ConfigError(
                f"the stream '{name}' is empty: {stream.part} of the {stream.domain} images holds no image"
            )
        enough = self.rare_class_min_share * self.rare_class_min_crop_ratio
        rule = CropRule(self.crop_max_class_share, min_share=enough)
        transform = self._train_transform(stream)
        dataset = StreamDataset(images, indices, transform, self.seed, name, stream.labelled, stream.reference, rule)
        loading = self._loading(len(self._method().streams))
        return DataLoader(dataset, batch_sampler=training_batches(self, name, stream, dataset), **loading)

    def _train_transform(self, stream: Stream) -> Compose:
        crop_scale, crop_size = ((1.0, 1.0), None) if stream.whole else (self.crop_scale, self.crop_size)
        size = self.train_sizes[stream.domain]
        return training_transform(size, crop_scale, self.flip, self.color_jitter, crop_size, self.blur)

    def _eval_loader(self, images: ImageSet, limit: str) -> DataLoader[Batch]:
        trainer: Any = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        total, batches, views = len(images), getattr(trainer, limit, None), self.views
        if isinstance(batches, int) and batches and world > 1:  # those that one process would score
            total = min(total, batches * views.batch_size(self.eval_batch_size))
        indices = list(range(rank, total, world))
        padding = -(-total // world) - len(indices)  # all ranks have as many batches, and every image is counted once
        inputs = None if views.plain else partial(views.inputs, size=self.size)
        dataset = EvaluationDataset(images, self._eval_transform, indices + [0] * padding, padding, inputs)
        return DataLoader(dataset, batch_size=views.batch_size(self.eval_batch_size), **self._loading())

    def _loading(self, streams: int = 1) -> dict[str, Any]:
        trainings = self.trainer.num_devices if self.trainer else 1
        workers = loader_processes(streams, trainings) if self.num_workers is None else self.num_workers
        return {
            "num_workers": workers,
            "collate_fn": collate,
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": start_worker,
        }
