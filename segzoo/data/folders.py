"""A domain that is folders of images and of masks with the same file stems."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from segzoo.checks import check_range
from segzoo.data.class_maps import IDENTITY, ClassMap, RawIds
from segzoo.data.domains import SPLITS, Domain, ImageSet, JoinedImages, Pixels, Split
from segzoo.data.files import fingerprint_of
from segzoo.data.folder_names import are_one, check_folders, default_name, existing_folder, folder_path, has_folder
from segzoo.data.image_files import check_pages, opened, read_image, used_bits
from segzoo.data.label_spaces import load_class_map, load_label_space
from segzoo.data.mask_files import Channel, check_channel, check_head, find_masks, mask_size, read_mask, size_remedy
from segzoo.data.named_masks import sidecar
from segzoo.data.pairing import NONE, Affixes, apart, check_partners, files_by_stem, natural_order, without_partner
from segzoo.data.references import IMAGE_TYPES, find_pairs, match_references
from segzoo.data.splits import evenly, time_blocks
from segzoo.data.turning import Turning
from segzoo.errors import ConfigError, DataError

DEPTH_SAMPLE = 16
"""Images of a set that are looked at for how many of 16 bits it uses."""


class PairedFolders(Domain):
    """Images and masks in folders, paired by file stem; sub-folders are searched too.

    ``images/a/0001.jpg`` belongs to ``masks/a/0001.png``. Every image needs a mask and every mask an image.
    Masks hold one class id per pixel (greyscale of 8 or 16 bits, a palette whose colours do not count, an array of NumPy), or
    the colour of a class where the class map lists colours, or objects where it lists their names.

    Args:
        images: Names the folder of the images below the data root; ``{split}`` stands for train, val and test, and ``*`` for
            any folder, as in ``rgb/*/{split}``.
        masks: Names the folder of the masks below the data root, with ``{split}`` if the images' folder has it; null is for a
            domain without labels.
        label_space: Names the classes: a packaged label space, such as cityscapes, or the path of your own YAML file.
        class_map: Names the map of the label space that turns the ids or colours of the masks into classes: ``identity`` for
            masks of label ids, ``palette`` for the colours of the label space, and ``binary`` for 0 and 255.
        blocks: Divides a single folder into train, val and test by these shares, such as ``[0.8, 0.1, 0.1]``, as three
            contiguous blocks of the frames, sorted by name with numbers in numeric order. With null, all frames are train.
        gap: Leaves out this number of frames between two blocks, so that similar frames of a video do not fall into two splits.
        name: Names the domain in run folders and tables; null derives it from the folder.
        image_suffix: Gives the ending of the image stems that the mask stems lack, such as ``_leftImg8bit``; other files in the
            folder are skipped.
        mask_suffix: Gives the ending of the mask stems that the image stems lack, such as ``_gtFine_labelIds``; other files in
            the folder are skipped.
        split_folders: Gives the folder names for ``{split}`` that differ from the names of the splits, such as ``{test: val}``
            for Cityscapes, whose test masks are not public.
        splits_without_masks: Lists the splits that have no masks, such as ``[train]``; val and test may then have no folder.
        unlabelled: Names a folder, below the data root, of further target photographs without masks. Methods that learn from
            unlabelled images use them beside the train split, or instead of one. The folder of the training images itself
            stands for those of them that have no mask, which is an error otherwise.
        references: Names a folder with another image of the same place for every training image, for example by day for an
            image by night (``night`` of self-training and sepico uses it). Its file has the stem of the image, or the name in
            reference_pairs.
        reference_pairs: Names CSV files below the data root, such as ``corresp/train/night/*_ref_day.csv``, whose rows hold an
            image and its reference.
        image_bits: Gives the number of bits, 8 to 16, that images of 16 bits per channel really use, such as 12 for values up
            to 4095. Null takes 16; a folder with only darker images is then an error.
        upright: Says whether images are rotated by their EXIF orientation. Null rotates an image if it then fits the size of
            its mask. If both orientations fit (a square image, a half turn), it does the same as for the other images of the
            folder. It rotates images without masks.
        channel: Names the channel that holds the ids in masks with several channels, such as red in CARLA's raw export, whose
            other channels hold instances. Null is for masks with one value per pixel, or with colours that the class map lists.
        image_prefix: Gives the beginning of the image stems that the mask stems lack, such as ``rgb_``; other files in the
            folder are skipped.
        mask_prefix: Gives the beginning of the mask stems that the image stems lack, such as ``semantic_segmentation_``; other
            files in the folder are skipped.

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
        splits_without_masks: tuple[Split, ...] = (),
        unlabelled: str | None = None,
        references: str | None = None,
        reference_pairs: str | None = None,
        image_bits: int | None = None,
        upright: bool | None = None,
        channel: Channel | None = None,
        image_prefix: str = "",
        mask_prefix: str = "",
    ) -> None:
        self._of_images, self._of_masks = Affixes(image_suffix, image_prefix), Affixes(mask_suffix, mask_prefix)
        alike = self._of_images == self._of_masks
        check_folders(images, masks, alike, blocks, split_folders or {}, splits_without_masks)
        if image_bits is not None:
            check_range("image_bits", image_bits, 8, 16)
        if unlabelled is not None and not isinstance(unlabelled, str):
            raise ConfigError(
                f"unlabelled {unlabelled}: expected a folder of photographs; the splits that have no masks are listed as "
                "splits_without_masks (`data.DOMAIN.splits_without_masks`)"
            )
        if "{split}" in (unlabelled or ""):
            raise ConfigError(f"unlabelled '{unlabelled}' is for training alone: name one folder, without {{split}}")
        if reference_pairs and not references:
            raise ConfigError(f"reference_pairs '{reference_pairs}' needs references, the folder of those images")
        if blocks is None and gap:
            raise ConfigError(f"gap {gap} needs blocks: it is the number of frames left out between two of them")
        if blocks is not None:
            time_blocks(10**9, blocks, gap)  # refuses wrong shares before any file is read
        self.label_space = load_label_space(label_space)
        self.class_map = load_class_map(self.label_space, class_map)
        if channel is not None:
            check_channel(channel, self.class_map)
        self.name = name or default_name(images)
        self._images, self._masks, self._blocks, self._gap = images, masks, blocks, gap
        self._split_folders, self._without_masks = split_folders or {}, splits_without_masks
        self._unlabelled, self._references, self._reference_pairs = unlabelled, references, reference_pairs
        self._image_bits, self._upright, self._channel = image_bits, upright, channel

    @property
    def is_undivided(self) -> bool:
        """Whether all images are labelled training images, and none are left to score on."""
        return self._masks is not None and self._blocks is None and "{split}" not in self._images

    def has_split(self, split: Split, root: Path) -> bool:
        """Whether there is such a split. Images that have no masks and no such folder, or one folder for all, are train.

        Beside a folder of unlabelled photographs there need not be a train split, nor a val or test split without masks.
        """
        if self._blocks is not None:
            return self._blocks[SPLITS.index(split)] > 0
        if "{split}" not in self._images:
            return split == "train"
        labelled = self._masks is not None and split not in self._without_masks
        expected = self._unlabelled is None if split == "train" else labelled
        return expected or has_folder(self._images, self._split_folders.get(split, split), root)

    def unlabelled(self, root: Path) -> "FolderImages | None":
        """The photographs of the folder ``unlabelled``; None where none is named.

        Raises:
            DataError: a missing or empty folder.
        """
        if self._unlabelled is None:
            return None
        folder = existing_folder(self._unlabelled, "unlabelled", root)
        masks = self._unmasked_among("train", root)
        of_images = NONE if masks is None else self._of_images
        found = FolderImages(folder, None, self.class_map, of_images, NONE, self._upright, image_bits=self._image_bits)
        if masks is None:
            return found
        rest = without_partner(found.names, masks, self._of_masks)
        return found.select(rest) if rest else None

    def _unmasked_among(self, split: Split, root: Path) -> Path | None:
        """The folder of the masks, where ``unlabelled`` is that of training images: these may lack a mask. Else None."""
        among_others = split != "train" and "{split}" in self._images
        if self._unlabelled is None or self._masks is None or split in self._without_masks or among_others:
            return None
        name = self._split_folders.get(split, split)
        images, masks = (folder_path(pattern, name, root) for pattern in (self._images, self._masks))
        shared = are_one(images, folder_path(self._unlabelled, "unlabelled", root)) and not are_one(images, masks)
        return masks if shared else None

    def images(self, split: Split, root: Path, unpaired: list[str] | None = None) -> ImageSet:
        """The images of one split, with the file lists checked; pixels are checked when they are read.

        None for train where there is a folder of unlabelled photographs and no such split. Where ``unpaired`` is given it
        gets a line for every file without its partner, which is left out and no error.

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
        if split == "train" and not self.has_split(split, root) and self._unlabelled is not None:
            return JoinedImages([])
        masks = None if split in self._without_masks else self._masks
        folder = self._split_folders.get(split, split)
        places = (
            existing_folder(self._images, folder, root, split),
            None if masks is None else existing_folder(masks, folder, root, split),
        )
        if self._of_images == self._of_masks and places[1] is not None and are_one(places[0], places[1]):
            raise DataError(f"{places[0]} and {places[1]} are one folder; set masks to the folder of the masks")
        found = FolderImages(
            *places,
            self.class_map,
            self._of_images,
            self._of_masks,
            self._upright,
            image_bits=self._image_bits,
            channel=self._channel,
            unpaired=unpaired,
            may_lack_masks=self._unmasked_among(split, root) is not None,
        )
        if split == "train" and self._references is not None:
            self._add_references(found, existing_folder(self._references, folder, root), root)
        if self._blocks is None:
            return found
        block = time_blocks(len(found), self._blocks, self._gap)[SPLITS.index(split)]
        if not block:
            raise DataError(
                f"'{self.name}' has no {split} split: its share is 0 in blocks {list(self._blocks)}; give it one"
            )
        return found.select(block)

    def _add_references(self, images: "FolderImages", folder: Path, root: Path) -> None:
        listed = self._reference_pairs
        pairs = None if listed is None else find_pairs(root, listed, self._of_images.suffix)
        images.add_references(folder, pairs, self._of_images)


class FolderImages(ImageSet):
    """The pairs of one images folder and one masks folder, in natural order of their relative stems.

    Args:
        images: folder of the images.
        masks: folder of the masks, or None.
        class_map: what the masks hold -> label id.
        of_images: what an image's stem has in addition to its pair's name.
        of_masks: the same for masks.
        upright: see `PairedFolders`.
        image_bits: see there.
        files: the images by name, instead of all in the folder; of several pages in one the first counts, without an error.
        channel: see `PairedFolders`.
        unpaired: see `PairedFolders.images`.
        may_lack_masks: leave out images that have no mask, without an error.

    Raises:
        DataError: see there.
    """

    def __init__(
        self,
        images: Path,
        masks: Path | None,
        class_map: ClassMap,
        of_images: Affixes = NONE,
        of_masks: Affixes = NONE,
        upright: bool | None = None,
        files: Mapping[str, Path] | None = None,
        image_bits: int | None = None,
        channel: Channel | None = None,
        unpaired: list[str] | None = None,
        may_lack_masks: bool = False,
    ) -> None:
        self._channel = channel
        self._bits, self._one_page = image_bits, files is None
        self._image_files = files_by_stem(images, "image", IMAGE_TYPES, of_images) if files is None else dict(files)
        self.has_labels = masks is not None
        self._mask_files = {} if masks is None else find_masks(masks, of_masks, class_map.names is not None)
        if masks is not None and are_one(images, masks):
            self._image_files, self._mask_files = apart(self._image_files, self._mask_files, of_images, of_masks)
        if masks is not None:
            check_partners(self._image_files, self._mask_files, "image", masks, of_masks, unpaired, may_lack_masks)
            check_partners(self._mask_files, self._image_files, "mask", images, of_images, unpaired)
        self.names: Sequence[str] = sorted(self._image_files, key=natural_order)
        self._turning = Turning(self._image_files, self._mask_files, upright)
        self._reference_files: dict[str, Path] = {}
        self.class_map: ClassMap | None = class_map if self.has_labels else None

    @property
    def files(self) -> Sequence[Path]:
        """The files of the images."""
        return [self._image_files[name] for name in self.names]

    @property
    def mask_files(self) -> Sequence[Path]:
        """The files of the masks."""
        return [self._mask_files[name] for name in self.names] if self.has_labels else []

    def add_references(self, folder: Path, pairs: Mapping[str, str] | None, of: Affixes = NONE) -> None:
        """Gives every image its reference from a folder, see `match_references`.

        Raises:
            DataError: an image without one.
        """
        files = files_by_stem(folder, "image", IMAGE_TYPES, of)
        matched = match_references(self.names, files, folder, pairs)
        self._reference_files = {name: files[reference] for name, reference in matched.items()}
        self.has_references = True

    def select(self, indices: Sequence[int]) -> "FolderImages":
        """The same set reduced to some of its images."""
        chosen = copy.copy(self)
        chosen.names = [self.names[i] for i in indices]
        return chosen

    def image(self, index: int) -> Pixels:
        """The image as (H, W, 3) uint8 RGB, turned upright or not as `PairedFolders` says.

        (TIFF's own orientation tag is applied by the decoder, to masks too.)

        Raises:
            DataError: the file cannot be read, or how is not clear.
        """
        name = self.names[index]
        return read_image(self._image_files[name], self._depth, self._turning.is_turned(name), self._one_page)

    def drawn_upright(self, index: int) -> bool | None:
        """See `Turning.drawn_upright`."""
        return self._turning.drawn_upright(self.names[index])

    def label(self, index: int) -> Pixels:
        """The label ids as (H, W) uint8; 255 is ignored.

        Raises:
            DataError: the mask cannot be read, holds an id or a colour that the class map does not define, or is not of its
                image's size.
        """
        return self.label_and_ids(index)[0]

    def label_and_ids(self, index: int) -> tuple[Pixels, RawIds]:
        """The label ids, and the ids or packed colours that the mask stores, both (H, W).

        Raises:
            DataError: see `label`.
        """
        name = self.names[index]
        if self.class_map is None:
            raise DataError(f"there is no mask for {self._image_files[name]}: set masks to the folder of the masks")
        path = self._mask_files[name]
        raw = read_mask(path, self.class_map, self._channel)
        self._check_size(name, (raw.shape[1], raw.shape[0]))
        return self.class_map.apply(raw, path), raw

    def check(self) -> None:
        """See `ImageSet.check`: sizes and modes, but not the ids, for which a mask has to be read."""
        if self.class_map is None:
            return
        for name in self.names:
            check_head(self._mask_files[name], self.class_map, self._channel)
            self._check_size(name, mask_size(self._mask_files[name]))
            with opened(self._image_files[name], "image") as file:
                check_pages(file, self._image_files[name], "image")

    def _check_size(self, name: str, size: tuple[int, int]) -> None:
        """Refuses a mask whose (width, height) is not that of its image."""
        image = self._image_files[name]
        width, height = self._turning.size(name, size)
        if size != (width, height):
            raise DataError(
                f"{self._mask_files[name]} is {size[0]}x{size[1]} (width x height) but its image {image} is {width}x{height}; "
                f"both must agree: {size_remedy(size, (width, height))}"
            )

    def _depth(self, path: Path) -> int:
        """How many bits images of 16 bits use; ``path`` is one of them."""
        if self._bits is None:
            self._bits = used_bits([path, *(self._image_files[self.names[i]] for i in evenly(len(self), DEPTH_SAMPLE))])
        return self._bits

    def reference(self, index: int) -> Pixels:
        """The reference of an image as (H, W, 3) uint8 RGB.

        Raises:
            DataError: there is none, it cannot be read, or it is not of its image's size.
        """
        if not self.has_references:
            raise DataError("there are no reference images: set references to their folder")
        path, own = self._reference_files[self.names[index]], self._image_files[self.names[index]]
        # Turned as its own EXIF orientation says, like an image without a mask.
        pixels = read_image(path, self._depth, self._turning.upright is not False)
        width, height = self._turning.size(self.names[index])
        if pixels.shape[:2] != (height, width):
            raise DataError(
                f"the reference {path} is {pixels.shape[1]}x{pixels.shape[0]} (width x height) but {own} is {width}x{height}; "
                "both are cut alike and must have one size"
            )
        return pixels

    def fingerprint(self) -> str | None:
        """A hash of the mask files' paths, sizes and times and of the class map; None without masks."""
        if self.class_map is None:
            return None
        files = [self._mask_files[name] for name in self.names]
        if self.class_map.names is not None:
            files += [beside for path in files if (beside := sidecar(path)) is not None]
        return fingerprint_of(files, f"{self.class_map.digest()} {self._channel}")
