"""MiniCity: procedural street scenes in two domains with a known gap and a known wrong part.

The *source* looks rendered and its labels are plentiful but partly wrong; the *target* looks photographed and
its labels are right. Every image is a function of (seed, domain, index, size). Classes: sky, building, road,
pavement, tree, pole, sign, car, pedestrian; 255 is ignored (litter bins of the target, 0.14 % of its pixels).

Layout
    ================== ================================== =================================================
    quantity           source                             target
    ================== ================================== =================================================
    vanishing point    45-55 % of the width               28-72 % of the width
    horizon            43-49 % of the height              36-56 % of the height, roll up to 2.9 degrees
    camera             1.35-1.65 m high, in the middle    1.1-2.3 m high, up to half a lane aside
    focal length       0.72 widths                        0.60-0.95 widths
    road               8.4 m wide, straight               5.6-13 m wide, bends (sd 0.0016 z^2 m)
    pavements          2.6 m                              1.2-4.2 m, each side its own
    buildings          7-13 m high, wall to wall          4-24 m high, set back, 35 % with a gap behind
    trees              every 11 m on both sides           1.6 per side on average, anywhere
    poles and signs    every 16 m (75 %), upright         1-4 per side, leaning
    cars               on two lanes, 14-20 m apart        on both lanes, parked in rows, some crossing
    pedestrians        2-5, on the pavements              about 6, in pairs, also on the road, children
    ================== ================================== =================================================

Appearance
    The source has clean flat colours, crisp patterns (leaves in three tones, paving joints, windows on a
    grid), hard shadows and no noise; a saturation of 0.5-1 and a brightness of 0.7-1.05 per frame are its
    weather. The target has dull colours that overlap between classes (grey walls, road, pavement, cars
    and sky), two octaves of texture, soft shadows, haze that grows with depth (e-folding 140-400 m), a
    gradient of light, vignetting (5-28 % in the corners), a colour cast (5 % per channel), saturation
    0.6-1.25, gamma 0.65-1.3, defocus (0.2-0.5 px), motion blur (one image in ten), sensor noise (2-6 grey
    levels) and JPEG at quality 45-90. Lengths in pixels hold at a height of 96. Mean of max(RGB) -
    min(RGB): 30 in the source, 14 in the target. Distance of two classes' mean colours over their spread,
    source and target: building-road 0.55 and 0.24, building-tree 1.05 and 0.57, tree-car 0.37 and 0.20,
    road-pavement 0.85 and 0.01.

Class frequencies, in percent of the pixels (400 images, seed 100; the source's true classes)
    ======= ==== ======== ==== ======== ==== ==== ==== === ==========
    domain  sky  building road pavement tree pole sign car pedestrian
    ======= ==== ======== ==== ======== ==== ==== ==== === ==========
    source  8.8  29.4     37.7 4.2      10.2 3.8  1.7  2.9 1.3
    target  9.6  34.1     32.0 5.2      5.3  2.8  1.4  7.3 2.3
    ======= ==== ======== ==== ======== ==== ==== ==== === ==========

What is wrong with the source (:class:`Flaws`)
    Rules that image and label give away together: mislabelled objects (pedestrian as pole or tree, sign
    and car as building, pole as tree, tree as building, building as sky, the left pavement as road),
    objects drawn in a foreign material (buildings in foliage, cars in asphalt, the road in paving), and
    labels of trees and poles that spill 2 px over their surroundings. In all 26 % of the pixels (20-32 %
    is tested): 13 % carry a wrong label, 13 % a foreign material; 3-77 % of a frame, 20 % in the median.
    By true class, in percent: sky 1, building 32, road 17, pavement 27, tree 35, pole 41, sign 57, car
    51, pedestrian 60. By claimed label: sky 15, building 34, road 19, pavement 2, tree 35, pole 49, sign
    2, car 26, pedestrian 3. :meth:`MiniCityImages.wrong` gives the mask to an analysis; no data module or
    method reads it.
"""

from segzoo.data.minicity.flaws import Flaws
from segzoo.data.minicity.geometry import CLASSES
from segzoo.data.minicity.sets import GENERATOR_VERSION, MiniCity, MiniCityImages, generate

__all__ = ["CLASSES", "GENERATOR_VERSION", "Flaws", "MiniCity", "MiniCityImages", "generate"]
