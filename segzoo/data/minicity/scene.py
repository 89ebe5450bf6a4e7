"""Where things stand: the regular streets of the source and the irregular ones of the target."""

from dataclasses import dataclass

import numpy as np

from segzoo.data.minicity import objects
from segzoo.data.minicity.geometry import (
    NEAREST,
    PAVEMENT,
    ROAD,
    SKY,
    Camera,
    Floats,
    Role,
    Scene,
    Thing,
    part,
)
from segzoo.data.minicity.objects import Rng

FAR = 90.0  # metres; the block that closes the view


@dataclass(frozen=True)
class Street:
    """The measures of a street, in metres (per side where two values are given: left, right)."""

    half_width: float
    pavement: tuple[float, float]
    ragged: float
    lanes: bool
    crossing: float | None
    shadow: float

    def edge(self, side: int) -> float:
        """Distance of the building line from the centre line; ``side`` is -1 (left) or 1 (right)."""
        return self.half_width + self.pavement[(side + 1) // 2]


def strip(x0: float, x1: float, z0: float, z1: float, steps: int = 12) -> Floats:
    """A band of ground along the road, in pieces that show its bend: (2*steps+2, 3)."""
    z0 = max(z0, NEAREST)
    z = z0 * (z1 / z0) ** (np.arange(steps + 1) / steps)
    points = np.zeros((2 * steps + 2, 3), np.float32)
    points[: steps + 1, 0], points[steps + 1 :, 0] = x0, x1
    points[: steps + 1, 2], points[steps + 1 :, 2] = z, z[::-1]
    return points


def backdrop(street: Street, rng: Rng, clouds: int) -> list[Thing]:
    """Sky, clouds, both pavements (the left one is a thing of its own) and the road with its markings."""
    sky = Thing(SKY, [part(objects.quad(-2e3, 2e3, -2e3, 2e3, 50, 50), Role.SKY)], depth=1e4)
    for _ in range(clouds):
        x, y = float(rng.uniform(-160, 160)), float(rng.uniform(35, 90))
        for offset in (-9.0, 0.0, 9.0):
            sky.parts.append(part(objects.disc(x + offset, y + (3 if offset == 0 else 0), 200, 11, 5), Role.CLOUD))
    half = street.half_width
    right = Thing(PAVEMENT, [part(strip(0, 900, NEAREST, 900), Role.PAVING)], depth=1e3, x=1)
    left = Thing(PAVEMENT, [part(strip(-900, 0, NEAREST, 900), Role.PAVING)], depth=1e3, x=-1)
    for side, thing in ((1, right), (-1, left)):
        thing.parts.append(part(strip(side * half, side * (half + 0.3), NEAREST, 150), Role.KERB))
    road = Thing(ROAD, [part(strip(-half, half, NEAREST, 150), Role.ASPHALT)], depth=1e3)
    gutters = [strip(s * (half - 0.18), s * half, NEAREST, 150) for s in (-1, 1)]
    road.parts.append(part(np.stack(gutters), Role.ASPHALT, 0.72))
    if street.lanes:
        start = float(rng.uniform(0, 6))
        dashes = [strip(-0.09, 0.09, z, z + 3, 1) for z in np.arange(NEAREST + start, 70, 6)]
        road.parts.append(part(np.stack(dashes), Role.MARKING))
        edges = [strip(s * (half - 0.35), s * (half - 0.2), NEAREST, 90) for s in (-1, 1)]
        road.parts.append(part(np.stack(edges), Role.MARKING))
    if street.crossing is not None:
        z = street.crossing
        bars = [strip(x, x + 0.5, z, z + 3, 1) for x in np.arange(-half + 0.5, half - 0.7, 1.0)]
        road.parts.append(part(np.stack(bars), Role.MARKING))
    return [sky, right, left, road]


def blob(x: float, z: float, reach_x: float, reach_z: float) -> Floats:
    """An ellipse on the ground, for a shadow."""
    angle = np.arange(12) * (np.pi / 6)
    return np.stack([x + reach_x * np.cos(angle), np.zeros(12), z + reach_z * np.sin(angle)], -1).astype(np.float32)


def skyline(rng: Rng, low: float, high: float, width: float) -> list[Thing]:
    """The blocks at the end of the street."""
    edges = np.arange(-78.0, 78.0, width)
    tall = rng.uniform(low, high, len(edges))
    shade = rng.uniform(0.8, 1.1, len(edges))
    return [
        objects.far_block(rng, float(x), float(x + width), FAR, float(h), float(s))
        for x, h, s in zip(edges, tall, shade, strict=True)
    ]


def source_scene(rng: Rng, size: tuple[int, int]) -> Scene:
    """A regular street seen from its middle by a camera that hardly changes.

    Fixed: focal length 0.72 widths, half width 4.2 m, pavements 2.6 m, a straight road. Vanishing point
    45-55 % of the width, horizon 43-49 % of the height, camera 1.35-1.65 m high. Trees every 11 m, poles
    every 16 m, buildings wall to wall.
    """
    height, width = size
    centre, horizon = float(rng.uniform(0.45, 0.55)), float(rng.uniform(0.43, 0.49))
    camera = Camera(size, 0.72 * width, centre * width, horizon * height, float(rng.uniform(1.35, 1.65)))
    crossing = float(rng.uniform(9, 16)) if rng.random() < 0.3 else None
    street = Street(4.2, (2.6, 2.6), 0.02, True, crossing, 3.2)
    scene = Scene(camera, backdrop(street, rng, int(rng.integers(1, 4))), skyline(rng, 8, 15, 12.0))
    scene.sun = 1
    scene.shadows.append(strip(street.edge(1) - street.shadow, street.edge(1), NEAREST, FAR))
    for side in (-1, 1):
        z = float(rng.uniform(-6, 0))
        while z < 75:
            length = float(rng.uniform(8, 12))
            tall = float(rng.uniform(7, 13))
            scene.things.append(
                objects.building(rng, side * street.edge(side), z, z + length, tall, sun=1, regular=True)
            )
            z += length
        start = float(rng.uniform(4, 9))
        for z in np.arange(start, 60, 11.0):
            tall = float(rng.uniform(4.2, 5.4))
            x = side * (street.half_width + 1.5)
            scene.things.append(objects.tree(rng, x, z, tall, ragged=street.ragged))
            scene.shadows.append(blob(x - 1.2, z, 1.5, 0.8))
        for z in np.arange(start + 5.5, 45, 16.0):
            if rng.random() < 0.75:
                scene.things.append(objects.lamp(side * (street.half_width + 0.6), z, 5.5, 0.3))
            if rng.random() < 0.75:
                spot = side * (street.half_width + 0.7), z - float(rng.uniform(1, 3))
                scene.things += objects.signpost(rng, *spot, 2.7, 0.24, 0.65)
    for lane in (-1, 1):
        z = float(rng.uniform(6, 20))
        while z < 55:
            if rng.random() < 0.7:
                add_car(scene, rng, lane * 2.0, z, oncoming=lane < 0)
            z += float(rng.uniform(14, 20))
    for _ in range(int(rng.integers(2, 6))):
        side = int(rng.choice([-1, 1]))
        x, z = side * (street.half_width + float(rng.uniform(0.8, 2.2))), float(rng.uniform(5, 15))
        add_person(scene, rng, x, z, float(rng.uniform(1.65, 1.85)))
    return scene


def add_car(scene: Scene, rng: Rng, x: float, z: float, *, oncoming: bool, scale: float = 1.0) -> None:
    """A car along the road and its shadow."""
    scene.things.append(objects.car_along(rng, x, z, viewer=scene.camera.offset, oncoming=oncoming, scale=scale))
    scene.shadows.append(strip(x - 1.5 * scale, x + 0.95 * scale, z - 0.2, z + 4.3 * scale))


def add_person(scene: Scene, rng: Rng, x: float, z: float, height: float) -> None:
    """A pedestrian and a shadow."""
    scene.things.append(objects.pedestrian(rng, x, z, height))
    scene.shadows.append(blob(x - 0.5, z, 0.7, 0.25))


def target_scene(rng: Rng, size: tuple[int, int]) -> Scene:
    """An irregular street from a camera that varies.

    Vanishing point 28-72 % of the width, horizon 36-56 % of the height, camera 1.1-2.3 m high, focal length
    0.6-0.95 of the width, roll up to about 3 degrees, bends, half width 2.8-6.5 m, pavements 1.2-4.2 m,
    buildings 4-24 m high with gaps, parked cars, groups of pedestrians, fewer trees.
    """
    height, width = size
    half = float(rng.uniform(2.8, 6.5))
    camera = Camera(
        size,
        focal=width * float(rng.uniform(0.6, 0.95)),
        centre_x=width * float(rng.uniform(0.28, 0.72)),
        horizon=height * float(rng.uniform(0.36, 0.56)),
        height=float(rng.uniform(1.1, 2.3)),
        offset=half * float(rng.uniform(-0.5, 0.5)),
        bend=float(rng.normal(0, 0.0016)),
        roll=float(np.clip(rng.normal(0, 0.02), -0.05, 0.05)),
    )
    crossing = float(rng.uniform(6, 20)) if rng.random() < 0.35 else None
    pavement = float(rng.uniform(1.2, 4.2)), float(rng.uniform(1.2, 4.2))
    street = Street(half, pavement, 0.14, bool(rng.random() < 0.6), crossing, float(rng.uniform(0, 7)))
    scene = Scene(camera, backdrop(street, rng, 0), skyline(rng, 3, 22, float(rng.uniform(7, 16))))
    scene.sun = int(rng.choice([-1, 1]))
    if street.shadow > 2:
        near, far = street.edge(scene.sun), street.edge(scene.sun) - street.shadow
        x0, x1 = sorted((scene.sun * near, scene.sun * far))
        scene.shadows.append(strip(x0, x1, NEAREST, FAR))
    for side in (-1, 1):
        add_irregular_side(scene, street, rng, side)
    z = float(rng.uniform(5, 18))
    while z < 60:
        lane = int(rng.choice([-1, 1]))
        if rng.random() < 0.75:
            add_car(scene, rng, lane * half * float(rng.uniform(0.25, 0.5)), z, oncoming=lane < 0, scale=vary(rng))
        z += float(rng.uniform(5, 16))
    if rng.random() < 0.25:
        x, z = half * float(rng.uniform(-1.2, 1.2)), float(rng.uniform(7, 25))
        across = objects.car_across(rng, x, z, left=bool(rng.random() < 0.5), scale=vary(rng))
        scene.things.append(across)
        scene.shadows.append(strip(x - 2.3, x + 2.3, z - 0.4, z + 1.6))
    for _ in range(int(rng.integers(0, 3))):
        add_person(scene, rng, half * float(rng.uniform(-0.9, 0.9)), float(rng.uniform(6, 16)), person_height(rng))
    return scene


def vary(rng: Rng) -> float:
    """A size factor."""
    return float(rng.uniform(0.88, 1.2))


def person_height(rng: Rng) -> float:
    """Adults, and children now and then."""
    return float(rng.uniform(1.55, 1.95) if rng.random() < 0.85 else rng.uniform(1.05, 1.4))


def add_irregular_side(scene: Scene, street: Street, rng: Rng, side: int) -> None:
    """Buildings, trees, poles, signs, parked cars, people and bins along one side of a target street."""
    half, edge = street.half_width, street.edge(side)
    wide = edge - half
    base = float(rng.uniform(5, 15))
    z = float(rng.uniform(-8, 3))
    while z < 80:
        length = float(rng.uniform(5, 18))
        tall = float(np.clip(base * rng.uniform(0.5, 1.7), 4, 24))
        back = float(rng.uniform(0, 2.5)) if rng.random() < 0.4 else 0.0
        scene.things.append(
            objects.building(rng, side * (edge + back), z, z + length, tall, sun=scene.sun, regular=False)
        )
        z += length + (float(rng.uniform(1, 7)) if rng.random() < 0.35 else 0.0)
    for _ in range(int(rng.poisson(1.6))):
        z, tall = float(rng.uniform(4, 50)), float(rng.uniform(3, 8.5))
        x = side * (half + float(rng.uniform(0.5, wide + 0.8)))
        scene.things.append(objects.tree(rng, x, z, tall, ragged=street.ragged, lean=float(rng.normal(0, 0.05))))
        scene.shadows.append(blob(x - scene.sun, z, 0.3 * tall, 0.5))
    for _ in range(int(rng.integers(1, 5))):
        z, lean = float(rng.uniform(4, 22)), float(rng.normal(0, 0.015))
        x = side * (half + float(rng.uniform(0.3, 0.9)))
        if rng.random() < 0.5:
            tall, thick = float(rng.uniform(4, 8)), float(rng.uniform(0.22, 0.4))
            scene.things.append(objects.lamp(x, z, tall, thick, lean))
        else:
            tall, radius = float(rng.uniform(2.2, 3.4)), float(rng.uniform(0.5, 0.8))
            scene.things += objects.signpost(rng, x, z, tall, float(rng.uniform(0.18, 0.28)), radius, lean)
    if half > 3.6 and rng.random() < 0.75:
        z = float(rng.uniform(4, 14))
        while z < 45:
            scale = vary(rng)
            if rng.random() < 0.75:
                add_car(scene, rng, side * (half - 1.05), z, oncoming=bool(rng.random() < 0.4), scale=scale)
            z += 4.3 * scale + float(rng.uniform(0.6, 5))
    for _ in range(int(rng.poisson(2.2))):
        x, z = side * (half + float(rng.uniform(0.3, max(0.6, wide - 0.3)))), float(rng.uniform(4.5, 16))
        add_person(scene, rng, x, z, person_height(rng))
        if rng.random() < 0.35:
            add_person(
                scene,
                rng,
                x + float(rng.uniform(0.45, 0.8)),
                z + float(rng.uniform(-0.3, 0.3)),
                person_height(rng),
            )
    if rng.random() < 0.3:
        scene.things.append(objects.bin_box(side * (half + 0.8), float(rng.uniform(6, 20))))
