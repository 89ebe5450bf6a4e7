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
    colours = [class_colour(number + 1) for number in range(len(names))]
    for shade, number in enumerate(dark[:3]):  # the colours of PASCAL VOC are multiples of 32, and these are none
        colours[number] = (NEUTRAL[0] - shade * DARKER, NEUTRAL[1] - shade * DARKER, NEUTRAL[2] - shade * DARKER)
    return tuple(colours)


def is_background(name: str) -> bool:
    """Whether a class is called so that it is what is left when all that is looked for is taken away."""
    return BACKGROUND.fullmatch(name.strip()) is not None


def class_colour(number: int) -> Colour:
    """The colour of a class in the palette of PASCAL VOC, in which 0 is black."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]
