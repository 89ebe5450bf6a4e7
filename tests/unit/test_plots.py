"""Figures show what they should; how they look is for eyes."""

import matplotlib._pylab_helpers
import numpy as np
import pytest
from matplotlib.figure import Figure

from segzoo.data.label_spaces import LabelSpace
from segzoo.evaluation import Scores
from segzoo.evaluation.history import is_course, read_history, select
from segzoo.evaluation.panels import panel_figure
from segzoo.evaluation.plots import (
    _spread_apart,
    class_history_figure,
    curves_figure,
    figure_pixels,
    save_figure,
    scores_figure,
)

SPACE = LabelSpace("toy", ("sky", "road", "car"), ((70, 130, 180), (128, 64, 128), (255, 255, 0)))
STEPS = np.arange(5.0)


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def overlaps(figure, wanted):
    """Pairs of the wanted texts whose boxes overlap."""
    figure_pixels(figure)
    found = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() in wanted and t.get_visible()]
    extent = matplotlib.text.Text.get_window_extent  # without the arrow of an annotation
    boxes = [(text.get_text(), extent(text)) for text in found]
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, two in boxes[:i] if one.overlaps(two)]


def test_scores_figure_shows_scores_and_absent_classes():
    figure = scores_figure(Scores(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]), SPACE.classes), SPACE, "how")
    shown = texts(figure)
    assert {"66.7", "50.0", "– (does not occur)", "no true pixel", "how"} <= set(shown)
    assert {"75", "25"} <= set(shown)  # the row-normalised matrix
    bars = [patch.get_width() for patch in figure.axes[0].patches]
    np.testing.assert_allclose(bars, [200 / 3, 50, 0])


def test_scores_figure_without_any_pixel():
    figure_pixels(scores_figure(Scores(np.zeros((3, 3), int), SPACE.classes), SPACE))


def test_panel_draws_each_kind_of_picture():
    labels = np.array([[0, 1], [1, 255]])
    image = np.full((2, 2, 3), 40, np.uint8)
    weight = np.array([[0.0, 1.0], [2.0, 3.0]])
    figure = panel_figure({"image": [image], "label": [labels], "weight": [weight]}, SPACE, "title")
    drawn = [image.get_array() for image in figure.axes[0].images]
    np.testing.assert_array_equal(drawn[0], image)
    np.testing.assert_array_equal(drawn[1], SPACE.colorize(labels))
    np.testing.assert_array_equal(drawn[2], weight)
    shown = texts(figure)
    assert {"image", "label", "weight", "title", "sky", "road", "ignored", "mean 1.50", "3"} <= set(shown)
    assert "car" not in shown  # only classes that occur are explained


@pytest.mark.parametrize(("largest", "limit"), [(0.3, 1.0), (2.5, 2.5)])
def test_maps_share_one_scale_from_zero_to_at_least_one(largest, limit):
    maps = [np.full((2, 2), 0.1), np.full((2, 2), largest)]
    figure = panel_figure({"weight": maps}, SPACE)
    assert [image.get_clim() for image in figure.axes[0].images] == [(0, limit)] * 2


def test_pictures_of_a_panel_keep_their_shape():
    image, labels = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 64), int)
    figure = panel_figure({"image": [image], "label": [labels]}, SPACE)
    figure_pixels(figure)
    shapes = [drawn.get_window_extent() for drawn in figure.axes[0].images]
    np.testing.assert_allclose([shape.width / shape.height for shape in shapes], [1, 2])


def test_panel_needs_equal_columns():
    image = np.zeros((2, 2, 3), np.uint8)
    for columns in ({}, {"image": []}, {"image": [image], "label": []}):
        with pytest.raises(ValueError, match="same number"):
            panel_figure(columns, SPACE)


LONG = "leftImg8bit/train/aachen/" + "a_folder_with_a_long_name/" * 5 + "aachen_000173_000019_leftImg8bit"


def outside(figure):
    """Texts that leave the figure."""
    figure_pixels(figure)
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [(t.get_text(), t.get_window_extent()) for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
    return [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]


def many_classes(count):
    names = [f"chest of drawers, bureau, dresser {i}" if i % 3 else f"_tree$ {i}" for i in range(count)]
    palette = tuple((7 * i % 256, 13 * i % 256, 29 * i % 256) for i in range(count))
    return LabelSpace("many", tuple(names), palette)


@pytest.mark.fault("panels-without-names")
@pytest.mark.parametrize(("rows", "columns", "classes"), [(4, 1, 3), (1, 3, 3), (2, 3, 150), (4, 7, 150)])
def test_a_panel_names_images_and_classes_without_overlap(rows, columns, classes):
    space, kinds = many_classes(classes), ("image", "label", "weight", "prediction", "mixed", "confidence", LONG)
    ids = np.arange(24 * 32).reshape(24, 32) % classes
    pictures = {"image": np.zeros((24, 32, 3), np.uint8), "weight": np.full((24, 32), 0.5)}
    names = [LONG, "0001", "a$b$c", "b\n\udcff\u65e5"][:rows]
    drawn = {kind: [pictures.get(kind, ids)] * rows for kind in kinds[:columns]}
    figure = panel_figure(drawn, space, LONG, names)
    shown = texts(figure)
    assert not overlaps(figure, shown) and not outside(figure)
    assert "0001" in shown or rows == 1
    assert any(text.endswith("000019_leftImg8bit") and "…" in text for text in shown) or columns > 3
    if columns > 1:
        assert ("and 102 more classes" in shown) == (classes == 150)
        assert r"_tree\$ 0" in shown


def test_a_caption_stands_above_the_picture_that_it_names():
    picture = np.zeros((24, 32, 3), np.uint8)
    names = {"source": ["a", LONG], "target": ["b", "c"], "elsewhere": ["d", "e"]}
    figure = panel_figure({kind: [picture] * 2 for kind in ("source", "mixed", "target")}, SPACE, "", names)
    assert not overlaps(figure, texts(figure)) and not outside(figure)
    captions = {t.get_text(): t.get_position() for t in figure.axes[0].texts}
    boxes = [drawn.get_extent() for drawn in figure.axes[0].images]  # left, right, bottom, top; row by row
    for name, cell in (("a", 0), ("b", 2), ("c", 5)):
        x, y = captions[name]
        assert abs(x - boxes[cell][0]) < 0.1 and abs(y - boxes[cell][3]) < 0.1
    assert not {"d", "e"} & captions.keys()


def test_maps_that_are_not_finite_say_so():
    some = np.array([[np.nan, 0.5], [1.5, np.inf]])
    figure = panel_figure({"weight": [some, np.full((2, 2), np.nan)]}, SPACE)
    figure_pixels(figure)
    assert {"mean 1.00, 2 without a value", "no finite value"} <= set(texts(figure))
    assert [image.get_clim() for image in figure.axes[0].images] == [(0, 1.5)] * 2


@pytest.mark.fault("figures-of-many-classes")
def test_figures_of_many_classes_stay_readable():
    space = many_classes(60)
    figure = scores_figure(Scores(np.diag(np.arange(60)), space.classes), space, "how")
    assert max(figure_pixels(figure).shape) < 2200
    assert not overlaps(figure, [t for t in texts(figure) if t.startswith("chest") or "tree" in t])
    space = many_classes(150)
    weights = {f"weight/class/{name}": (STEPS, STEPS + i) for i, name in enumerate(space.classes)}
    figure = class_history_figure(weights, space)
    assert "Mean weight of the source pixels of each class (24 of 150 named)" in texts(figure)
    named = [t for t in texts(figure) if t.startswith("chest") or "tree" in t]
    assert len(named) == 24 and not overlaps(figure, named) and not set(outside(figure)) & set(named)


@pytest.mark.fault("curves-of-one-point")
def test_what_was_logged_once_among_courses_is_a_dot():
    history = {"train/loss": (STEPS, STEPS), "train/late": (STEPS[-1:], STEPS[-1:])}
    figure = curves_figure(history)
    assert [line.get_marker() for line in figure.axes[0].lines] == ["None", "None", "None", "o"]
    assert is_course(history) and not is_course({"train/late": history["train/late"]}) and not is_course({})


def test_a_history_that_was_cut_off_is_read_to_its_end(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,0.5\n2,nan\n3,0.2\n4,1.5e\n,7\nx,8\n5,1,2\n6,1e308\n")
    np.testing.assert_array_equal(read_history(tmp_path / "metrics.csv")["train/loss"], [[1, 3, 5], [0.5, 0.2, 1]])


@pytest.mark.parametrize("values", [[3e38, 1, 1e-45], [0, 0, 0], [-3e38, 3e38, 0], [-1, -2, -3], [1e-320, 1e-310, 0]])
def test_a_training_that_goes_astray_is_drawn_all_the_same(values):
    course = (STEPS[:3], np.array(values, float))
    for history in ({"train/loss": course}, {"val/miou": course}, {"auc/pixel": course}):
        figure_pixels(curves_figure(history))
    figure_pixels(class_history_figure({"weight/class/car": course}, SPACE))
    figure_pixels(panel_figure({"weight": [course[1][None].repeat(3, 0)]}, SPACE))


def test_weight_lines_are_named_without_overlap():
    count = 15
    palette = tuple((17 * i, 255 - 17 * i, 90) for i in range(count))
    space = LabelSpace("many", tuple(f"class{i}" for i in range(count)), palette)
    history = {f"weight/class/{name}": (STEPS, np.full(5, 0.5 + 0.001 * i)) for i, name in enumerate(space.classes)}
    figure = class_history_figure(history, space)
    assert set(space.classes) <= set(texts(figure))
    assert not overlaps(figure, space.classes)
    with pytest.raises(ValueError, match="no metric"):
        class_history_figure({"train/loss": (STEPS, STEPS)}, space)


def test_names_on_white_are_readable():
    figure = class_history_figure({"weight/class/car": (STEPS, STEPS)}, SPACE)
    r, g, b = figure.axes[0].lines[0].get_color()
    luminance = 0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2
    assert 1.05 / (luminance + 0.05) >= 3.0  # WCAG contrast of large text; pure yellow has 1.07


def test_curves_of_terms_and_scores():
    history = {
        "train/loss": (STEPS, np.array([3.0, 2.0, 1.0, 0.5, 0.01])),
        "train/source": (STEPS, np.full(5, 0.01)),
        "val/miou": (STEPS[::2], np.array([0.2, 0.3, 0.412])),
        "lr-AdamW": (STEPS, STEPS),
    }
    figure = curves_figure(history)
    assert [len(axes.lines) for axes in figure.axes] == [4, 1]  # every term as measured and smoothed
    assert figure.axes[0].get_yscale() == "log"
    assert {"loss", "source", "mIoU 41.2"} <= set(texts(figure))
    assert len(curves_figure({"val/miou": history["val/miou"]}).axes) == 1
    assert "nothing was logged" in texts(curves_figure({}))


def test_discriminators_have_a_panel_between_losses_and_scores():
    aucs = {f"auc/{level}": (STEPS, np.linspace(0.5, 1, 5)) for level in ("pixel", "region")}
    figure = curves_figure({"train/loss": (STEPS, STEPS + 1), "val/miou": (STEPS, STEPS / 9)} | aucs)
    losses, discriminators, scores = figure.axes
    assert [len(axes.lines) for axes in (losses, discriminators, scores)] == [2, 5, 1]  # chance is a line as well
    assert {"pixel", "region"} <= {text.get_text() for text in discriminators.texts}
    assert len(curves_figure(aucs).axes) == 1


def test_the_mean_weight_is_drawn_with_those_of_the_classes():
    history = {"weight/class/car": (STEPS, STEPS), "weight/mean": (STEPS, STEPS + 2)}
    figure = class_history_figure(history, SPACE)
    assert "all pixels" in texts(figure) and len(figure.axes[0].lines) == 2
    assert figure.axes[0].get_ylim()[1] > 6  # in view


def test_smoothing_a_single_point():
    figure = curves_figure({"train/loss": (STEPS[:1], np.array([0.7]))})
    assert figure.axes[0].lines[1].get_ydata() == [0.7]


def test_spread_apart_keeps_order_and_gap():
    assert _spread_apart([0.1, 0.5, 0.9], 0.2) == [0.1, 0.5, 0.9]
    places = _spread_apart([0.0, 0.0, 0.01, 0.02, 0.9], 0.1)
    assert np.diff(places).min() >= 0.1 - 1e-12
    assert np.mean(places[:4]) == pytest.approx(0.0075)


def test_files_and_pixels(tmp_path):
    figure = Figure(figsize=(2, 1))
    assert save_figure(figure, tmp_path / "new" / "figure.png").is_file()
    assert figure_pixels(figure).shape == (150, 300, 3)


def test_nothing_global_is_touched():
    before = dict(matplotlib.rcParams)
    figure_pixels(curves_figure({"train/loss": (STEPS, STEPS)}))
    assert dict(matplotlib.rcParams) == before
    assert not matplotlib._pylab_helpers.Gcf.figs  # what pyplot keeps alive


def test_history_of_a_run(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_history(path) == {}
    path.write_text("epoch,step,train/loss,weight/class/sky\n0,9,1.5,\n0,9,,0.5\n0,4,2.5,nan\n0,9,1.25,\n")
    history = read_history(path)
    assert set(history) == {"train/loss", "weight/class/sky"}
    np.testing.assert_array_equal(history["train/loss"], [[4, 9], [2.5, 1.25]])  # the later row of a step counts
    assert list(select(history, "weight/class/")) == ["sky"]


@pytest.mark.fault("panels-out-of-proportion")
def test_pictures_of_a_row_have_the_proportions_of_its_prediction():
    """The network's input is square here, and its image and labels are not."""
    label = np.zeros((30, 60), np.int64)
    columns = {"image": [np.zeros((32, 32, 3), np.uint8)], "label": [label], "prediction": [label]}
    boxes = [image.get_extent() for image in panel_figure(columns, SPACE).axes[0].images]
    assert len(boxes) == 3
    for left, right, bottom, top in boxes:
        assert (right - left) / (top - bottom) == pytest.approx(2)
