"""MaxSquare and its entropy baseline, recomputed pixel by pixel."""

import copy
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.nn import functional as F

from segzoo.bilevel import frozen_buffers
from segzoo.callbacks import CollapseWatch
from segzoo.errors import CheckpointError, ConfigError
from segzoo.evaluation.history import read_history
from segzoo.methods.maxsquare import MaxSquare
from segzoo.methods.registry import load_method
from segzoo.methods.segmentation import class_shares
from tests import tiny
from tests.methods.catching import caught

pytestmark = pytest.mark.filterwarnings("ignore")


def confidence(p: Tensor, squares: bool, weighting: bool, ratio: float) -> Tensor:
    """The loss of one image (C, H, W), as the paper's sums over pixels, in the published normalisation."""
    pixels = p.flatten(1).T
    labels = pixels.argmax(1)
    histogram = [int((labels == c).sum()) for c in range(len(p))]
    total = p.new_zeros(())
    for q, label in zip(pixels, labels, strict=True):
        term = -(q**2).sum() if squares else -(q * q.log()).sum()
        n = histogram[int(label)]
        weight = 1 / max(n**ratio * len(pixels) ** (1 - ratio), 1) if weighting else 1 / len(pixels)
        total = total + weight * term * (0.5 if squares and not weighting else 1.0)
    return total / len(p)


@pytest.mark.parametrize("slug", ["maxsquare", "minent"])
@pytest.mark.parametrize("weighting", [True, False])
def test_the_first_step_is_the_papers(slug: str, weighting: bool) -> None:
    method, catch = caught(slug, image_weighting=weighting, ratio=0.3, target_weight=2.0)
    source, target = catch.batch["source"], catch.batch["target"]
    assert "label" not in target
    with frozen_buffers(method.segmenter):
        ce = F.cross_entropy(method(source["image"].double()), source["label"], ignore_index=255)
    probs = method(target["image"].double()).softmax(1)
    terms = [confidence(p, slug == "maxsquare", weighting, 0.3) for p in probs]
    (ce + 2.0 * torch.stack(terms).mean()).backward()
    for name, p in method.named_parameters():
        torch.testing.assert_close(catch.gradients[name], p.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("slug", "weighting", "factor"), [("maxsquare", False, 9.0), ("maxsquare", True, 4.5)])
def test_the_papers_scale_is_a_factor(slug: str, weighting: bool, factor: float) -> None:
    logits = torch.randn(2, 9, 4, 6)
    code, paper = (tiny.method(slug, image_weighting=weighting, scale=scale) for scale in ("code", "paper"))
    assert isinstance(code, MaxSquare) and isinstance(paper, MaxSquare)
    ratio = paper.confidence_loss(logits, logits.softmax(1)) / code.confidence_loss(logits, logits.softmax(1))
    assert float(ratio) == pytest.approx(factor)


def test_the_entropy_of_a_uniform_prediction() -> None:
    method = tiny.method("minent", scale="paper")
    assert isinstance(method, MaxSquare)
    logits = torch.zeros(1, 9, 4, 6)
    assert float(method.confidence_loss(logits, logits.softmax(1))) == pytest.approx(math.log(9))


def test_hard_labels_where_the_network_is_sure() -> None:
    method = tiny.method("maxsquare", hard_threshold=0.6)
    assert isinstance(method, MaxSquare)
    logits = torch.zeros(1, 9, 1, 2)
    logits[0, 3, 0, 0] = 5.0
    p = logits.softmax(1)
    assert float(method.confidence_loss(logits, p)) == pytest.approx(-math.log(float(p[0, 3, 0, 0])))
    nothing = torch.zeros(1, 9, 1, 2, requires_grad=True)
    method.confidence_loss(nothing, nothing.softmax(1)).backward()
    assert nothing.grad is not None and not nothing.grad.any()


def test_before_its_start_the_target_is_not_looked_at() -> None:
    late, catch = caught("maxsquare", target_start=1)
    assert "train/target" not in catch.logged
    source = catch.batch["source"]
    F.cross_entropy(late(source["image"].double()), source["label"], ignore_index=255).backward()
    for name, p in late.named_parameters():
        torch.testing.assert_close(catch.gradients[name], p.grad, rtol=1e-8, atol=1e-12)
    assert "train/target" in caught("maxsquare", 2, target_start=1)[1].logged


@pytest.mark.parametrize("statistics", ["target", "both"])
def test_whose_statistics_are_kept(statistics: str) -> None:
    options: dict[str, Any] = {"decoder_channels": [16, 16, 8, 8, 8], "decoder_use_norm": "batchnorm"}
    method, catch = caught("maxsquare", running_statistics=statistics, network={"options": options})
    expected = copy.deepcopy(method)
    if statistics == "both":
        expected(catch.batch["source"]["image"].double())
    expected(catch.batch["target"]["image"].double())
    for name, buffer in expected.segmenter.named_buffers():
        torch.testing.assert_close(catch.buffers[name], buffer)


def test_the_low_level_head_learns_from_both_and_teaches_nobody() -> None:
    method, catch = caught("maxsquare", multi_level=True, low_threshold=0.0, low_weight=0.5, target_weight=0.25)
    assert isinstance(method, MaxSquare)
    source, target = catch.batch["source"], catch.batch["target"]
    size = source["image"].shape[-2:]

    def both(image: Tensor) -> tuple[Tensor, Tensor]:
        maps = method.segmenter.features(image.double())
        low = F.interpolate(method.low_head(maps[-2]), size, mode="bilinear", align_corners=True)
        return method(image.double()), low

    with frozen_buffers(method.segmenter):
        final, low = both(source["image"])
    losses = [F.cross_entropy(z, source["label"], ignore_index=255) for z in (final, low)]
    final, low = both(target["image"])
    labels = (final.softmax(1) + low.softmax(1)).argmax(1)
    guided = F.cross_entropy(low, labels.detach())
    main = torch.stack([confidence(p, True, True, 0.2) for p in final.softmax(1)]).mean()
    (losses[0] + 0.5 * losses[1] + 0.25 * main + 0.25 * 0.5 * guided).backward()
    for name, p in method.named_parameters():
        torch.testing.assert_close(catch.gradients[name], p.grad, rtol=1e-8, atol=1e-12)
    assert any(name.startswith("low_head") for name in catch.gradients)


def test_the_low_level_head_of_the_published_code_has_two_dilations() -> None:
    method = tiny.method("maxsquare", multi_level=True, low_dilations=(6, 12))
    assert len([name for name, _ in method.named_parameters() if name.startswith("low_head") and "weight" in name]) == 2


@pytest.mark.parametrize("options", [{"ratio": 1.5}, {"low_threshold": -0.1}])
def test_shares_outside_zero_and_one(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        tiny.method("maxsquare", **options)


def test_both_heads_start_from_the_checkpoint_of_a_source_phase(tmp_path: Path) -> None:
    heads = {"multi_level": True, "low_dilations": (6, 12)}
    first = tiny.fit("maxsquare", 1, target_start=5, trainer_options={"default_root_dir": tmp_path}, **heads)
    first.trainer.save_checkpoint(tmp_path / "first.ckpt")
    alone = tiny.fit("source-only", 1)
    alone.trainer.save_checkpoint(tmp_path / "alone.ckpt")
    for name, low in (("first", True), ("alone", False)):
        start = load_method("maxsquare")(
            label_space=first.label_space,
            network=tiny.NETWORK | {"initial_checkpoint": str(tmp_path / f"{name}.ckpt")},  # type: ignore[call-arg]
            **heads,
        )
        source = (first if low else alone).state_dict()
        taken = {key for key, value in start.state_dict().items() if key in source and torch.equal(value, source[key])}
        assert any(key.startswith("low_head") and "weight" in key for key in taken) == low
        assert {key for key in source if key.startswith("segmenter")} <= taken
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        tiny.method("maxsquare", initial_checkpoint=str(tmp_path / "absent.ckpt"))
    (tmp_path / "broken.ckpt").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="is not a checkpoint of"):
        tiny.method("maxsquare", initial_checkpoint=str(tmp_path / "broken.ckpt"))
    with pytest.raises(CheckpointError, match=r"does not fit: .* has the shape"):
        options = {"decoder_channels": [16, 16, 8, 8, 4]}
        tiny.method("maxsquare", initial_checkpoint=str(tmp_path / "alone.ckpt"), network={"options": options})


# What the collapse watch is told


@pytest.mark.parametrize("slug", ["maxsquare", "minent"])
def test_shares_are_of_the_labels_and_of_the_predictions_of_a_step_that_is_logged(slug: str) -> None:
    seen: list[tuple[int, dict[str, Tensor], Tensor, Tensor]] = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.append((trainer.global_step, module.class_shares, batch["source"]["label"], module.called))

    method = tiny.method(slug, target_start=3)
    confidence_loss = method.confidence_loss

    def note(logits: Tensor, probs: Tensor) -> Tensor:
        method.called = probs.argmax(1)
        return confidence_loss(logits, probs)

    method.called, method.confidence_loss = torch.empty(0), note
    tiny.trainer(8, log_every_n_steps=2, callbacks=[Look()]).fit(method, datamodule=tiny.data())
    assert [step for step, shares, _, _ in seen if shares] == [4, 6, 8]
    for _, shares, label, called in seen:
        if shares:
            assert set(shares) == {"prior", "predictions"}
            for name, ids in (("prior", label), ("predictions", called)):
                counted = torch.tensor([float((ids == c).sum()) for c in range(method.num_classes)])
                torch.testing.assert_close(shares[name].float(), counted / counted.sum())


def test_shares_of_labels_that_are_all_void_are_zeros() -> None:
    assert class_shares(torch.full((1, 2, 2), 255), 3).tolist() == [0, 0, 0]
    assert class_shares(torch.tensor([[[0, 2], [2, 255]]]), 3).tolist() == pytest.approx([1 / 3, 0, 2 / 3])


def test_the_watch_changes_nothing_and_logs_the_shares(tmp_path: Path) -> None:
    plain = tiny.fit("maxsquare", 4)
    watch = CollapseWatch(tmp_path)
    logger = CSVLogger(tmp_path, "", "")
    watched = tiny.fit("maxsquare", 4, trainer_options={"callbacks": [watch], "logger": logger})
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    history = read_history(tmp_path / "metrics.csv")
    assert sum(history[f"share/predicted/{c}"][1][-1] for c in watched.label_space.classes) == pytest.approx(1)
    assert not any(name.startswith("share/pseudo") for name in history)
    assert (tmp_path / "figures" / "class_shares.png").is_file()
