"""What a sample of masks holds, and whether source and target can hold the same classes, by their shares and places."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from segzoo.data.class_maps import IDENTITY, IGNORE_INDEX, ClassMap
from segzoo.data.label_spaces import LabelSpace

CELLS = 3
"""Rows and columns of the grid on which places are compared: the sky is above, a road below."""
DOMINANT = 0.99
ABSENT = "–"
ALIKE = 1 / 3
"""Least common share of source and target, and what exchanging two classes has to add where there are no others: their shares
differ by chance more easily. Simulated and real streets, or faces, have half or more in common."""
MORE_ALIKE = 1 / 6
"""What another order of several classes has to add to what source and target have in common, class by class and cell by cell.
Right ids of CARLA, AirSim and CamVid, or of rendered and real faces, gain 0.1 at most by any other order; shifted or reversed
ones gain 0.18 to 0.71 by the right one, and two large classes that were exchanged, 0.17 to 0.43."""

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Looked:
    """What a sample of the masks of one set holds.

    Attributes:
        name: of the set, e.g. ``source/train``.
        total: masks in the set.
        masks: masks that were looked at.
        places: (256, 9) pixels per label id and cell of a grid of three rows and columns; 255: ignored.
        raw: pixels per id, or packed colour, that the files store; empty where there are no files.
        crowded: masks with as many ids or colours as a photograph.
        beside_one: masks that hold 255 and one class or none.
        beside_several: masks that hold 255 and several classes.
        without: masks that hold several classes and no 255.
        class_map: what turned stored ids or colours into labels.
    """

    name: str
    total: int
    masks: int
    places: Counts
    raw: Mapping[int, int]
    crowded: int
    beside_one: int
    beside_several: int
    without: int
    class_map: ClassMap | None

    @property
    def counts(self) -> Counts:
        """(256,) pixels per label id."""
        counts: Counts = self.places.sum(axis=1)
        return counts

    @property
    def shares(self) -> Shares:
        """(255,) share of every class in the pixels that are not ignored."""
        labelled = self.counts[:IGNORE_INDEX]
        shares: Shares = labelled / max(int(labelled.sum()), 1)
        return shares

    def __str__(self) -> str:
        return f"{self.name} ({self.masks} of {self.total} masks)" if self.masks < self.total else f"all of {self.name}"


def odd_pair(found: Sequence[Looked], space: LabelSpace) -> list[str]:
    """A warning where source and target hold classes so differently that the ids of one of them may mean something else."""
    places = {domain: _places(found, domain, space) for domain in ("source", "target")}
    if not all(each.any() for each in places.values()):
        return []
    source, target = (each / each.sum() for each in places.values())
    shares = [each.sum(axis=1) for each in (source, target)]
    how = _better_order(source, target, space) or _maps_exchanged(found, space, _common(*shares))
    if _common(*shares) >= ALIKE and not how:
        return []
    order = np.argsort(-np.abs(shares[0] - shares[1]))[:3]
    listed = ", ".join(f"'{space.classes[i]}' {percent(shares[0][i])} and {percent(shares[1][i])}" for i in order)
    maps = " and ".join(dict.fromkeys(f"'{one.class_map.name if one.class_map else IDENTITY}'" for one in found))
    what = "in very different shares" if _common(*shares) < ALIKE else "at very different places or in different shares"
    return [
        f"source and target hold the classes {what} ({listed} of the labelled pixels)"
        f"{f'; {how} they would be more alike' if how else ''}: do the masks of both fit their class_map ({maps})?"
    ]


def shares_table(found: Sequence[Looked], space: LabelSpace) -> list[str]:
    """The shares of the classes in the labelled pixels, a line each, source and target side by side; and what is ignored.

    Args:
        found: what was looked at; sets of one domain are taken together.
        space: the classes.
    """
    domains = [domain for domain in ("source", "target") if any(one.name.startswith(domain) for one in found)]
    none = np.zeros(256, np.int64)
    counts = [sum((one.counts for one in found if one.name.startswith(domain)), none) for domain in domains]
    if not domains:
        return []
    rows = [("class", *domains)]
    for number, name in enumerate(space.classes):
        parts = [each[number] / max(each[:IGNORE_INDEX].sum(), 1) for each in counts]
        rows.append((name, *(percent(part) if part else "-" for part in parts)))
    rows.append(("(ignored)", *(percent(each[IGNORE_INDEX] / max(each.sum(), 1)) for each in counts)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def percent(share: float) -> str:
    """``12.3 %``; two digits where the first says 100."""
    return f"{100 * share:.1f} %" if share < DOMINANT else f"{100 * share:.2f} %"


def share_of(part: int, whole: int) -> str:
    """``12.3 %`` of something, ``< 0.1 %`` of hardly anything, and a dash of nothing."""
    if not part:
        return ABSENT
    share = 100 * part / whole
    return f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"


def _places(found: Sequence[Looked], domain: str, space: LabelSpace) -> Counts:
    """(C, 9) pixels of the classes by cell, in all sets of a domain."""
    none = np.zeros((space.num_classes, CELLS**2), np.int64)
    return sum((one.places[: space.num_classes] for one in found if one.name.startswith(domain)), none)


def _common(source: Shares, target: Shares) -> float:
    return float(np.minimum(source, target).sum())


def _better_order(source: Shares, target: Shares, space: LabelSpace) -> str:
    """How the ids of the target, or of the source, would have to be changed to be alike; empty: not at all."""
    both = (source.sum(axis=1) > 0) & (target.sum(axis=1) > 0)
    found = [(_common(source, target[order]) - _common(source, target), how) for how, order in _orders(space, both)]
    gain, best = max(found)
    return best if gain > (ALIKE if space.num_classes == 2 else MORE_ALIKE) else ""


def _orders(space: LabelSpace, both: npt.NDArray[np.bool_]) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
    """Orders that ids get by mistake; single classes are exchanged where both domains hold both, as one may lack a class."""
    ids = np.arange(space.num_classes)
    if space.num_classes == 2:
        yield "exchanged", ids[::-1]
        return
    for by in (-1, 1):
        yield "shifted by one id", np.roll(ids, by)
    yield "in the reverse order", ids[::-1]
    for first, second in combinations(np.flatnonzero(both), 2):
        order = ids.copy()
        order[[first, second]] = second, first
        yield f"with '{space.classes[first]}' and '{space.classes[second]}' exchanged", order


def _maps_exchanged(found: Sequence[Looked], space: LabelSpace, common: float) -> str:
    """Whether the class map of the source fits the target, that of the target the source, and both better."""
    maps = {domain: {one.class_map for one in found if one.name.startswith(domain)} for domain in ("source", "target")}
    (source, *more), (target, *further) = (list(maps[domain]) for domain in maps)
    if more or further or source is None or target is None or source.digest() == target.digest():
        return ""
    if source.names != target.names:  # what one calls 7 is another name in the other, or none
        return ""
    shares = []
    for domain, other in (("source", target), ("target", source)):
        counts = np.zeros(space.num_classes)
        for one in found:
            for value, pixels in one.raw.items() if one.name.startswith(domain) else ():
                if (label := other.label_of(value)) < 0:
                    return ""
                if label < space.num_classes:
                    counts[label] += pixels
        if not counts.any():
            return ""
        shares.append(counts / counts.sum())
    return "with their class maps exchanged" if _common(*shares) > common + MORE_ALIKE else ""
