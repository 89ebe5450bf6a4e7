"""Everything that a run imports. Processes forked from one that has imported this begin at once; it touches no device."""

import albumentations
import jsonargparse
import lightning
import matplotlib.figure
import segmentation_models_pytorch
import timm

from segzoo.cli import run, train
from segzoo.cli.main import main
from segzoo.inference import predictor
from segzoo.methods.registry import load_method, methods

for slug in methods():
    load_method(slug)

__all__ = [
    "albumentations",
    "jsonargparse",
    "lightning",
    "main",
    "matplotlib",
    "predictor",
    "run",
    "segmentation_models_pytorch",
    "timm",
    "train",
]
