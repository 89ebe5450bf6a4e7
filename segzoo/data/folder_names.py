"""Folders as a data set names them: below a root, with a name for ``{split}``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from segzoo.data.domains import SPLITS, Split
from segzoo.data.files import spelled
from segzoo.errors import ConfigError, DataError
from segzoo.suggest import did_you_mean_folder


def folder_path(pattern: str, name: str, root: Path) -> Path:
    """The folder of a split, which is called ``name``, below the root."""
    return spelled(root.expanduser() / Path(pattern.replace("{split}", name)).expanduser())


def matching_folders(folder: Path) -> list[tuple[PurePosixPath, Path]]:
    """The folders that a path with ``*`` stands for, each with what these stand for; of a path that exists that alone."""
    if folder.is_dir():
        return [(PurePosixPath(), folder)]
    first = next((i for i, part in enumerate(folder.parts) if "*" in part), None)
    if first is None:
        return []
    base, pattern = Path(*folder.parts[:first]), folder.parts[first:]
    found = []
    for place in sorted(base.glob("/".join(pattern))):
        parts = zip(pattern, place.relative_to(base).parts, strict=True)
        if place.is_dir():
            found.append((PurePosixPath(*(part for wanted, part in parts if "*" in wanted)), place))
    return found


def has_folder(pattern: str, name: str, root: Path) -> bool:
    """Whether there is the folder of `folder_path`, or one that it stands for."""
    return bool(matching_folders(folder_path(pattern, name, root)))


def filled(folder: Path, name: PurePosixPath) -> tuple[Path, PurePosixPath]:
    """A path with ``*`` and a name in it: the folder of that name alone, and the rest of the name."""
    parts = list(name.parts)
    return Path(*(parts.pop(0) if "*" in part and parts[1:] else part for part in folder.parts)), PurePosixPath(*parts)


def are_one(first: Path, second: Path) -> bool:
    """Whether two paths are one folder, or stand for the same ones."""
    return first.samefile(second) if first.is_dir() and second.is_dir() else first == second


def existing_folder(pattern: str, name: str, root: Path, split: str = "") -> Path:
    """The folder of `folder_path`, which has to be there; with ``*`` in it at least one that it stands for.

    Args:
        pattern: as the data set has it.
        name: what ``{split}`` in it stands for.
        root: the folder that it starts from.
        split: whose folder that is; the same where it is not given.

    Raises:
        DataError: it does not exist.
    """
    folder = folder_path(pattern, name, root)
    if has_folder(pattern, name, root):
        return folder
    found = "is not a folder" if folder.exists() else "does not exist"
    meant = did_you_mean_folder(folder, spelled(root.expanduser()))
    splits = (
        ", `data.DOMAIN.split_folders` to the names of its folders, e.g. '{val: test}', or, where a split has no masks, "
        f"`data.DOMAIN.splits_without_masks` to its name, e.g. '[{split or name}]'"
    )
    raise DataError(
        f"the folder {folder} {found}; set `data.root` to the folder that '{pattern}' starts from"
        f"{splits if '{split}' in pattern else ', or name another folder'}{meant}"
    )


def default_name(images: str) -> str:
    """``camvid`` for ``camvid/{split}/image``: the innermost folder itself is mostly called images."""
    path = Path(images)
    parts = [
        part for part in path.parts if part not in (path.anchor, ".", "..", "~") and not re.search(r"{split}|\*", part)
    ]
    return parts[-2] if len(parts) > 1 else (parts[0] if parts else "folders")


def check_folders(
    images: str,
    masks: str | None,
    alike: bool,
    blocks: tuple[float, float, float] | None,
    split_folders: Mapping[Split, str],
    without_masks: Sequence[Split],
) -> None:
    """Refuses folders and splits that contradict each other; see `segzoo.data.folders.PairedFolders`.

    Raises:
        ConfigError: the message names the options.
    """
    by_folder = "{split}" in images
    if masks is not None and ("{split}" in masks) != by_folder:
        raise ConfigError(f"images '{images}' and masks '{masks}': write {{split}} in both or in neither")
    if images == masks and alike:
        raise ConfigError(
            f"images and masks are both '{images}': name the folder of the masks, or what their stems have in addition as "
            "mask_suffix or mask_prefix"
        )
    if by_folder and blocks is not None:
        raise ConfigError(f"images '{images}' has a folder per split; remove blocks, or remove {{split}}")
    if not by_folder and (split_folders or without_masks):
        raise ConfigError(
            f"split_folders and splits_without_masks need a folder per split: write {{split}} in '{images}'"
        )
    for split in (*split_folders, *without_masks):
        if split not in SPLITS:
            raise ConfigError(f"split_folders and splits_without_masks know train, val and test, found '{split}'")
