"""A domain that is folders of images and of masks with the same file stems."""

import copy
import glob
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import ImageOps

from segzoo.data.domains import Domain, ImageSet, Pixels, Split
from segzoo.data.files import walk
from segzoo.data.image_files import check_mode, check_size, opened, read_ids, size_of
from segzoo.data.label_spaces import IDENTITY, ClassMap, load_class_map, load_label_space
from segzoo.data.references import IMAGE_TYPES, match_references, read_pairs
from segzoo.data.splits import time_blocks
from segzoo.errors import ConfigError, DataError

MASK_TYPES = (".png", ".bmp", ".tif", ".tiff")  # lossless: JPEG and lossy WebP change ids
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class PairedFolders(Domain):
    """Images and masks in folders, paired by file stem; sub-folders are searched too.

    ``images/a/0001.jpg`` belongs to ``masks/a/0001.png``. Every image needs a mask and every mask an image.
    Masks hold one class id per pixel (8- or 16-bit greyscale, or a palette whose colours are ignored), not
    colours.

    Args:
        images: folder of the images below the data root; ``{split}`` in it stands for train, val and test.
        masks: the same for the masks; null for a domain without labels.
        label_space: name of a packaged label space, or the path of a YAML of one's own.
        class_map: the map of the label space that fits the raw ids of the masks; ``identity`` if they are
            label ids.
        blocks: shares of train, val and test when the folder holds all frames, e.g. ``[0.8, 0.1, 0.1]``: the
            frames, sorted by name with numbers in numeric order, are cut into three contiguous blocks. Null:
            all frames are train.
        gap: frames left out between two blocks, so that near duplicates do not stand on both sides.
        name: short name for run folders and tables; by default it comes from the folder.
        image_suffix: end of every image's stem that the mask's lacks, e.g. ``_leftImg8bit``; other files are
            skipped.
        mask_suffix: end of every mask's stem that the image's lacks, e.g. ``_gtFine_labelIds``; other files
            are skipped.
        split_folders: what ``{split}`` stands for where it is not the split's own name, e.g. ``{test: val}``
            for Cityscapes, whose test masks are not public.
        unlabelled: splits without masks, e.g. ``[train]`` where only the images to score on have them.
        references: folder of a further image of the same place for every training image, e.g. by day for one by night, for
            methods that look at it (``--method.reference_classes``); of the same stem, or as the pairs say.
        reference_pairs: CSV files below the data root, e.g. ``corresp/train/night/*_ref_day.csv``, with an image and its
            reference per row.

    Raises:
        ConfigError: unknown label space or class map, or options that contradict each other.
    """

    def __init__(
        self,
        images: str,
        masks: str | None,
        label_space: str,
        class_map: str = IDENTITY,
        blocks: tuple[float, float, float] | None = None,
        gap: int = 0,
        name: str | None = None,
        image_suffix: str = "",
        mask_suffix: str = "",
        split_folders: dict[Split, str] | None = None,
        unlabelled: tuple[Split, ...] = (),
        references: str | None = None,
        reference_pairs: str | None = None,
    ) -> None:
        by_folder = "{split}" in images
        if masks is not None and ("{split}" in masks) != by_folder:
            raise ConfigError(f"images '{images}' and masks '{masks}': write {{split}} in both or in neither")
        if by_folder and blocks is not None:
            raise ConfigError(f"images '{images}' has a folder per split; remove blocks, or remove {{split}}")
        if not by_folder and (split_folders or unlabelled):
            raise ConfigError(f"split_folders and unlabelled need a folder per split: write {{split}} in '{images}'")
        for split in (*(split_folders or {}), *unlabelled):
            if split not in SPLITS:
                raise ConfigError(f"split_folders and unlabelled know train, val and test, found '{split}'")
        if reference_pairs and not references:
            raise ConfigError(f"reference_pairs '{reference_pairs}' needs references, the folder of those images")
        if blocks is None and gap:
            raise ConfigError(f"gap {gap} needs blocks: it is the number of frames left out between two of them")
        if blocks is not None:
            time_blocks(10**9, blocks, gap)  # refuses wrong shares before any file is read
        self.label_space = load_label_space(label_space)
        self.class_map = load_class_map(self.label_space, class_map)
        self.name = name or _default_name(images)
        self._images, self._masks, self._blocks, self._gap = images, masks, blocks, gap
        self._image_suffix, self._mask_suffix = image_suffix, mask_suffix
        self._split_folders, self._unlabelled = split_folders or {}, unlabelled
        self._references, self._reference_pairs = references, reference_pairs

    def images(self, split: Split, root: Path) -> "FolderImages":
        """The images of one split, with the file lists checked; pixels are checked when they are read.

        Raises:
            DataError: a missing or empty folder, an image without its mask or the reverse, two files of one
                stem, or no such split; the message names the file and what to do.
        """
        if "{split}" not in self._images and self._blocks is None and split != "train":
            raise DataError(
                f"'{self.name}' has no {split} split: all of '{self._images}' is train; set blocks "
                "(e.g. [0.8, 0.1, 0.1]) to cut it by time, or write {split} in images and masks for a "
                "folder per split"
            )
        masks = None if split in self._unlabelled else self._masks
        folder = self._split_folders.get(split, split)
        found = FolderImages(
            _folder(self._images, folder, root),
            None if masks is None else _folder(masks, folder, root),
            self.class_map,
            self._image_suffix,
            self._mask_suffix,
        )
        if split == "train" and self._references is not None:
            self._add_references(found, _folder(self._references, folder, root), root)
        if self._blocks is None:
            return found
        block = time_blocks(len(found), self._blocks, self._gap)[SPLITS.index(split)]
        if not block:
            raise DataError(
                f"'{self.name}' has no {split} split: its share is 0 in blocks {list(self._blocks)}; give it one"
            )
        return found.select(block)

    def _add_references(self, images: "FolderImages", folder: Path, root: Path) -> None:
        pairs = None
        if self._reference_pairs is not None:
            pattern = str(root.expanduser() / self._reference_pairs)
            files = sorted(Path(file) for file in glob.glob(pattern, recursive=True))
            if not files:
                raise DataError(
                    f"there is no file {pattern}: reference_pairs are lists of which images belong together"
                )
            pairs = read_pairs(files, self._image_suffix)
        images.add_references(folder, pairs, self._image_suffix)


class FolderImages(ImageSet):
    """The pairs of one images folder and one masks folder, in natural order of their relative stems.

    Args:
        images: folder of the images.
        masks: folder of the masks, or None.
        class_map: raw mask id -> label id.
        image_suffix: end of an image's stem that its pair name lacks.
        mask_suffix: the same for masks.
        upright: turn images as their EXIF orientation says; for images without masks, which carry none.
        files: the images by name, instead of all in the folder.

    Raises:
        DataError: see :meth:`PairedFolders.images`.
    """

    def __init__(
        self,
        images: Path,
        masks: Path | None,
        class_map: ClassMap,
        image_suffix: str = "",
        mask_suffix: str = "",
        upright: bool = False,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        self._class_map, self._upright = class_map, upright
        self._image_files = _scan(images, "image", IMAGE_TYPES, image_suffix) if files is None else dict(files)
        self.has_labels = masks is not None
        self._mask_files = {} if masks is None else _scan(masks, "mask", MASK_TYPES, mask_suffix)
        if masks is not None:
            _check_partners(self._image_files, self._mask_files, "image", masks, mask_suffix)
            _check_partners(self._mask_files, self._image_files, "mask", images, image_suffix)
        self.names: Sequence[str] = sorted(self._image_files, key=_natural)
        self._reference_files: dict[str, Path] = {}

    def add_references(self, folder: Path, pairs: Mapping[str, str] | None, suffix: str = "") -> None:
        """Gives every image its reference from a folder, see `match_references`.

        Raises:
            DataError: an image without one.
        """
        files = _scan(folder, "image", IMAGE_TYPES, suffix)
        matched = match_references(self.names, files, folder, pairs)
        self._reference_files = {name: files[reference] for name, reference in matched.items()}
        self.has_references = True

    def select(self, indices: Sequence[int]) -> "FolderImages":
        """The same set reduced to some of its images."""
        chosen = copy.copy(self)
        chosen.names = [self.names[i] for i in indices]
        return chosen

    def image(self, index: int) -> Pixels:
        """The image as (H, W, 3) uint8 RGB.

        An EXIF orientation is not applied, as masks carry none, unless ``upright``. (TIFF's own orientation tag is
        applied by the decoder, to masks too.)

        Raises:
            DataError: the file cannot be read.
        """
        return self._pixels(self._image_files[self.names[index]])

    def _pixels(self, path: Path) -> Pixels:
        with opened(path, "image") as stored:
            file = ImageOps.exif_transpose(stored) if self._upright else stored
            if file.mode.startswith("I"):  # 16 bits: PIL would clip to 255 rather than scale
                grey = np.clip(np.asarray(file) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            if file.mode == "F":
                raise DataError(f"{path} is a floating-point image; convert it to 8 bits per channel")
            return np.array(file.convert("RGB"))

    def label(self, index: int) -> Pixels:
        """The label ids as (H, W) uint8; 255 is ignored.

        Raises:
            DataError: the mask cannot be read, holds colours or an id that the class map does not define, or
                is not of its image's size.
        """
        if not self.has_labels:
            raise DataError(
                f"there is no mask for {self._image_files[self.names[index]]}: set masks to the folder of the masks"
            )
        path, image_path = self._mask_files[self.names[index]], self._image_files[self.names[index]]
        raw = read_ids(path)
        check_size(path, (raw.shape[1], raw.shape[0]), image_path)
        return self._class_map.apply(raw, path)

    def check(self) -> None:
        """See `ImageSet.check`: sizes and modes, but not the ids, for which a mask has to be read."""
        for name in self.names if self.has_labels else ():
            path = self._mask_files[name]
            with opened(path, "mask") as file:
                check_mode(file, path)
                check_size(path, file.size, self._image_files[name])

    def reference(self, index: int) -> Pixels:
        """The reference of an image as (H, W, 3) uint8 RGB.

        Raises:
            DataError: there is none, it cannot be read, or it is not of its image's size.
        """
        if not self.has_references:
            raise DataError("there are no reference images: set references to their folder")
        path, own = self._reference_files[self.names[index]], self._image_files[self.names[index]]
        pixels, (width, height) = self._pixels(path), size_of(own)
        if pixels.shape[:2] != (height, width):
            raise DataError(
                f"the reference {path} is {pixels.shape[1]}x{pixels.shape[0]} (width x height) but {own} is {width}x{height}; "
                "both are cut alike and must have one size"
            )
        return pixels

    def fingerprint(self) -> str | None:
        """A hash of the mask files' paths, sizes and times and of the class map; None without masks."""
        if not self.has_labels:
            return None
        digest = hashlib.sha256(self._class_map.lut.tobytes())
        for name in self.names:
            path = self._mask_files[name].absolute()
            try:
                status = path.stat()
            except OSError:  # a link to nowhere: reading the mask says what is wrong with it
                return None
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _folder(pattern: str, name: str, root: Path) -> Path:
    folder = root.expanduser() / Path(pattern.replace("{split}", name)).expanduser()
    if folder.is_dir():
        return folder
    found = "is not a folder" if folder.exists() else "does not exist"
    raise DataError(
        f"the folder {folder} {found}; set --data.root to the folder that '{pattern}' starts from, or "
        "--data.DOMAIN.split_folders to the names of its folders, e.g. '{val: test}'"
    )


def _scan(folder: Path, what: str, types: Sequence[str], suffix: str) -> dict[str, Path]:
    """Files of the folder and its sub-folders by relative stem without the suffix."""
    files: dict[str, Path] = {}
    if not folder.is_dir():
        raise DataError(f"the {what} folder {folder} does not exist")
    # Without hidden files, which are leftovers of file managers ("._0001.png" is no image).
    for path in walk(folder):
        if path.suffix.lower() not in types or not path.stem.endswith(suffix) or path.stem == suffix:
            continue
        stem = path.relative_to(folder).with_name(path.stem.removesuffix(suffix)).as_posix()
        if stem in files:
            first, second = sorted((files[stem], path))
            raise DataError(f"two {what} files have the same stem: {first} and {second}; remove or rename one")
        files[stem] = path
    if not files:
        ending = f" whose stem ends in '{suffix}'" if suffix else ""
        raise DataError(f"no {what}s in {folder}: expected files of type {', '.join(types)}{ending}")
    return files


def _check_partners(
    files: Mapping[str, Path], partners: Mapping[str, Path], what: str, folder: Path, suffix: str
) -> None:
    alone = sorted(files.keys() - partners.keys(), key=_natural)
    if alone:
        other = "mask" if what == "image" else "image"
        more = f" (and {len(alone) - 1} more {what}s without one)" if len(alone) > 1 else ""
        raise DataError(
            f"the {what} {files[alone[0]]} has no {other}{more}: expected "
            f"{folder / alone[0]}{suffix}.*; add it or remove the {what}"
        )


def _natural(stem: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame 9 before frame 10."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", stem) if part]


def _default_name(images: str) -> str:
    """``camvid`` for ``camvid/{split}/image``: the innermost folder itself is mostly called images."""
    path = Path(images)
    parts = [part for part in path.parts if part not in (path.anchor, ".", "..", "~") and "{split}" not in part]
    return parts[-2] if len(parts) > 1 else (parts[0] if parts else "folders")
