"""What is said of the state dicts of others."""

import copy
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segzoo.adaptation.teacher import EmaTeacher
from segzoo.errors import CheckpointError
from segzoo.models.generators import DCGAN
from segzoo.models.generators.load import load_generator, save_generator
from segzoo.models.segmenter import Segmenter, create_segmenter
from segzoo.models.state_dicts import check_state, load_part, non_finite
from segzoo.models.weight_files import load_tensors


def test_finite_numbers_and_other_types_pass() -> None:
    assert (
        non_finite({"weight": torch.ones(2), "count": torch.tensor(3), "name": "x", "state": {0: {"step": 1.0}}})
        is None
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_tensor_is_named(bad: float) -> None:
    state = {"good": torch.ones(2), "state": {0: {"exp_avg": torch.tensor([1.0, bad])}}, "later": torch.tensor(bad)}
    assert non_finite(state) == "state.0.exp_avg"


CLASSES = ("sky", "road", "car")


def small(classes: Sequence[str] = CLASSES, architecture: str = "unet") -> Segmenter:
    torch.manual_seed(0)
    options = {"decoder_channels": [16, 16, 8, 8, 8]} if architecture == "unet" else None
    return create_segmenter(architecture, "tu-test_resnet", len(classes), options=options)


def save(path: Path, net: nn.Module, classes: Sequence[str] = CLASSES, part: str = "segmenter", **more: Any) -> Path:
    state = {f"{part}.{name}": value for name, value in net.state_dict().items()}
    space = {"name": "three", "classes": list(classes)}
    torch.save({"state_dict": state, "segzoo": {"method": "joint", "label_space": space}} | more, path)
    return path


@pytest.mark.fault("classes-in-another-order")
@pytest.mark.parametrize("architecture", ["unet", "deeplabv2", "daformer"])
@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (("sky", "car", "road"), "class 1 is 'car' in the checkpoint and 'road' in the data"),
        (("road", "sky", "car"), "class 0 is 'road' in the checkpoint and 'sky' in the data"),
        (("sky", "road", "Car"), "class 2 is 'Car' in the checkpoint and 'car' in the data"),
        (("sky", "road"), "class 2 is absent in the checkpoint and 'car' in the data"),
        (("sky", "road", "car", "bus"), "class 3 is 'bus' in the checkpoint and absent in the data"),
        (("sky", "bus", "road", "car"), "class 1 is 'bus' in the checkpoint and 'road' in the data"),
    ],
)
def test_a_part_of_other_classes_is_refused(
    architecture: str, saved: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.ckpt", small(saved, architecture), saved)
    net = small(architecture=architecture)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(CheckpointError, match=f"the segmenter of {path} was trained on other classes: {message}"):
        load_part(net, path, CLASSES)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    load_part(net, save(path, small(architecture=architecture)), CLASSES)


@pytest.mark.fault("classes-in-another-order")
@pytest.mark.parametrize("more", [{"segzoo": {}}, {"segzoo": None}, {"segzoo": {"label_space": {"classes": None}}}])
def test_a_part_that_does_not_say_its_classes_is_refused(more: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint of `segzoo fit`"):
        load_part(small(), save(tmp_path / "a.ckpt", small(), **more), CLASSES)


@pytest.mark.fault("input-statistics-lost")
def test_statistics_travel_with_the_weights(tmp_path: Path) -> None:
    theirs, own = create_segmenter("fpn", "tu-tf_efficientnet_lite0", 3), create_segmenter("fpn", "resnet18", 3)
    assert {"mean", "std"} < theirs.state_dict().keys()
    assert theirs.mean.flatten().tolist() == [0.5] * 3 != own.mean.flatten().tolist()
    trained = small().eval()
    trained.mean.fill_(0.25)
    trained.std.fill_(0.125)
    image, net = torch.rand(1, 3, 32, 32), small().eval()
    load_part(net, save(tmp_path / "a.ckpt", trained), CLASSES)
    assert torch.equal(net(image), trained(image))
    # Moved to the plain network, as the class describes it.
    assert torch.equal(trained.network((image - trained.mean) / trained.std), trained(image))


@pytest.mark.fault("input-statistics-lost")
def test_weights_of_before_keep_the_networks_own_statistics(tmp_path: Path) -> None:
    old, net = small(), small()
    nn.init.ones_(old.network.segmentation_head[0].bias)
    state = {name: value for name, value in old.state_dict().items() if name not in ("mean", "std")}
    net.load_state_dict(dict(state))
    assert torch.equal(net.mean, old.mean) and torch.equal(net.network.segmentation_head[0].bias, torch.ones(3))
    nested = nn.ModuleDict({"segmenter": small()})
    assert check_state(nested, {f"segmenter.{name}": value for name, value in state.items()}) is None
    path = save(tmp_path / "a.ckpt", old)
    content = torch.load(path)
    del content["state_dict"]["segmenter.mean"], content["state_dict"]["segmenter.std"]
    torch.save(content, path)
    other = small()
    load_part(other, path, CLASSES)
    assert torch.equal(other.std, old.std) and torch.equal(other.network.segmentation_head[0].bias, torch.ones(3))
    content["state_dict"]["segmenter.mean"] = torch.zeros(1, 1, 1, 1)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"'mean' has the shape \(1, 1, 1, 1\), expected \(1, 3, 1, 1\)"):
        load_part(other, path, CLASSES)


@pytest.mark.fault("input-statistics-lost")
@pytest.mark.parametrize("buffers", [True, False])
def test_teachers_keep_the_statistics(buffers: bool) -> None:
    student = small()
    student.mean.fill_(1 / 3)
    teacher = EmaTeacher(student, 0.9, buffers)
    for _ in range(5):
        teacher.update(student)
    assert torch.equal(teacher.network.mean, student.mean) and torch.equal(teacher.network.std, student.std)
    assert {"network.mean", "network.std"} < teacher.state_dict().keys()


@pytest.mark.fault("weights-not-finite")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_starting_points_that_are_not_finite_are_refused(bad: float, tmp_path: Path) -> None:
    broken = small()
    norm = next(m for m in broken.network.encoder.modules() if isinstance(m, nn.BatchNorm2d))
    norm.running_var[0] = bad
    with pytest.raises(CheckpointError, match=r"not finite, first in 'network\.encoder\..*running_var'"):
        load_part(small(), save(tmp_path / "a.ckpt", broken), CLASSES)
    torch.save(broken.network.encoder.state_dict(), tmp_path / "encoder.pt")
    with pytest.raises(
        CheckpointError, match=r"encoder\.pt holds numbers that are not finite, first in '.*running_var'"
    ):
        create_segmenter("fpn", "tu-test_resnet", 3, encoder_checkpoint=str(tmp_path / "encoder.pt"))
    generator = DCGAN(4, 2)
    generator.state_dict()["main.1.running_mean"][0] = bad
    torch.save(generator.state_dict(), tmp_path / "dcgan.pt")
    save_generator(generator, tmp_path / "ours.pt")
    for name in ("dcgan.pt", "ours.pt"):
        with pytest.raises(
            CheckpointError, match=rf"generator of .*{name} .* not finite, first in 'main\.1\.running_mean'"
        ):
            load_generator(str(tmp_path / name))


@pytest.mark.fault("damaged-checkpoint")
def test_files_of_weights_are_read_with_their_checksums(tmp_path: Path) -> None:
    part = save(tmp_path / "a.ckpt", small())
    torch.save(small().network.encoder.state_dict(), tmp_path / "encoder.pt")
    torch.save(DCGAN(4, 2).state_dict(), tmp_path / "dcgan.pt")
    save_generator(DCGAN(4, 2), tmp_path / "ours.pt")
    for path in tmp_path.iterdir():
        zero_out(path)
    for call in (
        lambda: load_part(small(), part, CLASSES),
        lambda: create_segmenter("fpn", "tu-test_resnet", 3, encoder_checkpoint=str(tmp_path / "encoder.pt")),
        lambda: load_generator(str(tmp_path / "dcgan.pt")),
        lambda: load_generator(str(tmp_path / "ours.pt")),
    ):
        with pytest.raises(
            CheckpointError, match=r"is damaged: the checksum of '.*data/\d+' in it is not that of its content"
        ):
            call()


def test_files_without_checksums_and_of_the_old_format_are_read(tmp_path: Path) -> None:
    state, path = {"weight": torch.rand(4)}, tmp_path / "a.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_tensors(path)["weight"], state["weight"])
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert torch.equal(load_tensors(path)["weight"], state["weight"])


def zero_out(path: Path) -> None:
    """What a bad sector does: a hundred bytes of the largest tensor are zero."""
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    middle = largest.header_offset + len(largest.filename) + 128 + largest.file_size // 4
    assert any(content[middle : middle + 100])
    content[middle : middle + 100] = bytes(100)
    path.write_bytes(content)
