"""MiniCity's images as the figures use them, and what trained methods say of them."""

from pathlib import Path

import numpy as np
import torch

from segzoo.data import MiniCity
from segzoo.data.minicity import MiniCityImages
from segzoo.data.streams import Batch, image_tensor
from segzoo.inference import Predictor


def images(domain: str, split: str) -> MiniCityImages:
    """The images of a split, drawn when they are asked for.

    Args:
        domain: source or target.
        split: train, val or test.
    """
    return MiniCity(domain).images(split, Path())


def batch(image: np.ndarray, label: np.ndarray | None = None) -> Batch:
    """One image as a batch.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) label ids, if there are any.
    """
    made: Batch = {"image": image_tensor(image)[None]}
    return made if label is None else made | {"label": torch.from_numpy(label.astype(np.int64))[None]}


def maps(predictor: Predictor, image: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """The maps (H, W) that a method shows of a source image, such as its weights, by their name.

    Args:
        predictor: the trained method.
        image: (H, W, 3) uint8.
        label: (H, W) label ids.
    """
    with torch.no_grad():
        shown = predictor.method.panel_maps(batch(image, label))
    return {name: np.asarray(one[0].float()) for name, one in shown.items()}
