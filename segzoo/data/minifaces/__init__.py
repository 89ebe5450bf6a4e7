"""MiniFaces: procedural faces with part labels, for methods that need a generator of one category.

Every image is a function of (seed, index, size). Classes: background, skin (with ears and neck), hair, eyes, brows, nose,
mouth; no pixel is ignored.

What varies
    Pose: place, size, roll (sd 5 degrees), yaw and pitch, which move the features over the head. Person: six skin and eight
    hair colours, five haircuts, proportions of head, eyes, brows, nose and mouth, four eye colours. Expression: open or
    closed mouth, its curve, eyelids, height of the brows. Scene: a two-coloured backdrop, clothes, light from the left or
    the right, brightness and tint; a coarse texture, hair strands, sensor noise.

Class frequencies, in percent of the pixels: background 50, skin 27, hair 19, eyes 1.9, brows 0.9, nose 1.1, mouth 1.0.
"""

from segzoo.data.minifaces.drawing import draw
from segzoo.data.minifaces.sets import CLASSES, GENERATOR_VERSION, MiniFaces, MiniFacesImages, generate

__all__ = ["CLASSES", "GENERATOR_VERSION", "MiniFaces", "MiniFacesImages", "draw", "generate"]
