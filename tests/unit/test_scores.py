"""Scores, the confusion matrix they come from, and the tables they go into."""

import copy
import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console
from torch.nn import functional
from torchmetrics.classification import (
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
)

from segzoo.errors import DataError
from segzoo.evaluation import (
    Protocol,
    Scores,
    comparison_table,
    confusion_metric,
    paired,
    predict_labels,
    print_scores,
    update_confusion,
)
from segzoo.evaluation.score_tables import missed_lines

PROTOCOL = Protocol("toy", 3, "test", 2, (4, 6))


def names(count):
    return tuple(f"c{i}" for i in range(count))


def scores(*rows, subsets=None):
    matrix = np.array(rows)
    return Scores(matrix, names(len(matrix)), subsets or {})


EXAMPLE = scores([6, 2, 0], [1, 3, 0], [0, 0, 0])  # the third class occurs nowhere

matrices = st.integers(1, 6).flatmap(lambda n: arrays(np.int64, (n, n), elements=st.integers(0, 10**9)))


# Scores


def test_hand_computed():
    np.testing.assert_allclose(EXAMPLE.iou, [6 / 9, 3 / 6, np.nan])
    np.testing.assert_allclose(EXAMPLE.recall, [6 / 8, 3 / 4, np.nan])
    np.testing.assert_allclose(EXAMPLE.frequency, [8 / 12, 4 / 12, 0])
    assert EXAMPLE.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert EXAMPLE.pixel_accuracy == pytest.approx(9 / 12)
    assert EXAMPLE.mean_accuracy == pytest.approx(3 / 4)


def test_class_that_is_predicted_but_never_true_scores_zero():
    wrong = scores([5, 5], [0, 0])
    np.testing.assert_array_equal(wrong.iou, [0.5, 0.0])
    assert math.isnan(wrong.recall[1])


def test_nothing_counted_gives_nan():
    empty = scores([0, 0], [0, 0])
    assert math.isnan(empty.miou)
    assert math.isnan(empty.pixel_accuracy)
    assert np.isnan(empty.frequency).all()
    assert json.loads(json.dumps(empty.to_dict(), allow_nan=False))["miou"] is None


@given(matrices)
def test_ranges_and_mean(matrix):
    result = Scores(matrix, names(len(matrix)))
    known = result.iou[~np.isnan(result.iou)]
    assert ((known >= 0) & (known <= 1)).all()
    assert (np.isnan(result.iou) == (matrix.sum(0) + matrix.sum(1) == 0)).all()
    # intersection over union never exceeds the accuracy of the class
    both = ~np.isnan(result.recall)
    assert (result.iou[both] <= result.recall[both] + 1e-12).all()


@given(arrays(np.int64, st.integers(1, 6), elements=st.integers(0, 10**9)))
def test_perfect_prediction_is_one(counts):
    result = Scores(np.diag(counts), names(len(counts)))
    np.testing.assert_array_equal(result.iou, np.where(counts > 0, 1.0, np.nan))
    assert result.pixel_accuracy == 1.0 if counts.any() else math.isnan(result.pixel_accuracy)


@given(matrices, st.randoms())
def test_permuted_classes_permute_the_scores(matrix, random):
    order = random.sample(range(len(matrix)), len(matrix))
    before = Scores(matrix, names(len(matrix)))
    after = Scores(matrix[np.ix_(order, order)], names(len(matrix)))
    np.testing.assert_array_equal(after.iou, before.iou[order])
    np.testing.assert_allclose(after.pixel_accuracy, before.pixel_accuracy, equal_nan=True)
    np.testing.assert_allclose(after.miou, before.miou, equal_nan=True)


def test_subset_is_the_mean_of_the_full_matrix_ious():
    full = scores([4, 0, 4], [0, 5, 0], [2, 0, 6], subsets={"two": (0, 1)})
    expected = (4 / 10 + 1) / 2
    assert full.subset("two") == full.subset([0, 1]) == full.subset(["c0", "c1"]) == pytest.approx(expected)
    # not the matrix cut down to the subset, where nothing would be wrong
    assert Scores(full.confusion[:2, :2], names(2)).miou == 1.0
    with pytest.raises(KeyError):
        full.subset(["missing"])


def test_a_subset_leaves_out_absent_classes():
    assert EXAMPLE.subset([1, 2]) == EXAMPLE.iou[1]
    assert math.isnan(EXAMPLE.subset([2]))


@pytest.mark.parametrize(
    ("matrix", "subsets"),
    [
        (np.zeros((2, 3), int), {}),
        (np.zeros((3, 3), int), {}),
        (np.zeros((2, 2)), {}),
        (np.array([[1, -1], [0, 1]]), {}),
        (np.eye(2, dtype=int), {"bad": (0, 2)}),
    ],
)
def test_refuses_what_is_no_confusion_matrix(matrix, subsets):
    with pytest.raises(ValueError, match=r"confusion|subset"):
        Scores(matrix, names(2), subsets)


def test_cannot_be_changed_from_outside():
    matrix = np.eye(2, dtype=np.int64)
    result = Scores(matrix, names(2))
    matrix[0, 1] = 7
    assert result.pixel_accuracy == 1.0
    with pytest.raises(ValueError, match="read-only"):
        result.confusion[0, 0] = 3


def test_saved_scores_come_back(tmp_path):
    original = scores([6, 2, 0], [1, 3, 0], [0, 0, 0], subsets={"two": (0, 1)})
    path = original.save(tmp_path / "new", "scores-test", PROTOCOL)
    assert Scores.load(path) == original
    assert Scores.load(path) != EXAMPLE  # another subset
    content = json.loads(path.read_text())
    assert Protocol.from_dict(content["protocol"]) == PROTOCOL
    assert content["classes"][2] == {"name": "c2", "iou": None, "precision": None, "recall": None, "share": 0.0}
    lines = (tmp_path / "new" / "scores-test.csv").read_text().splitlines()
    assert lines[0] == "class,iou,precision,recall,share"
    assert lines[1] == "c0,0.666667,0.857143,0.750000,0.666667"
    assert lines[3] == "c2,,,,0.000000"
    with np.load(tmp_path / "new" / "confusion.npz") as stored:
        np.testing.assert_array_equal(stored["confusion"], original.confusion)
        assert stored["confusion"].dtype == np.int64


@pytest.mark.parametrize("content", ["{}", "[]", "no json"])
def test_other_files_are_no_scores(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"other\.json is not a score file"):
        Scores.load(path)
    with pytest.raises(DataError, match="cannot read"):
        Scores.load(tmp_path / "missing.json")


# The accumulator


def random_batch(seed, count=3, classes=5, size=(9, 11)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, *size, generator=generator)
    labels = torch.randint(0, classes - 1, (count, *size), generator=generator)  # the last class never occurs
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits, labels


@pytest.mark.parametrize("deterministic", [False, True])
def test_same_as_torchmetrics(deterministic):
    logits, labels = random_batch(0)
    metric = confusion_metric(5)
    torch.use_deterministic_algorithms(deterministic)
    try:
        update_confusion(metric, logits, labels)
    finally:
        torch.use_deterministic_algorithms(False)
    reference = MulticlassConfusionMatrix(5, ignore_index=255)
    reference.update(logits, labels)
    assert torch.equal(metric.compute(), reference.compute())
    jaccard = MulticlassJaccardIndex(5, ignore_index=255, average="none")
    jaccard.update(logits, labels)
    result = Scores(metric.compute().numpy(), names(5))
    np.testing.assert_allclose(result.iou, jaccard.compute().numpy(), rtol=1e-6)
    assert result.miou == pytest.approx(float(jaccard.compute().mean()), rel=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_batches_add_up(seed, cut):
    logits, labels = random_batch(seed, count=6)
    whole, parts = confusion_metric(5), confusion_metric(5)
    update_confusion(whole, logits, labels)
    update_confusion(parts, logits[:cut], labels[:cut])
    update_confusion(parts, logits[cut:], labels[cut:])
    assert torch.equal(whole.compute(), parts.compute())
    assert int(whole.compute().sum()) == int((labels != 255).sum())


def test_logits_are_resized_to_each_ground_truth():
    logits = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sizes = [(19, 31), (5, 7)]
    labels = [torch.randint(0, 4, size, generator=torch.Generator().manual_seed(2)) for size in sizes]
    metric = confusion_metric(4)
    update_confusion(metric, logits, labels)
    expected = np.zeros((4, 4), int)
    for one, label in zip(logits, labels, strict=True):
        full = functional.interpolate(one[None], label.shape, mode="bilinear", align_corners=False)
        np.add.at(expected, (label.numpy(), full[0].argmax(0).numpy()), 1)
    np.testing.assert_array_equal(metric.compute().numpy(), expected)


def test_resizing_labels_instead_would_be_noticed():
    # A bilinear ramp crosses between the two middle columns; nearest labels would cross elsewhere.
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.9]]]])
    assert predict_labels(logits, (1, 8)).tolist() == [[[0, 0, 0, 0, 1, 1, 1, 1]]]


def test_of_equal_logits_the_first_class_wins():
    logits = torch.zeros(1, 7, 40, 40)
    assert predict_labels(logits, (40, 40)).unique().tolist() == [0]
    logits[:, 3:5] = 1
    assert predict_labels(logits, (40, 40)).unique().tolist() == [3]


def test_half_precision_logits_are_resized_in_float32():
    logits = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    size = (200, 200)  # enough pixels for two classes to be equal in bfloat16 somewhere
    assert torch.equal(predict_labels(logits, size), predict_labels(logits.float(), size))


def test_counts_beyond_float32():
    metric = confusion_metric(2)
    metric.confmat[0, 0] = 2**24
    update_confusion(metric, torch.tensor([[[[1.0]], [[0.0]]]]), torch.zeros(1, 1, 1, dtype=torch.long))
    assert int(metric.compute()[0, 0]) == 2**24 + 1
    large = Scores(np.array([[2**40 + 1, 0], [1, 2**40]]), names(2))
    assert 1 - large.pixel_accuracy == pytest.approx(1 / (2**41 + 2), rel=1e-3)


def test_unknown_label_is_an_error_that_names_it():
    with pytest.raises(DataError, match=r"ids \[7, 254\], expected 0\.\.3 or 255"):
        update_confusion(confusion_metric(4), torch.randn(1, 4, 1, 3), torch.tensor([[[7, 254, 255]]]))


def test_only_ignored_pixels_count_nothing():
    metric = confusion_metric(4)
    update_confusion(metric, torch.randn(1, 4, 2, 2), torch.full((1, 2, 2), 255))
    assert not metric.compute().any()


def test_batch_sizes_must_agree():
    with pytest.raises(ValueError, match="2 label maps for 1 predictions"):
        update_confusion(confusion_metric(4), torch.randn(1, 4, 2, 2), torch.zeros(2, 2, 2, dtype=torch.long))


# Tables


def printed(terminal):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100, color_system=None)
    print_scores(scores([6, 2, 0], [1, 3, 0], [0, 0, 0], subsets={"two": (0, 1)}), PROTOCOL, console)
    return output.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_printed_scores(terminal):
    text = printed(terminal)
    lines = {line.strip("│┃ ").split("  ")[0].strip(" │"): line for line in text.splitlines()}
    assert "66.7" in lines["c0"]
    assert "–" in lines["c2"]
    assert "58.3" in next(line for line in text.splitlines() if "mIoU " in line)
    assert "mIoU (two)" in text
    assert " ".join(text.split()).endswith(PROTOCOL.describe())


def test_log_files_get_one_line_per_row_without_boxes():
    text = printed(terminal=False)
    assert text.isprintable() or all(c.isprintable() or c == "\n" for c in text)
    assert not set(text) & set("│┃━\x1b")
    assert text.splitlines()[-1] == PROTOCOL.describe()  # not wrapped


def of_miou(value):
    """Two classes with the same IoU."""
    hit = round(1000 * value)
    return scores([hit, 0, 1000 - hit], [0, hit, 1000 - hit], [0, 0, 0])


def test_paired_differences():
    runs, others = [of_miou(v) for v in (0.5, 0.6, 0.3)], [of_miou(v) for v in (0.4, 0.4, 0.4)]
    result = paired(runs, others)
    expected = [one.miou - other.miou for one, other in zip(runs, others, strict=True)]
    assert result.differences == pytest.approx(expected)
    assert result.mean == pytest.approx(np.mean(expected))
    assert result.std == pytest.approx(np.std(expected, ddof=1))
    assert result.wins == 2
    with pytest.raises(ValueError, match="same seeds"):
        paired(runs, others[:2])


def cells_of(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_comparison_table():
    rows = {
        "joint": [of_miou(0.3), of_miou(0.6)],
        "metapix": [of_miou(0.6), of_miou(0.9)],
        "one": [of_miou(0.3)],
    }
    table, *by_class = comparison_table(rows, reference="joint", per_class=True).split("\n\n")
    cells = cells_of(table)
    assert cells[0] == ["method", "seeds", "mIoU", "pixel accuracy", "mIoU minus joint (paired)"]
    assert len({len(row) for row in cells}) == 1
    # mIoU is 2/3 of the value: the third class is predicted but never true
    assert cells[2][:5] == ["joint", "2", "30.0 ± 14.1", "45.0 ± 21.2", "–"]
    assert cells[3][4] == "+20.0 ± 0.0 (2/2 above)"
    assert cells[4][:5] == ["one", "1", "20.0", "30.0", "–"]
    ious, precisions, recalls = map(cells_of, by_class)
    assert ious[0] == ["IoU %", *rows] and precisions[0][0] == "precision %" and recalls[0][0] == "recall %"
    assert [line[2] for line in ious[2:]] == ["75.0", "75.0", "0.0"]
    assert [line[1:] for line in precisions[2:4]] == [["100.0"] * 3] * 2 and precisions[4][1:] == ["0.0"] * 3
    assert recalls[2] == ["c0", "45.0", "75.0", "30.0"] and recalls[4][1:] == ["–"] * 3


def test_each_row_is_compared_with_its_own_reference():
    values = {
        "few": (0.3, 0.6),
        "joint-few": (0.6, 0.75),
        "all": (0.6, 0.9),
        "joint-all": (0.75, 0.9),
        "lost": (0.3, 0.3),
    }
    rows = {name: [of_miou(value) for value in found] for name, found in values.items()}
    references = {"few": "few", "joint-few": "few", "all": "all", "joint-all": "all", "lost": "nobody"}
    cells = cells_of(comparison_table(rows, references))
    assert cells[0][-1] == "mIoU minus reference (paired)"
    # mIoU is 2/3 of the value: the third class is predicted but never true
    expected = ["–", "+15.0 ± 7.1 (2/2 above few)", "–", "+5.0 ± 7.1 (1/2 above all)", "–"]
    assert [line[-1] for line in cells[2:]] == expected
    # One that only the row itself is compared with takes no part.
    cells = cells_of(comparison_table(rows, {**references, "joint-all": "few", "lost": "few"}))
    assert cells[0][-1] == "mIoU minus few (paired)" and cells[5][-1].endswith("above)")
    assert "minus" not in comparison_table({"lost": rows["lost"]}, {"lost": "nobody"})
    with pytest.raises(KeyError, match="nobody"):
        comparison_table(rows, "nobody")


def test_a_comparison_says_what_each_row_learned_from():
    rows = {"ssda": [of_miou(0.3)], "few": [of_miou(0.3)], "uda": [of_miou(0.3)]}
    learned = {
        "ssda": {"source": 900, "labels": 16, "unlabelled": 200},
        "few": {"labels": None},
        "uda": {"source": None, "unlabelled": 3},
    }
    cells = cells_of(comparison_table(rows, resources=learned))
    assert cells[0][:5] == ["method", "source", "target labels", "unlabelled target", "seeds"]
    assert [line[1:4] for line in cells[2:]] == [["✓", "16", "✓"], ["", "✓", ""], ["✓", "", "✓"]]
    assert len({len(line) for line in cells}) == 1


def test_comparison_of_different_classes_is_refused():
    with pytest.raises(ValueError, match="different classes"):
        comparison_table({"a": [of_miou(0.5)], "b": [scores([1, 0], [0, 1])]})
    with pytest.raises(ValueError, match="at least one"):
        comparison_table({"a": []})


# As an object


def test_a_class_is_asked_for_by_its_name():
    assert EXAMPLE.iou["c1"] == EXAMPLE.iou[1] == 0.5 and isinstance(EXAMPLE.iou["c1"], float)
    assert EXAMPLE.recall["c0"] == 0.75 and EXAMPLE.frequency["c2"] == 0 and math.isnan(EXAMPLE.precision["c2"])
    with pytest.raises(KeyError, match="there is no class 'c9'"):
        EXAMPLE.iou["c9"]


def test_scores_of_classes_compute_as_arrays_do():
    iou = EXAMPLE.iou
    for result in (100 * iou, iou[:2], iou[~np.isnan(iou)], iou > 0.5, np.sort(iou)):
        assert type(np.asarray(result)) is np.ndarray
    assert type(100 * iou) is np.ndarray and type(iou[1]) is np.float64 and type(np.nanmax(iou)) is np.float64
    for copied in (iou.copy(), copy.deepcopy(iou)):
        np.testing.assert_array_equal(copied, iou)
    assert iou.copy()["c1"] == 0.5 and str(iou) == "{c0: 0.667, c1: 0.500, c2: nan}"
    assert str(copy.deepcopy(iou)).startswith("{")


def test_scores_show_themselves():
    with_subset = scores([6, 2, 0], [1, 3, 0], [0, 0, 0], subsets={"two": (0, 1)})
    assert str(with_subset).splitlines() == [
        "class           IoU %  precision %  recall %  share %",
        "-----------------------------------------------------",
        "c0               66.7         85.7      75.0     66.7",
        "c1               50.0         60.0      75.0     33.3",
        "c2                  –            –         –      0.0",
        "-----------------------------------------------------",
        "mIoU             58.3",
        "mIoU (two)       58.3",
        "pixel accuracy   75.0",
    ]
    assert repr(with_subset) == "Scores(mIoU 58.3 %, pixel accuracy 75.0 %, 3 classes)"
    lines = with_subset.markdown().splitlines()
    assert (
        lines[0] == "| class | IoU % | precision % | recall % | share % |"
        and lines[3] == "| c1 | 50.0 | 60.0 | 75.0 | 33.3 |"
    )
    assert lines[5] == "| **mIoU** | **58.3** |  |  |  |" and len({line.count("|") for line in lines}) == 1
    page = Scores(EXAMPLE.confusion, ("<b>", "a|b", "c"), {})
    assert "<td>&lt;b&gt;</td><td>66.7</td>" in page._repr_html_() and page._repr_html_().count("<tr>") == 6
    assert "a\\|b" in page.markdown()


# Classes of which nothing was found


@given(matrices)
def test_missed_classes_are_those_with_pixels_and_no_hit(matrix):
    result = Scores(matrix, names(len(matrix)))
    expected = {
        f"c{c}": sum(int(n) for n in row) for c, row in enumerate(matrix) if sum(map(int, row)) and not int(row[c])
    }
    assert result.missed == expected
    assert list(result.missed.values()) == sorted(expected.values(), reverse=True)
    assert all(result.iou[name] == result.recall[name] == 0 for name in expected)


def test_precision_and_recall_are_those_of_torchmetrics():
    truth, called = torch.randint(0, 5, (2, 400), generator=torch.Generator().manual_seed(0))
    result = Scores(MulticlassConfusionMatrix(5)(called, truth).numpy(), names(5))
    np.testing.assert_allclose(result.precision, MulticlassPrecision(5, average="none")(called, truth), rtol=1e-6)
    np.testing.assert_allclose(result.recall, MulticlassRecall(5, average="none")(called, truth), rtol=1e-6)


@pytest.mark.fault("class-without-a-hit")
@pytest.mark.parametrize("terminal", [False, True])
def test_missed_classes_are_named_under_the_table(terminal):
    file = io.StringIO()
    few = Scores(np.array([[9, 0, 0], [12345, 0, 0], [1, 0, 0]]), ("wall", "Pole", "a[b]"))
    print_scores(few, PROTOCOL, Console(file=file, force_terminal=terminal, color_system=None, width=100))
    lines = file.getvalue().splitlines()
    at = lines.index("Pole: not one of its 12,345 test pixels was found")
    assert lines[at + 1] == "a[b]: its one test pixel was not found" and lines[at + 2].startswith("test, 2 images")
    many = Scores(np.full((11, 11), 2, np.int64) * (np.arange(11) == 10), names(11))
    assert len(missed_lines(many, "val")) == 9 and missed_lines(many, "val")[-1] == "nor was one of c8, c9"
