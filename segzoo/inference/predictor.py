"""A trained network that labels images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from segzoo.checks import check_range
from segzoo.data.class_maps import IDENTITY
from segzoo.data.domains import Pixels
from segzoo.data.folders import FolderImages
from segzoo.data.image_files import rgb_pixels
from segzoo.data.label_spaces import LabelSpace, load_class_map
from segzoo.data.streams import channels_first
from segzoo.data.views import SECTION, Views
from segzoo.errors import ConfigError, DataError
from segzoo.evaluation.strips import logit_strips
from segzoo.evaluation.windows import FEW
from segzoo.inference.checkpoints import Size, load_checkpoint, trained_on
from segzoo.inference.logits import (
    evaluating,
    network_input,
    out_of_memory,
    refuse_unusable,
)
from segzoo.inference.maps import Maps, maps_of_logits, maps_of_strips
from segzoo.inference.photographs import apart_from_masks, find_images
from segzoo.inference.prediction import Prediction
from segzoo.methods.joint import source_norms
from segzoo.methods.segmentation import SegmentationMethod
from segzoo.options import resolve

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    from segzoo.inference.export import Exported

    OneImage = npt.NDArray[Any] | Image.Image | Path | str


def load(
    path: Path | str,
    *,
    device: str = "auto",
    size: Size | None = None,
    image_bits: int | None = None,
    protocol: Views | Mapping[str, Any] | None = None,
) -> "Predictor":
    """The network of a checkpoint, ready to label images; it labels them as ``segzoo predict`` does.

        found = segzoo.load("runs/joint/minicity/default-s0").predict("photo.jpg")
        found.labels, found.confidence      # (H, W) class ids and probabilities, at the photograph's size
        found.overlay().save("seen.jpg")

    Args:
        path: checkpoint of ``segzoo fit`` or of a `lightning.Trainer` with a method of segzoo, or the folder of such a run.
        device: ``auto`` (the first of cuda, mps and cpu that is there), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        size: (height, width) of the network's input; None: as in training.
        image_bits: bits that image files of 16 bits per channel use, e.g. 12; None: as the target's in training, else 16.
        protocol: how the network gets an image, e.g. ``{"input": "native", "window": (512, 512)}`` for large photographs; None:
            as the test of the training.

    Raises:
        CheckpointError: the file cannot be read, is damaged, does not fit the method, or holds numbers that are not finite.
        ConfigError: an absent device, a size that the network refuses, or a method that labels no images.
    """
    method, trained_size = load_checkpoint(path, device)
    if not isinstance(method, SegmentationMethod):
        raise ConfigError(f"{path} is of the method '{method.slug}', which labels no images")
    predictor = Predictor(method, size or trained_size, image_bits=image_bits, protocol=protocol)
    if size is not None and predictor.views.input == "native":
        raise ConfigError("`size` has no effect where `protocol.input` is native; leave one of them out")
    return predictor


class Predictor:
    """Labels images with a method, be it loaded (`load`) or just trained.

    Args:
        method: what labels; it stays in the mode and on the device that it is in.
        size: (height, width) of the network's input; None: the images' own.
        image_bits: bits that image files of 16 bits per channel use; None: as the target's in training, else 16.
        protocol: how the network gets an image; None: as the test of the training.

    Attributes:
        views: the protocol.
        windows_at_once: how many windows of an image the network gets in a batch.

    Raises:
        ConfigError: a size that the network refuses.
    """

    def __init__(
        self,
        method: SegmentationMethod,
        size: Size | None = None,
        *,
        image_bits: int | None = None,
        protocol: Views | Mapping[str, Any] | None = None,
    ) -> None:
        if size is not None:
            for side in size:
                check_range("size (height, width)", side, 1)
        if image_bits is not None:
            check_range("image_bits", image_bits, 8, 16)
        self.method, self.size = method, None if size is None else (int(size[0]), int(size[1]))
        trained = (method.run_config or {}).get(SECTION)
        self.views = resolve(Views, trained if protocol is None else protocol, SECTION)
        self.windows_at_once = FEW
        self.check_size()
        target = trained_on(method)  # what the images are read like
        self.image_bits: int | None = image_bits or target.get("image_bits")
        self.upright = target.get("upright") is not False

    @property
    def label_space(self) -> LabelSpace:
        """The classes and their colours."""
        return self.method.label_space

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by their ids."""
        return self.label_space.classes

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.method.device

    def __repr__(self) -> str:
        native = self.size is None or self.views.input == "native"
        size = "each image's own size" if native else "{1}x{0} (WxH)".format(*(self.size or ()))
        if self.views.window is not None:
            size += " in windows of {1}x{0}".format(*self.views.window)
        return f"Predictor({self.method.slug}, {len(self.classes)} classes, input {size}, on {self.device})"

    def check_size(self) -> None:
        """Refuses inputs of a size that the network does not take.

        Raises:
            ConfigError: such a size.
        """
        sizes = {} if self.size is None else self.views.network_sizes(self.size)
        self.method.segmenter.check_sizes({"size" if name == "`data.size`" else name: s for name, s in sizes.items()})

    @overload
    def predict(self, image: "OneImage") -> Prediction: ...
    @overload
    def predict(self, image: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...

    def predict(self, image: "OneImage | list[Any] | tuple[Any, ...]") -> Prediction | list[Prediction]:
        """Labels an image, or a list of images.

        Args:
            image: path of an image file; PIL image; (H, W, 3) RGB array of uint8, or of floats from 0 to 1. Files and PIL
                images are turned upright as their EXIF orientation says, unless the training's target had ``upright: false``.

        Returns:
            What the network says of it, at its own size; of a list a list.

        Raises:
            DataError: the image cannot be read, or is no such array.
            NonFinitePredictionError: the network computes numbers that are not finite.
            ConfigError: out of memory.
        """
        if isinstance(image, list | tuple):
            return [self.predict(one) for one in image]
        pixels, name = self._read(image)
        return self._predict({name: pixels})[0]

    def predict_folder(self, folder: Path | str, batch_size: int = 8) -> Iterator[Prediction]:
        """Labels the images of a folder and of its sub-folders, one after the other.

        Args:
            folder: where they are. Hidden files, what is no image, and folders of masks beside folders of images are left out.
            batch_size: images per step.

        Yields:
            What the network says of each; ``name`` is its path below the folder, without the ending.

        Raises:
            DataError: there are no images, two have one name, or one cannot be read.
            NonFinitePredictionError: the network computes numbers that are not finite.
            ConfigError: out of memory.
        """
        check_range("batch_size", batch_size, 1)
        folder = Path(folder)
        images = self.files(folder, apart_from_masks(find_images(folder)[0])[0])
        step = self.batch_size(batch_size)
        for first in range(0, len(images), step):
            numbers = range(first, min(first + step, len(images)))
            yield from self._predict({images.names[i]: images.image(i) for i in numbers})

    def export(self, path: Path | str, size: Size | None = None) -> "Exported":
        """Writes the network to a file that runs without segzoo, ONNX or .pt2; see `segzoo.inference.export.export`.

        Args:
            path: the file, which ends in .onnx or .pt2.
            size: (height, width) of its images; None: that of the windows where there are some, else the network's input.

        Raises:
            ConfigError: there is no size, or see there.
        """
        from segzoo.inference.export import export

        size = size or self.views.window or self.size
        if size is None:
            raise ConfigError("the training had no input size that the file could take over: give one, `size`")
        return export(self.method, (size[0], size[1]), path)

    def batch_size(self, images: int) -> int:
        """How many images are labelled at once where so many are wanted: those without a common input come one by one."""
        return self.views.batch_size(images) if self.size else 1

    def files(self, folder: Path, files: dict[str, Path]) -> FolderImages:
        """Image files by name, read as those of the training's target were."""
        class_map = load_class_map(self.label_space, IDENTITY)
        return FolderImages(folder, None, class_map, upright=self.upright, files=files, image_bits=self.image_bits)

    def logits(self, images: Sequence[Pixels], *, source: bool = False) -> Tensor:
        """The logits (B, C, h, w) of images (H, W, 3) uint8, which have one size if the network's input has none.

        Args:
            images: of the target, unless said otherwise.
            source: they are the source's. Where the network's running statistics are not, its norms use those of the batch.
        """
        by_batch = source and self.method.resources != ("source",)
        with evaluating(self.method), source_norms(self.method.segmenter) if by_batch else nullcontext():
            logits: Tensor = self.method(network_input(images, self.size).to(self.device))
        return logits

    def maps(
        self,
        image: Pixels,
        logits: Tensor | None = None,
        *,
        name: str = "the image",
        confidence: bool = True,
        probabilities: bool = False,
    ) -> Maps:
        """What the network says of the pixels of an image.

        Args:
            image: (H, W, 3) uint8 RGB.
            logits: those (C, h, w) of `logits`, which are the protocol's where ``views.plain``; None: they are computed.
            name: of the image, for the error.
            confidence: whether the confidence is asked for.
            probabilities: whether the probabilities of all classes are.

        Raises:
            NonFinitePredictionError: the network computes numbers that are not finite.
        """
        size = image.shape[0], image.shape[1]
        if logits is not None:
            refuse_unusable(logits[None], [name])
            return maps_of_logits(logits, size, confidence, probabilities)
        with evaluating(self.method):
            inputs = [channels_first(one).to(self.device) for one in self.views.inputs(image, self.size)]
            strips = logit_strips(self.method, inputs, self.views, size, self.windows_at_once)
            return maps_of_strips(strips, size, name, confidence, probabilities)

    def _predict(self, images: dict[str, Pixels]) -> list[Prediction]:
        try:
            logits = self.logits(list(images.values())) if self.views.plain else [None] * len(images)
            found = []
            for (name, image), one in zip(images.items(), logits, strict=True):
                maps = self.maps(image, one, name=name or "the image")
                assert maps.confidence is not None  # it was asked for
                found.append(Prediction(maps.labels, maps.confidence, image, self.label_space, name))
            return found
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise ConfigError(
                f"out of memory for {len(images)} images at once; give the network a smaller `size`, predict fewer at once, or "
                "divide them by `protocol.window`"
            ) from error

    def _read(self, image: "OneImage") -> tuple[Pixels, str]:
        from PIL import Image

        if isinstance(image, Path | str):
            path = Path(image)
            if path.is_dir():
                raise DataError(f"{path} is a folder; expected an image (predict_folder labels all of a folder)")
            files, _ = find_images(path)
            return self.files(path.parent, files).image(0), path.stem
        if isinstance(image, Image.Image):
            return rgb_pixels(image, self.upright), ""
        return _array_pixels(image), ""


def _array_pixels(image: Any) -> Pixels:
    """An array (H, W, 3) of uint8, or of floats from 0 to 1, as uint8.

    Raises:
        DataError: it is another one.
    """
    expected = "expected an (H, W, 3) array of RGB values, uint8 or floats from 0 to 1, a PIL image or a path"
    if not isinstance(image, np.ndarray):
        raise DataError(f"found a {type(image).__name__}; {expected}")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(f"found an array of shape {image.shape}; {expected}")
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if not np.issubdtype(image.dtype, np.floating):
        raise DataError(f"found an array of {image.dtype}; {expected}")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise DataError(f"found floats from {low:g} to {high:g}; {expected}")
    return np.round(255 * image).astype(np.uint8)
