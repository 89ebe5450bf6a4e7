"""Builders of the things in a street; sizes in metres."""

import math

import numpy as np

from segzoo.data.minicity.geometry import (
    BUILDING,
    CAR,
    IGNORE,
    NEAREST,
    PEDESTRIAN,
    POLE,
    SIGN,
    TREE,
    Floats,
    Part,
    Role,
    Thing,
    part,
)

Rng = np.random.Generator
WINDOWS_UP_TO = 50.0  # metres; windows farther away are smaller than a pixel


def quad(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> list[tuple[float, float, float]]:
    """An upright rectangle from (x0, z0) to (x1, z1)."""
    return [(x0, y0, z0), (x0, y1, z0), (x1, y1, z1), (x1, y0, z1)]


def disc(x: float, y: float, z: float, radius: float, radius_y: float | None = None, sides: int = 12) -> Floats:
    """A polygon (sides, 3) near a circle that faces the camera."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    tall = radius if radius_y is None else radius_y
    points = np.empty((sides, 3), np.float32)
    points[:, 0], points[:, 1], points[:, 2] = x + radius * np.cos(angle), y + tall * np.sin(angle), z
    return points


def face(start: tuple[float, float], end: tuple[float, float], low: float, high: float, steps: int = 1) -> Floats:
    """An upright strip from (x, z) to (x, z), in ``steps`` pieces so that a bend shows: (2*steps+2, 3)."""
    t = np.arange(steps + 1) / steps
    points = np.empty((2 * steps + 2, 3), np.float32)
    points[: steps + 1, 0] = start[0] + t * (end[0] - start[0])
    points[: steps + 1, 1] = low
    points[: steps + 1, 2] = start[1] + t * (end[1] - start[1])
    points[steps + 1 :] = points[steps::-1]
    points[steps + 1 :, 1] = high
    return points


def openings(
    start: tuple[float, float],
    end: tuple[float, float],
    low: float,
    high: float,
    pitch: tuple[float, float],
    share: tuple[float, float],
    rng: Rng,
    missing: float,
) -> Floats:
    """A grid of windows (count, 4, 3) on an upright wall.

    Args:
        start, end: (x, z) of the wall's foot.
        low, high: where the grid begins and ends.
        pitch: metres from one window to the next, along and up.
        share: how much of the pitch a window fills, along and up.
        rng: draws which windows are missing.
        missing: share of the windows left out.
    """
    length = math.hypot(end[0] - start[0], end[1] - start[1])
    columns, rows = int(length / pitch[0]), int((high - low) / pitch[1])
    if columns < 1 or rows < 1:
        return np.zeros((0, 4, 3), np.float32)
    # Corners in the order bottom left, top left, top right, bottom right.
    t = (np.arange(columns)[:, None] + 0.5 + share[0] * np.array([-0.5, -0.5, 0.5, 0.5])) / columns
    y = low + (np.arange(rows)[:, None] + 0.5 + share[1] * np.array([-0.5, 0.5, 0.5, -0.5])) * ((high - low) / rows)
    grid = np.empty((rows, columns, 4, 3), np.float32)
    grid[..., 0] = start[0] + t * (end[0] - start[0])
    grid[..., 1] = y[:, None]
    grid[..., 2] = start[1] + t * (end[1] - start[1])
    flat = grid.reshape(-1, 4, 3)
    return flat[rng.random(len(flat)) >= missing] if missing else flat


def building(
    rng: Rng,
    x: float,
    z0: float,
    z1: float,
    height: float,
    *,
    sun: int,
    regular: bool,
    depth: float = 12.0,
) -> Thing:
    """A block with its front at ``x`` from ``z0`` to ``z1``, reaching ``depth`` metres off the street."""
    side = 1 if x > 0 else -1
    z0 = max(z0, NEAREST)
    pitch = (2.6, 3.0) if regular else (float(rng.uniform(1.8, 3.6)), float(rng.uniform(2.6, 3.8)))
    share = (0.5, 0.55) if regular else (float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.4, 0.7)))
    missing = 0.0 if regular else float(rng.choice([0.0, 0.0, 0.15, 0.4]))
    shop = bool(rng.random() < 0.5)
    low = 3.4 if shop else 0.8
    bright, dim = (1.0, 0.72) if side != sun else (0.78, 0.9)
    beside, near, far = (x + side * depth, z0), (x, z0), (x, z1)
    parts = [
        part(face(beside, near, 0, height), Role.WALL, dim),
        part(face(beside, near, height - 0.5, height), Role.LEDGE, dim),
        part(face(near, far, 0, height, 4), Role.WALL, bright),
        part(face(near, far, height - 0.5, height, 4), Role.LEDGE, bright),
    ]
    if z0 < WINDOWS_UP_TO:
        grids = [(openings(near, far, low, height - 0.7, pitch, share, rng, missing), Role.WINDOW, bright)]
        if not regular:  # wall to wall, nothing but a bare gable shows beside a lower neighbour
            grids.append((openings(beside, near, low, height - 0.7, pitch, share, rng, missing), Role.WINDOW, dim))
        if shop:
            parts.append(part(face(near, far, 2.9, 3.3, 4), Role.LEDGE, bright))
            grids.append((openings(near, far, 0.3, 3.0, (3.4, 2.7), (0.8, 0.85), rng, 0.1), Role.SHOPFRONT, bright))
        parts += [part(grid, role, shade) for grid, role, shade in grids if len(grid)]
    return Thing(BUILDING, parts, depth=z1, x=x)


def far_block(rng: Rng, x0: float, x1: float, z: float, height: float, shade: float) -> Thing:
    """A block seen from its front that closes the view at the end of the street."""
    parts = [part(face((x0, z), (x1, z), 0, height), Role.WALL, shade)]
    grid = openings((x0, z), (x1, z), 1.0, height - 0.5, (4.0, 4.2), (0.5, 0.5), rng, 0.1)
    if len(grid):
        parts.append(part(grid, Role.WINDOW, shade))
    return Thing(BUILDING, parts, depth=z, x=(x0 + x1) / 2)


def tree(rng: Rng, x: float, z: float, height: float, *, ragged: float, lean: float = 0.0) -> Thing:
    """A trunk and a crown of overlapping blobs; ``ragged`` is the relative roughness of their outlines."""
    width = 0.045 * height
    fork = height * float(rng.uniform(0.32, 0.42))
    radius = height * float(rng.uniform(0.26, 0.34))
    top = x + lean * height
    trunk = [
        (x - width, 0, z),
        (top - width * 0.6, fork + 0.6, z),
        (top + width * 0.6, fork + 0.6, z),
        (x + width, 0, z),
    ]
    parts = [part(trunk, Role.TRUNK)]
    centre = height - radius * 1.05
    # Per blob: offset right and up and size, in radii of the crown, and brightness.
    blobs = np.array(
        [(0.0, 0.0, 1.0, 0.85), (-0.45, -0.3, 0.62, 0.9), (0.45, -0.25, 0.62, 0.78), (0.1, 0.4, 0.6, 1.08)]
    )
    reach = blobs[:, 2:3] * radius * (1 + ragged * rng.standard_normal((4, 18)))
    middle = blobs[:, :2] + 0.06 * rng.standard_normal((4, 2))
    angle = np.arange(18) * (np.pi / 9)
    outline = np.empty((4, 1, 18, 3), np.float32)
    outline[:, 0, :, 0] = top + middle[:, :1] * radius + reach * np.cos(angle)
    outline[:, 0, :, 1] = centre + middle[:, 1:] * radius + reach * np.sin(angle)
    outline[..., 2] = z
    parts += [Part(shape, Role.CROWN, float(shade)) for shape, shade in zip(outline, blobs[:, 3], strict=True)]
    return Thing(TREE, parts, depth=z, x=x)


def post(x: float, z: float, height: float, width: float, lean: float = 0.0) -> list[Part]:
    """The upright of a lamp, a traffic light or a sign."""
    top = x + lean * height
    shape = [
        (x - width / 2, 0, z),
        (top - width / 2, height, z),
        (top + width / 2, height, z),
        (x + width / 2, 0, z),
    ]
    return [part(shape, Role.METAL)]


def lamp(x: float, z: float, height: float, width: float, lean: float = 0.0) -> Thing:
    """A street lamp whose arm reaches over the road."""
    parts = post(x, z, height, width, lean)
    inward = -1.0 if x > 0 else 1.0
    top = x + lean * height
    parts.append(part(quad(top, top + inward * 1.6, height - width, height + width * 0.3, z, z), Role.METAL))
    parts.append(part(quad(top + inward * 1.1, top + inward * 1.9, height - 0.28, height - 0.02, z, z), Role.LAMP))
    return Thing(POLE, parts, depth=z, x=x)


def signpost(
    rng: Rng, x: float, z: float, height: float, width: float, radius: float, lean: float = 0.0
) -> list[Thing]:
    """A pole (its own thing) and the sign on it."""
    top, y = x + lean * height, height - radius * 0.6
    near = z - 0.05
    sides = int(rng.choice([3, 4, 8, 16]))
    plate = disc(0, 0, near, radius, sides=sides)
    turn = {3: np.pi / 2, 4: np.pi / 4, 8: np.pi / 8, 16: 0.0}[sides]
    cos, sin = np.cos(turn), np.sin(turn)
    plate[:, :2] = plate[:, :2] @ np.array([[cos, sin], [-sin, cos]], np.float32)
    if sides == 4:
        plate[:, :2] *= (1.0, float(rng.uniform(0.9, 1.5)))
    at = np.array([top, y, 0], np.float32)
    inner = plate * np.array([0.62, 0.62, 1], np.float32)
    bar = np.array(quad(-radius * 0.38, radius * 0.38, -radius * 0.1, radius * 0.1, near, near), np.float32)
    parts = [
        part(plate + at, Role.PLATE),
        part(inner + at, Role.SYMBOL),
        part(bar + at, Role.PLATE, 0.9),
    ]
    pole = Thing(POLE, post(x, z, height, width, lean), depth=z, x=x)
    return [pole, Thing(SIGN, parts, depth=near, x=x)]


def car_along(rng: Rng, x: float, z: float, *, viewer: float, oncoming: bool, scale: float = 1.0) -> Thing:
    """A car along the road: its rear or front, and the side that the ``viewer`` (metres) sees."""
    half, length = 0.92 * scale, 4.3 * scale
    tall = scale * float(rng.uniform(1.4, 1.75))
    waist = tall * 0.62
    low = 0.28 * scale
    parts = []
    near = x
    if abs(x - viewer) > half:
        sx = near + (half if x < viewer else -half)
        profile = [
            (0, low),
            (0, waist),
            (0.14, waist),
            (0.28, tall),
            (0.68, tall),
            (0.84, waist),
            (1, waist * 0.9),
            (1, low),
        ]
        parts.append(part([(sx, y, z + t * length) for t, y in profile], Role.BODY, 0.85))
        panes = [
            [(0.2, waist * 1.03), (0.3, tall * 0.93), (0.46, tall * 0.93), (0.46, waist * 1.03)],
            [(0.5, waist * 1.03), (0.5, tall * 0.93), (0.66, tall * 0.93), (0.77, waist * 1.03)],
        ]
        parts.append(part([[(sx, y, z + t * length) for t, y in pane] for pane in panes], Role.GLASS))
        turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        wheel = [
            np.stack(
                [
                    np.full(12, sx),
                    0.33 * scale * (1 + np.sin(turn)),
                    z + t * length + 0.33 * scale * np.cos(turn),
                ],
                -1,
            )
            for t in (0.2, 0.8)
        ]
        parts.append(part(np.stack(wheel), Role.TYRE))
    rear, roof = half * 0.86, half * 0.7
    slope = z + length * 0.14
    parts.append(
        part(
            [
                (near - rear, waist, z),
                (near - roof, tall, slope),
                (near + roof, tall, slope),
                (near + rear, waist, z),
            ],
            Role.BODY,
            0.95,
        )
    )
    parts.append(
        part(
            [
                (near - rear * 0.9, waist * 1.02, z),
                (near - roof * 0.9, tall * 0.94, slope),
                (near + roof * 0.9, tall * 0.94, slope),
                (near + rear * 0.9, waist * 1.02, z),
            ],
            Role.GLASS,
        )
    )
    tyres = [quad(near + s * half * 0.72 - 0.12, near + s * half * 0.72 + 0.12, 0, low + 0.15, z, z) for s in (-1, 1)]
    parts.append(part(tyres, Role.TYRE))
    parts.append(part(quad(near - half, near + half, low, waist, z, z), Role.BODY))
    parts.append(part(quad(near - half, near + half, low, low + 0.16, z, z), Role.TYRE, 1.3))
    level = (waist * 0.68, waist * 0.9)
    lights = [quad(near + s * half * 0.8 - 0.16, near + s * half * 0.8 + 0.16, *level, z, z) for s in (-1, 1)]
    parts.append(part(lights, Role.HEADLIGHT if oncoming else Role.TAILLIGHT))
    parts.append(part(quad(near - 0.26, near + 0.26, waist * 0.55, waist * 0.68, z, z), Role.LAMP))
    return Thing(CAR, parts, depth=z + 0.1, x=x)


def car_across(rng: Rng, x: float, z: float, *, left: bool, scale: float = 1.0) -> Thing:
    """A car that crosses the road, seen from its side."""
    length, tall = 4.3 * scale, 1.5 * scale
    flip = -1.0 if left else 1.0
    waist = 0.62 * tall

    def at(points: list[tuple[float, float]]) -> list[tuple[float, float, float]]:
        return [(x + flip * (t - 0.5) * length, y, z) for t, y in points]

    body = [
        (0, 0.3),
        (0, 0.95 * waist),
        (0.14, waist),
        (0.28, tall),
        (0.64, tall),
        (0.78, waist),
        (1, 0.82 * waist),
        (1, 0.3),
    ]
    panes = [
        [(0.2, waist * 1.02), (0.3, tall * 0.93), (0.45, tall * 0.93), (0.45, waist * 1.02)],
        [(0.49, waist * 1.02), (0.49, tall * 0.93), (0.62, tall * 0.93), (0.73, waist * 1.02)],
    ]
    radius = float(rng.uniform(0.31, 0.36)) * scale
    parts = [
        part(at(body), Role.BODY),
        part([at(pane) for pane in panes], Role.GLASS),
        part(at([(0, 0.3), (0, 0.42), (1, 0.42), (1, 0.3)]), Role.TYRE, 1.3),
        part(np.stack([disc(x + (t - 0.5) * length, radius, z, radius) for t in (0.2, 0.8)]), Role.TYRE),
        part(
            np.stack([disc(x + (t - 0.5) * length, radius, z, radius * 0.5, sides=8) for t in (0.2, 0.8)]),
            Role.LAMP,
        ),
        part(at([(0.95, waist * 0.6), (0.95, waist * 0.8), (1, waist * 0.8), (1, waist * 0.6)]), Role.HEADLIGHT),
    ]
    return Thing(CAR, parts, depth=z, x=x)


def pedestrian(rng: Rng, x: float, z: float, height: float) -> Thing:
    """A walking or standing person."""
    h = height
    broad = 0.135 * h * float(rng.uniform(0.9, 1.25))
    stride = float(rng.uniform(0.02, 0.14)) * h
    hip, neck, head = 0.48 * h, 0.83 * h, 0.075 * h

    def leg(foot: float, side: float) -> list[tuple[float, float, float]]:
        w = 0.05 * h
        return [(x + foot - w, 0, z), (x + side - w, hip, z), (x + side + w, hip, z), (x + foot + w, 0, z)]

    swing = stride * 0.7
    arms = [
        [
            (x + s * broad - 0.03 * h, neck, z),
            (x + s * (broad + swing) - 0.03 * h, hip, z),
            (x + s * (broad + swing) + 0.03 * h, hip, z),
            (x + s * broad + 0.03 * h, neck, z),
        ]
        for s in (-1, 1)
    ]
    torso = [
        (x - broad * 0.85, hip - 0.03 * h, z),
        (x - broad, neck, z),
        (x + broad, neck, z),
        (x + broad * 0.85, hip - 0.03 * h, z),
    ]
    parts = [
        part([leg(-stride, -0.05 * h)], Role.LEGS, 0.85),
        part([leg(stride, 0.05 * h)], Role.LEGS),
        part(arms, Role.TORSO, 0.8),
        part(torso, Role.TORSO),
        part(disc(x, neck + head * 1.05, z, head * 1.08, head * 1.2), Role.HAIR),
        part(disc(x, neck + head * 0.85, z, head * 0.85, head * 0.95), Role.SKIN),
    ]
    return Thing(PEDESTRIAN, parts, depth=z, x=x)


def bin_box(x: float, z: float) -> Thing:
    """A litter bin: clutter of no class, ignored in the labels."""
    parts = [part(quad(x - 0.3, x + 0.3, 0, 0.95, z, z), Role.BIN)]
    parts.append(part(quad(x - 0.34, x + 0.34, 0.9, 1.05, z, z), Role.BIN, 0.7))
    return Thing(IGNORE, parts, depth=z, x=x)
