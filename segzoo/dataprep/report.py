"""What a survey found, as text and as files."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from segzoo.data.class_maps import IDENTITY, IGNORE_INDEX
from segzoo.data.label_shares import ABSENT, share_of
from segzoo.dataprep.survey import Survey, SurveyedSet
from segzoo.files import whole_file

IDS, MODES = 12, 3
"""Of a set that the table names."""
TABLE, FILES, TWINS = "report.txt", "files.csv", "near-duplicates.csv"
FILE_HEAD = ("set", "name", "image", "mask", "width", "height", "image_mode", "mask_mode", "ids", "problems")
TWIN_HEAD = ("set", "image", "other_set", "other_image", "mean_difference_of_255")


def report(found: Survey) -> str:
    """Tables of the sets, of what their masks store and of the classes' shares."""
    parts = [_sets_table(found), _shares_table(found), _ids_table(found)]
    return "\n\n".join(part for part in parts if part)


def write_files(found: Survey, folder: Path) -> list[Path]:
    """Writes a row per file, and one per pair of near duplicates.

    Args:
        found: what to write.
        folder: where; files of an earlier survey are replaced.

    Returns:
        The files.
    """
    rows = [
        (
            name,
            one.images.names[position],
            item.image or "",
            item.mask or "",
            *(item.size or ("", "")),
            *item.modes,
            " ".join(map(str, sorted(item.raw))),
            "; ".join(item.problems),
        )
        for name, one in found.sets.items()
        for position, item in enumerate(one.items)
    ]
    pairs = [
        (*_named(found, one.first), *_named(found, one.second), f"{one.difference:.2f}")
        for one in sorted(found.twins, key=lambda one: (one.first[0], one.second))
    ]
    return [_write_csv(folder / FILES, FILE_HEAD, rows), _write_csv(folder / TWINS, TWIN_HEAD, pairs)]


def _named(found: Survey, place: tuple[str, int]) -> tuple[str, str]:
    return place[0], found.sets[place[0]].images.names[place[1]]


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
    return path


def _sets_table(found: Survey) -> str:
    rows = [("set", "images", "with masks", "wrong", "width x height", "stored as")]
    for name, one in found.sets.items():
        masks = sum(item.counts is not None for item in one.items)
        wrong = len(one.items) - len(one.good)
        rows.append((name, str(len(one.items)), str(masks), str(wrong or ABSENT), _sizes(one), _stored_as(one)))
    return _aligned(rows, left=(0, 4, 5))


def _sizes(one: SurveyedSet) -> str:
    sizes = Counter(item.size for item in one.items if item.size)
    if len(sizes) <= 2:
        return ", ".join(f"{width}x{height}" for width, height in sizes) or ABSENT
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    (least, most), (common, times) = (by_area[0], by_area[-1]), sizes.most_common(1)[0]
    often = f", {common[0]}x{common[1]} {times} times" if times > 1 + len(one.items) // 10 else ""
    return f"{least[0]}x{least[1]} to {most[0]}x{most[1]}{often}"


def _stored_as(one: SurveyedSet) -> str:
    parts = []
    for which, what in enumerate(("images", "masks")):
        modes = Counter(item.modes[which] for item in one.items if item.modes[which])
        if modes:
            shown = ", ".join(mode for mode, _ in modes.most_common(MODES))
            parts.append(f"{what} {shown}{', ...' if len(modes) > MODES else ''}")
    return "; ".join(parts) or "made, not read"


def _shares_table(found: Survey) -> str:
    """Shares of the classes in the labelled pixels, source and target side by side."""
    counts = {name: one.counts for name, one in found.sets.items() if one.counts.any()}
    if not counts:
        return ""
    rows = [("share of the labelled pixels", *counts)]
    for number, name in enumerate(found.space.classes):
        shares = [share_of(one[number], one[:IGNORE_INDEX].sum()) for one in counts.values()]
        rows.append((f"{number} {name}", *shares))
    rows.append(("ignored, of all pixels", *(share_of(one[IGNORE_INDEX], one.sum()) for one in counts.values())))
    return _aligned(rows, left=(0,))


def _ids_table(found: Survey) -> str:
    """What the masks store, and what it is taken for."""
    rows = [("set", "ids or colours in the masks (class, share of all pixels)")]
    for name, one in found.sets.items():
        raw, class_map = one.raw(), one.images.class_map
        if not raw or class_map is None or class_map.name == IDENTITY:
            continue  # of the last, the shares say it all
        names = {IGNORE_INDEX: "ignored", **dict(enumerate(found.space.classes))}
        often = sorted(raw, key=lambda number: -raw[number])[:IDS]
        total = sum(raw.values())
        held = [
            f"{class_map.written(value)} ({names.get(class_map.label_of(value), '?')}, {share_of(raw[value], total)})"
            for value in sorted(often)
        ]
        rows.append((name, ", ".join(held) + (f", and {len(raw) - IDS} more" if len(raw) > IDS else "")))
    return _aligned(rows, left=(0, 1)) if len(rows) > 1 else ""


def _aligned(rows: Sequence[Sequence[str]], left: tuple[int, ...]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            f"{cell:<{width}}" if i in left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
