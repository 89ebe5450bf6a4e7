"""`segzoo data prepare`: the copy, what it is made of, and that it goes on where it stopped."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segzoo.cli.data_options import build_data, read_invocation
from segzoo.dataprep import copies
from segzoo.dataprep.copies import kept_size
from segzoo.dataprep.sets import find_sets
from segzoo.files import whole_file
from tests.cli.conftest import SPACE, Segzoo, write_pairs

pytestmark = pytest.mark.filterwarnings("ignore")

SIDES = st.integers(1, 3000)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_copy_is_the_smallest_of_its_shape_that_covers(height: int, width: int, high: int, wide: int) -> None:
    kept = kept_size((height, width), (high, wide))
    if height < high or width < wide:
        assert kept == (height, width)
    else:
        assert kept[0] >= high and kept[1] >= wide and (kept[0] == high or kept[1] == wide)
        scale = max(high / height, wide / width)
        assert abs(kept[0] - height * scale) <= 1 and abs(kept[1] - width * scale) <= 1


@pytest.fixture
def own(segzoo: Segzoo, toy: Path) -> Path:
    """The toy data in the working directory."""
    for name in ("syn", "real"):
        shutil.copytree(toy.parent / name, Path("data") / name)
    return toy


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_small_is_copied_as_it_is(segzoo: Segzoo, own: Path) -> None:
    result = segzoo("data", "prepare", own, "--data.root", "data", "--out", "copy", "--png")
    assert result.status == 0 and "12 images copied" in result.out, result.err
    before = find_sets(build_data(read_invocation(str(own), ["--data.root", "data"]))).images
    data = build_data(read_invocation("copy/data.yaml", []))
    after = find_sets(data).images
    assert list(before) == list(after) and data.size == (32, 32) and data.target_labels == 3
    assert data.label_space.to_dict()["classes"] == list(SPACE["classes"])
    for name, images in before.items():
        assert images.names == after[name].names
        for i in range(len(images)):
            assert (images.image(i) == after[name].image(i)).all() and (images.label(i) == after[name].label(i)).all()
    manifest = json.loads(Path("copy/manifest.json").read_text())
    assert len(manifest["files"]) == 24
    for file, digest in manifest["files"].items():
        assert hashlib.sha256(Path("copy", file).read_bytes()).hexdigest() == digest
    pixels = manifest["sets"]["target/test"]["pixels"]
    masks = [np.asarray(Image.open(path)) for path in Path("data/real/test/mask").iterdir()]
    assert [pixels[name] for name in SPACE["classes"]] == [sum(int((m == i).sum()) for m in masks) for i in range(3)]


def test_what_is_large_is_reduced_and_what_is_scored_is_not(segzoo: Segzoo, own: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("syn", "real/test"):
        Image.fromarray(rng.integers(0, 255, (150, 300, 3), np.uint8)).save(f"data/{part}/image/000.png")
        Image.fromarray(rng.integers(0, 3, (150, 300)).astype(np.uint8)).save(f"data/{part}/mask/000.png")
    command = ("data", "prepare", own, "--data.root", "data", "--data.crop_scale", "0.25", "1", "--png")
    assert segzoo(*command, "--out", "copy").status == 0
    original = np.asarray(Image.open("data/syn/image/000.png"))
    reduced = np.asarray(Image.open("copy/source/train/images/000.png"))
    assert reduced.shape == (64, 128, 3)  # a crop of a quarter is 32 x 64
    assert (reduced == cv2.resize(original, (128, 64), interpolation=cv2.INTER_AREA)).all()
    assert np.asarray(Image.open("copy/source/train/masks/000.png")).shape == (64, 128)
    assert Path("copy/target/test/images/000.png").read_bytes() == Path("data/real/test/image/000.png").read_bytes()
    assert yaml.safe_load(Path("copy/data.yaml").read_text())["data"]["crop_scale"] == [0.25, 1.0]
    assert segzoo(*command, "--out", "small", "--resize_scored").status == 0
    assert np.asarray(Image.open("small/target/test/masks/000.png")).shape == (64, 128)


def test_a_full_disk_leaves_nothing_half_written(segzoo: Segzoo, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("data", "prepare", own, "--data.root", "data", "--workers", "1", "--out")
    assert segzoo(*command, "whole").status == 0
    written = 0

    @contextmanager
    def full(path: Path, sync: bool = False) -> Iterator[Path]:
        nonlocal written
        written += 1
        with whole_file(path, sync) as partial:
            yield partial
            if written == 8:
                partial.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(copies, "whole_file", full)
        result = segzoo(*command, "copy")
    assert result.status == 2 and "No space left on device" in result.err and result.err.count("\n") == 1
    assert not list(Path("copy").rglob("*.partial")) and not Path("copy/data.yaml").exists()
    begun = content(Path("copy"))
    assert 3 <= sum("/masks/" in name for name in begun) < 12
    with Path("copy/done.jsonl").open("a") as journal:  # as if the power had gone in a line
        journal.write('{"set": "sou')
    Path("copy/source/train/images/000.jpg.partial").write_bytes(b"half")
    noted = "".join(Path("copy/done.jsonl").read_text().splitlines()[1:-1])
    times = {name: Path("copy", name).stat().st_mtime_ns for name in begun if name in noted}
    assert len(times) >= 6
    result = segzoo(*command, "copy")
    assert result.status == 0 and "were before" in result.out, result.err
    assert {name: Path("copy", name).stat().st_mtime_ns for name in times} == times
    whole, done = content(Path("whole")), content(Path("copy"))
    assert whole.keys() == done.keys()
    assert all(whole[name] == done[name] for name in whole if name.endswith((".png", ".jpg", "manifest.json")))


def test_what_changed_is_copied_anew_and_what_is_gone_goes(segzoo: Segzoo, own: Path) -> None:
    command = ("data", "prepare", own, "--data.root", "data", "--out", "copy")
    assert segzoo(*command).status == 0
    assert "0 images copied, 12 were before" in segzoo(*command).out
    shutil.copy("data/syn/image/001.png", "data/syn/image/000.png")
    for kind in ("image", "mask"):
        Path(f"data/syn/{kind}/003.png").unlink()
    Path("copy/target/val/masks/001.png").unlink()
    assert "2 images copied, 9 were before" in segzoo(*command).out
    assert len(list(Path("copy/source/train/images").iterdir())) == 3
    first, second = (Path(f"copy/source/train/images/00{i}.jpg").read_bytes() for i in (0, 1))
    assert first == second and Path("copy/target/val/masks/001.png").is_file()


def test_files_that_are_wrong_are_all_named(segzoo: Segzoo, own: Path) -> None:
    Path("data/syn/image/001.png").write_bytes(b"nothing")
    Path("data/real/val/mask/000.png").unlink()
    result = segzoo("data", "prepare", own, "--data.root", "data", "--out", "copy")
    assert result.status == 1 and not Path("copy/data.yaml").exists()
    assert "syn/image/001.png" in result.err and "val/image/000.png has no mask" in result.err


def test_photographs_without_masks_and_one_folder(segzoo: Segzoo, own: Path) -> None:
    write_pairs(Path("data/more"), 3)
    options = ["--data.target.images", "real/train/image", "--data.target.masks", "null"]
    options += ["--data.target.unlabelled", "more/image", "--data.target.split_folders", "null"]
    result = segzoo("data", "prepare", own, "--data.root", "data", *options, "--out", "copy")
    assert result.status == 0, result.err
    sets = find_sets(build_data(read_invocation("copy/data.yaml", []))).images
    assert {name: len(images) for name, images in sets.items()} == {
        "source/train": 4,
        "target/train": 4,
        "target/unlabelled": 3,
    }
    assert not sets["target/train"].has_labels


@pytest.mark.parametrize("how", ["blocks", "folders"])
def test_a_target_without_val_keeps_its_test_split(segzoo: Segzoo, own: Path, how: str) -> None:
    options = ["--data.target.splits_without_masks", "[val]"]
    if how == "folders":
        shutil.rmtree("data/real/val")
    else:
        options = ["--data.target.images", "syn/image", "--data.target.masks", "syn/mask"]
        options += ["--data.target.blocks", "0.5", "0", "0.5"]
    result = segzoo("data", "prepare", own, "--data.root", "data", *options, "--out", "copy", "--png")
    assert result.status == 0, result.err
    before = find_sets(build_data(read_invocation(str(own), ["--data.root", "data", *options]))).images
    copied = find_sets(data := build_data(read_invocation("copy/data.yaml", [])))
    assert list(before) == list(copied.images) == ["source/train", "target/train", "target/test"]
    assert not copied.problems and data.scored("val") is None and len(data.images("target", "test")) == 2
    assert segzoo("data", "check", "copy/data.yaml").status == 0
    result = segzoo("fit", "--method", "joint", "--data", "copy/data.yaml", "--data.target_labels", "2")
    assert result.status == 0 and Path("runs/joint/toy/default-s0/scores-test.json").is_file(), result.err


def test_several_sources_stay_several(segzoo: Segzoo, own: Path) -> None:
    write_pairs(Path("data/more"), 3)
    for path in Path("data/more/mask").iterdir():  # other ids
        Image.fromarray(np.asarray(Image.open(path)) + np.uint8(10)).save(path)
    space = SPACE | {"maps": {"shifted": {10: "sky", 11: "road", 12: "car"}}}
    Path("space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    described = yaml.safe_load(own.read_text())
    target, first = (described["data"][domain] for domain in ("target", "source"))
    for domain in (target, first):
        domain["init_args"]["label_space"] = "space.yaml"
    folders = {"images": "more/image", "masks": "more/mask", "label_space": "space.yaml", "class_map": "shifted"}
    second = {"class_path": first["class_path"], "init_args": folders | {"blocks": [0.7, 0, 0.3]}}
    described["data"] |= {"root": "data", "source": [first | {"weight": 3}, second], "size": [16, 16]}
    Path("own.yaml").write_text(yaml.safe_dump(described))

    result = segzoo("data", "check", "own.yaml", "--out", "seen")
    assert result.status == 0, result.err
    assert "source/train: syn " in result.out and "source/train: more " in result.out
    assert "10 (0 sky" not in result.out and "10 (sky" in result.out, "the ids of the second source stand by themselves"

    result = segzoo("data", "prepare", "own.yaml", "--out", "copy", "--png")
    assert result.status == 0 and "15 images copied" in result.out, result.err
    assert len(list(Path("copy/source/train/more/masks").iterdir())) == 2
    before, after = (build_data(read_invocation(name, [])) for name in ("own.yaml", "copy/data.yaml"))
    assert after.source_weights == before.source_weights == {"syn": 3.0, "more": 1.0}
    assert after.images("source", "train").names == before.images("source", "train").names
    for i in range(6):
        old, new = before.images("source", "train").label(i), after.images("source", "train").label(i)
        assert (cv2.resize(old, new.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) == new).all()
    result = segzoo("fit", "--method", "joint", "--data", "copy/data.yaml")
    assert result.status == 0 and "syn 4 images (weight 3, 75%), more 2 images (weight 1, 25%)" in result.out, (
        result.err
    )

    Path("data/more/mask/001.png").unlink()
    Path("data/syn/image/001.png").write_bytes(b"nothing")
    result = segzoo("data", "check", "own.yaml", "--out", "seen")
    assert result.status == 1 and "source/train: more: " in result.err and "source/train: syn: " in result.err
    assert segzoo("data", "prepare", "own.yaml", "--out", "copy", "--png").status == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--out copy", "DATA"),
        ("TOY", "--out"),
        ("TOY --out copy --png", "begun with other settings"),
        ("TOY --out copy --data.size 16 16", "begun with other settings"),
        ("TOY --out other", "is not of this copy"),
        ("TOY --out TOY", "cannot write to"),
        ("TOY --out new --workers 0", "--workers 0: expected 1 or more"),
        ("TOY --out new --quality 9", "unknown option '--quality'"),
    ],
)
def test_what_is_wrong_is_one_line(segzoo: Segzoo, toy: Path, options: str, words: str) -> None:
    if "--out copy" in options:
        Path("copy").mkdir()
        Path("copy/done.jsonl").write_text('{"sizes": {}}\n')
    Path("other/source/train/images").mkdir(parents=True)
    Path("other/source/train/images/my.jpg").write_bytes(b"mine")
    result = segzoo("data", "prepare", *options.replace("TOY", str(toy)).split())
    assert result.status == 2 and result.err.count("\n") == 1 and words in result.err, result.err
    assert Path("other/source/train/images/my.jpg").read_bytes() == b"mine"
