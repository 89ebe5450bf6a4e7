"""The canvas that both looks share, and the source's: vivid flat colours, crisp patterns, hard shadows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from segzoo.data.minicity.flaws import grow
from segzoo.data.minicity.geometry import (
    SUPERSAMPLING,
    Floats,
    Rgb,
    Role,
    Scene,
    rasterize,
)
from segzoo.data.minicity.objects import Rng

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

GROUND = (Role.PAVING, Role.KERB, Role.ASPHALT, Role.MARKING)
TILE = 512


@dataclass(frozen=True)
class Canvas:
    """A rasterised scene at twice the image's size: one value per pixel.

    Attributes:
        colour: (2H, 2W, 3) float32 in 0..255, before textures and light.
        role: (2H, 2W) uint8, the part's role, or the foreign one of a flawed thing.
        depth: (2H, 2W) float32 metres.
        ground_x, ground_z: world coordinates of the ground behind every pixel.
        shadow: (2H, 2W) bool, ground in shadow.
    """

    colour: Floats
    role: npt.NDArray[np.uint8]
    depth: Floats
    ground_x: Floats
    ground_z: Floats
    shadow: Mask


def compose(scene: Scene, colour_table: Floats, halo: int = 0) -> tuple[Canvas, Image, Mask]:
    """Rasterises a scene.

    Args:
        scene: what to draw.
        colour_table: (things, roles, 3) colours of ``scene.in_order()`` in 0..255.
        halo: width in pixels by which the labels of trees and poles spill over.

    Returns:
        The canvas, the claimed label ids (H, W) uint8, and the wrong pixels (H, W) bool: another label than
        the true one, or any part of the pixel drawn in a foreign material.
    """
    ids, shaded, parts = rasterize(scene)
    things = scene.in_order()
    owner = np.array([index for index, _ in parts])
    material = np.array([-1 if thing.material is None else thing.material for thing in things])[owner]
    roles = np.where(material >= 0, material, [part.role for _, part in parts]).astype(np.uint8)
    tints = colour_table[owner, roles] * np.array([part.shade for _, part in parts], np.float32)[:, None]
    claimed = np.array([thing.label for thing in things], np.uint8)[owner]
    true = np.array([thing.cls for thing in things], np.uint8)[owner]
    foreign = material >= 0
    pick = ids[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]
    labels, truth = claimed[pick], true[pick]
    if halo:
        labels = grow(labels, truth, halo)
    wrong = labels != truth
    if foreign.any():
        swapped = foreign[ids].reshape(pick.shape[0], SUPERSAMPLING, pick.shape[1], SUPERSAMPLING)
        wrong |= swapped.any((1, 3))
    ground_x, ground_z = scene.camera.ground()
    on_ground = np.isin(np.array([part.role for _, part in parts]), GROUND)[ids]
    depth = np.array([thing.depth for thing in things], np.float32)[owner][ids]
    canvas = Canvas(
        np.take(tints, ids, axis=0),
        np.take(roles, ids),
        np.where(on_ground, ground_z, depth),
        ground_x,
        ground_z,
        shaded & on_ground,
    )
    return canvas, labels, wrong


@lru_cache(maxsize=16)
def noise_tile(scale: float, key: int) -> Floats:
    """A periodic (512, 512) tile of band-limited noise with mean 0 and deviation 1; ``scale`` in pixels."""
    white = np.random.default_rng([key, 77]).standard_normal((TILE, TILE)).astype(np.float32)
    pad = int(4 * scale) + 1
    wide = cv2.GaussianBlur(np.pad(white, pad, mode="wrap"), (0, 0), scale)[pad:-pad, pad:-pad]
    result: Floats = ((wide - wide.mean()) / wide.std()).astype(np.float32)
    result.setflags(write=False)
    return result


def crop(tile: Floats, shape: tuple[int, int], rng: Rng) -> Floats:
    """A random window of a periodic tile."""
    y, x = (int(v) for v in rng.integers(0, TILE, 2))
    rows, columns = (np.arange(shape[0]) + y) % TILE, (np.arange(shape[1]) + x) % TILE
    return tile[rows[:, None], columns[None, :]]


def shrink(colour: Floats) -> Floats:
    """Averages the supersampled canvas down to the image's size."""
    height, width = colour.shape[0] // SUPERSAMPLING, colour.shape[1] // SUPERSAMPLING
    small = cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def joints(canvas: Canvas, pitch: float, width: float, reach: float) -> Mask:
    """Lines between paving slabs of ``pitch`` metres, up to ``reach`` metres away."""
    where = canvas.role == Role.PAVING
    x, z = canvas.ground_x[where], canvas.ground_z[where]
    z = np.minimum(z, reach)
    lines = np.zeros(where.shape, np.bool_)
    lines[where] = (z < reach) & (((x % pitch) < width) | ((z % pitch) < width * 1.5))
    return lines


@dataclass(frozen=True)
class Choice:
    """A colour drawn per thing: one of the options, moved by normal draws in 0..255.

    Attributes:
        options: the colours to choose from.
        spread: standard deviation of the brightness; that of each channel on its own is 0.3 of it.
    """

    options: Sequence[Rgb]
    spread: float = 0.0


Palette = Mapping[Role, Choice]


def colours(palette: Palette, count: int, rng: Rng) -> Floats:
    """Draws the colours (count, roles, 3) of ``count`` things: every role of each, as flaws swap roles."""
    table = np.zeros((count, len(Role), 3), np.float32)
    for role in Role:
        choice = palette[role]
        picked = np.array(choice.options, np.float32)[rng.integers(0, len(choice.options), count)]
        moves = rng.standard_normal((count, 4), np.float32)
        table[:, role] = picked + choice.spread * (moves[:, :1] + 0.3 * moves[:, 1:])
    return np.clip(table, 4, 252)


WHITE = Choice([(250, 250, 250)])
SOURCE: Palette = {
    Role.SKY: Choice([(112, 178, 244), (156, 202, 244), (204, 218, 232)], 6),
    Role.CLOUD: WHITE,
    Role.PAVING: Choice([(206, 190, 172)], 8),
    Role.KERB: Choice([(236, 230, 220)]),
    Role.ASPHALT: Choice([(84, 88, 104), (100, 100, 106)], 8),
    Role.MARKING: WHITE,
    Role.WALL: Choice(
        [(226, 178, 120), (204, 104, 80), (238, 214, 150), (190, 132, 160), (232, 150, 96), (168, 164, 160)],
        12,
    ),
    Role.WINDOW: Choice([(70, 110, 150)]),
    Role.LEDGE: Choice([(216, 200, 172)]),
    Role.SHOPFRONT: Choice([(60, 90, 120)], 10),
    Role.CROWN: Choice([(52, 160, 60), (44, 112, 48), (112, 144, 50), (72, 104, 44)], 12),
    Role.TRUNK: Choice([(122, 78, 44)]),
    Role.METAL: Choice([(52, 56, 62), (76, 80, 86)], 5),
    Role.LAMP: Choice([(250, 244, 200)]),
    Role.PLATE: Choice([(226, 20, 30), (20, 70, 220), (250, 210, 0)], 4),
    Role.SYMBOL: WHITE,
    Role.BODY: Choice([(216, 32, 40), (32, 76, 212), (248, 200, 32), (20, 160, 180), (244, 244, 244), (40, 42, 48)], 6),
    Role.GLASS: Choice([(40, 56, 72)]),
    Role.TYRE: Choice([(22, 22, 24)]),
    Role.HEADLIGHT: Choice([(255, 250, 220)]),
    Role.TAILLIGHT: Choice([(230, 20, 24)]),
    Role.SKIN: Choice([(236, 188, 152), (150, 100, 70)], 5),
    Role.HAIR: Choice([(60, 40, 24), (24, 20, 18)], 4),
    Role.TORSO: Choice([(240, 60, 120), (250, 140, 20), (120, 50, 190), (30, 170, 240), (240, 240, 60)], 6),
    Role.LEGS: Choice([(40, 50, 110), (50, 44, 40)], 5),
    Role.BIN: Choice([(70, 110, 90)]),
}


def paint_source(canvas: Canvas, rng: Rng) -> Image:
    """The rendered look; (H, W, 3) uint8."""
    colour = canvas.colour
    foliage = crop(noise_tile(2.2, 1), canvas.role.shape, rng)
    speckle = crop(noise_tile(0.7, 2), canvas.role.shape, rng)
    factor = np.ones(canvas.role.shape, np.float32)
    leaves = canvas.role == Role.CROWN
    factor[leaves] = np.where(foliage > 0.5, 1.22, np.where(foliage < -0.5, 0.74, 1.0))[leaves]
    grains = (canvas.role == Role.ASPHALT) & (speckle > 1.6)
    factor[grains] = 1.18
    factor[joints(canvas, 1.1, 0.07, 16.0)] = 0.8
    factor[canvas.shadow] *= 0.58
    height = canvas.role.shape[0]
    rows = np.linspace(0.86, 1.22, height, dtype=np.float32)[:, None]
    factor = np.where(canvas.role == Role.SKY, rows, factor)
    image = shrink(colour * factor[..., None])
    saturation, brightness = (float(v) for v in rng.uniform((0.5, 0.7), (1.0, 1.05)))  # of the frame: the weather
    grey = image.mean(-1, keepdims=True)
    image = (grey + (image - grey) * saturation) * brightness
    result: Image = np.clip(image, 0, 255).round().astype(np.uint8)
    return result
