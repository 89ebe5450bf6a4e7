"""The methods, one file each. ``segzoo.methods()`` says which there are; ``from segzoo.methods import SePiCo`` gives a class.

Neither the package nor its call imports torch; taking a class does.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from segzoo.lazy_names import lazy

if TYPE_CHECKING:  # what `__getattr__` finds in the registry, for editors and type checkers
    from segzoo.methods.base import Method as Method
    from segzoo.methods.gan import GAN as GAN
    from segzoo.methods.gradient_annotator import GradientAnnotator as GradientAnnotator
    from segzoo.methods.joint import JointTraining as JointTraining
    from segzoo.methods.loss import Loss as Loss
    from segzoo.methods.maxsquare import MaxSquare as MaxSquare
    from segzoo.methods.maxsquare import MinEnt as MinEnt
    from segzoo.methods.metapix import MetaPix as MetaPix
    from segzoo.methods.optimizer import Optimizer as Optimizer
    from segzoo.methods.region_selection import RegionSelection as RegionSelection
    from segzoo.methods.registry import MethodInfo as MethodInfo
    from segzoo.methods.reweight import Reweight as Reweight
    from segzoo.methods.segmentation import SegmentationMethod as SegmentationMethod
    from segzoo.methods.self_training import SelfTraining as SelfTraining
    from segzoo.methods.semi_supervised import SemiSupervised as SemiSupervised
    from segzoo.methods.sepico import SePiCo as SePiCo
    from segzoo.methods.single_domain import SourceOnly as SourceOnly
    from segzoo.methods.single_domain import TargetOnly as TargetOnly
    from segzoo.methods.speed import Speed as Speed
    from segzoo.methods.ssda import SSDA as SSDA
    from segzoo.models.network import Network as Network

SHARED = {
    "Loss": "segzoo.methods.loss",
    "Method": "segzoo.methods.base",
    "MethodInfo": "segzoo.methods.registry",
    "Network": "segzoo.models.network",
    "Optimizer": "segzoo.methods.optimizer",
    "SegmentationMethod": "segzoo.methods.segmentation",
    "Speed": "segzoo.methods.speed",
}
"""What is here beside the methods."""


def _modules() -> dict[str, str]:
    from segzoo.methods.registry import packaged_classes

    return SHARED | {name: module for module, name in packaged_classes()}


__getattr__, __dir__ = lazy(__name__, _modules)


class _Methods(ModuleType):
    """This package, which answers a call. Python looks for ``__call__`` in the type of a module, so it needs one of its own."""

    def __call__(self) -> "dict[str, MethodInfo]":
        """All methods by name; see `segzoo.methods.registry.methods`."""
        from segzoo.methods.registry import methods

        return methods()


sys.modules[__name__].__class__ = _Methods
