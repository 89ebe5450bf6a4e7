"""Every reported number as a function of one confusion matrix."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segzoo.errors import DataError
from segzoo.evaluation.by_class import ByClass
from segzoo.evaluation.score_tables import html_table, markdown_table, percent, plain_table
from segzoo.files import whole_file, write_text

if TYPE_CHECKING:
    from segzoo.evaluation.protocol import Protocol

Floats = npt.NDArray[np.float64]
COLUMNS = ("iou", "precision", "recall", "share")
"""The scores of a class in files."""
IMAGE_COUNTS = "images-test.npz"
"""Where a run keeps the pixels of every test image by class."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a set of images: functions of the confusion matrix of all their pixels together.

    All scores are fractions in [0, 1]; NaN stands for a score that does not exist. After ``trainer.test(method, data)``
    they are ``method.scores``:

        print(method.scores)            # a table; a notebook shows one by itself, `markdown()` is one for a README
        method.scores.miou              # 0.578
        method.scores.iou["car"]        # one class; `iou` without it: an array in the order of the classes

    Attributes:
        confusion: (C, C) int64 counts of pixels that are not ignored; rows: truth, columns: prediction.
        classes: C names.
        subsets: class ids of further mIoU columns by name, e.g. the 16 classes of SYNTHIA in Cityscapes.

    Raises:
        ValueError: the matrix is not a (C, C) matrix of non-negative integers, or a subset names no class.
    """

    confusion: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = np.asarray(self.confusion)
        classes = tuple(self.classes)
        if counts.shape != (len(classes), len(classes)):
            raise ValueError(f"confusion matrix of shape {counts.shape} for {len(classes)} classes")
        if not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
            raise ValueError(f"a confusion matrix holds non-negative integers, not {counts.dtype}")
        for name, ids in self.subsets.items():
            if not ids or min(ids) < 0 or max(ids) >= len(classes):
                raise ValueError(f"subset '{name}' is {tuple(ids)}, expected class ids in 0..{len(classes) - 1}")
        counts = counts.astype(np.int64)  # a copy: nobody else can change the scores
        counts.flags.writeable = False
        subsets = MappingProxyType({name: tuple(ids) for name, ids in self.subsets.items()})
        object.__setattr__(self, "confusion", counts)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "subsets", subsets)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scores):
            return NotImplemented
        same = self.classes == other.classes and dict(self.subsets) == dict(other.subsets)
        return same and np.array_equal(self.confusion, other.confusion)

    @property
    def iou(self) -> ByClass:
        """(C,) intersection over union; NaN where a class is neither in the truth nor in the prediction.

        A class that is predicted somewhere but never true has an IoU of 0, not NaN.
        """
        hit = np.diag(self.confusion)
        return self._by_class(hit, self.confusion.sum(0) + self.confusion.sum(1) - hit)

    @property
    def recall(self) -> ByClass:
        """(C,) the share of a class's true pixels that are found, its accuracy; NaN where a class is never true."""
        return self._by_class(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def precision(self) -> ByClass:
        """(C,) the share of the pixels called so that are so; NaN where a class is never predicted."""
        return self._by_class(np.diag(self.confusion), self.confusion.sum(0))

    @property
    def frequency(self) -> ByClass:
        """(C,) share of the counted pixels whose truth is the class; NaN without any pixel."""
        return self._by_class(self.confusion.sum(1), np.full(len(self.classes), self.confusion.sum()))

    @property
    def missed(self) -> dict[str, int]:
        """The true pixels of every class that is there and of which not one was found, most first."""
        truth, hit = self.confusion.sum(1), np.diag(self.confusion)
        lost = [c for c in np.argsort(-truth, kind="stable") if truth[c] and not hit[c]]
        return {self.classes[c]: int(truth[c]) for c in lost}

    @property
    def miou(self) -> float:
        """Mean of :attr:`iou` over the classes that occur."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean of :attr:`recall` over the classes that occur in the truth."""
        return _mean(self.recall)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels whose prediction is right; NaN without any pixel."""
        return float(_ratio(np.trace(self.confusion)[None], self.confusion.sum()[None])[0])

    def subset(self, which: str | Sequence[int] | Sequence[str]) -> float:
        """mIoU over some classes: the mean of their IoUs *in the full matrix*, over those that occur.

        This is the field's mIoU-16 and mIoU-13: pixels of classes outside the subset stay in the matrix, so
        confusing a class with one outside the subset still costs. It is not the mIoU of a smaller matrix.

        Args:
            which: the name of one of :attr:`subsets`, or class ids, or class names.

        Raises:
            KeyError: no such subset or class.
        """
        if isinstance(which, str):
            return self.subset(self.subsets[which])
        ids = [self._class_id(name) if isinstance(name, str) else int(name) for name in which]
        return _mean(self.iou[ids])

    def _by_class(self, part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> ByClass:
        return ByClass(_ratio(part, whole), self.classes)

    def _class_id(self, name: str) -> int:
        if name not in self.classes:
            raise KeyError(name)
        return self.classes.index(name)

    def __repr__(self) -> str:
        means = f"mIoU {percent(self.miou)} %, pixel accuracy {percent(self.pixel_accuracy)} %"
        return f"Scores({means}, {len(self.classes)} classes)"

    def __str__(self) -> str:
        return plain_table(self)

    def markdown(self) -> str:
        """The table of ``print`` in markdown."""
        return markdown_table(self)

    def _repr_html_(self) -> str:
        return html_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; a score that does not exist is ``None``."""
        by_class = {"iou": self.iou, "precision": self.precision, "recall": self.recall, "share": self.frequency}
        return {
            "miou": _plain(self.miou),
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "mean_accuracy": _plain(self.mean_accuracy),
            "subsets": {
                name: {"miou": _plain(self.subset(name)), "ids": list(ids)} for name, ids in self.subsets.items()
            },
            "classes": [
                {"name": name, **{score: _plain(values[i]) for score, values in by_class.items()}}
                for i, name in enumerate(self.classes)
            ],
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Scores":
        """The inverse of :meth:`to_dict`; reads the matrix and the names, and computes the scores again."""
        return cls(
            confusion=np.array(content["confusion"], dtype=np.int64),
            classes=tuple(entry["name"] for entry in content["classes"]),
            subsets={name: tuple(entry["ids"]) for name, entry in content["subsets"].items()},
        )

    def save(
        self,
        folder: str | Path,
        stem: str = "scores",
        protocol: "Protocol | None" = None,
        resources: Mapping[str, int | None] | None = None,
        sources: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Path:
        """Writes ``<stem>.json``, ``<stem>.csv`` (a row per class, fractions) and ``confusion.npz``.

        Args:
            folder: created when missing.
            stem: name of the JSON and the CSV file, without extension.
            protocol: stored under the key ``protocol`` of the JSON file.
            resources: stored under the key ``resources``: how many images the method learned from, by resource.
            sources: stored under the key ``sources``, where there are several: ``images`` and ``weight`` of each, by name.

        Returns:
            The path of the JSON file.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = self.to_dict()
        if sources:
            content = {"sources": {name: dict(one) for name, one in sources.items()}, **content}
        if resources is not None:
            content = {"resources": dict(resources), **content}
        if protocol is not None:
            content = {"protocol": protocol.to_dict(), **content}
        path = folder / f"{stem}.json"
        table, matrix = folder / f"{stem}.csv", folder / "confusion.npz"
        with whole_file(table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["class", *COLUMNS])
            for entry in content["classes"]:
                numbers = [entry[key] for key in COLUMNS]
                writer.writerow([entry["name"], *("" if n is None else f"{n:.6f}" for n in numbers)])
        classes = np.array(self.classes)
        with whole_file(matrix) as partial, partial.open("wb") as binary:
            np.savez_compressed(binary, confusion=self.confusion, classes=classes)
        # Last: whoever finds this file finds the others.
        write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Scores":
        """Reads a JSON file that :meth:`save` wrote.

        Raises:
            DataError: the file is missing or not a score file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except OSError as error:
            raise DataError(f"cannot read the scores in {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{path} is not a score file of segzoo ({reason})") from error


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Floats:
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
