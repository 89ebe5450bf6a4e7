"""What callbacks ask of the module that is trained; `segzoo.methods.base.Method` has all of it."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch, Stream


class Shown(Protocol):
    """A module with pictures of what it learns from.

    Attributes:
        slug: its name.
        label_space: the classes, with their colours.
        streams: what a training batch holds.
        step_pictures: images (B, 3, H, W), labels and maps (B, H, W) of the last step, by title.
        step_names: the names of those images of the data that are among them, by title.
        run_config: the configuration of the run, None in a training from Python.
        learned_from: the resources that it learns from (`segzoo.methods.base.Resource`), each with the number of its images,
            or None where nobody counted.
        sources: ``images`` and ``weight`` of each of several sources, by name; {} for a single one.
    """

    slug: str
    label_space: LabelSpace
    run_config: dict[str, Any] | None

    @property
    def streams(self) -> dict[str, Stream]: ...

    @property
    def step_pictures(self) -> dict[str, Tensor]: ...

    @property
    def step_names(self) -> dict[str, Sequence[str]]: ...

    @property
    def learned_from(self) -> dict[str, int | None]: ...

    @property
    def sources(self) -> dict[str, dict[str, float]]: ...


class SharesClasses(Protocol):
    """A module that says how its pixels divide among the classes.

    Attributes:
        label_space: the classes.
        class_shares: of the last step and this rank, (C,) float by name, on the module's device: ``prior``, the labels that it
            learns from; ``pseudo labels`` and ``predictions`` on unlabelled target images. They need not sum to one: void is
            divided out. A key is absent, on all ranks, from a step that has no such shares, and zeros are none.
    """

    label_space: LabelSpace

    @property
    def class_shares(self) -> dict[str, Tensor]: ...


@runtime_checkable
class LabelsImages(Protocol):
    """A module that gives logits of images, and maps that belong beside its predictions.

    Attributes:
        segmenter: the network that does.
    """

    segmenter: nn.Module

    def panel_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Maps (B, H, W) float, label ids (B, H, W) integer or RGB images (B, 3, H, W) in [0, 1] of a batch, by title."""
