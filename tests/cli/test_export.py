"""`segzoo export`: files that run without segzoo, and label as the checkpoint does."""

import errno
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segzoo.data.views import Views
from segzoo.errors import ConfigError
from segzoo.inference import Predictor, export, load
from tests import tiny
from tests.cli.conftest import Segzoo

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
FILES = ["net.onnx", "net.pt2"]


def logits(path: Path | str, image: torch.Tensor) -> torch.Tensor:
    """What a file says of images, without segzoo."""
    if str(path).endswith(".pt2"):
        with torch.no_grad():
            return torch.export.load(path).module()(image)
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


@pytest.mark.parametrize("out", FILES)
def test_the_file_says_what_the_checkpoint_says(out: str, segzoo: Segzoo, checkpoint: Path) -> None:
    result = segzoo("export", "--ckpt_path", checkpoint, "--out", out)
    assert (result.status, result.err) == (0, "")
    first, second, third = result.out.splitlines()
    assert first.startswith(f"{out}: ") and first.endswith(" MB, image (N, 3, 32, 32) to logits (N, 3, 32, 32)")
    assert second == "classes: 0 sky, 1 road, 2 car"
    found = re.fullmatch(
        r"compared with the checkpoint on 4 random images: logits differ by at most (\S+) .*equal on (\S+) % .*", third
    )
    assert found and float(found[1]) < 1e-4 and float(found[2]) > 99.9
    method = load(checkpoint, device="cpu").method
    for images in (1, 5):
        image = torch.rand(images, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(logits(out, image), method(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("out", FILES)
def test_size_and_metadata(out: str, segzoo: Segzoo, checkpoint: Path) -> None:
    result = segzoo("export", "--ckpt_path", checkpoint.parents[1], "--out", out, "--size", "40", "50")
    assert (result.status, result.err) == (0, "")
    assert logits(out, torch.rand(2, 3, 40, 50)).shape == (2, 3, 40, 50)
    with pytest.raises(Exception, match=r"32|== 40"):
        logits(out, torch.rand(2, 3, 32, 32))
    about: dict[str, str]
    if out.endswith(".pt2"):
        files: dict[str, Any] = {"segzoo.json": ""}
        torch.export.load(out, extra_files=files)
        about = json.loads(files["segzoo.json"])
    else:
        import onnxruntime

        about = onnxruntime.InferenceSession(out).get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["sky", "road", "car"] and len(json.loads(about["colours"])) == 3
    assert (about["height"], about["width"], about["method"]) == ("40", "50", "source-only")


@pytest.mark.parametrize("section", ["ONNX Runtime", "torch"])
def test_the_pages_code_labels_a_photograph_without_segzoo(section: str, segzoo: Segzoo, checkpoint: Path) -> None:
    out = {"ONNX Runtime": "streets.onnx", "torch": "streets.pt2"}[section]
    assert segzoo("export", "--ckpt_path", checkpoint, "--out", out).status == 0
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), (96, 128), mode="bicubic").clamp(0, 1)[0]
    Image.fromarray((255 * smooth).byte().permute(1, 2, 0).numpy()).save("photo.png")
    found = re.search(rf"^## {section}\n.*?^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    code = "import sys\nsys.modules['segzoo'] = None\n" + found[1].replace("photo.jpg", "photo.png")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = np.asarray(Image.open("labels.png"))
    ours = load(checkpoint, device="cpu").predict("photo.png").labels
    assert theirs.shape == ours.shape == (96, 128)
    # Two steps of training leave many pixels between two classes, where the rounding of another library's resizing decides.
    assert (theirs == ours).mean() > (0.97 if section == "torch" else 0.8)
    if section == "ONNX Runtime":
        assert re.fullmatch(r"\{'sky': '.*%', 'road': '.*%', 'car': '.*%'\}\n", done.stdout)


@pytest.mark.parametrize("slug", ["metapix", "sepico", "maxsquare"])
def test_a_method_that_was_just_trained(slug: str, tmp_path: Path) -> None:
    method = tiny.fit(slug, 1)
    method.train()
    made = Predictor(method, tiny.SIZE).export(tmp_path / "net.pt2")
    assert (made.size, made.compared, made.difference, made.agreement) == (tiny.SIZE, 4, 0.0, 1.0)
    assert method.training and method.segmenter.training
    # The network alone, without a teacher or a network that weighs.
    kept = torch.export.load(tmp_path / "net.pt2").state_dict
    assert sum(x.numel() for x in kept.values()) == sum(x.numel() for x in method.segmenter.state_dict().values())


def test_the_size_of_windows(tmp_path: Path) -> None:
    predictor = Predictor(tiny.method("joint").eval(), tiny.SIZE, protocol=Views(input="native", window=(64, 32)))
    assert predictor.export(tmp_path / "net.pt2").size == (64, 32)
    predictor = Predictor(tiny.method("joint").eval())
    with pytest.raises(ConfigError, match="no input size"):
        predictor.export(tmp_path / "none.pt2")
    assert not (tmp_path / "none.pt2").exists()


def test_what_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(tiny.method("joint").eval(), tiny.SIZE)
    (tmp_path / "net.pt2").write_text("of before")
    monkeypatch.setattr(export, "_loaded", lambda *_: lambda image: torch.zeros(len(image), 9, *tiny.SIZE))
    with pytest.raises(ConfigError, match=r"the pt2 of this network .* was not kept"):
        predictor.export(tmp_path / "net.pt2")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("net.pt2", "of before")]


@pytest.mark.parametrize(
    ("absent", "says"),
    [
        (
            "onnx",
            "error: net.onnx: ONNX files need the package onnx; install it with `pip install onnx onnxscript onnxruntime`, or",
        ),
        ("onnxscript", "error: net.onnx: ONNX files need the package onnxscript"),
        ("onnxruntime", ""),
    ],
)
def test_absent_packages(
    absent: str, says: str, segzoo: Segzoo, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == absent else find_spec(name))
    result = segzoo("export", "--ckpt_path", checkpoint, "--out", "net.onnx")
    if says:
        assert result.status == 2 and result.err.startswith(says) and not Path("net.onnx").exists()
    else:
        assert (
            result.status == 0 and "not compared with the checkpoint: that needs the package onnxruntime" in result.out
        )


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--out", "net.bin"], "net.bin: expected a file that ends in .onnx or .pt2"),
        (["--out", "net.pt2", "--size", "0", "4"], "--size must be at least 1 1"),
    ],
)
def test_refusals(argv: list[str], says: str, segzoo: Segzoo, checkpoint: Path) -> None:
    result = segzoo("export", "--ckpt_path", checkpoint, *argv)
    assert (result.status, result.err) == (2, f"error: {says}\n") and not list(Path.cwd().iterdir())


def test_what_the_disk_refuses_is_no_fault_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(OSError, match="No space left"):
        Predictor(tiny.method("joint").eval(), tiny.SIZE).export(tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())
