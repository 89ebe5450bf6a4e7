"""The YAML of two domains, written from what was found in their folders, with a comment for every line."""

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from segzoo.data.image_files import sizes_of, turned
from segzoo.data.layouts import UNLABELLED
from segzoo.data.pairing import said_of_ending
from segzoo.data.splits import evenly, time_blocks
from segzoo.dataprep.classes import map_name, quoted
from segzoo.dataprep.mask_kinds import Stored
from segzoo.dataprep.photographs import Photographs, said_of_masks
from segzoo.dataprep.places import Pairs
from segzoo.errors import DataError

SAMPLE = 200
SHORTER_SIDE, MULTIPLE = 512, 32
BLOCKS: Sequence[tuple[float, float, float]] = ((0.7, 0.1, 0.2), (0.5, 0.25, 0.25), (0.4, 0.3, 0.3), (0.5, 0, 0.5))
FEW, SCORED = 40, 20
"""Labelled images of which half are kept for scoring; images of a split whose score says something."""
GAP, LONG = 5, 100
COLUMN = 46


@dataclass(frozen=True)
class Found:
    """What is known of one domain.

    Attributes:
        pairs: its files.
        stored: what its masks store; None without masks.
        class_map: the name of the map for its masks.
        unlabelled: photographs that nobody labelled; None: there are none.
        note: on its class map; empty when there is nothing to say.
    """

    pairs: Pairs
    stored: Stored | None
    class_map: str
    unlabelled: Photographs | None = None
    note: str = ""


def data_yaml(name: str, domains: Mapping[str, Found], label_space: str, space_note: str, command: str) -> str:
    """The file that ``fit`` reads.

    Args:
        name: of the pair of domains.
        domains: ``source`` and ``target``.
        label_space: as the YAML names it.
        space_note: the comment beside it.
        command: that trains on it, for the first line.
    """
    folders = [Path(found.pairs.layout.images) for found in domains.values()]
    folders += [Path(found.pairs.layout.masks) for found in domains.values() if found.pairs.layout.masks]
    folders += [found.unlabelled.folder for found in domains.values() if found.unlabelled]
    root = Path(os.path.commonpath([_fixed(folder) for folder in folders]))
    size, said = _size(domains["target"].pairs)
    lines = [
        f"# {command}",
        "#",
        "# Written from what was found in the folders. GUESSED marks what to look at.",
        "data:",
    ]
    lines += [
        _line(1, "name", quoted(name), "names the run folder"),
        _line(1, "root", quoted(str(root)), "the folders below start here"),
        _line(1, "size", f"[{size[0]}, {size[1]}]", f"GUESSED: height, width of the network's input; {said}"),
    ]
    for domain, found in domains.items():
        what = (
            "the synthetic images, which are learnt from" if domain == "source" else "the real images, which are scored"
        )
        lines += [
            f"  {domain}:  # {what}",
            "    class_path: segzoo.data.PairedFolders",
            "    init_args:",
            *_domain(domain, found, root),
            _line(3, "label_space", quoted(label_space), space_note),
        ]
    lines.append(_line(1, "target_labels", "null", "labelled target images a method may see, e.g. 16; null: all"))
    return "\n".join(lines) + "\n"


def _domain(domain: str, found: Found, root: Path) -> list[str]:
    pairs, layout = found.pairs, found.pairs.layout
    counts = ", ".join(f"{len(files)} {split}" for split, files in pairs.files.items())
    masked = {split: any(mask is not None for _, mask in files) for split, files in pairs.files.items()}
    lines = [_line(3, "images", quoted(_below(layout.images, root)), f"{counts} images")]
    if layout.masks is None:
        lines.append(_line(3, "masks", "null", "no masks: trained on by methods that need none, and not scored"))
    else:
        alone = len(pairs.unpaired) - (
            found.unlabelled.count if found.unlabelled and found.unlabelled.without_masks else 0
        )
        unpaired = f"; {alone} files have no partner" if alone else ""
        paired = (
            "paired by stem" if not pairs.image_suffix + pairs.mask_suffix else "paired by stem without the suffixes"
        )
        lines.append(_line(3, "masks", quoted(_below(layout.masks, root)), f"{paired}{unpaired}"))
    if layout.splits and any(split != name for split, name in layout.splits.items()):
        named = ", ".join(f"{split}: {quoted(name)}" for split, name in layout.splits.items() if split != name)
        lines.append(_line(3, "split_folders", f"{{{named}}}", "what {split} stands for"))
    without = [split for split in layout.splits if layout.masks and not masked[split]]
    missing = [
        split for split in ("val", "test") if layout.splits and split not in layout.splits and domain == "target"
    ]
    if listed := without + (missing if layout.masks else []):
        lines.append(_line(3, "splits_without_masks", f"[{', '.join(listed)}]", "these have no masks, or no folder"))
    lines += [
        f"      # GUESSED: there is no folder for {split}; make one, or {split} cannot be scored" for split in missing
    ]
    for kind, suffix in (("image", pairs.image_suffix), ("mask", pairs.mask_suffix)):
        if suffix:
            lines.append(
                _line(3, f"{kind}_suffix", quoted(suffix), f"the end of every {kind}'s stem, left out in pairs")
            )
    if found.stored is not None:
        held = {"ids": "ids", "binary": "0 and 255", "colours": "colours", "red": "ids in red"}[found.stored.kind]
        what = f"the masks hold {held}" + ("" if found.stored.kind == "binary" else f": {_values(found.stored)}")
        lines.append(_line(3, "class_map", found.class_map, f"{found.note}{what}"))
        if found.stored.kind == "red":
            lines.append(_line(3, "channel", "red", "the other channels hold something else, such as instances"))
    if domain == "target" and not layout.splits and layout.masks:
        if (divided := _divided(pairs)) is None:
            lines.append(
                "      # GUESSED: one image is trained on, and none is left to be scored; add images, or folders val/ and test/"
            )
        else:
            blocks, gap = divided
            shares = f"[{', '.join(f'{share:g}' for share in blocks)}]"
            lines.append(
                _line(3, "blocks", shares, "GUESSED: shares of train, val and test, in the order of the names")
            )
            why = "frames left out between two blocks, as neighbours of a video look alike"
            lines.append(_line(3, "gap", str(gap), f"GUESSED: {why}"))
    if found.unlabelled is not None:
        what = f"{found.unlabelled.count} photographs that nobody labelled"
        if found.unlabelled.without_masks:
            what = f"GUESSED: of the training images, the {found.unlabelled.count} that have no mask are meant to have none"
        lines.append(_line(3, "unlabelled", quoted(_below(str(found.unlabelled.folder), root)), what))
    lines.append(_line(3, "name", domain if domain == "source" else "target", "for tables"))
    return lines


def said_of_unpaired(domain: str, found: Found) -> list[str]:
    """Sentences on files without a partner, at which a training would stop, and on masks that are taken for images.

    Args:
        domain: ``source`` or ``target``.
        found: what is known of it.
    """
    pairs, said = found.pairs, []
    known = found.unlabelled is not None and found.unlabelled.without_masks
    alone = [
        path
        for split, paths in pairs.unmasked.items()
        for path in paths
        if path not in pairs.unread and not (known and split == "train")
    ]
    if alone:
        remedy = "add the masks, or move the images to another folder"
        if domain == "target":
            place = Path(_fixed(Path(pairs.layout.images))) / UNLABELLED[0]
            remedy += f", such as {place}, and give it as `target_unlabelled {place}` to train on them without masks"
        said.append(
            f"{_some(alone, domain, 'images')} no mask, e.g. {alone[0]}: a training would stop at the first of them; {remedy}"
        )
    if pairs.unread:
        path, mask = next(iter(pairs.unread.items()))
        said.append(
            f"{_some(pairs.unread, domain, 'images')} no mask that is read, e.g. {path}: {said_of_ending(mask, 'mask')}"
        )
    if pairs.layout.masks is None:
        root = Path(_fixed(Path(pairs.layout.images) / "*"))
        paths = [path for files in pairs.files.values() for path, _ in files]
        files = {path.relative_to(root).with_suffix("").as_posix(): path for path in paths}
        said += [line] if (line := said_of_masks(files, labelled=True)) else []
    images = set(pairs.unmasked_files)
    if masks := [path for path in pairs.unpaired if path not in images]:
        said.append(
            f"{_some(masks, domain, 'masks')} no image, e.g. {masks[0]}: a training would stop at the first of them; add the "
            "images, or move the masks elsewhere"
        )
    return said


def _some(files: Collection[Path], domain: str, what: str) -> str:
    return f"{len(files)} of the {domain}'s {what} {'has' if len(files) == 1 else 'have'}"


def said_of_splits(target: Found) -> str:
    """A sentence on val and test that are cut off too few labelled images; empty where they are not."""
    pairs = target.pairs
    if pairs.layout.splits or not pairs.layout.masks or (divided := _divided(pairs)) is None:
        return ""
    train, val, test = map(len, time_blocks(pairs.count, *divided))
    if min(val, test) >= SCORED:
        return ""
    return (
        f"blocks divide the {pairs.count} labelled photographs into {train} for train, {val} for val and {test} for test: "
        f"about {SCORED} are needed in val and in test for a score that means something"
    )


def _divided(pairs: Pairs) -> tuple[tuple[float, float, float], int] | None:
    """Shares of train, val and test of images in one folder, and the gap between them; None for a single image."""
    blocks = _blocks(pairs.count)
    return None if blocks is None else (blocks, GAP if pairs.count >= LONG and _is_sequence(pairs) else 0)


def _blocks(count: int) -> tuple[float, float, float] | None:
    """Shares of train, val and test that leave none of them empty, as long as there are images; None for a single image."""
    for blocks in BLOCKS[count < FEW :]:
        with suppress(DataError):
            time_blocks(count, blocks, 0)
            return blocks
    return None


def _values(stored: Stored) -> str:
    if stored.kind == "colours":
        return f"{len(stored.pixels)} of them"
    ids = sorted(stored.pixels)
    return ", ".join(map(str, ids[:10])) + (f", ... up to {ids[-1]}" if len(ids) > 10 else "")


def _size(pairs: Pairs) -> tuple[tuple[int, int], str]:
    """Height and width for the network: those of most images, reduced, multiples of 32."""
    files = [image for found in pairs.files.values() for image, _ in found]
    sizes, wrong = Counter[tuple[int, int]](), list[DataError]()
    for i in evenly(len(files), SAMPLE):
        try:
            sizes[turned(*sizes_of(files[i]))] += 1
        except DataError as error:
            wrong.append(error)
    if not sizes:
        raise wrong[0]
    (width, height), count = sizes.most_common(1)[0]
    if 2 * count < sizes.total():  # no size is that of most: the one in the middle
        width, height = (int(median(size[axis] for size in sizes.elements())) for axis in (0, 1))
    scale = min(1.0, SHORTER_SIDE / min(width, height))
    rounded = [max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (height, width)]
    share = "all" if len(sizes) == 1 else f"{count} of {sizes.total()}"
    said = f"{share} target images are {height} x {width}"
    if 2 * count < sizes.total():
        said = f"the target's images have {len(sizes)} sizes, the median is {height} x {width}"
    return (rounded[0], rounded[1]), said + (
        f"; {len(wrong)} cannot be read, which `data check` names" if wrong else ""
    )


def _is_sequence(pairs: Pairs) -> bool:
    """Whether most names end in numbers that follow each other, as frames of videos do."""
    names = [image.stem.removesuffix(pairs.image_suffix) for files in pairs.files.values() for image, _ in files]
    numbers = [int(match[1]) for name in names if (match := re.search(r"(\d+)$", name))]
    steps = Counter(b - a for a, b in pairwise(numbers))
    return bool(steps) and steps.most_common(1)[0][1] > len(names) / 2


def _fixed(folder: Path) -> str:
    """The part of a folder before ``{split}`` or ``*``."""
    parts = folder.parts
    first = next((i for i, part in enumerate(parts) if part in ("{split}", "*")), None)
    return str(folder.parent if first is None else Path(*parts[:first]))


def _below(folder: str, root: Path) -> str:
    return str(Path(folder).relative_to(root))


def _line(depth: int, key: str, value: str, comment: str) -> str:
    line = f"{'  ' * depth}{key}: {value}"
    return f"{line:<{COLUMN}}  # {comment}"


def fitting_method(target: Found) -> str:
    """A method that learns from all that the target has."""
    labelled = any(mask is not None for _, mask in target.pairs.files.get("train", ()))
    return "ssda" if labelled and target.unlabelled else "joint" if labelled else "self-training"


def chosen_map(domain: str, mapped: Mapping[int, str]) -> str:
    """The class map of a domain in a label space that was written for it."""
    return map_name(domain) if mapped else "identity"
