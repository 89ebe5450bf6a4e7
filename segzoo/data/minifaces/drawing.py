"""One face: its measures, its shapes from back to front, and the light on it."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]

SUPERSAMPLING = 4
BACKGROUND, SKIN, HAIR, EYES, BROWS, NOSE, MOUTH = range(7)

SKINS: list[Rgb] = [(244, 206, 178), (232, 184, 148), (214, 160, 120), (178, 124, 88), (136, 90, 62), (98, 66, 48)]
HAIRS: list[Rgb] = [
    (28, 24, 26),
    (60, 40, 28),
    (96, 62, 38),
    (150, 104, 56),
    (214, 178, 104),
    (150, 60, 30),
    (170, 168, 166),
    (60, 70, 130),
]
IRISES: list[Rgb] = [(70, 120, 180), (90, 130, 80), (96, 64, 40), (50, 40, 36)]
CLOTHES: list[Rgb] = [(180, 60, 60), (60, 90, 160), (230, 230, 225), (60, 62, 66), (90, 140, 90), (220, 170, 70)]
CUTS = ("bald", "short", "fringe", "long", "curly")
CUT_SHARES = (0.06, 0.28, 0.22, 0.28, 0.16)


@dataclass(frozen=True)
class Pose:
    """Where the head is: lengths in units of the image's side, the head's half height about 0.36.

    Attributes:
        centre: (x, y) of the head.
        scale: of all lengths; at 1 the head's half height is about 0.29.
        roll: in the image's plane, radians.
        yaw: shift of the features to the side, in half widths of the head.
        pitch: the same, downwards.
    """

    centre: tuple[float, float]
    scale: float
    roll: float
    yaw: float
    pitch: float


class Canvas:
    """Colours and labels at several times the image's size, on which shapes in head coordinates are painted.

    Head coordinates have their origin in the head's centre, x to the right and y down, in units of the image's side before the
    pose's scale.
    """

    def __init__(self, size: tuple[int, int], pose: Pose, backdrop: Floats) -> None:
        self.height, self.width = (SUPERSAMPLING * side for side in size)
        self.side = min(self.height, self.width)
        self.pose = pose
        self.colour = backdrop
        self.label = np.zeros((self.height, self.width), np.uint8)

    def points(self, xy: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Head coordinates (N, 2) to pixels with four binary digits behind the point, as OpenCV wants them."""
        cos, sin = np.cos(self.pose.roll), np.sin(self.pose.roll)
        turned = self.pose.scale * np.asarray(xy, np.float64) @ np.array([[cos, sin], [-sin, cos]])
        centre = np.array(self.pose.centre) * (self.width, self.height)
        return np.round(16 * (turned * self.side + centre)).astype(np.int32)

    def fill(self, xy: npt.ArrayLike, colour: npt.ArrayLike, label: int | None) -> None:
        """Paints a polygon; without a label the pixels keep theirs."""
        outline = [self.points(xy)]
        rgb = [float(c) for c in np.asarray(colour, np.float32)]
        cv2.fillPoly(self.colour, outline, rgb, shift=4)
        if label is not None:
            cv2.fillPoly(self.label, outline, label, shift=4)


def oval(
    x: float, y: float, rx: float, ry: float, power: float = 2.0, start: float = 0.0, end: float = 2 * np.pi
) -> Floats:
    """A superellipse or a part of it: 2 is an ellipse, more is squarer. Angles run from the right over the bottom."""
    angle = np.linspace(start, end, 48)
    cos, sin = np.cos(angle), np.sin(angle)
    reach = 2 / power
    xs = x + rx * np.sign(cos) * np.abs(cos) ** reach
    ys = y + ry * np.sign(sin) * np.abs(sin) ** reach
    return np.stack([xs, ys], 1).astype(np.float32)


def arc(x: float, y: float, half: float, rise: float, thick: float, slope: float = 0.0) -> Floats:
    """A bow of the given thickness, pointed at its ends; ``rise`` lifts the middle, ``slope`` the right end."""
    t = np.linspace(-1, 1, 16)
    line = y - rise * (1 - t**2) - slope * t
    taper = thick * np.sqrt(np.clip(1 - t**4, 0, 1)) / 2
    upper, lower = np.stack([x + half * t, line - taper], 1), np.stack([x + half * t, line + taper], 1)
    return np.concatenate([upper, lower[::-1]]).astype(np.float32)


def draw(seed: int, index: int, size: tuple[int, int] = (64, 64)) -> tuple[Pixels, Pixels]:
    """One image: a function of its arguments alone.

    Returns:
        image (H, W, 3) uint8 RGB and label (H, W) uint8 ids.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    pose = Pose(
        centre=(float(rng.normal(0.5, 0.025)), float(rng.normal(0.5, 0.025))),
        scale=float(rng.uniform(1.1, 1.36)),
        roll=float(np.clip(rng.normal(0, 0.09), -0.25, 0.25)),
        yaw=float(np.clip(rng.normal(0, 0.14), -0.35, 0.35)),
        pitch=float(np.clip(rng.normal(0, 0.05), -0.12, 0.12)),
    )
    canvas = Canvas(size, pose, _backdrop(rng, size))
    _paint_person(canvas, rng)
    return _light(canvas, rng, size), np.ascontiguousarray(
        canvas.label[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]
    )


def _backdrop(rng: Rng, size: tuple[int, int]) -> Floats:
    height, width = (SUPERSAMPLING * side for side in size)
    top, bottom = rng.uniform(60, 225, (2, 3))
    bottom = 0.5 * (top + bottom)
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    colours: Floats = np.broadcast_to((1 - ramp) * top + ramp * bottom, (height, width, 3)).astype(np.float32)
    return np.ascontiguousarray(colours)


def _pick(rng: Rng, colours: list[Rgb], spread: float) -> Floats:
    chosen = np.array(colours[int(rng.integers(len(colours)))], np.float32)
    return np.clip(chosen + rng.normal(0, spread) + rng.normal(0, 0.3 * spread, 3), 8, 250).astype(np.float32)


def _paint_person(canvas: Canvas, rng: Rng) -> None:
    skin, hair = _pick(rng, SKINS, 8), _pick(rng, HAIRS, 8)
    wide, tall = float(rng.uniform(0.2, 0.235)), float(rng.uniform(0.27, 0.31))
    cut = CUTS[int(rng.choice(len(CUTS), p=CUT_SHARES))]
    volume = float(rng.uniform(0.85, 1.2))
    yaw, pitch = canvas.pose.yaw, canvas.pose.pitch
    if cut == "long":
        drop = float(rng.uniform(0.3, 0.48))
        canvas.fill(oval(0, 0.06, 1.28 * wide * volume, drop + 0.06, 3.0), 0.8 * hair, HAIR)
    elif cut == "curly":
        for angle in np.linspace(0.85 * np.pi, 2.15 * np.pi, 11):
            x, y = 1.12 * wide * np.cos(angle), -0.03 + 1.05 * tall * np.sin(angle)
            canvas.fill(oval(x, y, 0.085 * volume, 0.085 * volume), 0.85 * hair, HAIR)
    # Neck and shoulders
    canvas.fill([(-0.1, 0.15), (0.1, 0.15), (0.12, 0.6), (-0.12, 0.6)], 0.86 * skin, SKIN)
    clothes = _pick(rng, CLOTHES, 12)
    neckline = float(rng.uniform(0.4, 0.46))
    shoulders = [(-0.7, 0.9), (-0.42, 0.5), (-0.12, neckline - 0.03), (0, neckline + 0.03), (0.12, neckline - 0.03)]
    canvas.fill([*shoulders, (0.42, 0.5), (0.7, 0.9)], clothes, BACKGROUND)
    # Ears: the far one disappears behind the head
    for side in (-1, 1):
        canvas.fill(oval(side * wide * (1.0 - 0.25 * side * yaw), 0.01, 0.04, 0.062), 0.92 * skin, SKIN)
    canvas.fill(oval(0, 0, wide, tall, float(rng.uniform(2.0, 2.5))), skin, SKIN)
    _paint_features(canvas, rng, skin, hair, (wide * yaw, tall * pitch), wide)
    _paint_hair_in_front(canvas, rng, hair, cut, volume, (wide, tall))


def _paint_features(
    canvas: Canvas, rng: Rng, skin: Floats, hair: Floats, shift: tuple[float, float], wide: float
) -> None:
    dx, dy = shift
    # Cheeks and the shade under the chin, which belong to the skin
    for side in (-1, 1):
        blush = skin + np.array([10, -10, -8], np.float32)
        canvas.fill(oval(dx + side * 0.105, dy + 0.085, 0.045, 0.03), blush, None)
    eye_y, gap = dy - 0.035, wide * float(rng.uniform(0.42, 0.5))
    eye_w, eye_h = float(rng.uniform(0.042, 0.056)), float(rng.uniform(0.018, 0.034))
    iris, look = _pick(rng, IRISES, 6), float(rng.uniform(-0.015, 0.015))
    brow_y, thick = eye_y - float(rng.uniform(0.062, 0.085)), float(rng.uniform(0.018, 0.034))
    tilt, rise = float(rng.normal(0, 0.008)), float(rng.uniform(0.004, 0.018))
    brow = np.clip(0.75 * hair + 0.05 * skin, 12, 190)
    for side in (-1, 1):
        near = 1 - 0.35 * side * canvas.pose.yaw  # the far half of a turned face is narrower
        x = dx + side * gap * near
        eye = oval(x, eye_y, eye_w * near, eye_h, 1.8)
        canvas.fill(oval(x, eye_y, 1.14 * eye_w * near, 1.3 * eye_h, 1.8), 0.66 * skin, EYES)
        canvas.fill(eye, (244, 244, 240), EYES)
        radius = min(eye_h * 1.02, 0.026)
        canvas.fill(oval(x + look, eye_y, radius, radius), iris, EYES)
        canvas.fill(oval(x + look, eye_y, 0.5 * radius, 0.5 * radius), (16, 14, 16), EYES)
        canvas.fill(arc(x, brow_y, 1.3 * eye_w * near, rise, thick, side * tilt), brow, BROWS)
    # The nose turns most: it stands out of the face
    nose_x, nose_w = dx * 1.35, float(rng.uniform(0.03, 0.05))
    top, tip = dy - 0.02, dy + float(rng.uniform(0.075, 0.1))
    bridge = [(dx * 1.1 - 0.014, top), (dx * 1.1 + 0.014, top)]
    wings = oval(nose_x, tip - 0.012, nose_w, 0.024, 2.2, 0, np.pi)
    canvas.fill([*bridge, *wings.tolist()], np.clip(0.88 * skin + 4, 0, 255), NOSE)
    canvas.fill(oval(nose_x, tip - 0.016, 0.4 * nose_w, 0.014), np.clip(1.08 * skin, 0, 252), None)
    for side in (-1, 1):
        canvas.fill(oval(nose_x + side * 0.5 * nose_w, tip + 0.003, 0.008, 0.006), 0.45 * skin, None)
    _paint_mouth(canvas, rng, skin, dx * 1.15, dy + float(rng.uniform(0.145, 0.165)))


def _paint_mouth(canvas: Canvas, rng: Rng, skin: Floats, x: float, y: float) -> None:
    half, smile = float(rng.uniform(0.06, 0.09)), float(rng.uniform(-0.012, 0.028))
    lips = np.clip(skin * np.array([0.86, 0.55, 0.55], np.float32) + float(rng.uniform(0, 24)), 0, 250)
    opening = float(rng.uniform(0.02, 0.05)) if rng.random() < 0.4 else 0.0
    canvas.fill(arc(x, y, half, -smile, 0.034 + opening), lips, MOUTH)
    if opening:
        canvas.fill(arc(x, y, 0.8 * half, -smile, opening), (70, 24, 28), MOUTH)
        canvas.fill(arc(x, y - 0.28 * opening, 0.68 * half, -smile, 0.45 * opening), (240, 236, 228), MOUTH)
    else:
        canvas.fill(arc(x, y, 0.94 * half, -smile, 0.008), 0.5 * lips, MOUTH)


def _paint_hair_in_front(
    canvas: Canvas, rng: Rng, hair: Floats, cut: str, volume: float, head: tuple[float, float]
) -> None:
    wide, tall = head
    if cut == "bald":
        return
    line = {"fringe": -0.13, "curly": -0.17}.get(cut, -0.185) + float(rng.uniform(-0.02, 0.02))
    part, lift = float(rng.uniform(-0.6, 0.6)) * wide, float(rng.uniform(0.02, 0.07))
    outer = oval(0, -0.02, 1.1 * wide * (0.5 + 0.5 * volume), 1.1 * tall * (0.6 + 0.4 * volume), 2.2, np.pi, 2 * np.pi)
    t = np.linspace(1, -1, 17)
    # The hairline: down to the temples at both sides, lifted at the parting
    ys = line + 0.19 * np.abs(t) ** 6 - lift * np.exp(-(((t * wide - part) / 0.06) ** 2))
    inner = np.stack([1.06 * wide * t, ys], 1)
    canvas.fill(np.concatenate([outer, inner]), hair, HAIR)
    strands = np.zeros_like(canvas.label)
    for tone in rng.integers(1, 3, 7):
        x = float(rng.uniform(-0.85, 0.85)) * wide
        strand = arc(x + 0.02, line - 0.06, 0.05, 0.02, 0.012, float(rng.normal(0, 0.03)))
        cv2.fillPoly(strands, [canvas.points(strand)], int(tone), shift=4)
    for tone, factor in ((1, 0.8), (2, 1.22)):
        canvas.colour[(strands == tone) & (canvas.label == HAIR)] = np.clip(factor * hair, 0, 252)


def _light(canvas: Canvas, rng: Rng, size: tuple[int, int]) -> Pixels:
    """Averages down to the image's size and lights it: from one side on the person, with texture and noise on everything."""
    height, width = size
    small = cv2.resize(canvas.colour, (width, height), interpolation=cv2.INTER_AREA)
    person = cv2.resize((canvas.label > 0).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    x = (np.arange(width, dtype=np.float32) / width - canvas.pose.centre[0])[None, :]
    y = (np.arange(height, dtype=np.float32) / height - canvas.pose.centre[1])[:, None]
    side, above = float(rng.uniform(-0.9, 0.9)), float(rng.uniform(-0.1, 0.5))
    shade = 1 + person * np.clip(side * x - above * y, -0.32, 0.3)
    coarse = cv2.resize(rng.normal(0, 1, (8, 8)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    light = float(rng.uniform(0.85, 1.08)) * shade * (1 + 0.025 * coarse)
    tint = 1 + 0.03 * rng.standard_normal(3).astype(np.float32)
    noise = rng.normal(0, float(rng.uniform(1, 2.5)), (height, width, 3))
    lit: Pixels = np.clip(small * light[..., None] * tint + noise, 0, 255).round().astype(np.uint8)
    return lit
