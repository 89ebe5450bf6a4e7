"""A trained network as a file that runs without segzoo: ONNX, or torch's own exported program (.pt2)."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn

import segzoo
from segzoo.errors import ConfigError
from segzoo.files import whole_file
from segzoo.inference.logits import evaluating
from segzoo.methods.segmentation import SegmentationMethod

SUFFIXES = (".onnx", ".pt2")
LARGEST = 1e-3
"""Difference of two logits, as a share of the largest, above which the file does not do what the network does."""
INSTALL = "install it with `pip install onnx onnxscript onnxruntime`"


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares with the network.

    Attributes:
        path: the file.
        size: (height, width) of its images.
        classes: the names of the logits.
        compared: the number of random images that both labelled; 0 where nothing can run the file.
        difference: the largest of two logits of them.
        largest: the largest logit.
        agreement: the share of pixels with the same label.
    """

    path: Path
    size: tuple[int, int]
    classes: tuple[str, ...]
    compared: int = 0
    difference: float = 0.0
    largest: float = 0.0
    agreement: float = 1.0


class _Plain(nn.Module):
    """The forward pass of a method as a module whose only parameters are those that it uses."""

    def __init__(self, method: SegmentationMethod) -> None:
        super().__init__()
        self.segmenter = method.segmenter
        self._forward: list[Callable[[Tensor], Tensor]] = [method]  # in a list, which is no part of a module

    def forward(self, image: Tensor) -> Tensor:
        return self._forward[0](image)


def export(method: SegmentationMethod, size: tuple[int, int], path: Path | str) -> Exported:
    """Writes the network of a method to a file, and compares the two on random images.

    The file maps ``image``, (N, 3, H, W) float32 RGB from 0 to 1 of any number N, to ``logits``, (N, C, H, W) float32. What
    is around it is the caller's: resizing photographs to (H, W), windows, and the largest logit as the label. The classes,
    their colours and the size are in its metadata (ONNX: ``metadata_props``; .pt2: the extra file ``segzoo.json``).

    Args:
        method: whose network; it stays in the mode and on the device that it is in.
        size: (H, W) of the file's images.
        path: the file; its suffix, .onnx or .pt2, says what is written.

    Raises:
        ConfigError: another suffix, a missing package, a size that the network refuses, a network that torch cannot export, or
            a file that does not do what the network does.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}")
    for package in ("onnx", "onnxscript") if path.suffix == ".onnx" else ():
        if find_spec(package) is None:
            raise ConfigError(f"{path}: ONNX files need the package {package}; {INSTALL}, or write a .pt2")
    method.segmenter.check_sizes({"size": size})
    plain = _Plain(method)
    with evaluating(method), torch.inference_mode(False), torch.no_grad(), whole_file(path) as partial:
        _write(plain.eval(), size, path.suffix, partial, _metadata(method, size))
        found = _compare(plain, size, path.suffix, partial)
    return Exported(path, size, method.label_space.classes, *found)


def _metadata(method: SegmentationMethod, size: tuple[int, int]) -> dict[str, str]:
    return {
        "classes": json.dumps(method.label_space.classes),
        "colours": json.dumps(method.label_space.palette),
        "height": str(size[0]),
        "width": str(size[1]),
        "method": method.slug,
        "segzoo": segzoo.__version__,
    }


def _write(plain: nn.Module, size: tuple[int, int], suffix: str, path: Path, metadata: dict[str, str]) -> None:
    device = next(plain.parameters()).device
    example = torch.rand(2, 3, *size, device=device)  # of one image torch would conclude that there is always one
    names: Any = {"input_names": ["image"], "output_names": ["logits"]}
    with _quiet():
        try:
            program = torch.export.export(plain, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
            onnx: Any = torch.onnx.export(program, (example,), dynamo=True, **names) if suffix == ".onnx" else None
        except Exception as error:  # whatever a network holds that cannot be converted
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"this network cannot be written as {suffix[1:]}: {reason}") from error
        # Outside: what the disk refuses is no fault of the network.
        if onnx is not None:
            onnx.model.metadata_props.update(metadata)
            onnx.save(path)
            return
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files={"segzoo.json": json.dumps(metadata)})


def _compare(plain: nn.Module, size: tuple[int, int], suffix: str, path: Path) -> tuple[int, float, float, float]:
    """Images, largest difference, largest logit and agreement of labels; one image and several, as ``N`` is free."""
    run = _loaded(suffix, path)
    if run is None:
        return 0, 0.0, 0.0, 1.0
    device, draws = next(plain.parameters()).device, torch.Generator().manual_seed(0)
    count, difference, largest, equal = 0, 0.0, 0.0, 0.0
    for images in (1, 3):
        image = torch.rand(images, 3, *size, generator=draws)
        expected, found = plain(image.to(device)).float().cpu(), run(image)
        difference = max(difference, float((expected - found).abs().max()))
        largest = max(largest, float(expected.abs().max()))
        equal += images * float((expected.argmax(1) == found.argmax(1)).float().mean())
        count += images
    if not difference <= LARGEST * largest:
        raise ConfigError(
            f"the {suffix[1:]} of this network answers with logits that differ by {difference:.2g} (the largest is "
            f"{largest:.2g}), and was not kept"
        )
    return count, difference, largest, equal / count


def _loaded(suffix: str, path: Path) -> Callable[[Tensor], Tensor] | None:
    """What the file does with images, on the CPU; None where the package that runs it is absent."""
    if suffix == ".pt2":
        with path.open("rb") as file:
            module = torch.export.load(file).module()
        device = next(module.parameters()).device
        return lambda image: module(image.to(device)).float().cpu()
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the many words that torch has for those who write such converters."""
    with catch_warnings(), redirect_stdout(StringIO()):
        simplefilter("ignore")
        yield
