"""`segzoo predict` on folders as people have them: every image once, every file accounted for, nothing lost."""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segzoo.data import PairedFolders
from segzoo.data.files import walk
from segzoo.errors import ConfigError, DataError
from segzoo.inference import load
from segzoo.inference.photographs import check_apart, find_images
from segzoo.inference.pictures import write_picture
from tests.cli.conftest import Result, Segzoo


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
    """An image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def written(kind: str = "labels") -> list[str]:
    return sorted(path.relative_to(Path("out") / kind).as_posix() for path in Path("out", kind).rglob("*.*"))


@pytest.fixture
def predict(segzoo: Segzoo, checkpoint: Path) -> Segzoo:
    """The command with ``--input photos --out out``; what is given comes after."""
    Path("photos").mkdir()

    def call(*argv: str | Path) -> Result:
        given = ["--ckpt_path", checkpoint, "--input", "photos", "--out", "out", "--device", "cpu"]
        return segzoo("predict", *given, *argv)

    return call


@pytest.fixture
def alarm() -> Iterator[None]:
    """A test that hangs fails."""

    def fail(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.fault("named-pipe-among-photographs")
def test_what_is_no_regular_file_is_named_and_not_opened(predict: Segzoo, alarm: None) -> None:
    draw(Path("photos/a.png"))
    os.mkfifo("photos/m.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("photos/s.jpg")
        result = predict()
    assert (result.status, result.out) == (0, "1 images labelled; out holds labels/, overlays/ and legend.png\n")
    assert (
        result.err
        == "2 files were not labelled: m.png (a named pipe), s.jpg (a socket); convert images to PNG or JPEG\n"
    )
    os.mkfifo("pipe.png")
    result = predict("--input", "pipe.png")
    assert result.status == 2 and "pipe.png is a named pipe" in result.err


@pytest.mark.fault("named-pipe-in-a-data-set")
def test_a_named_pipe_in_a_data_set_is_no_image(tmp_path: Path, alarm: None) -> None:
    draw(tmp_path / "images" / "a.png")
    os.mkfifo(tmp_path / "images" / "b.png")
    assert list(PairedFolders("images", None, "minicity").images("train", tmp_path).names) == ["a"]


@pytest.mark.fault("link-to-its-own-folder")
def test_every_folder_is_visited_once(predict: Segzoo) -> None:
    draw(Path("photos/a.png"))
    draw(Path("photos/z/b.png"))
    draw(Path("elsewhere/c.png"))
    draw(Path("d.png"))
    Path("photos/self").symlink_to(".", target_is_directory=True)
    Path("photos/up").symlink_to("..", target_is_directory=True)  # it holds the results as well
    Path("photos/again").symlink_to("z", target_is_directory=True)
    Path("photos/z/back").symlink_to("..", target_is_directory=True)
    Path("photos/other").symlink_to("../elsewhere", target_is_directory=True)
    Path("elsewhere/round").symlink_to("../photos/z", target_is_directory=True)
    Path("photos/d.png").symlink_to("../d.png")
    result = predict()
    assert (result.status, result.out, result.err) == (
        0,
        "4 images labelled; out holds labels/, overlays/ and legend.png\n",
        "",
    )
    assert written() == ["a.png", "d.png", "other/c.png", "z/b.png"]
    assert predict().out == "0 images labelled, 4 were before; out holds labels/, overlays/ and legend.png\n"


@pytest.mark.fault("link-to-its-own-folder-in-a-data-set")
def test_a_data_set_has_every_image_once(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "self").symlink_to(".", target_is_directory=True)
    assert list(PairedFolders("images", None, "minicity").images("train", tmp_path).names) == ["a"]


@pytest.mark.fault("unreadable-folder")
def test_a_folder_that_cannot_be_read_is_named() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to others, in as many levels as it likes
        closed = Path(name, "images", "closed")
        draw(closed / "a.png")
        draw(closed.parent / "b.png")
        Path(name).chmod(0o755)
        closed.chmod(0)
        if user == 0:
            os.seteuid(65534)  # root may read everything
        try:
            with pytest.raises(
                DataError, match=r"cannot read the folder .*closed: Permission denied; its files would be left"
            ):
                list(walk(closed.parent))
        finally:
            os.seteuid(user)
            closed.chmod(0o755)


@pytest.mark.fault("files-that-are-not-labelled")
def test_files_that_are_not_labelled_are_named(predict: Segzoo) -> None:
    draw(Path("photos/a.png"))
    draw(Path("photos/.hidden.png"))
    for name in ("b.heic", "clip.psd", "notes.txt", "sub/c.CR2", "x", "y.pdf", "z.svg"):
        path = Path("photos", name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0\0\0\x18ftypheic")
    result = predict()
    assert result.status == 0 and written() == ["a.png"]
    named = "b.heic, clip.psd, notes.txt, x, y.pdf, ... and 2 more"
    assert result.err == f"7 files were not labelled: {named}; convert images to PNG or JPEG\n"
    Path("photos/a.png").unlink()
    result = predict()
    assert result.status == 2 and result.err.startswith("error: no images in photos: expected files of type .jpg")
    assert "found b.heic, clip.psd" in result.err and result.err.count("\n") == 1


@pytest.mark.fault("several-pictures-in-one-file")
def test_the_first_of_several_pictures_is_labelled_and_the_others_are_counted(predict: Segzoo) -> None:
    pages = [Image.fromarray(np.full((24, 32, 3), i, np.uint8)) for i in (0, 90, 200)]
    pages[0].save("photos/scan.tif", save_all=True, append_images=pages[1:])
    pages[0].save("photos/move.gif", save_all=True, append_images=pages[1:2])
    pages[0].save("photos/still.gif")
    pages[0].save("photos/one.webp", lossless=True)
    pages[0].save("photos/black.png")
    result = predict()
    assert result.status == 0
    assert result.err == (
        "only the first picture of 2 files was labelled: photos/move.gif (1 of 2), photos/scan.tif (1 of 3); "
        "save the others as files\n"
    )
    assert written() == ["black.png", "move.png", "one.png", "scan.png", "still.png"]
    labels = [np.asarray(Image.open(f"out/labels/{name}")) for name in written()]
    assert all(np.array_equal(label, labels[0]) for label in labels)


@pytest.mark.fault("broken-photograph-among-others")
def test_a_broken_image_does_not_lose_the_others(predict: Segzoo) -> None:
    for i in range(3):
        draw(Path(f"photos/{i}.png"), i)
    whole = Path("photos/1.png").read_bytes()
    Path("photos/1.png").write_bytes(whole[: len(whole) // 2])
    Path("photos/3.jpg").write_text("no image")
    Path("photos/4.png").symlink_to("nowhere.png")
    result = predict("--batch_size", "2")
    assert (result.status, result.out) == (1, "2 images labelled; out holds labels/, overlays/ and legend.png\n")
    assert result.err.startswith("error: 3 of 5 images could not be labelled: cannot read the image photos/1.png: ")
    assert "photos/3.jpg" in result.err and "photos/4.png" in result.err and result.err.count("\n") == 1
    assert written() == ["0.png", "2.png"]
    draw(Path("photos/1.png"), 1)
    again = predict("--batch_size", "2")
    assert (
        again.out == "1 images labelled, 2 were before; out holds labels/, overlays/ and legend.png\n"
        and again.status == 1
    )
    for name in ("0.png", "1.png", "2.png"):
        Path("photos", name).unlink()
    result = predict()
    assert result.status == 2 and result.err.startswith("error: none of 2 images could be labelled: cannot read")
    assert result.out == ""


@pytest.mark.fault("two-photographs-of-one-name")
def test_two_images_of_one_name_are_named_before_anything_is_labelled(predict: Segzoo) -> None:
    draw(Path("photos/a.png"))
    draw(Path("photos/b.png"))
    draw(Path("photos/b.jpg"))
    result = predict()
    assert result.status == 2
    assert result.err.startswith("error: photos/b.jpg and photos/b.png have the same name but for the ending")
    assert not Path("out").exists()


@pytest.mark.fault("two-photographs-of-one-name")
def test_capitals_count_where_the_file_system_says_so(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    check_apart(["a", "A"], tmp_path / "labels")
    (tmp_path / "LABELS").symlink_to("labels")  # as on a file system that ignores capitals
    check_apart(["a", "b"], tmp_path / "labels")
    with pytest.raises(DataError, match="a and A would be one file"):
        check_apart(["a", "A"], tmp_path / "labels")


@pytest.mark.fault("predict-again")
def test_the_same_command_goes_on_and_another_writes_over_nothing(predict: Segzoo) -> None:
    draw(Path("photos/a.png"), 1)
    draw(Path("photos/b.png"), 2)
    assert predict().out == "2 images labelled; out holds labels/, overlays/ and legend.png\n"
    labels, overlay = Path("out/labels/a.png"), Path("out/overlays/b.jpg")
    before = labels.stat().st_mtime_ns
    overlay.unlink()
    assert predict().out == "1 images labelled, 1 were before; out holds labels/, overlays/ and legend.png\n"
    assert labels.stat().st_mtime_ns == before and overlay.is_file()
    draw(Path("photos/a.png"), 3, (20, 20))  # another image of that name
    assert predict().out == "1 images labelled, 1 were before; out holds labels/, overlays/ and legend.png\n"
    assert Image.open(labels).size == (20, 20)
    content = labels.read_bytes()
    result = predict("--size", "64", "64")
    assert result.status == 2 and "out/labels/a.png was made with another checkpoint, --size," in result.err
    assert "--overwrite" in result.err and labels.read_bytes() == content
    assert (
        predict("--size", "64", "64", "--overwrite").out
        == "2 images labelled; out holds labels/, overlays/ and legend.png\n"
    )


@pytest.mark.fault("predict-over-foreign-files")
def test_files_of_another_origin_are_not_written_over(predict: Segzoo) -> None:
    draw(Path("photos/a.png"))
    for mine in ("out/labels/a.png", "out/overlays/a.jpg", "out/legend.png"):
        draw(Path(mine), 7)
        content = Path(mine).read_bytes()
        result = predict()
        assert result.status == 2 and f"error: {mine} exists and is not of this command" in result.err
        assert Path(mine).read_bytes() == content
        assert not [path for path in Path("out").rglob("*.*") if path != Path(mine)]
        Path(mine).unlink()
    draw(Path("out/labels/a.png"), 7)
    assert predict("--overwrite").status == 0


@pytest.mark.fault("predict-over-its-input")
@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("photos", "photos/out", "--out photos/out lies in --input photos"),
        ("out/overlays", "out", "--input out/overlays lies where --out out writes"),
        ("out/labels/sub", "out", "--input out/labels/sub lies where --out out writes"),
        ("out/legend.png", "out", "--input out/legend.png lies where --out out writes"),
        ("photos", "photos/a.png", "--out photos/a.png is a file"),
        ("photos", "/proc/none", "cannot write to /proc/none"),
    ],
)
def test_input_and_output_keep_apart(predict: Segzoo, folder: str, out: str, message: str) -> None:
    draw(Path("photos/a.png"))
    draw(Path("out/overlays/a.jpg"))
    draw(Path("out/labels/sub/a.png"))
    draw(Path("out/legend.png"))
    result = predict("--input", folder, "--out", out)
    assert result.status == 2 and result.err.startswith(f"error: {message}") and result.err.count("\n") == 1


@pytest.mark.fault("one-photograph-as-input")
def test_one_image_will_do(predict: Segzoo) -> None:
    draw(Path("photos/a.png"))
    draw(Path("photos/b.png"))
    result = predict("--input", "photos/b.png")
    assert result.status == 0 and written() == ["b.png"] == [Path(name).stem + ".png" for name in written("overlays")]
    Path("notes.txt").write_text("no image")
    result = predict("--input", "notes.txt")
    assert result.status == 2 and "notes.txt: expected a folder, or an image of type .jpg" in result.err


@pytest.mark.fault("photographs-of-12-bits")
def test_photographs_of_fewer_bits_than_their_files_have(predict: Segzoo) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (24, 32), dtype=np.uint16)
    Image.fromarray(values).save("photos/a.png")
    assert "set image_bits" in predict().err
    assert predict("--image_bits", "12").status == 0
    dark = np.asarray(Image.open("out/labels/a.png"))
    Image.fromarray((values >> 4).astype(np.uint8)).save("photos/a.png")
    assert predict("--overwrite").status == 0
    assert (np.asarray(Image.open("out/labels/a.png")) == dark).all()


@pytest.mark.fault("photographs-read-as-in-training")
def test_photographs_are_not_turned_where_those_of_the_training_were_not(predict: Segzoo, checkpoint: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 24)).save("photos/a.jpg", exif=exif)
    assert predict().status == 0
    assert Image.open("out/labels/a.png").size == (24, 32)
    content = torch.load(checkpoint, weights_only=True)
    content["segzoo"]["config"]["data"]["target"]["init_args"]["upright"] = False
    torch.save(content, "stored.ckpt")
    assert predict("--ckpt_path", "stored.ckpt", "--overwrite").status == 0
    assert Image.open("out/labels/a.png").size == (32, 24)
    predictor = load("stored.ckpt", device="cpu")  # from Python likewise, be it a file or opened already
    for photo in ("photos/a.jpg", Image.open("photos/a.jpg")):
        assert predictor.predict(photo).labels.shape == (24, 32)


@pytest.mark.fault("photograph-larger-than-memory")
def test_an_image_that_memory_does_not_hold_is_named_with_the_remedy(predict: Segzoo) -> None:
    draw(Path("photos/a.png"))
    Image.new("RGB", (20000, 12000)).save(
        "photos/large.png", compress_level=1
    )  # more than earlier tests may have freed
    torch.zeros(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 250 * 2**20, before[1]))
    try:
        result = predict("--batch_size", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert (result.status, result.out) == (1, "1 images labelled; out holds labels/, overlays/ and legend.png\n")
    assert "error: 1 of 2 images could not be labelled: " in result.err and "photos/large.png" in result.err
    assert "make the image smaller or cut it" in result.err


def test_a_large_image_takes_no_logits_of_all_classes_and_has_the_same_labels(
    predict: Segzoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        draw(Path(f"photos/{i}.png"), i, (50, 61 + i))
    assert predict("--out", "whole").status == 0
    monkeypatch.setattr("segzoo.inference.logits.AT_ONCE", 1)
    assert predict("--out", "parts").status == 0
    for i in range(3):
        whole, parts = (np.asarray(Image.open(f"{out}/labels/{i}.png")) for out in ("whole", "parts"))
        np.testing.assert_array_equal(whole, parts)
        assert len(np.unique(whole)) > 1


@pytest.mark.fault("predict-on-a-full-disk")
def test_a_file_that_cannot_be_written_is_one_line_and_leaves_no_half(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8))
    write_picture(picture, tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"cannot write .*a\.png: File too large"):
            write_picture(picture.rotate(90), tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == content


@pytest.mark.fault("predict-killed")
def test_a_killed_command_leaves_whole_pictures_and_goes_on(predict: Segzoo, checkpoint: Path) -> None:
    for i in range(30):
        draw(Path(f"photos/{i:02}.png"), i, (90, 120))
    argv = ["--ckpt_path", str(checkpoint), "--input", "photos", "--out", "out", "--device", "cpu", "--batch_size", "1"]
    code = "import segzoo.cli.counting as c, sys; c.SECONDS = 0; from segzoo.cli.main import main; main(sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, "predict", *argv]
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    line = killed.stderr.readline()  # where there is no terminal, lines say how far it is
    assert line.startswith("1 of 30 images, ") and line.endswith(" left\n")
    time.sleep(0.1)
    killed.kill()
    killed.communicate()
    done = written()
    assert 0 < len(done) < 30
    for name in done:
        assert np.asarray(Image.open(f"out/labels/{name}")).shape == (90, 120)
    result = predict()
    assert (
        result.out
        == f"{30 - len(done)} images labelled, {len(done)} were before; out holds labels/, overlays/ and legend.png\n"
    )


def test_masks_beside_images_are_no_photographs(predict: Segzoo, checkpoint: Path) -> None:
    """A data set is labelled as a whole, as the README's line does with the folder that was trained on."""
    for name in (
        "train/image/a.png",
        "train/label/a.png",
        "test/Images/b.png",
        "test/GT/b.png",
        "more/label/c.png",
        "d.png",
    ):
        draw(Path("photos") / name)
    result = predict()
    assert result.status == 0 and result.out.startswith("4 images labelled;")
    assert result.err == "not labelled, as masks that lie beside images: test/GT (1 file), train/label (1 file)\n"
    assert written() == ["d.png", "more/label/c.png", "test/Images/b.png", "train/image/a.png"]
    found = load(checkpoint, device="cpu").predict_folder("photos")
    assert sorted(one.name for one in found) == ["d", "more/label/c", "test/Images/b", "train/image/a"]


def test_a_camera_jpeg_with_a_preview_has_one_picture(tmp_path: Path) -> None:
    draw(tmp_path / "a.JPG")
    assert find_images(tmp_path) == ({"a": tmp_path / "a.JPG"}, [])
