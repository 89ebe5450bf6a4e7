"""DAFormer's feature distance: an encoder that stays near the one it started from (Hoyer et al., CVPR 2022)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segzoo.adaptation.teacher import EmaTeacher
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.errors import ConfigError
from segzoo.models.segmenter import Segmenter
from segzoo.suggest import did_you_mean


class FeatureDistance(nn.Module):
    """A frozen copy of a segmenter, and the distance of its last encoder map from that of the segmenter in training.

    Args:
        segmenter: as it is now.
        classes: names of all classes, in order.
        chosen: those at whose pixels the distance counts; None: all.

    Raises:
        ConfigError: a chosen class that does not exist.
    """

    def __init__(self, segmenter: Segmenter, classes: Sequence[str], chosen: Sequence[str] | None) -> None:
        super().__init__()
        self.first = EmaTeacher(segmenter, buffers=True)  # never updated: a frozen copy in evaluation mode
        self.chosen: Tensor
        self.register_buffer("chosen", class_mask("`method.feature_classes`", classes, chosen), persistent=False)

    def forward(self, image: Tensor, features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and where they count.

        Args:
            image: (B, 3, H, W) in [0, 1].
            features: the segmenter's last map of it, (B, A, h, w).
            cells: the classes of the map's cells, (B, h, w); 255 where there is none.

        Returns:
            Euclidean distances (B, h, w), and the cells of chosen classes, (B, h, w) bool.
        """
        with torch.no_grad():
            first = self.first.network.features(image)[-1]
        counted = (cells != IGNORE_INDEX) & self.chosen[cells.clamp_max(len(self.chosen) - 1)]
        # The square root has no derivative at zero, which is where training starts.
        return ((features - first).square().sum(dim=1) + 1e-12).sqrt(), counted


def class_mask(option: str, classes: Sequence[str], chosen: Sequence[str] | None) -> Tensor:
    """Which of the C classes are chosen, (C,) bool; None: all.

    Raises:
        ConfigError: a chosen class that does not exist; the message names the option.
    """
    for name in chosen or []:
        if name not in classes:
            raise ConfigError(f"{option}: there is no class '{name}'{did_you_mean(name, classes)}")
    return torch.tensor([chosen is None or name in chosen for name in classes])
