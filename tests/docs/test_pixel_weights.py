"""The study of pixel weights: its masks, its weights and its tables."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from docs.pixel_weights import rows, study, tables
from docs.pixel_weights.marked import Marked, unmark
from segzoo.data import Harmed, MiniCity, load_label_space
from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.harm import HarmedImages
from segzoo.data.streams import Batch
from segzoo.study.entries import read_results
from segzoo.yaml_files import read_yaml
from tests import tiny

PAGE = Path(__file__).parents[2] / "docs/pixel_weights.md"


def source(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 4, (2, 5, 6), generator=generator)
    label[0, 0] = 255
    return {"label": label, "wrong": (torch.rand(label.shape, generator=generator) < 0.4) & (label != 255)}


def test_the_mask_comes_back_out_of_the_marked_labels() -> None:
    domain = MiniCity("source", train=3, val=1, test=1, size=tiny.SIZE)
    plain, marked = domain.images("train", Path()), Marked(domain).images("train", Path())
    for i in range(3):
        found = unmark({"label": torch.from_numpy(marked.label(i)).long()})
        np.testing.assert_array_equal(found["label"], plain.label(i))
        np.testing.assert_array_equal(found["wrong"], plain.wrong(i) & (plain.label(i) != 255))


def naive_area(values: torch.Tensor, batch: Batch, label: int | None = None) -> float:
    valid = batch["label"] != 255 if label is None else batch["label"] == label
    right, wrong = values[valid & ~batch["wrong"]], values[valid & batch["wrong"]]
    pairs = [(float(a > b) + float(a == b) / 2) for a in right for b in wrong]
    return sum(pairs) / len(pairs)


def test_areas_are_shares_of_pairs() -> None:
    batch, values = source(), torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1)).mul(8).round()
    for scale in (1, 1e-12, -1e12):  # slopes are tiny, and a sigmoid of them is 0.5
        assert rows.area(scale * values, batch) == pytest.approx(naive_area(scale * values, batch))
    counts = [int((batch["wrong"] & (batch["label"] == k)).sum()) for k in range(4)]
    expected = sum(n * naive_area(values, batch, k) for k, n in enumerate(counts)) / sum(counts)
    assert rows.area_within(values, batch, 4) == pytest.approx(expected)


def test_an_oracle_that_is_sometimes_mistaken_is_so_for_whole_segments() -> None:
    batch = source()
    torch.manual_seed(0)
    mistaken = rows.mistaken(0, 1, 0.5)(batch).bool() == batch["wrong"]
    segments = [mistaken[i][batch["label"][i] == k] for i in range(2) for k in range(4)]
    assert all(one.all() or not one.any() for one in segments) and 0 < mistaken.float().mean() < 1
    assert torch.equal(rows.mistaken(0.6, 1.1, 0.0)(batch), rows.oracle(0.6, 1.1)(batch))


def test_factors_of_an_oracle_are_those_of_the_claimed_class() -> None:
    batch = source()
    found = rows.oracle(0.5, 1, {2: 3.0})(batch)
    expected = torch.where(batch["wrong"], 0.5, 1.0) * torch.where(batch["label"] == 2, 3.0, 1.0)
    assert torch.equal(found, expected)


def test_by_class_the_mean_is_one_and_its_derivative_that_of_autograd() -> None:
    batch = source()
    raw = torch.rand(2, 5, 6, dtype=torch.float64).add(0.1).requires_grad_()
    slopes = torch.rand(2, 5, 6, dtype=torch.float64)
    method = rows.ClassMetaPix(label_space=load_label_space("minicity"), network=tiny.NETWORK, weight_width=2)
    weights, pull_back = method.to_mean_one(raw, batch["label"])
    one_hot = F.one_hot(batch["label"].clamp_max(4), 5).double()
    means = (one_hot * raw[..., None]).sum((0, 1, 2)) / one_hot.sum((0, 1, 2))
    expected = raw / (one_hot @ means)
    torch.testing.assert_close(weights, expected.detach())
    torch.testing.assert_close(rows.mean_one_by_class(raw.detach(), batch["label"]), weights)
    valid = batch["label"] != 255
    (gradient,) = torch.autograd.grad((expected * slopes * valid).sum(), raw)
    torch.testing.assert_close(pull_back(slopes), gradient)


def test_what_was_seen_is_averaged_without_nan() -> None:
    found: dict[int, dict[str, Any]] = {
        0: {"auc": 0.5, "classes": {"a": 1.0}},
        40: {"auc": math.nan, "classes": {}},
        50: {"auc": 0.7, "classes": {"a": 2.0}},
        60: {"auc": 0.8, "classes": {"a": 4.0, "b": 1.0}},
    }
    assert study.condense(found) == {0: {"auc": 0.5}, 50: {"auc": 0.75, "classes": {"a": 3.0, "b": 1.0}}}
    assert study.condense({}) == {}


def test_the_tables_of_the_page_are_those_of_the_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"<!-- table (.*) -->\n((?:\|.*\n)+)", text)
    made = {tables.title(key): tables.table(found) for key, found in tables.by_condition(tables.read()).items()}
    assert {condition for condition, _ in shown} == {*made, "of slopes"}
    for condition, table in shown:
        assert table.strip() == (made | {"of slopes": tables.slopes_table()})[condition]


class Named(ImageSet):
    """Images of which only the names count."""

    def __init__(self, names: list[str]) -> None:
        self.names = sorted(names)

    def image(self, index: int) -> Pixels:
        raise NotImplementedError

    def label(self, index: int) -> Pixels:
        raise NotImplementedError


def test_the_shifted_masks_are_where_the_page_says() -> None:
    """Which masks were shifted follows from their number alone."""
    lines = (PAGE.parent / "pixel_weights/doubts.csv").read_text(encoding="utf-8").splitlines()
    found = [line.split(",")[0] for line in lines[1:]]
    options = read_yaml(PAGE.parent / "pixel_weights/harmed.yaml")["data"]["source"]["init_args"]
    images = HarmedImages(Named(found), Harmed(MiniCity("source"), options["share"], options["kind"]))
    shifted = {images.names[i] for i in images.harmed}
    text = " ".join((PAGE.parent / "your_data.md").read_text(encoding="utf-8").split())
    assert f"of CARLA's {len(found)} images" in text
    assert set(found[: len(shifted)]) == shifted
    assert f"the first {len(shifted)} masks of the list are the {len(shifted)} shifted ones" in text


def test_the_table_of_what_was_left_out_is_its_json() -> None:
    runs = read_results(PAGE.parent / "pixel_weights/cleaned.json")
    found = {(run["row"], run["seed"]): run["scores"]["test"] for run in runs}
    text = PAGE.read_text(encoding="utf-8")
    names = {
        "right": "right masks, 422 images",
        "harmed": "106 of them harmed",
        "cleaned": "without the 106 most doubted",
    }
    for row, name in names.items():
        seeds = [found[row, seed] for seed in (0, 1)]
        values = [[one["classes"][part]["iou"] for one in seeds] for part in ("Road", "Pavement")]
        values += [[one[key] for one in seeds] for key in ("pixel_accuracy", "miou")]
        cells = [", ".join(f"{100 * value:.1f}" for value in each) for each in values]
        assert f"| {name} | {' | '.join(cells)} |" in text
