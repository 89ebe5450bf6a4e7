"""One look at the labels before anything is trained or scored.

A class map that fits nothing, a foreground of 255 or photographs given as masks train and score without an error, and what
they give looks like a number. A sample of the masks tells them from labels: what cannot be right is an error, what need not
be wrong is a warning.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segzoo.data.class_maps import BINARY, IGNORE_INDEX, RawIds, packed
from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.label_shares import CELLS, DOMINANT, Counts, Looked, odd_pair, percent
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.splits import evenly
from segzoo.errors import DataError

SAMPLE, LARGER_SAMPLE = 64, 256
"""Masks of a set that are looked at; the larger one where the first lacks a class."""
PIXELS = 2**27
"""In the first sample: 64 masks of GTA5, fewer of larger ones."""
THREADS = 8
MANY_IDS = 64
"""Masks of classes hold fewer ids each, photographs more."""
Sets = Mapping[str, tuple[ImageSet, Sequence[int]]]


def check_labels(sets: Sets, space: LabelSpace) -> list[str]:
    """Looks at a sample of each set's masks, and says what is odd.

    Args:
        sets: see `look_at_labels`.
        space: the classes.

    Returns:
        Warnings, a line each; none when all is well.

    Raises:
        DataError: labels that cannot be right, or a mask that cannot be read.
    """
    return doubts(look_at_labels(sets, space), space)


def look_at_labels(sets: Sets, space: LabelSpace) -> list[Looked]:
    """What a sample of each set's masks holds, evenly spread, always the same one. Nothing is drawn at random.

    Args:
        sets: by name (``source/train``, ``target/test``), images with labels and which of them may be read.
        space: the classes.

    Raises:
        DataError: a mask that cannot be read, or is its image.
    """
    return [_look(name, images, indices, space) for name, (images, indices) in sets.items() if len(indices)]


def doubts(found: Sequence[Looked], space: LabelSpace) -> list[str]:
    """Warnings about labels that need not be wrong, a line each.

    Raises:
        DataError: labels that cannot be right.
    """
    for looked in found:
        _check_ids(looked, space)
    mixed = []
    for domain in ("source", "target"):
        those = [looked for looked in found if looked.name.startswith(domain)]
        _check_foreground(those, space)
        # A set may lack a class; where others hold both of two and no 255, this one holds 255 in the place of the second.
        if space.num_classes == 2 and any(one.without and not one.beside_one + one.beside_several for one in those):
            for looked in those:
                _check_foreground([looked], space)
        mixed += _mixed_foreground(domain, those, space)
    for looked in found:
        _check_void(looked)
        _check_binary(looked)
    return [warning for looked in found for warning in _odd_shares(looked, space)] + mixed + odd_pair(found, space)


def _look(name: str, images: ImageSet, indices: Sequence[int], space: LabelSpace) -> Looked:
    first, ids = images.label_and_ids(indices[0])
    picture = images.image(indices[0])  # says early, too, what is wrong with the images
    if ids is not None and _is_picture(ids, picture):
        raise DataError(
            f"{name}: the mask of '{images.names[indices[0]]}' is its image; set masks to the folder of the masks"
        )
    most = max(4, PIXELS // max(first.size, 1))
    looked = _count(name, images, indices, min(SAMPLE, most), space, first.size)
    if (looked.counts[: space.num_classes] == 0).any() and looked.masks < min(looked.total, LARGER_SAMPLE):
        looked = _count(name, images, indices, min(LARGER_SAMPLE, 4 * most), space, first.size)
    return looked


def _count(name: str, images: ImageSet, indices: Sequence[int], most: int, space: LabelSpace, size: int) -> Looked:
    chosen = [indices[i] for i in evenly(len(indices), most)]
    places, raw, crowded = np.zeros((256, CELLS**2), np.int64), dict[int, int](), 0
    has_ids = images.class_map is None or images.class_map.colours is None
    kinds = {(with_255, several): 0 for with_255 in (True, False) for several in (True, False)}
    # Masks of aerial images fill the memory by themselves.
    threads = 1 if size > PIXELS // SAMPLE * 8 else min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for labels, ids in pool.map(lambda index: _count_one(*images.label_and_ids(index)), chosen):
            places += labels
            crowded += len(ids) > max(MANY_IDS, 2 * space.num_classes)
            kinds[has_ids and IGNORE_INDEX in ids, bool(np.count_nonzero(labels[:IGNORE_INDEX].any(axis=1)) > 1)] += 1
            for number, pixels in ids.items():
                raw[number] = raw.get(number, 0) + pixels
    beside = (kinds[True, False], kinds[True, True], kinds[False, True])
    return Looked(name, len(indices), len(chosen), places, raw, crowded, *beside, images.class_map)


def _count_one(label: Pixels, ids: RawIds | None) -> tuple[Counts, dict[int, int]]:
    """(256, 9) pixels per label id and cell, and those per stored id or colour."""
    cells = [cell for rows in np.array_split(label, CELLS) for cell in np.array_split(rows, CELLS, axis=1)]
    places = np.stack([_pixels_per_id(cell, 256) for cell in cells], axis=1)
    if ids is None:
        return places, {}
    if ids.dtype == np.uint8:
        per_id = _pixels_per_id(ids, 256)
        return places, {int(number): int(per_id[number]) for number in np.flatnonzero(per_id)}
    # Runs of one value are few, and the values may be colours or reach far.
    flat = ids.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    values, which = np.unique(flat[starts], return_inverse=True)
    per_value = np.bincount(which, weights=np.diff(starts, append=flat.size))
    return places, {int(value): int(per_value[i]) for i, value in enumerate(values)}


def _pixels_per_id(ids: RawIds, length: int) -> Counts:
    # In parts, as counting makes 8 bytes of every pixel.
    parts = np.array_split(ids.ravel(), 1 + ids.size // 2**22)
    return sum((np.bincount(part, minlength=length) for part in parts), np.zeros(length, np.int64))


def _is_picture(ids: RawIds, picture: Pixels) -> bool:
    """Whether a mask and an image are one picture, which has more than a few grey levels."""
    if ids.shape != picture.shape[:2]:
        return False
    if ids.dtype == np.uint32 and (ids == packed(picture)).all():
        return np.unique(ids).size > 2
    return all(bool((picture[..., channel] == ids).all()) for channel in range(3)) and np.unique(ids).size > 2


def _check_ids(looked: Looked, space: LabelSpace) -> None:
    outside = np.flatnonzero(looked.counts[space.num_classes : IGNORE_INDEX])
    if outside.size:
        raise DataError(
            f"{looked}: label id {space.num_classes + outside[0]}, expected 0 to {space.num_classes - 1} or {IGNORE_INDEX}"
        )
    if looked.crowded * 2 > looked.masks:
        raise DataError(
            f"{looked}: most masks hold more than {max(MANY_IDS, 2 * space.num_classes)} different ids, as photographs do and "
            f"masks of {space.num_classes} classes do not; set masks to the folder of the masks"
        )


def _check_foreground(domain: Sequence[Looked], space: LabelSpace) -> None:
    """Refuses masks that hold one class beside 255, where no class map says that 255 is to be ignored."""
    counts = sum((looked.counts for looked in domain), np.zeros(256, np.int64))
    kept = np.flatnonzero(counts[:IGNORE_INDEX])
    raw: dict[int, int] = {}
    for looked in domain:
        for number, pixels in looked.raw.items():
            raw[number] = raw.get(number, 0) + pixels
    implied = [(looked, looked.class_map) for looked in domain if looked.class_map and not looked.class_map.void_listed]
    if space.num_classes == 1 or len(kept) != 1 or IGNORE_INDEX not in raw or not implied:
        return
    looked, class_map = implied[0]
    name, pixels = space.classes[kept[0]], sum(raw.values())
    missing = next(one for one in space.classes if one != name)
    ids = sorted(raw)
    shares = ", ".join(percent(raw[number] / pixels) for number in ids[:-1]) if len(ids) < 5 else ""
    held = f"{', '.join(map(str, ids[:-1][:8]))}{', ...' if len(ids) > 9 else ''} and 255"
    held += f" ({shares} and {percent(raw[IGNORE_INDEX] / pixels)} of the pixels)" if shares else ""
    entries = [f"{number}: {name}" for number in ids[:-1] if class_map.lut[number] == kept[0]][:8]
    entries += [f"{IGNORE_INDEX}: {missing}"] + ["others: ignore"] * (len(entries) < len(ids) - 1)
    # The map that needs not be written, where the space has none of that name.
    known = space.num_classes == 2 and kept[0] == 0 and ids in ([0, 255], [0, 1, 255]) and BINARY not in space.maps
    written = f"write a map into the YAML of the label space, maps: {{{BINARY}: {{{', '.join(entries)}}}}}, and "
    written = "" if known else written
    side = looked.name.partition("/")[0]
    raise DataError(
        f"{looked}: the masks hold {held} and nothing else, and 255 is ignored, so that '{name}' is the only class; if 255 is "
        f"one too, {written}set class_map to {BINARY} (`data.{side}.class_map`, or {side}_map of from_folders); if it is "
        "not, a map with 255: ignore says so"
    )


def _mixed_foreground(domain: str, those: Sequence[Looked], space: LabelSpace) -> list[str]:
    """Masks of two classes, of which some may store the foreground as 255, which is ignored, and others as its id."""
    alone, without = sum(one.beside_one for one in those), sum(one.without for one in those)
    meant = any(one.class_map is None or one.class_map.void_listed for one in those)
    if space.num_classes != 2 or meant or not alone or not without or any(one.beside_several for one in those):
        return []
    return [
        f"{domain}: of the masks that were looked at, {alone} hold 255 and at most one class, {without} hold both classes and "
        "no 255, and none holds all three; 255 is ignored: is it a class in some of them? (A map with 255: ignore says no.)"
    ]


def _check_binary(looked: Looked) -> None:
    """Refuses masks of 0, 1 and 255 that are read as binary: one of 1 and 255 is something else."""
    class_map = looked.class_map
    if class_map is None or class_map.name != BINARY or not {1, 255} <= looked.raw.keys():
        return
    if class_map.label_of(1) == class_map.label_of(255):
        first, second = class_map.classes[:2]
        raise DataError(
            f"{looked}: the masks hold 1 ({percent(looked.raw[1] / sum(looked.raw.values()))} of the pixels) and 255, and by "
            f"the class_map {BINARY} both are '{second}'; if 255 is to be ignored, set class_map to identity, else write a "
            f"map, e.g. maps: {{mine: {{0: {first}, 1: {second}, 255: {second}}}}}"
        )


def _check_void(looked: Looked) -> None:
    if looked.counts[:IGNORE_INDEX].any():
        return
    class_map = looked.class_map
    which, more = "", ""
    if class_map is not None:
        which = f" by the class_map '{class_map.name}' of the label space '{class_map.space}'"
        more = _stored(looked).replace(";", ":")
        known = class_map.listed().tolist()
        ids = f"{', '.join(map(class_map.written, known[:8]))}{', ...' if len(known) > 8 else ''}"
        more += f", classes are {ids}" if len(known) else ", and the map has no class"
    raise DataError(
        f"{looked}: every pixel is ignored{which}{more}; choose the class_map and the masks that belong together"
    )


def _stored(looked: Looked) -> str:
    """The ids or colours that files hold, the frequent ones first."""
    raw = looked.raw
    if not raw or looked.class_map is None:
        return ""
    ids = sorted(raw, key=lambda number: -raw[number])
    return f"; the masks hold {', '.join(map(looked.class_map.written, ids[:8]))}{', ...' if len(ids) > 8 else ''}"


def _odd_shares(looked: Looked, space: LabelSpace) -> list[str]:
    shares, void = looked.shares[: space.num_classes], looked.counts[IGNORE_INDEX] / looked.counts.sum()
    found = []
    missing = [name for name, share in zip(space.classes, shares, strict=True) if share == 0]
    if shares.max() == 1:
        only = space.classes[int(shares.argmax())]
        return [f"{looked}: every pixel that is not ignored is '{only}' ({percent(void)} are ignored{_stored(looked)})"]
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        found.append(f"{looked}: no pixel is '{shown}'" if len(missing) == 1 else f"{looked}: no pixel of {shown}")
    if shares.max() > DOMINANT:
        found.append(
            f"{looked}: {percent(shares.max())} of the labelled pixels are '{space.classes[int(shares.argmax())]}'"
        )
    if void > DOMINANT:
        found.append(f"{looked}: {percent(void)} of the pixels are ignored")
    return found
