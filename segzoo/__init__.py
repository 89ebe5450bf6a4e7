"""segzoo: learning semantic segmentation from synthetic images, the published ways side by side."""

import os

# albumentations asks the package index for a newer release at import; nothing here may need a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
