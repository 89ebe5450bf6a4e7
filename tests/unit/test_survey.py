"""The survey of a data set: every file that is wrong, the classes' shares, and images that look alike."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segzoo.data import DomainDataModule, MiniCity, PairedFolders
from segzoo.data.label_spaces import LabelSpace
from segzoo.dataprep.duplicates import DIFFERENT_BITS, GREY, Look, look_at, near_duplicates
from segzoo.dataprep.report import report, write_files
from segzoo.dataprep.sets import find_sets, in_threads
from segzoo.dataprep.survey import Survey, survey

SPACE = LabelSpace("two", ("ground", "crack"), ((90, 90, 90), (250, 160, 0)))


def picture(seed: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Smooth, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def write(folder: Path, count: int, seed: int = 0) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        Image.fromarray(picture(seed + i)).save(folder / "images" / f"{i}.png")
        mask = np.zeros((40, 60), np.uint8)
        mask[: 5 + i, :10], mask[-1] = 1, 255
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    write(tmp_path / "source", 5)
    for number, split in enumerate(("train", "val", "test"), 1):
        write(tmp_path / split, 3, 100 * number)
    return tmp_path


def surveyed(root: Path) -> Survey:
    source = PairedFolders("source/images", "source/masks", SPACE)  # type: ignore[arg-type]
    target = PairedFolders("{split}/images", "{split}/masks", SPACE)  # type: ignore[arg-type]
    data = DomainDataModule(source, target, root=str(root), size=(32, 32))
    return survey(find_sets(data), data.label_space, 3, lambda count: None)


def test_counts_are_those_of_a_plain_loop(folders: Path) -> None:
    found = surveyed(folders)
    assert list(found.sets) == ["source/train", "target/train", "target/val", "target/test"] and not found.problems
    for name, one in found.sets.items():
        folder = folders / ("source" if name == "source/train" else name.partition("/")[2])
        counts = np.zeros(256, np.int64)
        for path in (folder / "masks").iterdir():
            for value in np.asarray(Image.open(path)).ravel().tolist():
                counts[value] += 1
        assert (one.counts == counts).all() and one.raw() == {i: counts[i] for i in (0, 1, 255)}
        assert all(item.size == (60, 40) and item.modes == ("PNG RGB", "PNG L") for item in one.items)
    lines = report(found).splitlines()
    share = (5 + 6 + 7) * 10 / (3 * 39 * 60)
    assert next(line for line in lines if line.startswith("1 crack")).endswith(f"{100 * share:.1f} %")
    assert next(line for line in lines if line.startswith("ignored")).split()[-2:] == ["2.5", "%"]  # a row of 40


def test_all_that_is_wrong_is_named(folders: Path, tmp_path: Path) -> None:
    (folders / "source/images/1.png").unlink()
    (folders / "test/masks/0.png").unlink()
    (folders / "val/images/2.png").write_bytes((folders / "val/images/2.png").read_bytes()[:200])
    Image.fromarray(np.full((40, 60), 7, np.uint8)).save(folders / "train/masks/0.png")
    Image.fromarray(np.zeros((20, 60), np.uint8)).save(folders / "train/masks/1.png")
    Image.fromarray(picture(9)).save(folders / "source/masks/4.png")
    found = surveyed(folders)
    expected = {
        "source/train": ("source/masks/1.png has no image", "source/masks/4.png"),
        "target/train": ("unknown label id 7", "train/masks/1.png is 60x20"),
        "target/val": ("val/images/2.png",),
        "target/test": ("test/images/0.png has no mask",),
    }
    for name, parts in expected.items():
        those = [line for line in found.problems if line.startswith(name)]
        assert len(those) == len(parts)
        assert all(any(part in line for line in those) for part in parts)
    assert len(found.problems) == 6
    files, _ = write_files(found, tmp_path / "out")
    rows = list(csv.DictReader(files.open()))
    assert len(rows) == 4 + 3 + 3 + 2 and sum(bool(row["problems"]) for row in rows) == 4


def test_a_set_that_is_missing_hides_no_other(folders: Path) -> None:
    (folders / "val/masks").rename(folders / "val/elsewhere")
    found = surveyed(folders)
    (line,) = found.problems
    assert line.startswith("target/val: the folder ") and set(found.sets) == {
        "source/train",
        "target/train",
        "target/test",
    }


def test_a_copy_in_another_split_is_found(folders: Path, tmp_path: Path) -> None:
    with Image.open(folders / "train/images/2.png") as file:  # smaller, brighter and lossy
        brighter = Image.fromarray((np.asarray(file.resize((48, 32))) * 0.95 + 10).astype(np.uint8))
    brighter.resize((60, 40)).save(folders / "test/images/1.png", "JPEG", quality=60)
    found = surveyed(folders)
    ((first, second),) = [(one.first, one.second) for one in found.twins]
    assert first == ("target/train", 2) and second == ("target/test", 1)
    (warning,) = [line for line in found.warnings if "duplicate" in line]
    assert "1 of the 3 images of target/test" in warning and "'1' is like '2'" in warning
    _, pairs = write_files(found, tmp_path / "out")
    assert [row["image"] for row in csv.DictReader(pairs.open())] == ["2"]


def test_data_without_files() -> None:
    parts = {d: MiniCity(d, train=2, val=1, test=1, size=(32, 64)) for d in ("source", "target")}  # type: ignore[arg-type]
    found = find_sets(DomainDataModule(**parts))
    text = report(survey(found, parts["source"].label_space, 1, lambda count: None))
    assert found.total == sum(map(len, found.images.values())) >= 6 and "made, not read" in text


def test_near_duplicates_are_those_of_two_loops() -> None:
    rng = np.random.default_rng(0)
    known = [picture(seed) for seed in range(30)]
    others = [(known[i] * rng.uniform(0.5, 1.0) + rng.normal(0, 12, known[i].shape)).clip(0, 255) for i in range(20)]
    first = [(2 * i, look_at(image)) for i, image in enumerate(known)]
    second = [(3 * i, look_at(image.astype(np.uint8))) for i, image in enumerate(others)]

    def difference(one: Look, other: Look) -> float:
        return float(np.abs(one.small - one.small.mean() - (other.small - other.small.mean())).mean())

    expected = {}
    for j, other in second:
        alike = [(difference(one, other), i) for i, one in first if (one.signs != other.signs).sum() <= DIFFERENT_BITS]
        if alike and min(alike)[0] <= GREY:
            expected[j] = min(alike)[1]
    assert 0 < len(expected) < len(others)
    found = near_duplicates({"target/train": first, "target/val": [], "target/test": second})
    assert {one.second[1]: one.first[1] for one in found} == expected


@pytest.mark.parametrize("change", [0, 1])
def test_the_same_pixels_are_the_same_image_and_others_are_not(change: int) -> None:
    still = [picture(7).copy() for _ in range(9)]  # more of one hash than are compared
    for i, image in enumerate(still):
        image[0, 0] += np.uint8(i + 1)
    other = still[8].copy()
    other[5, 5, 1] ^= change
    looks = {"target/train": list(enumerate(map(look_at, still))), "target/test": [(3, look_at(other))]}
    (twins,) = near_duplicates(looks)
    assert twins.same == (change == 0) and (change or twins.first == ("target/train", 8))
    assert look_at(picture(7)).digest != look_at(picture(7).reshape(60, 40, 3)).digest


def test_a_copy_is_called_the_same_image(folders: Path) -> None:
    (folders / "test/images/0.png").write_bytes((folders / "train/images/0.png").read_bytes())
    Image.fromarray(picture(101)).save(folders / "test/images/2.png", compress_level=0)  # other bytes, the same pixels
    (line,) = [line for line in surveyed(folders).warnings if "target/test" in line and "same image" in line]
    assert line.startswith("2 of the 3 images of target/test are also in target/train ('0' is the same image as '0')")


def test_sets_of_the_source_are_not_compared() -> None:
    looks = [(0, look_at(picture(0)))]
    assert not near_duplicates({"source/train": looks, "source/val": looks})
    assert len(near_duplicates({"source/train": looks, "target/train": looks})) == 1


def test_jobs_in_threads_are_all_done_once_and_few_wait() -> None:
    begun = 0

    def jobs() -> Iterator[int]:
        nonlocal begun
        for i in range(50):
            begun += 1
            yield i

    results = {}
    for job, done in in_threads(lambda job: job**2, jobs(), 3):
        results[job] = done
        assert begun <= len(results) + 6
    assert results == {i: i**2 for i in range(50)}


def test_a_failure_ends_the_jobs() -> None:
    started = []

    def work(job: int) -> None:
        started.append(job)
        if job == 3:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        list(in_threads(work, range(1000), 2))
    assert len(started) < 20
