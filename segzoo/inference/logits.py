"""From the pixels of images to logits, and from logits to the label and the confidence of every pixel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segzoo.data.domains import Pixels
from segzoo.data.streams import image_tensor
from segzoo.data.transforms import evaluation_transform
from segzoo.errors import NonFinitePredictionError
from segzoo.evaluation.confusion import resize_logits

AT_ONCE = 2**27
"""Logits (of all classes and pixels of an image) that are made at once."""

Confidence = npt.NDArray[np.float32]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradients; afterwards every part is in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for part in training:
            part.training = True


def network_input(images: Sequence[Pixels], size: tuple[int, int] | None) -> Tensor:
    """Images (H, W, 3) uint8 as one batch (B, 3, h, w) in [0, 1].

    Args:
        images: of any sizes; of one where ``size`` is None.
        size: (height, width) that they are resized to; None: they stay as they are.
    """
    resize = evaluation_transform(size) if size else None
    return torch.stack([image_tensor(resize(image=image)["image"] if resize else image) for image in images])


def label_pixels(logits: Tensor, size: tuple[int, int]) -> Pixels:
    """The class ids (H, W) uint8 of the logits (C, h, w) of an image, at its own size."""
    return _winners(logits, size)[1].byte().cpu().numpy()


def label_pixels_surely(logits: Tensor, size: tuple[int, int]) -> tuple[Pixels, Confidence]:
    """The class ids (H, W) of `label_pixels`, and the probability (H, W) of each that the softmax gives."""
    best, labels = _winners(logits, size)
    total = _log_sum(logits, size)
    return labels.byte().cpu().numpy(), (best - total).exp().clamp_max(1).cpu().numpy()


def class_probabilities(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """The probabilities (H, W) of one class after the other that the softmax gives, at an image's own size."""
    total = _log_sum(logits, size)
    for one in _classes(logits, size):
        yield (one - total).exp()


def _log_sum(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The logarithm (H, W) of the softmax's denominator at an image's own size."""
    total: Tensor | None = None
    for one in _classes(logits, size):
        total = one if total is None else torch.logaddexp(total, one)
    assert total is not None  # there is a class
    return total


def _winners(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The largest logit (H, W) at an image's own size, and its class; those of a large image one class after the other."""
    if logits.shape[0] * size[0] * size[1] <= AT_ONCE:
        # On a CPU four times as fast as argmax over channels; of equal logits both take the first.
        values, indices = resize_logits(logits[None], size)[0].max(0)
        return values, indices
    best: Tensor | None = None
    for number, one in enumerate(_classes(logits, size)):
        if best is None:
            best, labels = one, torch.zeros(size, dtype=torch.uint8, device=one.device)
            continue
        labels[one > best] = number
        best = one.maximum(best)
    assert best is not None  # there is a class
    return best, labels


def _classes(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """The logits (H, W) of each class at an image's own size."""
    for number in range(len(logits)):
        yield resize_logits(logits[None, number : number + 1], size)[0, 0]


def refuse_unusable(values: Tensor, names: Sequence[str]) -> None:
    """Refuses logits or probabilities (B, C, h, w) that are not finite: they would be class 0 everywhere.

    Raises:
        NonFinitePredictionError: there are such; the message names the first image.
    """
    for name, finite in zip(names, torch.isfinite(values).flatten(1).all(dim=1).tolist(), strict=True):
        if not finite:
            raise NonFinitePredictionError(
                f"the prediction of '{name}' is not finite, so that no class is the likeliest: the weights are finite but too "
                "large to compute with; use an earlier checkpoint"
            )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: that of the device, or of the machine."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "MemoryError"}) or "can't allocate memory" in str(error)
