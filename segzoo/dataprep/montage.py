"""Images of a domain with their masks over them, to be looked at: whether they fit each other, a table cannot say."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segzoo.data.domains import Pixels
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.splits import evenly
from segzoo.data.transforms import LABELS
from segzoo.dataprep.survey import SurveyedSet
from segzoo.evaluation.panels import panel_figure
from segzoo.evaluation.plots import save_figure
from segzoo.inference.pictures import blend

ROWS, LONGEST, ALPHA = 8, 640, 0.5


def write_montage(domain: str, sets: Mapping[str, SurveyedSet], space: LabelSpace, path: Path) -> Path | None:
    """Writes a picture of some images of a domain, evenly spread over its sets: image, mask over it, mask.

    Args:
        domain: ``source`` or ``target``.
        sets: those of both domains, by name.
        space: the classes, whose colours are explained below the images.
        path: of the PNG.

    Returns:
        The path; None where no image can be read.
    """
    places = [(name, i) for name, one in sets.items() if name.startswith(domain) for i in one.good]
    labelled = [(name, i) for name, i in places if sets[name].images.has_labels]
    columns: dict[str, list[npt.NDArray[np.generic]]] = {"image": []}
    if labelled:
        columns |= {"mask over it": [], "mask": []}
    shown = labelled or places
    chosen = [shown[i] for i in evenly(len(shown), ROWS)]
    for name, position in chosen:
        image = reduced(sets[name].images.image(position), labels=False)
        columns["image"].append(image)
        if labelled:
            mask = reduced(sets[name].images.label(position), labels=True)
            laid_over = blend(image, space.colorize(mask), ALPHA)
            columns["mask over it"].append(laid_over)
            columns["mask"].append(mask)
    if not chosen:
        return None
    names = [f"{name.partition('/')[2]}: {sets[name].images.names[position]}" for name, position in chosen]
    title = f"{domain}: {len(chosen)} of {len(shown)} images {'with' if labelled else 'without'} masks"
    return save_figure(panel_figure(columns, space, title, names), path)


def reduced(picture: Pixels, *, labels: bool) -> Pixels:
    """A picture (H, W, ...) whose longer side is at most `LONGEST`; the ids of labels are not averaged."""
    height, width = picture.shape[:2]
    scale = LONGEST / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=LABELS if labels else cv2.INTER_AREA), np.uint8)
