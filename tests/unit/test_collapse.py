"""The watch over classes that vanish: its criterion, its figure, and its callback beside a small training."""

import inspect
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from segzoo.callbacks import CollapseWatch, LastCheckpoint
from segzoo.callbacks import collapse as watch
from segzoo.evaluation.collapse import flooding, heard, least_width, swallowing, vanishing
from segzoo.evaluation.history import read_history
from segzoo.evaluation.plots import figure_pixels
from segzoo.evaluation.share_plots import shares_figure
from segzoo.loggers.metrics_csv import MetricsCsv
from segzoo.methods.registry import load_method
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")
NAMES = ("road", "sky", "crack")
PRIOR = np.array([0.6, 0.359, 0.041])


def normal(shares: np.ndarray) -> np.ndarray:
    return shares / shares.sum(axis=1, keepdims=True)


def alarms(shares: np.ndarray, prior: np.ndarray = PRIOR, least: int = 8) -> dict[int, int]:
    """By class the number of measurements at its first alarm, asked after every third."""
    found: dict[int, int] = {}
    for count in range(1, len(shares) + 1, 3):
        for c in {**vanishing(shares[:count], prior, least), **swallowing(shares[:count], prior, least)}:
            found.setdefault(c, count)
    return found


def noise(seed: int, count: int, level: np.ndarray, roughness: float, presence: float) -> np.ndarray:
    """Stationary: log-normal, and the last class in a part of the batches alone, where it has more."""
    draw = np.random.default_rng(seed)
    shares = level * draw.lognormal(0, roughness, (count, len(level)))
    shares[:, -1] *= (draw.random(count) < presence) / presence
    return normal(shares)


# The criterion


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1.2), st.floats(0.75, 1), st.floats(0.3, 3))
def test_stationary_noise_raises_no_alarm(seed: int, roughness: float, presence: float, richness: float) -> None:
    level = PRIOR * np.array([1, 1, richness])
    assert not alarms(noise(seed, 150, level, roughness, presence))


@pytest.mark.parametrize("presence", [0.1, 0.3, 0.6])
def test_false_alarms_are_as_rare_as_promised(presence: float) -> None:
    # Classes that come and go are the worst case. In 50 measurements, looked at after each.
    runs = [noise(seed, 50, PRIOR, 0.5, presence) for seed in range(100)]
    assert sum(bool(alarms(run, least=5)) for run in runs) <= 1


def test_a_class_that_few_measurements_had_is_known_to_be_gone_in_a_short_training() -> None:
    # Of a training of 300 steps: there in the first five measurements, gone after the sixth; asked after the 13th and the 16th.
    course = [0.016, 0.031, 0.028, 0.010, 0.006, 0.0009, *[0.0] * 10]
    shares = np.array([[0.6, 0.4 - share, share] for share in course])
    assert alarms(shares, np.array([0.6, 0.372, 0.028]), least=5)[2] <= 16


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.7), st.floats(0.6, 1), st.floats(4, 20), st.integers(20, 60))
def test_exponential_decay_raises_an_alarm(
    seed: int, roughness: float, presence: float, life: float, begins: int
) -> None:
    shares = noise(seed, begins + round(5 * life) + 60, PRIOR, roughness, presence)
    shares[:, 2] *= np.exp(-np.maximum(np.arange(len(shares)) - begins, 0) / life)
    found = alarms(normal(shares), least=8)
    assert set(found) == {2}
    assert found[2] > begins + 2 * life  # not before it is below a tenth


def test_the_earlier_share_may_be_long_ago() -> None:
    shares = noise(0, 400, PRIOR, 0.3, 1.0)
    shares[12:, 2] = 0
    assert 2 in vanishing(normal(shares), PRIOR)


@pytest.mark.fault("class-that-the-target-lacks")
def test_a_class_that_the_target_lacks_raises_no_alarm() -> None:
    absent = noise(1, 200, PRIOR * np.array([1, 1, 0.02]), 0.5, 1.0)
    assert not alarms(absent)
    never = noise(1, 200, PRIOR, 0.5, 1.0)
    never[:, 2] = 0
    assert not alarms(normal(never))
    assert not alarms(noise(3, 200, PRIOR, 0.5, 0.1))  # in one batch of ten


def test_a_share_that_settles_at_a_fifth_of_its_prior_raises_no_alarm() -> None:
    shares = noise(2, 200, PRIOR, 0.3, 1.0)
    shares[100:, 2] *= 0.2
    assert not alarms(normal(shares))


def test_the_present_share_is_that_of_the_last_measurements() -> None:
    shares = np.tile(PRIOR, (40, 1))
    shares[20:] = [0.64, 0.3596, 0.0004]
    assert vanishing(shares, PRIOR)[2] == pytest.approx(0.0004)


def test_one_class_that_takes_all() -> None:
    shares = np.tile(PRIOR, (60, 1))
    shares[30:] = [0.97, 0.01, 0.02]  # sky is gone; what is left of crack would not count as lost
    assert swallowing(shares, PRIOR) == {0: pytest.approx(0.97)}
    assert set(vanishing(shares, PRIOR)) == {1}
    two = shares[:, :2] / shares[:, :2].sum(1, keepdims=True)
    assert set(vanishing(two, PRIOR[:2] / PRIOR[:2].sum())) == {1} and not swallowing(two, PRIOR[:2])


def test_a_class_without_labels_has_no_prior_to_fall_from() -> None:
    shares = np.tile([0.5, 0.5, 0.0], (60, 1))
    shares[:30] = [0.4, 0.3, 0.3]
    assert not vanishing(shares, np.array([0.5, 0.5, 0.0]))


def test_what_is_heard() -> None:
    steps = np.arange(10, 4001, 10)
    assert heard(steps[:39], 4000) is None  # the first tenth
    assert heard(steps[:50], 4000) == slice(7, 50)  # without the first fiftieth
    assert heard(steps[200:220], 4000) is None  # a method that begins late has a tenth of its own,
    assert heard(steps[200:225], 4000) == slice(0, 25)  # and its network says something from its first step on
    assert heard(np.array([], int), 4000) is None
    assert heard(steps[:20], None) is None and heard(steps[:30], None) is not None
    assert heard(np.array([400, 410]), 400) is None  # continued beyond its end
    assert least_width(steps) == 5 and least_width(np.arange(1, 400)) == 50 and least_width(steps[:1]) == 50


# The figure


@pytest.mark.parametrize("count", [2, 3, 19, 150])
def test_the_figure_has_a_panel_per_class(count: int) -> None:
    draw = np.random.default_rng(0)
    prior = draw.dirichlet(np.full(count, 0.7))
    steps = np.arange(10, 1010, 10)
    shares = draw.dirichlet(100 * prior + 1e-3, len(steps))
    names = tuple(f"class number {c}" for c in range(count))
    figure = shares_figure(
        names, prior, {"pseudo labels": (steps, shares), "predictions": (steps, shares)}, {names[1]: "x"}
    )
    panels = [axes for axes in figure.axes if axes.has_data()]
    assert len(panels) == (24 if count == 150 else count)
    for axes in panels if count < 150 else ():
        c = names.index(axes.get_title(loc="left").partition("\n")[0])
        lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}
        assert lines["labels learned from"][0] == pytest.approx(max(prior[c], axes.get_ylim()[0] * 0.1), rel=0.5)
        assert len(lines["predictions"]) == len(steps)
    assert figure_pixels(figure).std() > 0
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert texts == ["pseudo labels", "predictions", "labels learned from"]


def test_the_axes_are_logarithmic_where_shares_span_much() -> None:
    steps, flat = np.arange(1, 5), np.tile(PRIOR, (4, 1))
    falls = normal(PRIOR * np.array([[1, 1, f] for f in (1, 0.1, 0.001, 0)]))
    for shares, scales in ((flat, ["linear"] * 3), (falls, ["linear", "linear", "log"])):
        figure = shares_figure(NAMES, PRIOR, {"predictions": (steps, shares)}, {})
        assert [axes.get_yscale() for axes in figure.axes if axes.has_data()] == scales
        figure_pixels(figure)


@pytest.mark.parametrize("most", [1e-9, 3e-7, 1e-5, 1e-4, 0.003, 0.06, 0.5])
@pytest.mark.parametrize("least", [0.0, 1e-10, 3e-7, 2e-5, 0.9])
def test_the_ticks_are_plain_decimals_of_more_than_single_pixels(most: float, least: float) -> None:
    falls = np.repeat(most * np.array([1, min(1, least / most), 0]), 40)  # longer than what is smoothed
    shares = np.stack([falls, 1 - falls], axis=1)
    figure = shares_figure(NAMES[:2], np.array([most, 1 - most]), {"predictions": (np.arange(120), shares)}, {})
    figure_pixels(figure)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        ticks = [tick.label1.get_text() for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert ticks and all(re.fullmatch(r"(\d+|\d+\.\d+) %", tick) for tick in ticks), ticks
        assert axes.get_yscale() == "linear" or min(float(tick.split()[0]) for tick in ticks) >= 0.001


# The callback


class Toy(L.LightningModule):
    """Its shares are a function of the step."""

    def __init__(self, course: Any = None, **options: Any) -> None:
        super().__init__()
        self.save_hyperparameters(options)
        self.net = nn.Linear(1, 1)
        self.label_space = SimpleNamespace(classes=NAMES)
        self.course = course or decay
        self.class_shares: dict[str, torch.Tensor] = {}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        shares = self.course(self.global_step + 1)
        self.class_shares = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in shares.items()}
        return self.net(torch.rand(2, 1)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def decay(step: int) -> dict[str, Any]:
    """Cracks go from step 100 on; only a third of the pixels has a pseudo label."""
    crack = 0.041 * np.exp(-max(step - 100, 0) / 10)
    shares = np.array([0.6, 0.4 - crack, crack])
    return {"prior": PRIOR, "pseudo labels": shares / 3, "predictions": 0.5 * PRIOR + 0.5 * shares}


def fitted(
    folder: Path, module: Toy, steps: int = 250, callback: CollapseWatch | None = None, **options: Any
) -> tuple[CollapseWatch, list[str]]:
    callback = callback or CollapseWatch(folder)
    settings: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "log_every_n_steps": 5, **options}
    ckpt_path = settings.pop("ckpt_path", None)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"callbacks": [callback], **settings},
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer.fit(module, DataLoader(range(10**4)), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return callback, [str(one.message) for one in said if "learned from" in str(one.message)]


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segzoo.evaluation.plots.DPI", 30)


@pytest.mark.fault("class-is-unlearned")
def test_one_warning_names_the_class_and_what_to_do(tmp_path: Path) -> None:
    module = Toy(pseudo={"alignment": 0.0, "start": 0, "threshold": 0.968}, lr=1)
    _, said = fitted(tmp_path, module, logger=CSVLogger(tmp_path, "", ""))
    assert len(said) == 1
    assert said[0].startswith("the pseudo labels lose crack: ")
    assert said[0].endswith(
        " of the target's pixels, 4.1 % of the labels that are learned from; the network will unlearn it. Try "
        "`method.pseudo.alignment` 1 (keeps the classes' shares), a later `method.pseudo.start`, or a lower "
        "`method.pseudo.threshold`"
    )
    assert (tmp_path / "figures" / "class_shares.png").is_file()
    history = read_history(tmp_path / "metrics.csv")
    steps, values = history["share/pseudo/crack"]
    assert len(steps) == 50
    np.testing.assert_allclose(values, [decay(int(s) + 1)["pseudo labels"][2] * 3 for s in steps], rtol=1e-5)
    assert history["share/predicted/road"][1][0] == pytest.approx(0.6, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, "unlearn it"),
        ({"pseudo": {"alignment": 1.0}}, "unlearn it"),
        (
            {"target_start": 0, "image_weighting": False},
            "true (rare classes count more) or a later `method.target_start`",
        ),
        ({"pseudo": {"threshold": 0.9, "alignment": 1}}, "Try a lower `method.pseudo.threshold`"),
    ],
)
def test_advice_is_what_the_method_can_do_and_has_not_done(
    tmp_path: Path, options: dict[str, Any], advice: str
) -> None:
    _, said = fitted(tmp_path, Toy(**options))
    assert len(said) == 1 and said[0].endswith(advice)


def test_predictions_that_are_swallowed(tmp_path: Path) -> None:
    def course(step: int) -> dict[str, Any]:
        return {"prior": PRIOR, "predictions": PRIOR if step < 120 else np.array([0.99, 0.006, 0.004])}

    _, said = fitted(tmp_path, Toy(course, pseudo={"threshold": 0.9}))
    assert [text.partition(":")[0] for text in said] == [
        "the predictions lose sky",
        "the predictions lose crack",
        "the predictions call nearly everything road",
    ]
    assert not any("threshold" in text for text in said)


@pytest.mark.parametrize("course", [lambda step: {}, lambda step: {"prior": PRIOR, "predictions": np.zeros(3)}])
def test_a_module_without_shares_is_left_alone(tmp_path: Path, course: Any) -> None:
    _, said = fitted(tmp_path, Toy(course), steps=20)
    assert not said and not (tmp_path / "figures").exists()
    bare = Toy(course)
    del bare.class_shares
    bare.training_step = lambda batch, batch_idx: bare.net(torch.rand(2, 1)).mean()  # type: ignore[method-assign]
    assert not fitted(tmp_path, bare, steps=20)[1]


def test_a_resumed_training_has_the_whole_history_and_warns_once(tmp_path: Path) -> None:
    whole, said = fitted(tmp_path / "whole", Toy())
    parts = tmp_path / "parts"
    heard_again: list[str] = []
    for steps in (130, 200, 250):
        callback = CollapseWatch(parts)
        last = LastCheckpoint(parts)
        _, now = fitted(
            parts,
            Toy(),
            steps,
            callback,
            callbacks=[callback, last],
            enable_checkpointing=True,
            logger=MetricsCsv(parts),
            ckpt_path=None if steps == 130 else parts / "checkpoints" / "last.ckpt",
        )
        heard_again += now
    one, other = whole.state_dict(), callback.state_dict()
    assert len(heard_again) == len(said) == 1
    assert one["steps"].keys() == other["steps"].keys()
    for kind in one["steps"]:
        assert torch.equal(one["steps"][kind], other["steps"][kind])
        assert torch.equal(one["shares"][kind], other["shares"][kind])
    torch.testing.assert_close(one["prior"], other["prior"])
    assert len(read_history(parts / "metrics.csv")["share/pseudo/crack"][0]) == 50


def test_a_long_history_is_thinned_and_keeps_its_mean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watch, "LIMIT", 16)
    callback, course = CollapseWatch(tmp_path), np.random.default_rng(0).dirichlet([1, 1, 1], 17)
    for step, shares in enumerate(course):
        callback._note("predictions", step, shares)
    kept = callback.state_dict()
    assert kept["steps"]["predictions"].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 16]
    np.testing.assert_allclose(kept["shares"]["predictions"][:8].mean(0), course[:16].mean(0))
    np.testing.assert_array_equal(kept["shares"]["predictions"][8], course[16])


def test_the_prior_is_the_mean_of_what_was_reported(tmp_path: Path) -> None:
    def course(step: int) -> dict[str, Any]:
        return {"prior": [1.0, 0, 0] if step % 2 else [0, 0.5, 0.5], "predictions": PRIOR}

    callback, _ = fitted(tmp_path, Toy(course), steps=20)
    np.testing.assert_allclose(callback.state_dict()["prior"], [0.5, 0.25, 0.25], atol=1e-7)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    callback, _ = fitted(tmp_path, Toy(), steps=20, accumulate_grad_batches=3)
    assert callback.state_dict()["steps"]["predictions"].tolist() == [5, 10, 15, 20]


@pytest.mark.parametrize("slug", ["maxsquare", "minent", "self-training", "sepico", "ssda", "semi-supervised"])
def test_every_option_that_is_named_is_one_of_the_method(slug: str) -> None:
    text = watch._remedies(tiny.method(slug).hparams, "pseudo labels", True)
    named = [name.removeprefix("method.").split(".") for name in re.findall(r"`([\w.]+)`", text)]
    assert named
    for section, *rest in named:
        options = inspect.signature(load_method(slug)).parameters
        assert section in options
        assert not rest or hasattr(options[section].default, rest[0])


def test_a_rare_class_that_floods_the_target(tmp_path: Path) -> None:
    def course(step: int) -> dict[str, Any]:
        crack = min(0.3, 0.002 * step)
        return {"prior": np.array([0.6, 0.39, 0.01]), "pseudo labels": np.array([0.6 - crack, 0.4, crack])}

    _, said = fitted(tmp_path, Toy(course, pseudo={"alignment": 0.0, "threshold": 0.9}, image_weighting=False))
    assert len(said) == 1
    assert said[0].startswith("the pseudo labels call much crack: ")
    assert said[0].endswith(
        "the network learns wrong ones. Try `method.pseudo.alignment` 1 (keeps the classes' shares)"
    )


@pytest.mark.parametrize(
    ("late", "prior", "found"),
    [
        ([0.9, 0.1], [0.99, 0.01], {1: 0.1}),
        ([0.91, 0.09], [0.991, 0.009], {}),  # not a tenth
        ([0.5, 0.5], [0.94, 0.06], {}),  # not ten times as much
        ([0.5, 0.5], [1.0, 0.0], {}),  # nobody knows how much there should be
    ],
)
def test_flooding_by_its_two_bounds(late: list[float], prior: list[float], found: dict[int, float]) -> None:
    shares = np.array([[1.0, 0.0]] * 7 + [late] * 5)
    assert flooding(shares, np.array(prior), 5) == pytest.approx(found)
    assert flooding(shares[-4:], np.array(prior), 5) == {}
