"""segzoo: semantic segmentation learned from synthetic images, with the published methods side by side.

segzoo.methods()                                    # what there is, by name
segzoo.load("last.ckpt").predict("photo.jpg")       # labels of a photograph
"""

import os
from typing import TYPE_CHECKING

from segzoo.lazy_names import lazy

# albumentations asks the package index for a newer release at import; nothing here may need a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

if TYPE_CHECKING:
    from segzoo.inference.predictor import load as load
    from segzoo.methods.registry import methods as methods
else:
    from segzoo import methods  # a package that can be called: segzoo.methods()

    __getattr__, __dir__ = lazy(__name__, lambda: {"load": "segzoo.inference.predictor"})

__version__ = "0.1.0"
__all__ = ["__version__", "load", "methods"]
