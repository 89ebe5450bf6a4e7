"""Wrong masks, maps, folders and photographs, through the commands: one line that names the file and what to do."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.bad_inputs import Prepare, data, nothing, photos
from tests.cli.conftest import SPACE, Segzoo

FIT = "fit --method joint --data TOY --trainer.max_steps 1 --data.root data"
PREDICT = "predict --ckpt_path LAST --input photos --out out --device cpu"
COLOURS = np.array(list(SPACE["classes"].values()), np.uint8)  # type: ignore[attr-defined]


def masks(change: Callable[[Any], Any], parts: str = "syn", **options: Any) -> Prepare:
    """The toy data, some of whose masks are changed: an array (24, 32) of 0, 1 and 2 to what is written."""

    def spoil(folder: Path) -> None:
        for path in sorted(folder.glob(f"{parts}/mask/*.png")):
            found = change(np.asarray(Image.open(path)))
            if isinstance(found, np.ndarray):
                found = Image.fromarray(found)
            found.save(path, **options)

    return data(spoil)


def maps(**more: Any) -> Prepare:
    """The toy data, and the label space with maps, ``own.yaml``."""

    def prepare(toy: Path, run: Path) -> None:
        Path("own.yaml").write_text(yaml.safe_dump(SPACE | {"maps": more}, sort_keys=False))
        data(lambda folder: None)(toy, run)

    return prepare


def own(name: str, domain: str = "source") -> str:
    spaces = "--data.source.label_space own.yaml --data.target.label_space own.yaml"
    return f"{FIT} {spaces} --data.{domain}.class_map {name}"


def smoothed(mask: Any) -> Image.Image:
    return Image.fromarray(COLOURS[mask]).resize((16, 12), Image.Resampling.BILINEAR).resize((32, 24))


def glass(mask: Any) -> Any:
    alpha = np.where(mask == 2, 128, 255).astype(np.uint8)
    return np.dstack([COLOURS[mask], alpha])


def arrays(change: Callable[[Any], Any]) -> Prepare:
    def spoil(folder: Path) -> None:
        for path in sorted((folder / "syn/mask").iterdir()):
            np.save(path.with_suffix(".npy"), change(np.asarray(Image.open(path))))
            path.unlink()

    return data(spoil)


def jpeg(folder: Path) -> None:
    for path in sorted((folder / "syn/mask").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


def polygons(label: str) -> Prepare:
    def prepare(toy: Path, run: Path) -> None:
        maps()(toy, run)
        for path in sorted(Path("data/syn/mask").iterdir()):
            entry = f'{{"label": "{label}", "polygon": [[0, 0], [9, 0], [9, 9]]}}'
            path.with_suffix(".json").write_text(f'{{"imgWidth": 32, "imgHeight": 24, "objects": [{entry}]}}')
            path.unlink()

    return prepare


def file(path: str) -> Prepare:
    """A file that holds nothing of what its name says."""

    def prepare(toy: Path, run: Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"nothing")

    return prepare


def pages(folder: Path) -> None:
    path = folder / "syn/mask/000.png"
    first = Image.open(path).copy()
    first.save(path.with_suffix(".tif"), save_all=True, append_images=[first, first])
    path.unlink()


UNCHANGED = data(lambda folder: None)
PALETTE = f"{FIT} --data.source.class_map palette"
SEVEN = masks(lambda mask: np.where((mask == 2)[..., None], 7, COLOURS[mask]).astype(np.uint8))
MASK = "data/syn/mask/000.png"
CASES: dict[str, tuple[Prepare, str, tuple[str, ...]]] = {
    # Masks: preparation, command, and of its one line the file and the remedy
    "ids of another set": (
        masks(lambda mask: mask + np.uint8(7)),
        FIT,
        ("unknown label id 7 in", MASK, "2 more unknown ids", "write one into a YAML of the label space, e.g. maps:"),
    ),
    "colours for ids": (
        masks(lambda mask: COLOURS[mask]),
        FIT,
        (MASK, "90 120 200 (47.9 %)", "set class_map to palette", 'maps: {mine: {"90 120 200": CLASS'),
    ),
    "a colour that no class has": (
        SEVEN,
        PALETTE,
        ("unknown colour 7 7 7", MASK, "8.33 %", "add the colours to the map"),
    ),
    "blue first": (
        masks(lambda mask: COLOURS[mask][..., ::-1].copy()),
        PALETTE,
        (MASK, "with red and blue exchanged all of them are listed: save the masks anew as RGB"),
    ),
    "smoothed borders": (
        masks(smoothed),
        PALETTE,
        (MASK, "2.6 %", "nearest is 90 120 200, 'sky'", "export the masks anew"),
    ),
    "glass": (masks(glass), PALETTE, (MASK, "half transparent in 8.33 %", "export it without smoothing")),
    "ids for colours": (
        UNCHANGED,
        PALETTE,
        (MASK, "if these greys are ids, choose a class_map of ids, such as identity"),
    ),
    "ids in red": (
        masks(lambda mask: np.dstack([mask, mask * 40, mask * 0 + 9])),
        FIT,
        (MASK, "set channel (--data.DOMAIN.channel) to red, whose values are ids of this class_map"),
    ),
    "a channel of grey masks": (
        UNCHANGED,
        f"{FIT} --data.source.channel red",
        (MASK, "has one channel (mode L)", "remove channel, or set masks to"),
    ),
    "a channel of colours": (
        UNCHANGED,
        f"{PALETTE} --data.source.channel red",
        ("'palette' lists colours; remove channel",),
    ),
    "nothing but 255": (
        masks(lambda mask: mask * 0 + np.uint8(255)),
        FIT,
        ("all of source/train: every pixel is ignored", "choose the class_map and the masks that belong together"),
    ),
    "binary of three classes": (
        UNCHANGED,
        f"{FIT} --data.source.class_map binary",
        ("is of two classes and the label space 'toy' has 3", "maps: {binary: {0: sky, 255: car}}"),
    ),
    "JPEG": (data(jpeg), FIT, ("data/syn/mask", "such as 000.jpg", "export the masks anew as PNG")),
    "JPEG called PNG": (
        masks(lambda mask: mask, format="JPEG"),
        FIT,
        (MASK, "is a JPEG file, whatever its name says", "save it anew from where the ids are right"),
    ),
    "fractions": (arrays(lambda mask: mask / 3), FIT, ("data/syn/mask/000.npy", "float64", "save class ids, e.g.")),
    "an array of colours": (
        arrays(lambda mask: COLOURS[mask]),
        FIT,
        ("data/syn/mask/000.npy", "(24, 32, 3)", "save class"),
    ),
    "ids below 0": (
        arrays(lambda mask: mask.astype(int) - 1),
        FIT,
        ("unknown label id -1 in data/syn/mask/000.npy", "from 0 to 65535: save the masks anew"),
    ),
    "several pages": (data(pages), FIT, ("data/syn/mask/000.tif has 3 pages", "save each as a file of its own")),
    "another size": (
        masks(lambda mask: mask[:20]),
        FIT,
        (f"{MASK} is 32x20", "its image data/syn/image/000.png is 32x24", "export the mask anew"),
    ),
    "objects with names": (
        polygons("sky"),
        FIT,
        ("the masks in data/syn/mask are JSON files", "choose a class_map of names"),
    ),
    "a name of no class": (
        polygons("cra"),
        own("names"),
        ("unknown name 'cra' in data/syn/mask/000.json", "maps: {mine: {names: {cra: CLASS, ...}}}"),
    ),
    # Class maps
    "no such map": (maps(), own("identty"), ("has no class map 'identty'; did you mean 'identity'?",)),
    "a class of no name": (
        maps(mine={0: "sky", 1: "rode", 2: "car"}),
        own("mine"),
        ("own.yaml: map 'mine': unknown class 'rode'; did you mean 'road'?",),
    ),
    "an id twice": (
        maps(mine={"sky": 0, "road": [0, 1], "car": 2}),
        own("mine"),
        ("own.yaml: map 'mine': 0 is listed twice; keep one of them",),
    ),
    "a range backwards": (
        maps(mine={"sky": "9-0", "road": 1}),
        own("mine"),
        ("own.yaml: map 'mine': raw id '9-0'", "a range such as '10-12'"),
    ),
    "ids and colours": (
        maps(mine={0: "sky", "#808080": "road"}),
        own("mine"),
        ("own.yaml: map 'mine': it lists ids (0) and colours", "make two maps of it"),
    ),
    "an id that is not listed": (
        maps(mine={0: "sky", 1: "road"}),
        own("mine"),
        ("unknown label id 2 in", MASK, "choose the class_map that fits the masks or add the id to it"),
    ),
    "a packaged map's name": (
        maps(names={0: "sky"}),
        own("names"),
        ("own.yaml: the map 'names' exists", "name this one"),
    ),
    # Folders
    "an image alone": (
        data(lambda folder: (folder / "syn/mask/001.png").unlink()),
        FIT,
        ("data/syn/image/001.png has no mask", "add it or remove the image"),
    ),
    "a mask alone": (
        data(lambda folder: (folder / "syn/image/001.png").unlink()),
        FIT,
        ("data/syn/mask/001.png has no image", "add it or remove the mask"),
    ),
    "images for masks": (
        UNCHANGED,
        f"{FIT} --data.source.masks syn/image",
        ("images and masks are both 'syn/image'", "name the folder of the masks"),
    ),
    "no folder of masks": (
        UNCHANGED,
        f"{FIT} --data.source.masks syn/masks",
        ("data/syn/masks does not exist", "set --data.root to", "or name another folder"),
    ),
    "no folder of a split": (
        UNCHANGED,
        f"{FIT} --data.target.split_folders '{{val: valid}}'",
        ("data/real/valid/image does not exist", "--data.DOMAIN.splits_without_masks to its name, e.g. '[val]'"),
    ),
    "an end that no mask has": (
        UNCHANGED,
        f"{FIT} --data.source.mask_suffix _seg",
        ("no masks in data/syn/mask", "whose stem ends in '_seg'", "such as 000.png: set mask_suffix"),
    ),
    "one split for all": (
        UNCHANGED,
        f"{FIT} --data.target.masks real/train/mask",
        ("'real/{split}/image' and masks 'real/train/mask'", "in both or in neither"),
    ),
    # Photographs
    "one number for a window": (
        photos,
        f"{PREDICT} --protocol.window 512",
        ("--protocol.window [512]: expected two numbers, height and width",),
    ),
    "windows that do not advance": (
        photos,
        f"{PREDICT} --protocol.overlap 1",
        ("--protocol.overlap 1: expected a share",),
    ),
    "a scale of nothing": (
        photos,
        f"{PREDICT} --protocol.scales 0",
        ("--protocol.scales 0: expected a factor above 0",),
    ),
    "a protocol of no name": (photos, f"{PREDICT} --protocol cityscape-val", ("did you mean 'cityscapes-val'?",)),
    "a size of native images": (
        photos,
        f"{PREDICT} --size 8 8 --protocol.input native",
        ("--size has no effect", "leave one of them out"),
    ),
    "an export of other names": (
        photos,
        f"{PREDICT} --export cityscapes",
        ("000: the official script", "rename the image"),
    ),
    "a damaged video": (
        file("photos/a.mp4"),
        PREDICT,
        ("photos/a.mp4 cannot be read as a video", "convert it to MP4 with H.264"),
    ),
    "a damaged photograph": (
        file("photos/a.png"),
        PREDICT,
        ("cannot read the image photos/a.png", "replace the file or remove it"),
    ),
    "text": (file("photos/a.txt"), PREDICT, ("no images in photos: expected files of type .jpg", "found a.txt")),
    "no photographs": (nothing, PREDICT, ("--input photos", "does not exist; expected a folder of images")),
    "labels of another origin": (
        lambda toy, run: (photos(toy, run), file("out/labels/000.png")(toy, run))[0],
        PREDICT,
        ("out/labels/000.png exists", "choose another --out, or --overwrite"),
    ),
}


@pytest.mark.fault("twenty-wrong-masks")
@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_one_line_with_the_file_and_the_remedy(
    segzoo: Segzoo, toy: Path, trained: Path, name: str
) -> None:
    prepare, command, words = CASES[name]
    prepare(toy.parent, trained)
    last = str(trained / "checkpoints" / "last.ckpt")
    argv = [argument.replace("TOY", str(toy)).replace("LAST", last) for argument in shlex.split(command)]
    result = segzoo(*argv)
    assert result.status == 2, result
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert [word for word in words if word not in result.err] == [], result.err
    assert not Path("runs").exists()
