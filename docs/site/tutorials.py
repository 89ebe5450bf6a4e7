"""The notebooks as pages: their text, code, and the outputs that they were committed with. Nothing runs here."""

from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def page_of(notebook: Path) -> str:
    """The page of a notebook below the folder of all pages."""
    return f"tutorials/{notebook.stem}.md"


def notebooks() -> list[Path]:
    """All of them, in the order of their names."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Writes the pictures of a page.

    Args:
        files: their content by path below the folder.
        folder: that of the page.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def as_markdown(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page.

    Args:
        notebook: the file.

    Returns:
        its text, and the pictures in it by their paths beside the page.
    """
    from nbconvert import MarkdownExporter  # an extra, which tests of the other pages do without

    # Named after the notebook: pictures of all notebooks lie in one folder.
    resources = {"unique_key": notebook.stem, "output_files_dir": f"{notebook.stem}_files"}
    text, found = MarkdownExporter().from_filename(str(notebook), resources)
    return text, dict(found["outputs"])
