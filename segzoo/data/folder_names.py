"""Folders as a data set names them: below a root, with a name for ``{split}``."""

from pathlib import Path

from segzoo.errors import DataError


def folder_path(pattern: str, name: str, root: Path) -> Path:
    """The folder of a split, which is called ``name``, below the root."""
    return root.expanduser() / Path(pattern.replace("{split}", name)).expanduser()


def existing_folder(pattern: str, name: str, root: Path) -> Path:
    """The folder of `folder_path`, which has to be there.

    Raises:
        DataError: it does not exist.
    """
    folder = folder_path(pattern, name, root)
    if folder.is_dir():
        return folder
    found = "is not a folder" if folder.exists() else "does not exist"
    splits = (
        ", `data.DOMAIN.split_folders` to the names of its folders, e.g. '{val: test}', or, where a split has no masks, "
        f"`data.DOMAIN.splits_without_masks` to its name, e.g. '[{name}]'"
    )
    raise DataError(
        f"the folder {folder} {found}; set `data.root` to the folder that '{pattern}' starts from"
        f"{splits if '{split}' in pattern else ', or name another folder'}"
    )


def default_name(images: str) -> str:
    """``camvid`` for ``camvid/{split}/image``: the innermost folder itself is mostly called images."""
    path = Path(images)
    parts = [part for part in path.parts if part not in (path.anchor, ".", "..", "~") and "{split}" not in part]
    return parts[-2] if len(parts) > 1 else (parts[0] if parts else "folders")
