"""What happens around a training: progress, pictures, manifest, checkpoints and the final report."""

from segzoo.callbacks.checkpoint import LastCheckpoint
from segzoo.callbacks.collapse import CollapseWatch
from segzoo.callbacks.examples import ExampleImages
from segzoo.callbacks.history import HistoryFigures
from segzoo.callbacks.interruption import Interruption
from segzoo.callbacks.manifest import RunManifest
from segzoo.callbacks.opening import Opening
from segzoo.callbacks.panels import ImagePanels
from segzoo.callbacks.progress import StepProgress
from segzoo.callbacks.report import FinalReport
from segzoo.callbacks.same_data import SameData

__all__ = [
    "CollapseWatch",
    "ExampleImages",
    "FinalReport",
    "HistoryFigures",
    "ImagePanels",
    "Interruption",
    "LastCheckpoint",
    "Opening",
    "RunManifest",
    "SameData",
    "StepProgress",
]
