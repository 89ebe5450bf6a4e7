"""`segzoo data init`: from two folders to a YAML that is checked and read."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.data.label_spaces import load_label_space
from tests.cli.conftest import Segzoo, write_pairs

pytestmark = pytest.mark.filterwarnings("ignore")


def painted(folder: Path) -> None:
    """The masks of `write_pairs` as 0 and 255: a car, or none."""
    for path in (folder / "mask").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray((mask == 2).astype(np.uint8) * 255).save(path.with_name(f"{path.stem}_seg.png"))
        path.unlink()


def test_from_folders_to_a_check(segzoo: Segzoo) -> None:
    write_pairs(Path("syn"), 6)
    for split in ("train", "valid", "test"):
        write_pairs(Path("real") / split, 3)
    command = ("data", "init", "--source-images", "syn", "--target_images", "real", "--out", "my.yaml")
    result = segzoo(*command, "--classes", "sky,road,car")
    assert result.status == 0, result.err
    assert "source: 6 images, 6 with masks" in result.out and "segzoo data check my.yaml" in result.out
    content = yaml.safe_load(Path("my.yaml").read_text())["data"]
    assert content["target"]["init_args"]["split_folders"] == {"val": "valid"} and content["size"] == [32, 32]
    lines = Path("my.yaml").read_text().splitlines()
    assert all("#" in line for line in lines if ": " in line and "class_path" not in line)
    checked = segzoo("data", "check", "my.yaml")
    assert checked.status == 0 and "15 images, 0 errors" in checked.out, checked.err
    again = segzoo(*command)
    assert again.status == 2 and "my.yaml exists" in again.err


def test_a_target_without_a_folder_for_val(segzoo: Segzoo) -> None:
    write_pairs(Path("syn"), 3)
    for split in ("train", "test"):
        write_pairs(Path("real") / split, 2)
    command = ("data", "init", "--source_images", "syn", "--target_images", "real", "--out", "my.yaml")
    assert segzoo(*command).status == 0
    text = Path("my.yaml").read_text()
    assert "splits_without_masks: [val]" in text and "GUESSED: there is no folder for val" in text
    checked = segzoo("data", "check", "my.yaml")
    assert checked.status == 0 and "7 images, 0 errors" in checked.out, checked.err


def test_images_of_many_sizes_are_resized_to_the_median(segzoo: Segzoo) -> None:
    write_pairs(Path("syn"), 2)
    Path("real").mkdir()
    for number, size in enumerate([(64, 96), (64, 96), (90, 130), (128, 160), (200, 320), (256, 400), (300, 500)]):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(f"real/{number}.png")
    assert segzoo("data", "init", "--source_images", "syn", "--target_images", "real", "--out", "my.yaml").status == 0
    text = Path("my.yaml").read_text()
    assert "size: [128, 160]" in text and "images have 6 sizes, the median is 128 x 160" in text


def test_masks_of_0_and_255_keep_their_foreground(segzoo: Segzoo) -> None:
    for name, count in (("syn", 6), ("real", 20)):
        write_pairs(Path(name), count)
        painted(Path(name))
    folders = ("--source_images", "syn/image", "--source_masks", "syn/mask")
    folders += ("--target_images", "real/image", "--target_masks", "real/mask")
    result = segzoo("data", "init", *folders, "--out", "car.yaml", "--classes", "ground,car")
    assert result.status == 0, result.err
    assert (
        "warning: blocks divide the 20 labelled photographs into 10 for train, 5 for val and 5 for test" in result.err
    )
    written = Path("car_classes.yaml").read_text()
    assert "# Rename a class everywhere in this file, or give --classes A,B,... to data init." in written
    Path("renamed.yaml").write_text(re.sub(r"\bcar\b", "vehicle", written))
    assert load_label_space("renamed.yaml").classes == ("ground", "vehicle")
    checked = segzoo("data", "check", "car.yaml")
    assert checked.status == 0, checked.err
    shares = next(line for line in checked.out.splitlines() if line.startswith("1 car"))
    assert shares.split()[2:] == ["8.3", "%"] * 4  # 8 x 8 of 24 x 32 pixels
    assert "target/val" in checked.out  # cut off by blocks


def colours(mask: np.ndarray) -> np.ndarray:
    """A colour per class."""
    return np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142]], np.uint8)[mask]


def exported(mask: np.ndarray) -> np.ndarray:
    """A class in red, instances in the other channels, as CARLA exports them."""
    instances = np.random.default_rng(0).integers(0, 255, (2, *mask.shape))
    return np.stack([mask, *instances.astype(np.uint8)], axis=2)


@pytest.mark.parametrize("store", [colours, exported])
def test_masks_in_colours_and_of_several_channels(segzoo: Segzoo, store: Callable[[np.ndarray], np.ndarray]) -> None:
    for name, count in (("syn", 5), ("real", 20)):
        write_pairs(Path(name), count)
        for path in (Path(name) / "mask").iterdir():
            Image.fromarray(store(np.asarray(Image.open(path)))).save(path)
    command = ("data", "init", "--source_images", "syn", "--target_images", "real", "--out", "my.yaml")
    assert segzoo(*command).status == 0
    checked = segzoo("data", "check", "my.yaml")
    assert checked.status == 0, checked.err
    shares = [
        line.split()[2] for line in checked.out.splitlines() if line.startswith(("0 class", "1 class", "2 class"))
    ]
    # Ids in their order; colours by their shares: of 24 rows, 12 of the sky but 2 x 8 pixels, 12 of the road but 6 x 8.
    assert shares == ["47.9", "43.8", "8.3"]


def test_photographs_without_masks(segzoo: Segzoo) -> None:
    write_pairs(Path("syn"), 3)
    write_pairs(Path("real"), 3)
    result = segzoo("data", "init", "--source_images", "syn", "--target_images", "real/image", "--out", "my.yaml")
    assert result.status == 0 and "--method self-training" in result.out, result.err
    assert yaml.safe_load(Path("my.yaml").read_text())["data"]["target"]["init_args"]["masks"] is None


INIT = ("data", "init", "--source_images", "syn", "--target_images")


def test_masks_in_a_folder_of_unlabelled_photographs_are_not_taken(segzoo: Segzoo) -> None:
    write_pairs(Path("syn"), 3)
    for place in ("real/train", "real/test", "more"):
        write_pairs(Path(place), 4)
    result = segzoo(*INIT, "real", "--target_unlabelled", "more", "--out", "my.yaml")
    assert result.status == 0 and f"target: 4 unlabelled photographs in {Path('more/image').absolute()}" in result.out
    assert yaml.safe_load(Path("my.yaml").read_text())["data"]["target"]["init_args"]["unlabelled"] == "more/image"
    assert "15 images, 0 errors" in segzoo("data", "check", "my.yaml").out
    Path("more").rename("real/unlabelled")  # found by itself
    result = segzoo(*INIT, "real", "--out", "my.yaml", "--overwrite")
    assert f"target: 4 unlabelled photographs in {Path('real/unlabelled/image').absolute()}" in result.out
    Path("real/unlabelled").rename("deeper")
    Path("more").mkdir()
    Path("deeper").rename("more/deeper")  # no place for masks that is known, but a name
    result = segzoo(*INIT, "real", "--target_unlabelled", "more", "--out", "my.yaml", "--overwrite")
    assert (
        "warning: 4 of the 8 photographs without masks look like masks" in result.err
        and "set --target_unlabelled to" in result.err
    )


def test_masks_that_are_taken_for_images_are_named(segzoo: Segzoo) -> None:
    write_pairs(Path("syn"), 3)
    write_pairs(Path("real"), 5)
    Path("photos").mkdir()
    for i, path in enumerate(sorted(Path("real/image").iterdir())):
        path.rename(f"photos/{path.name}")
        if i < 2:  # fewer than half of the files
            Path(f"real/mask/{path.name}").rename(f"photos/{path.stem}_mask.png")
    result = segzoo(*INIT, "photos", "--out", "my.yaml")
    assert (
        "warning: 2 of the 7 photographs without masks look like masks" in result.err
        and "set --target_masks to" in result.err
    )
    assert "target/train: 2 of the 7 photographs without masks look" in segzoo("data", "check", "my.yaml").err
    result = segzoo(*INIT, "photos", "--target_masks", "photos", "--out", "my.yaml", "--overwrite")
    assert "target: 2 images, 2 with masks" in result.out and "3 of the target's images have no mask" in result.err


def test_photographs_without_a_mask_among_others(segzoo: Segzoo) -> None:
    write_pairs(Path("syn"), 3)
    write_pairs(Path("real"), 20)
    for path in sorted(Path("real/mask").iterdir())[8:]:
        path.unlink()
    result = segzoo(*INIT, "real", "--out", "my.yaml")
    assert result.status == 0 and "target: 8 images, 8 with masks" in result.out
    place = Path("real/image").absolute()
    assert f"target: 12 unlabelled photographs in {place}, those of its images that have no mask" in result.out
    assert "fit --method ssda" in result.out and "without a partner" not in result.out
    assert "GUESSED: of the training images, the 12 that have no mask" in Path("my.yaml").read_text()
    checked = segzoo("data", "check", "my.yaml")
    assert checked.status == 0 and "23 images, 0 errors" in checked.out, checked.err
    Path("my.yaml").write_text(Path("my.yaml").read_text().replace("      unlabelled: real/image", "#"))
    checked = segzoo("data", "check", "my.yaml", "--out", "again")
    assert checked.status == 1 and "12 errors" in checked.out and checked.err.count("--data.target.unlabelled") == 1


def test_files_at_which_a_training_would_stop_are_named(segzoo: Segzoo) -> None:
    write_pairs(Path("syn"), 4)
    for split in ("train", "test"):
        write_pairs(Path("real") / split, 3)
    Path("real/test/mask/001.png").unlink()
    Path("syn/image/002.png").unlink()
    Image.open("syn/mask/003.png").save("syn/mask/003.jpg")
    Path("syn/mask/003.png").unlink()
    result = segzoo(*INIT, "real", "--out", "my.yaml")
    assert result.status == 0
    lines = [line for line in result.err.splitlines() if line.startswith("warning: 1 of the")]
    found = "003.png.*: found .*syn/mask/003.jpg: JPEG changes ids, export it as PNG"
    expected = (
        found,
        "1 of the source's masks has no image, .*syn/mask/002.png",
        "real/test/image/001.png: .* such as .*/real/unlabelled, and give it as --target_unlabelled .*/real/unlabelled",
    )
    assert len(lines) == 3 and all(re.search(*both) for both in zip(expected, lines, strict=True)), lines
    checked = segzoo("data", "check", "my.yaml")
    assert re.search(found, checked.err) and "3 errors" in checked.out
    Path("real/test/mask/001.png").write_bytes(Path("real/test/mask/000.png").read_bytes())
    trained = segzoo("fit", "--method", "joint", "--data", "my.yaml")
    assert trained.status == 2 and re.search(found, trained.err)


def test_ids_and_colours_are_not_brought_together(segzoo: Segzoo) -> None:
    for name in ("syn", "real"):
        write_pairs(Path(name), 3)
    for path in Path("real/mask").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(colours(np.minimum(mask, 1))).save(path)
    result = segzoo(*INIT, "real", "--out", "my.yaml")
    assert result.status == 2 and result.err.count("\n") == 1
    for words in (
        "3 ids in the source's masks (0, 1, 2) and 2 colours in the target's masks (0 0 0, 128 64 128)",
        "docs/masks.md",
        "--label_space",
    ):
        assert words in result.err


def test_a_stray_id_is_taken_out_by_what_the_file_says(segzoo: Segzoo) -> None:
    for name, count in (("syn", 40), ("real", 40)):
        write_pairs(Path(name), count)
    mask = np.array(Image.open("syn/mask/007.png"))
    mask[0, :2] = 37
    Image.fromarray(mask).save("syn/mask/007.png")
    result = segzoo(*INIT, "real", "--out", "my.yaml")
    said = "37 is probably a mistake: of the source's 40 masks that were looked at"
    assert f"guessed: {said}" in result.err and "syn/mask/007.png alone holds it, in 2 pixels" in result.err
    lines = Path("my_classes.yaml").read_text().splitlines()
    assert any(line.startswith(f"# GUESSED: {said}") for line in lines)
    (own,) = [line for line in lines if line.startswith("  class_3:")]
    assert "GUESSED, probably a mistake" in own and own.endswith(
        "< 0.1 % of the source's pixels, – of the target's pixels"
    )
    maps = [line for line in lines if line.startswith("    37: class_3")]
    assert "in 007.png alone: write ignore; < 0.1 %" in maps[0] and maps[1].endswith("write ignore; – of the pixels")
    text = "\n".join(line for line in lines if line != own).replace("37: class_3", "37: ignore")
    Path("my_classes.yaml").write_text(text)
    checked = segzoo("data", "check", "my.yaml")
    assert checked.status == 0 and "37 (ignored, < 0.1 %)" in checked.out, checked.err


def test_a_label_space_that_is_there(segzoo: Segzoo, toy: Path) -> None:
    space = toy.parent / "space.yaml"
    folders = ("--source_images", toy.parent / "syn", "--target_images", toy.parent / "real")
    result = segzoo("data", "init", *folders, "--label_space", space, "--out", "my.yaml")
    assert result.status == 0 and not Path("my_classes.yaml").exists(), result.err
    assert segzoo("data", "check", "my.yaml").status == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "--source_images"),
        ("--source_images SYN --target_images REAL", "--out"),
        ("--source_images SYN --target_images REAL --out my.txt", "expected the name of a YAML file"),
        ("--source_images nowhere --target_images REAL --out my.yaml", "nowhere, does not exist"),
        ("--source_images SYN/imgae --target_images REAL --out my.yaml", "syn/image'?"),
        ("--source_images SYN/image --target_images REAL --out my.yaml", "there are no masks beside them"),
        ("--source_images SYN/image --source_masks REAL --target_images REAL --out my.yaml", "nothing in common"),
        ("--source_images SYN --target_images SPACE --out my.yaml", "is not a folder"),
        ("--source_images SYN --target_images REAL --classes a,a --out my.yaml", "distinct names"),
        ("--source_images SYN --target_images REAL --classes a,b --out my.yaml", "2 names of classes"),
        ("--source_images SYN --target_images REAL --classes a --label_space b --out my.yaml", "give one of them"),
        ("--source_images SYN --target_images REAL --label_space citscapes --out my.yaml", "'cityscapes'"),
        ("--source_images SYN --target_images REAL --target_unlabelled no --out my.yaml", "is not a folder"),
        ("--source_images SYN --target_images REAL --target_unlabelled EMPTY --out my.yaml", "it is empty"),
        ("--source_image SYN --target_images REAL --out my.yaml", "did you mean '--source_images'"),
        ("--source_images SYN/image --source_masks SYN/image --target_images REAL --out my.yaml", "are in one folder"),
    ],
)
def test_what_is_wrong_is_one_line(segzoo: Segzoo, toy: Path, options: str, words: str) -> None:
    for name, path in (("SYN", "syn"), ("REAL", "real"), ("SPACE", "space.yaml"), ("EMPTY", "none")):
        options = options.replace(name, str(toy.parent / path))
    (toy.parent / "none").mkdir(exist_ok=True)
    result = segzoo("data", "init", *options.split())
    assert result.status == 2 and result.err.count("\n") == 1 and words in result.err, result.err
    assert not Path("my.yaml").exists()
