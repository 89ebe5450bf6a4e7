"""Colours of classes that nobody gave any: what is not looked for is dark, all others are bright."""

import re
from collections.abc import Sequence

Colour = tuple[int, int, int]
BACKGROUND = re.compile(
    r"(?:the )?(?:back[ _-]?ground|bg|void|unlabell?ed|unknown|none|nothing|others?|rest|hintergrund|fond|fondo|sfondo)",
    re.IGNORECASE,
)
NEUTRAL: Colour = (90, 90, 110)
DARKER = 24
OF_TWO: Colour = (230, 159, 0)
# fmt: off
DISTINCT: tuple[Colour, ...] = (
    (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 0, 180), (255, 210, 0), (0, 150, 75), (0, 120, 255), (135, 75, 0),
    (255, 135, 150), (0, 255, 240), (45, 195, 255), (105, 0, 135), (195, 255, 120), (240, 165, 255), (225, 0, 255),
    (225, 195, 120), (255, 135, 0), (135, 0, 75), (255, 0, 90), (0, 255, 150),
)
# fmt: on
"""Each the one of a grid in steps of 15, of bright or saturated colours, that is farthest in CIELAB from those before it, and
from black, white and `NEUTRAL`; no two of all these are closer than 39."""


def class_colours(names: Sequence[str], background: int | None = None) -> tuple[Colour, ...]:
    """A colour for every class, no two alike and none black, which means ignored in pictures.

    Args:
        names: of the classes; the ones that mean the background are dark.
        background: the position of the class that is dark where no name says so; None: the first of two classes, and none of
            more.
    """
    dark = [number for number, name in enumerate(names) if is_background(name)]
    if not dark and (background is not None or len(names) == 2):
        dark = [background or 0]
    if len(names) == 2 and len(dark) == 1:
        return (NEUTRAL, OF_TWO) if dark == [0] else (OF_TWO, NEUTRAL)
    colours = [class_colour(number) for number in range(len(names))]
    for shade, number in enumerate(dark[:3]):  # none of these is a colour of `class_colour`
        colours[number] = (NEUTRAL[0] - shade * DARKER, NEUTRAL[1] - shade * DARKER, NEUTRAL[2] - shade * DARKER)
    return tuple(colours)


def is_background(name: str) -> bool:
    """Whether a class is called so that it is what is left when all that is looked for is taken away."""
    return BACKGROUND.fullmatch(name.strip()) is not None


def class_colour(number: int) -> Colour:
    """One of `DISTINCT`, and after these one of the palette of PASCAL VOC: multiples of 32, which those are not."""
    if number < len(DISTINCT):
        return DISTINCT[number]
    number += 1  # as 0 is black there
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]
