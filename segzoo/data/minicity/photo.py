"""The target's look: dull overlapping colours, textures, light, haze, blur, noise and JPEG, as in a photo."""

import cv2
import numpy as np

from segzoo.data.minicity.geometry import Floats, Rgb, Role
from segzoo.data.minicity.objects import Rng
from segzoo.data.minicity.render import (
    TILE,
    Canvas,
    Choice,
    Image,
    Mask,
    Palette,
    crop,
    joints,
    noise_tile,
    shrink,
)

CLOTHES: list[Rgb] = [
    (44, 46, 60),
    (176, 56, 50),
    (200, 150, 60),
    (206, 200, 192),
    (52, 96, 160),
    (120, 70, 110),
]
STONES: list[Rgb] = [
    (128, 120, 112),
    (158, 150, 138),
    (120, 92, 80),
    (96, 98, 102),
    (176, 168, 152),
    (142, 116, 96),
]
TARGET: Palette = {
    Role.WALL: Choice(STONES, 14),
    Role.WINDOW: Choice([(46, 52, 58), (70, 78, 86), (130, 140, 148)], 10),
    Role.LEDGE: Choice(STONES, 14),
    Role.SHOPFRONT: Choice([(40, 42, 50), (92, 84, 76), (60, 72, 98), (120, 60, 58)], 16),
    Role.CROWN: Choice([(60, 86, 42), (80, 98, 52), (50, 68, 40), (112, 106, 58)], 9),
    Role.TRUNK: Choice([(82, 70, 58)], 10),
    Role.METAL: Choice([(48, 52, 54), (66, 70, 70)], 7),
    Role.LAMP: Choice([(190, 190, 184)], 14),
    Role.PLATE: Choice([(190, 36, 36), (36, 72, 164), (222, 178, 48)], 10),
    Role.SYMBOL: Choice([(206, 204, 198)], 12),
    Role.BODY: Choice(
        [(36, 38, 42), (150, 154, 158), (206, 206, 204), (96, 30, 32), (40, 52, 84), (104, 108, 104)], 12
    ),
    Role.GLASS: Choice([(44, 50, 56), (72, 80, 86)], 8),
    Role.TYRE: Choice([(32, 32, 33)], 3),
    Role.HEADLIGHT: Choice([(214, 206, 190)], 12),
    Role.TAILLIGHT: Choice([(150, 40, 36)], 12),
    Role.SKIN: Choice([(186, 146, 122), (118, 86, 66)], 12),
    Role.HAIR: Choice([(52, 42, 34), (36, 32, 30)], 8),
    Role.TORSO: Choice(CLOTHES, 12),
    Role.LEGS: Choice([(46, 54, 84), (46, 44, 44)], 8),
    Role.BIN: Choice([(60, 72, 98), (70, 80, 62)], 10),
}

# Relative strength of the fine (1.2 px) and the coarse (7 px) texture of each role; 0.04 and 0.03 elsewhere.
FINE = {
    Role.SKY: 0.0,
    Role.CROWN: 0.24,
    Role.ASPHALT: 0.06,
    Role.PAVING: 0.07,
    Role.WALL: 0.07,
    Role.TRUNK: 0.2,
}
COARSE = {
    Role.SKY: 0.02,
    Role.CROWN: 0.22,
    Role.ASPHALT: 0.06,
    Role.PAVING: 0.06,
    Role.WALL: 0.08,
    Role.GLASS: 0.3,
    Role.WINDOW: 0.25,
}


def strengths(values: dict[Role, float], other: float) -> Floats:
    """A table over roles."""
    return np.array([values.get(role, other) for role in Role], np.float32)


FINE_OF, COARSE_OF = strengths(FINE, 0.04), strengths(COARSE, 0.03)


def target_palette(rng: Rng) -> Palette:
    """The palette of one frame: sky and ground have one colour per frame, the other things one each."""
    road = float(rng.uniform(72, 138))
    paving = road + float(rng.uniform(-14, 44))
    warm = rng.normal(0, 4, 3)
    sky: list[Rgb] = [(206, 210, 216), (160, 184, 214), (226, 222, 216), (160, 168, 178)]

    def grey(value: float) -> Choice:
        red, green, blue = (float(v) for v in value + warm)
        return Choice([(red, green, blue)])

    return {
        **TARGET,
        Role.SKY: Choice([sky[int(rng.integers(len(sky)))]], 5),
        Role.CLOUD: Choice([(230, 230, 230)]),
        Role.ASPHALT: grey(road),
        Role.PAVING: grey(paving),
        Role.KERB: grey(paving + float(rng.uniform(0, 30))),
        Role.MARKING: grey(road + float(rng.uniform(30, 90))),
    }


def ground_noise(canvas: Canvas, where: Mask, rng: Rng) -> Floats:
    """Noise that lies on the ground, finer and weaker with distance; one value per pixel of ``where``."""
    dx, dz = (int(v) for v in rng.integers(0, TILE, 2))
    z = np.minimum(canvas.ground_z[where], 200)
    rows, columns = (
        (z * 9 + dz).astype(np.int32) % TILE,
        (canvas.ground_x[where] * 14 + dx).astype(np.int32) % TILE,
    )
    return (noise_tile(2.0, 5)[rows, columns] / (1 + z / 14)).astype(np.float32, copy=False)


def paint_target(canvas: Canvas, rng: Rng) -> Image:
    """The photo-like look; (H, W, 3) uint8."""
    shape = canvas.role.shape
    factor: Floats = np.ones(shape, np.float32)
    factor += crop(noise_tile(1.2, 3), shape, rng) * FINE_OF[canvas.role]
    factor += crop(noise_tile(7.0, 4), shape, rng) * COARSE_OF[canvas.role]
    on_ground = (canvas.role == Role.ASPHALT) | (canvas.role == Role.PAVING)
    factor[on_ground] += 0.05 * ground_noise(canvas, on_ground, rng)
    factor[joints(canvas, float(rng.uniform(0.7, 1.6)), 0.06, 12.0)] -= float(rng.uniform(0, 0.12))
    hardness, softness = float(rng.uniform(0.25, 0.6)), float(rng.uniform(1, 4)) * shape[0] / 192
    factor *= 1 - hardness * cv2.GaussianBlur(canvas.shadow.astype(np.float32), (0, 0), softness)
    image = shrink(canvas.colour * factor[..., None])
    return camera_effects(image, shrink(np.minimum(canvas.depth, 300)), rng)


def camera_effects(image: Floats, depth: Floats, rng: Rng) -> Image:
    """Haze, light, lens, exposure, sensor and JPEG, in this order."""
    height, width = depth.shape
    haze = np.minimum(1 - np.exp(-depth / float(rng.uniform(140, 400))), 0.5)[..., None]
    air = (np.array([200, 206, 214]) + rng.normal(0, 8, 3)).astype(np.float32)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope_x, slope_y, corners = (float(v) for v in rng.uniform((-0.22, -0.22, 0.05), (0.22, 0.22, 0.28)))
    light = 1 + slope_x * x + slope_y * y - corners / 2 * (x**2 + y**2)
    light += 0.08 * crop(noise_tile(24.0, 6), (height, width), rng)
    cast = (1 + rng.normal(0, 0.05, 3)).astype(np.float32)
    lit = np.clip((image * (1 - haze) + air * haze) * light[..., None] * cast, 0, 255)
    grey = lit.mean(-1, keepdims=True)
    dull = np.clip(grey + (lit - grey) * float(rng.uniform(0.6, 1.25)), 0, 255) / 255
    exposed = dull ** float(rng.uniform(0.65, 1.3)) * (255 * float(rng.uniform(0.85, 1.15)))
    scale = height / 96
    taps = max(2, round(float(rng.uniform(2, 3)) * scale)) if rng.random() < 0.1 else 1
    moved = cv2.blur(exposed.astype(np.float32), (taps, 1))
    soft = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.2, 0.5)) * scale)
    sensor = float(rng.uniform(2, 6)) * rng.standard_normal(soft.shape, np.float32)
    noisy = np.clip(soft + sensor * (0.6 + soft / 320), 0, 255).round().astype(np.uint8)
    quality = int(rng.integers(45, 90))
    # cv2 writes and reads BGR; the order of the channels matters to JPEG's colour transform.
    code = cv2.imencode(".jpg", noisy[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded a line ago
    return np.ascontiguousarray(decoded[..., ::-1], np.uint8)
