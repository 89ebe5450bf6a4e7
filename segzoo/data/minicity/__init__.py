"""MiniCity (draft)."""

from segzoo.data.minicity.flaws import Flaws
from segzoo.data.minicity.geometry import CLASSES
from segzoo.data.minicity.sets import GENERATOR_VERSION, MiniCity, MiniCityImages, generate

__all__ = ["CLASSES", "GENERATOR_VERSION", "Flaws", "MiniCity", "MiniCityImages", "generate"]
