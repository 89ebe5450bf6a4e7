"""The camera of a MiniCity scene and the flat shapes that everything in it is made of.

World coordinates are metres: ``x`` to the right of the road's centre line, ``y`` up from the ground, ``z``
along the road.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Rgb = tuple[float, float, float]

CLASSES = ("sky", "building", "road", "pavement", "tree", "pole", "sign", "car", "pedestrian")
SKY, BUILDING, ROAD, PAVEMENT, TREE, POLE, SIGN, CAR, PEDESTRIAN = range(len(CLASSES))
IGNORE = 255
SUPERSAMPLING = 2  # scenes are drawn at twice the size: colours are averaged down, label ids are picked
NEAREST = 1.2  # metres; nothing is drawn closer to the camera


class Role(IntEnum):
    """What a part of a thing is; decides its colour and its texture."""

    SKY = 0
    CLOUD = 1
    PAVING = 2
    KERB = 3
    ASPHALT = 4
    MARKING = 5
    WALL = 6
    WINDOW = 7
    LEDGE = 8
    SHOPFRONT = 9
    CROWN = 10
    TRUNK = 11
    METAL = 12
    LAMP = 13
    PLATE = 14
    SYMBOL = 15
    BODY = 16
    GLASS = 17
    TYRE = 18
    HEADLIGHT = 19
    TAILLIGHT = 20
    SKIN = 21
    HAIR = 22
    TORSO = 23
    LEGS = 24
    BIN = 25


@dataclass(frozen=True)
class Part:
    """Polygons of one colour; ``polygons``: (count, vertices, 3) world coordinates."""

    polygons: Floats
    role: Role
    shade: float = 1.0


def part(points: npt.ArrayLike, role: Role, shade: float = 1.0) -> Part:
    """A part from world polygons (vertices, 3) or (count, vertices, 3)."""
    world = np.asarray(points, np.float32)
    return Part(world if world.ndim == 3 else world[None], role, shade)


@dataclass
class Thing:
    """An object of the scene.

    Attributes:
        cls: its true class id (255 for clutter that no class covers).
        parts: drawn in order, later ones on top.
        depth: metres; farther things are drawn first.
        x: lateral position in metres.
        label: the class id that the data set claims; flaws change it.
        material: the role whose colour and texture replace all of the thing's own, or None; flaws set it.
    """

    cls: int
    parts: list[Part]
    depth: float
    x: float = 0.0
    label: int = -1
    material: Role | None = None

    def __post_init__(self) -> None:
        if self.label < 0:
            self.label = self.cls


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a flat road that bends sideways by ``bend * z**2`` metres.

    Attributes:
        size: (height, width) of the image in pixels.
        focal, centre_x, horizon: pixels of the image (not of the supersampled canvas).
        height, offset: metres above the ground and to the right of the centre line.
        roll: radians.
    """

    size: tuple[int, int]
    focal: float
    centre_x: float
    horizon: float
    height: float
    offset: float = 0.0
    bend: float = 0.0
    roll: float = 0.0

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the supersampled canvas."""
        return self.size[0] * SUPERSAMPLING, self.size[1] * SUPERSAMPLING

    def project(self, points: npt.ArrayLike) -> Floats:
        """World points (..., 3) to canvas pixels (..., 2)."""
        world = np.asarray(points, np.float32)
        z = np.maximum(world[..., 2], NEAREST)
        u = self.centre_x + self.focal * ((world[..., 0] - self.offset) / z + self.bend * z)
        v = self.horizon + self.focal * (self.height - world[..., 1]) / z
        if self.roll:
            dx, dy = u - self.size[1] / 2, v - self.size[0] / 2
            cos, sin = np.cos(self.roll), np.sin(self.roll)
            u, v = self.size[1] / 2 + cos * dx - sin * dy, self.size[0] / 2 + sin * dx + cos * dy
        pixels = np.empty((*u.shape, 2), np.float32)
        pixels[..., 0], pixels[..., 1] = u * SUPERSAMPLING, v * SUPERSAMPLING
        return pixels

    def ground(self) -> tuple[Floats, Floats]:
        """World coordinates (x, z) of the ground at every canvas pixel; z is inf above the horizon."""
        height, width = self.canvas
        u = np.arange(width, dtype=np.float32)[None] / SUPERSAMPLING
        v = np.arange(height, dtype=np.float32)[:, None] / SUPERSAMPLING
        dx, dy = u - self.size[1] / 2, v - self.size[0] / 2
        cos, sin = float(np.cos(self.roll)), float(np.sin(self.roll))
        u, v = self.size[1] / 2 + cos * dx + sin * dy, self.size[0] / 2 - sin * dx + cos * dy
        below = v - self.horizon
        z = np.where(below > 0.25, self.focal * self.height / np.maximum(below, np.float32(0.25)), np.inf)
        reach = np.minimum(z, np.float32(1e4))
        x = ((u - self.centre_x) / self.focal - self.bend * reach) * reach + self.offset
        return x.astype(np.float32, copy=False), z.astype(np.float32, copy=False)


@dataclass
class Scene:
    """Everything that is drawn.

    Attributes:
        camera: the camera.
        backdrop: sky, ground and what lies on it, in drawing order.
        things: in any order; drawn from far to near.
        shadows: polygons on the ground (vertices, 3); they darken nothing else.
        sun: -1 or 1, the side the light comes from.
    """

    camera: Camera
    backdrop: list[Thing]
    things: list[Thing]
    shadows: list[Floats] = field(default_factory=list)
    sun: int = 1

    def __len__(self) -> int:
        return len(self.backdrop) + len(self.things)

    def in_order(self) -> list[Thing]:
        """All things, first drawn first."""
        return self.backdrop + sorted(self.things, key=lambda thing: -thing.depth)


def fill(canvas: Ints | npt.NDArray[np.uint8], polygons: Sequence[Ints], value: int) -> None:
    """Fills polygons in place; their coordinates are sixteenths of a pixel."""
    cv2.fillPoly(canvas, polygons, (float(value),), lineType=cv2.LINE_8, shift=4)


def rasterize(scene: Scene) -> tuple[Ints, npt.NDArray[np.bool_], list[tuple[int, Part]]]:
    """Draws the scene's parts in order.

    Returns:
        The canvas of part numbers (2H, 2W); where shadows fall on the ground if nothing hides it (2H, 2W);
        and, per part number, the index in ``scene.in_order()`` and the part.
    """
    parts = [(index, part) for index, thing in enumerate(scene.in_order()) for part in thing.parts]
    # One projection for all: a call per part would take longer than the drawing.
    world = [part.polygons.reshape(-1, 3) for _, part in parts] + list(scene.shadows)
    pixels = scene.camera.project(np.concatenate(world))
    points = np.minimum(np.maximum(pixels * 16, -(2**20)), 2**20).astype(np.int32)
    flat = np.split(points, np.cumsum([len(block) for block in world])[:-1])
    canvas = np.zeros(scene.camera.canvas, np.int32)
    for number, (_, part) in enumerate(parts):
        fill(canvas, list(flat[number].reshape(*part.polygons.shape[:2], 2)), number)
    shade = np.zeros(scene.camera.canvas, np.uint8)
    for block in flat[len(parts) :]:
        fill(shade, [block], 1)
    return canvas, shade > 0, parts
