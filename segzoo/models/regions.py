"""Regions of an image, and the mean of a map over each: connected components of the label, or superpixels.

Ids are (B, H, W) int64 in [0, H * W), each image with its own. Both are found on the CPU, image by image.
"""

import importlib.util

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from segzoo.errors import ConfigError


def pool_regions(values: Tensor, regions: Tensor, valid: Tensor) -> Tensor:
    """Every pixel's value replaced by the mean over the valid pixels of its region; differentiable.

    Args:
        values: (B, H, W).
        regions: ids (B, H, W); equal ids in different images are different regions.
        valid: (B, H, W) bool.

    Returns:
        (B, H, W), constant on each region; 0 where a region has no valid pixel.
    """
    count = regions[0].numel()
    offsets = count * torch.arange(len(regions), device=regions.device)
    ids = (regions + offsets[:, None, None]).flatten()
    counted = valid.flatten().to(values.dtype)
    empty = values.new_zeros(len(regions) * count)
    # where, not a product: what lies under void may be infinite
    sums = empty.index_add(0, ids, torch.where(valid, values, 0).flatten())
    counts = empty.index_add(0, ids, counted)
    return (sums / counts.clamp_min(1))[ids].view_as(values)


def label_components(label: Tensor) -> Tensor:
    """Connected pixels of one label, diagonals included; void has components, too.

    Args:
        label: (B, H, W) int64.

    Returns:
        Ids (B, H, W).
    """
    return _stack([_components(one) for one in label.cpu().numpy()], label)


def superpixels(image: Tensor, cell: int) -> Tensor:
    """Superpixels of about ``cell`` x ``cell`` pixels (SLIC, Achanta et al., 2012) by scikit-image.

    Args:
        image: (B, 3, H, W), RGB in [0, 1].
        cell: side length in pixels.

    Returns:
        Ids (B, H, W).

    Raises:
        ConfigError: scikit-image is not installed.
    """
    require_superpixels()
    from skimage.segmentation import slic

    count = max(1, image.shape[-2] * image.shape[-1] // cell**2)
    pictures = image.detach().float().movedim(1, -1).cpu().numpy()
    return _stack([slic(one, n_segments=count, compactness=10, start_label=0) for one in pictures], image)


def require_superpixels() -> None:
    """Refuses superpixels where their library is absent.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    if importlib.util.find_spec("skimage") is None:
        raise ConfigError(
            "superpixels need scikit-image, which is not installed: pip install scikit-image, "
            "or `method.regions` smooth, cell or component"
        )


def _components(label: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    ids, found = np.zeros(label.shape, np.int64), 0
    for value in np.unique(label):
        inside = label == value
        parts, count = ndimage.label(inside, structure=np.ones((3, 3)))
        ids[inside] = parts[inside] - 1 + found
        found += count
    return ids


def _stack(ids: list[npt.NDArray[np.int64]], like: Tensor) -> Tensor:
    return torch.from_numpy(np.stack(ids).astype(np.int64)).to(like.device)
