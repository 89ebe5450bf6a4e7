"""Every kind of mask in docs/masks.md is read as the page says, by the YAML that stands there."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.data import PairedFolders
from segzoo.errors import DataError
from tests.docs.test_readme_python import draw

PAGE = (Path(__file__).parents[2] / "docs" / "masks.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
COLOURS = {"road": (128, 64, 128), "sky": (70, 130, 180), "car": (0, 0, 142), "black": (0, 0, 0)}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def png(values: Any) -> Callable[[Path], None]:
    array = np.array([values], np.uint16 if np.max(values) > 255 else np.uint8)
    return lambda folder: Image.fromarray(array).save(folder / "0.png")


def npy(values: Any) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "0.npy", np.array([values]))


CASES: dict[str, tuple[Callable[[Path], None], list[int]]] = {
    "The ids of the classes": (png([0, 1, 2, 255]), [0, 1, 2, 255]),
    "Other ids": (png([1, 7, 20, 22, 24, 11, 10, 300, 99, 65535]), [0, 0, 0, 0, 0, 1, 2, 2, 255, 255]),
    "The colours of the label space": (png(list(COLOURS.values())), [0, 1, 2, 255]),
    "Other colours": (png([(157, 234, 50), (70, 70, 70), (0, 0, 142), (0, 0, 70), (0, 0, 0)]), [0, 1, 2, 2, 255]),
    "One channel of several": (
        png([(1, 9, 200, 255), (7, 1, 1, 255), (11, 0, 3, 255), (10, 77, 0, 255), (0, 1, 2, 255)]),
        [0, 0, 1, 2, 255],
    ),
    "0 and 255": (png([0, 255, 1]), [0, 1, 1]),
    "NumPy arrays": (npy([1, 7, 11, 10, 0]), [0, 0, 1, 2, 255]),
}


def images(root: Path, title: str, width: int) -> Any:
    (options,) = blocks(SECTIONS[title], "yaml")
    (space,) = (block for block in blocks(PAGE, "yaml") if block.startswith("# street.yaml"))
    (root / "street.yaml").write_text(space)
    for name in ("images", "masks"):
        (root / name).mkdir(exist_ok=True)
    Image.fromarray(np.zeros((1, width, 3), np.uint8)).save(root / "images/0.png")
    settings = yaml.safe_load(options.replace("street.yaml", str(root / "street.yaml")))
    return PairedFolders("images", "masks", **settings).images("train", root)


def test_every_section_with_yaml_has_a_case() -> None:
    assert {title for title, text in SECTIONS.items() if blocks(text, "yaml")} == set(CASES)


@pytest.mark.parametrize("title", CASES)
def test_masks_are_read_as_the_page_says(title: str, tmp_path: Path) -> None:
    write, expected = CASES[title]
    (tmp_path / "masks").mkdir()
    write(tmp_path / "masks")
    found = images(tmp_path, title, len(expected))
    found.check()
    assert found.label(0).tolist() == [expected]


@pytest.mark.parametrize("title", ["The colours of the label space", "Other colours"])
def test_no_other_colour_is_taken(title: str, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    png([(1, 2, 3)])(tmp_path / "masks")
    with pytest.raises(DataError, match="unknown colour 1 2 3"):
        images(tmp_path, title, 1).label(0)


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, colour in (("synthetic", (255, 0, 0)), ("photos", 255)):
        draw(Path(folder), 2)
        for path in Path(folder, "masks").iterdir():
            crack = np.asarray(Image.open(path))
            crack = crack[..., None] * np.array(colour) if isinstance(colour, tuple) else crack * colour
            Image.fromarray(crack.astype(np.uint8)).save(path)
    names: dict[str, Any] = {}
    (code,) = blocks(SECTIONS["From Python"], "python")
    exec(compile(ast.parse(code), "masks.md", "exec"), names)
    data = names["data"]
    for domain in ("source", "target"):
        label = data.images(domain, "train").label(0)
        assert set(np.unique(label)) == {0, 1} and label.mean() < 0.5
