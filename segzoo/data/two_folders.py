"""The data module of two folders, for use from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from lightning.pytorch.utilities import rank_zero_warn

from segzoo.data.class_colours import class_colours
from segzoo.data.class_maps import IDENTITY, IGNORE
from segzoo.data.datamodule import DomainDataModule
from segzoo.data.domains import Domain, Split
from segzoo.data.files import spelled
from segzoo.data.folders import PairedFolders
from segzoo.data.label_spaces import LabelSpace, load_label_space
from segzoo.data.layouts import Layout, find_layout, photographs_in
from segzoo.data.map_entries import read_map
from segzoo.data.several import SeveralDomains
from segzoo.data.views import Views
from segzoo.errors import ConfigError

Folders = str | Path | tuple[str | Path, str | Path | None]
"""A domain's folder, whose layout is found by looking; or its folders of images and of masks (None: there are none)."""
Classes = str | Path | LabelSpace | Sequence[str]
"""Name of a packaged label space, path of a YAML of one's own, or the names of the classes in the order of their ids."""
ClassMapping = str | Mapping[int | str | tuple[int, int, int], Any]
"""Name of a class map of the label space, or the map itself: id, range or colour to class, or class to what belongs to it."""
GIVEN = "given"
"""Name of a class map that was given as a mapping."""


class DataOptions(TypedDict, total=False):
    """The further options of `DomainDataModule`, which explains them."""

    name: str
    source_size: tuple[int, int] | None
    target_size: tuple[int, int] | None
    eval_batch_size: int
    labelled_order: Literal["random", "sorted"]
    crop_scale: tuple[float, float]
    crop_size: tuple[int, int] | None
    crop_max_class_share: float
    rare_class_temperature: float | None
    rare_class_min_share: float
    rare_class_min_crop_ratio: float
    ignore_top: int
    ignore_bottom: int
    flip: bool
    color_jitter: float
    blur: float
    protocol: Views | dict[str, Any] | None


def from_folders(
    source: Folders | Domain | list[Folders | Domain],
    target: Folders | Domain,
    *,
    label_space: Classes,
    size: tuple[int, int],
    target_labels: int | None = None,
    unlabelled: str | Path | None = None,
    source_map: ClassMapping | list[ClassMapping] = IDENTITY,
    target_map: ClassMapping = IDENTITY,
    source_weights: Sequence[float] | None = None,
    blocks: tuple[float, float, float] | None = None,
    gap: int = 0,
    batch_size: int = 4,
    num_workers: int | None = None,
    seed: int | None = None,
    **options: Unpack[DataOptions],
) -> DomainDataModule:
    """The data of two folders, of synthetic images and of photographs.

        data = from_folders("synthetic", "photos", label_space=["ground", "crack"], size=(256, 256), target_labels=16)

    ``synthetic/images/a/7.jpg`` belongs to ``synthetic/masks/a/7.png``; a mask holds one class id per pixel. Photographs that
    are to be scored lie in folders of their own (``photos/train/images``, ``photos/val/images``, ``photos/test/images``, and
    masks alike), or are cut off the others by ``blocks``. See `segzoo.data.layouts` for the names that are found.

    Args:
        source: the synthetic images and their masks: their folder, or a pair (folder of images, folder of masks). A list gives
            several sources (`SeveralDomains`).
        target: the same for the real images. Without masks (``(images, None)``, or none in the folder) they are trained on by
            methods that need none, and not scored. ``{split}`` in both of a pair stands for train, val and test.
        label_space: the classes: a packaged label space, a YAML of one's own, or the names of the classes by their ids.
        size: (height, width) of the network's input; scores are taken at the masks' own size.
        target_labels: how many labelled target images a method may see; None: all.
        unlabelled: a folder of further photographs of the target, which nobody labelled, or ``images/`` in it; None:
            ``photos/unlabelled``, if there is one. With them a train split may be missing, for methods without target labels.
        source_map: what the source's masks hold, where it is not the positions of the classes: a map of the label space, such
            as ``binary`` (0 and 255) or ``palette`` (its colours), or a mapping such as ``{0: "ground", 7: "crack", 9:
            "ignore"}``, ``{"crack": [7, "10-12"], "others": "ground"}`` or ``{(128, 0, 0): "crack", "#000000": "ground"}``.
            For several sources one for all, or a list with one for each.
        target_map: the same for the target's masks.
        source_weights: how often images are drawn from each of several sources, in proportion; None: from all alike.
        blocks: shares of train, val and test where the target's images lie in one folder: contiguous blocks of the images in
            the order of their names, as neighbours of one video are near duplicates.
        gap: frames left out between two blocks.
        batch_size: images per domain, step and process.
        num_workers: loader processes per stream; None: one or two, by the number of cores.
        seed: of order and augmentation; None: that of ``lightning.seed_everything``, else 0.
        **options: see `DomainDataModule`.

    Raises:
        DataError: a folder is missing or holds something else; the message says what was looked for and what is there.
        ConfigError: options that cannot be, or a target in one folder that nobody said how to divide.
    """
    space = _label_space(label_space)
    domains = (
        _source(source, space, source_map, source_weights),
        _domain(target, space, target_map, "target_map", blocks, gap, unlabelled),
    )
    if not isinstance(target, Domain):
        _check_divided(domains[1])
    named: DataOptions = {"name": "_to_".join(domain.name for domain in domains)}
    data = DomainDataModule(
        *domains,
        size=size,
        target_labels=target_labels,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
        **(named | options),
    )
    for domain in ("source", "target"):  # what is missing is said now, and not when the training begins
        data.images(domain, "train")
    return data


class FoundFolders(PairedFolders):
    """Folders whose splits were found by looking: what is not there is no split, and no mistake.

    Args:
        layout: where the images and masks are.
        label_space: the classes.
        class_map: a map of the label space, for the ids in the masks.
        name: short name for tables.
        blocks: see `PairedFolders`.
        gap: see there.
        unlabelled: further photographs that nobody labelled; None: those of the layout.
    """

    def __init__(
        self,
        layout: Layout,
        label_space: LabelSpace,
        class_map: str,
        name: str,
        blocks: tuple[float, float, float] | None = None,
        gap: int = 0,
        unlabelled: str | Path | None = None,
    ) -> None:
        super().__init__(
            layout.images,
            layout.masks,
            label_space,  # type: ignore[arg-type]  # a name in YAML; a space will do
            class_map,
            blocks,
            gap,
            name,
            split_folders=layout.splits,
            splits_without_masks=layout.without_masks,
            unlabelled=_photographs(unlabelled) if unlabelled else layout.unlabelled,
        )
        self._found = layout.splits

    def has_split(self, split: Split, root: Path) -> bool:
        """Whether there is such a split."""
        return split in self._found if self._found else super().has_split(split, root)


def _source(
    folders: Folders | Domain | list[Folders | Domain],
    space: LabelSpace,
    class_map: ClassMapping | list[ClassMapping],
    weights: Sequence[float] | None,
) -> Domain:
    listed = folders if isinstance(folders, list) else [folders]
    maps = class_map if isinstance(class_map, list) else [class_map] * len(listed)
    for option, given in (("source_map", maps), ("source_weights", weights)):
        if given is not None and len(given) != len(listed):
            raise ConfigError(f"{option} lists {len(given)} for {len(listed)} sources; give each source one")
    if not listed:
        raise ConfigError("source is an empty list; give it the folders of one source or of several")
    domains = [_domain(one, space, map_, "source_map") for one, map_ in zip(listed, maps, strict=True)]
    return domains[0] if len(domains) == 1 else SeveralDomains(domains, None if weights is None else list(weights))


def _domain(
    folders: Folders | Domain,
    space: LabelSpace,
    class_map: ClassMapping,
    where: str,
    blocks: tuple[float, float, float] | None = None,
    gap: int = 0,
    unlabelled: str | Path | None = None,
) -> Domain:
    if isinstance(folders, Domain):
        if unlabelled is not None:
            raise ConfigError(
                f"unlabelled '{unlabelled}': the target '{folders.name}' is a domain; give the folder to it"
            )
        return folders
    if not isinstance(class_map, str):
        given = read_map(class_map, space.classes, where, GIVEN, space.name)
        space, class_map = replace(space, maps={**space.maps, GIVEN: given}), GIVEN
    if isinstance(folders, tuple):
        images, masks = (None if part is None else str(_absolute(part)) for part in folders)
        further = _photographs(unlabelled) if unlabelled else None
        return PairedFolders(str(images), masks, space, class_map, blocks, gap, unlabelled=further)  # type: ignore[arg-type]
    folder = _absolute(folders)
    layout = find_layout(folder)
    if layout.said:
        rank_zero_warn(layout.said)
    return FoundFolders(layout, space, class_map, folder.name, blocks, gap, unlabelled)


def _photographs(folder: str | Path) -> str:
    return str(photographs_in(_absolute(folder)))


def _absolute(path: str | Path) -> Path:
    return spelled(Path(path).expanduser().absolute())


def _check_divided(target: Domain) -> None:
    """Refuses labelled target images of which none is kept for scoring, if nobody said so."""
    if isinstance(target, PairedFolders) and target.is_undivided:
        raise ConfigError(
            f"the images of the target '{target.name}' are in one folder: give `blocks` (shares of train, val and test in the "
            "order of the images' names, e.g. (0.7, 0.1, 0.2); (1, 0, 0) scores nothing), or make folders train/, val/ and "
            "test/ of them"
        )


def _label_space(classes: Classes) -> LabelSpace:
    if isinstance(classes, str | Path | LabelSpace):
        return load_label_space(classes)
    names = tuple(classes)
    for name in names:
        if not isinstance(name, str) or not name.strip() or name == IGNORE:
            raise ConfigError(f"label_space: expected names of classes other than '{IGNORE}', found {name!r}")
    return LabelSpace("custom", names, class_colours(names))
