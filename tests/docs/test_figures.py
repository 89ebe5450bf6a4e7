"""The scripts that draw the figures of the pages, on tiny untrained networks."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import segzoo
from docs.figures import annotator, city, concepts, confidence, mixing, regions, resources, slopes, strip, virtual_step
from docs.figures.drawing import LIMIT, Card, write
from segzoo.losses import maximum_squares, minimum_entropy
from segzoo.methods.registry import methods
from tests import tiny

FIGURES = Path(resources.__file__).parent


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of a method as it begins."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def saved(slug: str) -> Path:
        path = folder / f"{slug}.ckpt"
        if not path.exists():
            trainer: L.Trainer = tiny.trainer(1)
            method = tiny.method(slug)
            method.trainer = trainer
            trainer.strategy.connect(method)
            trainer.save_checkpoint(path)
        return path

    return saved


@pytest.mark.parametrize(
    ("script", "slug", "names"),
    [
        (virtual_step, "metapix", ["virtual_step"]),
        (slopes, "joint", ["slopes"]),
        (regions, "region-selection", ["regions"]),
        (strip, "metapix", ["strip"]),
        (mixing, "self-training", ["class_mix", "donors", "cut_mix"]),
        (concepts, "sepico", ["concepts"]),
    ],
)
def test_a_script_draws_from_a_run(
    script: object, slug: str, names: list[str], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path if len(names) > 1 else tmp_path / f"{names[0]}.png"
    script.main([str(checkpoint(slug)), "--out", str(out)])  # type: ignore[attr-defined]
    for name in names:
        check_picture(tmp_path / f"{name}.png")


def test_the_strip_shows_what_was_before(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    runs = [str(checkpoint("metapix")), "--before", str(checkpoint("source-only"))]
    strip.main([*runs, "--out", str(tmp_path / "strip.png")])
    check_picture(tmp_path / "strip.png")


@pytest.mark.filterwarnings("ignore:the packaged generator draws the faces")
def test_the_annotators_loop_is_drawn(tmp_path: Path) -> None:
    method = tiny.method("gradient-annotator").eval()
    write(annotator.draw(method).figure, tmp_path / "annotator.png")
    check_picture(tmp_path / "annotator.png")


@pytest.mark.parametrize("script", [confidence, resources])
def test_a_script_draws_without_a_run(script: object, tmp_path: Path) -> None:
    script.main(["--out", str(tmp_path / "figure.png")])  # type: ignore[attr-defined]
    check_picture(tmp_path / "figure.png")


def check_picture(path: Path) -> None:
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.ndim == 3 and min(picture.shape[:2]) > 200
    assert 0 < (picture < 250).mean() < 1, "something stands on white ground"


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*.png")), ids=lambda path: path.stem)
def test_a_figure_opens_on_a_phone(path: Path) -> None:
    assert path.stat().st_size <= LIMIT


def test_a_figure_that_is_too_large_is_refused(tmp_path: Path) -> None:
    card = Card(7, 7)
    card.picture((0, 0), np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8), 7)
    with pytest.raises(ValueError, match=r"a figure at most 200000"):
        write(card.figure, tmp_path / "noise.png")


def test_the_pulls_are_those_of_the_closed_forms() -> None:
    p = np.linspace(*confidence.SURE, 7)
    np.testing.assert_allclose(confidence.slopes(maximum_squares, p), 2 * p - 1, atol=1e-12)
    np.testing.assert_allclose(confidence.slopes(minimum_entropy, p), np.log(p / (1 - p)), atol=1e-12)


def test_reweighting_is_the_product_of_gradients(checkpoint: Callable[[str], Path]) -> None:
    predictor = segzoo.load(checkpoint("joint"), device="cpu")
    predictor.method.double()
    draws = np.random.default_rng(0)
    source, target = (
        city.batch(
            draws.integers(0, 256, (*tiny.SIZE, 3), dtype=np.uint8), draws.integers(0, 9, tiny.SIZE, dtype=np.uint8)
        )
        for _ in range(2)
    )
    source["image"], target["image"] = source["image"].double(), target["image"].double()
    found = slopes.weights(predictor, source, target)
    theta = list(predictor.method.segmenter.parameters())

    def losses(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = predictor.method.segmenter(batch["image"])
        return torch.nn.functional.cross_entropy(logits, batch["label"], reduction="none")[0]

    v = torch.autograd.grad(losses(target).mean(), theta)
    pixels = [(3, 5), (20, 40), (31, 63), (0, 0), (11, 7)]
    helps = []
    for row, column in pixels:
        slope = torch.autograd.grad(losses(source)[row, column], theta)
        helps.append(max(0.0, float(sum((a * b).sum() for a, b in zip(slope, v, strict=True)))))
    own = np.array([found[pixel] for pixel in pixels])
    assert max(helps) > 0
    np.testing.assert_allclose(own / own.sum(), np.array(helps) / sum(helps), rtol=1e-6, atol=1e-9)


def test_the_broad_parts_of_a_mask_have_no_lines_and_spots() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:20, 5:20] = True
    wanted = virtual_step.broad(mask)
    mask[30, :] = True
    mask[25:28, 50:53] = True
    assert np.array_equal(virtual_step.broad(mask), wanted) and wanted.any()


def test_pasting_takes_whole_classes() -> None:
    donor, onto = mixing.given("source", mixing.SOURCE), mixing.given("target", mixing.LABELLED)
    mixed = mixing.pasted(donor, onto)
    shown = np.all(mixed.image == donor.image, axis=2) & (mixed.label == donor.label)
    kept = np.all(mixed.image == onto.image, axis=2) & (mixed.label == onto.label)
    assert np.all(shown | kept) and shown.any() and kept.any()
    classes = np.unique(donor.label)
    whole = [bool(shown[donor.label == c].all()) for c in classes]
    assert sum(whole) == (len(classes) + 1) // 2


def test_the_nearest_concept_of_separate_classes_is_their_own() -> None:
    vectors = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    labels, target = np.array([0, 1, 2, 0, 1, 2]), np.array([False] * 3 + [True] * 3)
    assert concepts.nearest(concepts.Cells(vectors, labels, target)) == 1
    assert concepts.nearest(concepts.Cells(vectors, np.array([0, 1, 2, 1, 2, 2]), target)) == pytest.approx(1 / 3)


def test_every_method_that_labels_stands_in_one_group() -> None:
    named = [slug for slugs in resources.groups().values() for slug in slugs]
    assert sorted(named) == sorted(set(methods()) - set(resources.ON_OWN_IMAGES))
