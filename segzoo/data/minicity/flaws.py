"""What is wrong with the source: labels and textures that contradict each other, by rule."""

from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt

from segzoo.data.minicity.geometry import (
    BUILDING,
    CAR,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
    Role,
    Scene,
    Thing,
)

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Flaws:
    """Probabilities of the wrong parts of the source; per object, or per frame where it says so.

    Attributes:
        pedestrian: labelled pole on the right of the road and tree on the left.
        sign: labelled building.
        pole: labelled tree.
        car: labelled building.
        tree: labelled building.
        building: labelled sky.
        pavement: the left pavement of a frame is labelled road.
        green_building: a building drawn in foliage but labelled building.
        asphalt_car: a car drawn in asphalt but labelled car.
        paved_road: the road of a frame is drawn as paving but labelled road.
        halo: in a frame, the labels of trees and poles grow by ``halo_width``.
        halo_width: pixels of an image of height 96; larger images have wider halos.
    """

    pedestrian: float = 0.55
    sign: float = 0.55
    pole: float = 0.35
    car: float = 0.3
    tree: float = 0.3
    building: float = 0.06
    pavement: float = 0.4
    green_building: float = 0.22
    asphalt_car: float = 0.25
    paved_road: float = 0.15
    halo: float = 0.5
    halo_width: float = 2.0

    def scaled(self, strength: float) -> "Flaws":
        """All probabilities times ``strength``, at most 1; the halo's width stays."""
        values = {f.name: min(1.0, getattr(self, f.name) * strength) for f in fields(self)}
        return Flaws(**(values | {"halo_width": self.halo_width}))


def spoil(scene: Scene, flaws: Flaws, rng: np.random.Generator) -> int:
    """Changes labels and materials of the scene's things in place.

    Returns:
        The width of the halo around trees and poles in pixels, 0 for none.
    """
    for thing in scene.in_order():
        draw, swap = rng.random(2)  # always two draws, so that one rule does not move the others
        wrong_label, chance = relabelled(thing, flaws)
        new_material, swap_chance = repainted(thing, flaws)
        if draw < chance:
            thing.label = wrong_label
        elif swap < swap_chance:
            thing.material = new_material
    width = max(1, round(flaws.halo_width * scene.camera.size[0] / 96))
    return width if rng.random() < flaws.halo else 0


def relabelled(thing: Thing, flaws: Flaws) -> tuple[int, float]:
    """The wrong label a thing may get, and how likely."""
    rules = {
        PEDESTRIAN: (POLE if thing.x > 0 else TREE, flaws.pedestrian),
        SIGN: (BUILDING, flaws.sign),
        POLE: (TREE, flaws.pole),
        CAR: (BUILDING, flaws.car),
        TREE: (BUILDING, flaws.tree),
        BUILDING: (SKY, flaws.building),
        PAVEMENT: (ROAD, flaws.pavement if thing.x < 0 else 0.0),
    }
    return rules.get(thing.cls, (thing.cls, 0.0))


def repainted(thing: Thing, flaws: Flaws) -> tuple[Role, float]:
    """The foreign material a thing may get, and how likely."""
    rules = {
        BUILDING: (Role.CROWN, flaws.green_building),
        CAR: (Role.ASPHALT, flaws.asphalt_car),
        ROAD: (Role.PAVING, flaws.paved_road),
    }
    return rules.get(thing.cls, (Role.WALL, 0.0))


def grow(labels: Labels, truth: Labels, width: int) -> Labels:
    """Labels in which trees and poles spill ``width`` pixels over what surrounds them; (H, W) uint8 ids."""
    grown = labels.copy()
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    for cls in (TREE, POLE):
        mask = ((truth == cls) & (labels == cls)).astype(np.uint8)
        spill = (cv2.dilate(mask, kernel) > 0) & (truth != cls) & (grown == labels)
        grown[spill] = cls
    return grown
