"""Which masks a network does not believe."""

from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.data import DomainDataModule, Harmed, MiniCity
from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.harm import HarmedImages
from segzoo.dataprep.doubts import Judge, belief_of, lines, rank
from segzoo.inference import Predictor
from segzoo.methods import SourceOnly
from tests import tiny

C = 3


def a_case(seed: int) -> tuple[np.ndarray, Pixels, Pixels]:
    """Probabilities (C, H, W), their labels, and a mask with void."""
    draws = np.random.default_rng(seed)
    probabilities = draws.dirichlet(np.ones(C), size=(4, 5)).transpose(2, 0, 1)
    mask = draws.choice([0, 1, 2, 255], size=(4, 5)).astype(np.uint8)
    return probabilities, probabilities.argmax(0).astype(np.uint8), mask


@settings(max_examples=30, deadline=None)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True))
def test_beliefs_are_those_of_a_loop_over_pixels(seeds: list[int]) -> None:
    cases = [a_case(seed) for seed in seeds]
    ranked = {one.position: one for one in rank([belief_of(i, *case) for i, case in enumerate(cases)])}
    own = [[(p[c, y, x], c) for (y, x), c in np.ndenumerate(mask) if c < C] for p, _, mask in cases]
    everything = [pair for pixels in own for pair in pixels]
    usual = {k: np.mean([p for p, c in everything if c == k]) for k in {c for _, c in everything}}
    for i, ((_, labels, mask), pixels) in enumerate(zip(cases, own, strict=True)):
        if not pixels:
            assert i not in ranked
            continue
        assert ranked[i].probability == pytest.approx(np.mean([p for p, _ in pixels]))
        assert ranked[i].belief == pytest.approx(np.mean([p - usual[c] for p, c in pixels]))
        wrong = [(c, labels[place]) for place, c in np.ndenumerate(mask) if c < C and labels[place] != c]
        most = max((sum(c == k for c, _ in wrong) for k in range(C)), default=0)
        assert ranked[i].share == pytest.approx(most / len(pixels))
        assert (ranked[i].label is None) == (not wrong)
        if wrong:
            assert sum(c == ranked[i].label for c, _ in wrong) == most
    order = [one.belief for one in rank([belief_of(i, *case) for i, case in enumerate(cases)])]
    assert order == sorted(order)


def test_a_class_that_is_hard_everywhere_is_no_doubt() -> None:
    """One image has wrong masks of an easy class, another one right masks of a class that is always improbable."""
    easy, hard = np.array([0.9, 0.1]), np.array([0.3, 0.7])
    probabilities = [np.broadcast_to(kind[:, None, None], (2, 4, 4)) for kind in (easy, easy, hard, hard)]
    masks = [np.full((4, 4), k, np.uint8) for k in (0, 0, 0, 0)]
    masks[1][:] = 1  # the network says class 0
    masks[2][:] = masks[3][:] = 1
    labels = [p.argmax(0).astype(np.uint8) for p in probabilities]
    found = rank([belief_of(i, *case) for i, case in enumerate(zip(probabilities, labels, masks, strict=True))])
    assert found[0].position == 1 and (found[0].label, found[0].says, found[0].share) == (1, 0, 1.0)


def test_masks_without_labels_are_left_out_and_agreement_names_no_class() -> None:
    p, labels, _ = a_case(0)
    void = np.full((4, 5), 255, np.uint8)
    assert rank([belief_of(0, p, labels, void)]) == rank([]) == []
    (agreed,) = rank([belief_of(0, p, labels, void), belief_of(1, p, labels, labels)])
    assert (agreed.position, agreed.label, agreed.says, agreed.share) == (1, None, None, 0.0)

    class Named(ImageSet):
        names = ("a", "b")

        def image(self, index: int) -> Pixels:
            raise NotImplementedError

        def label(self, index: int) -> Pixels:
            raise NotImplementedError

    space = tiny.data().label_space
    assert lines([agreed], Named(), space)[0][0] == "b" and lines([agreed], Named(), space)[0][3:] == ("", "0.0", "")


def test_shifted_masks_are_found_by_a_network_that_trained_on_them() -> None:
    L.seed_everything(0, verbose=False)
    size = (48, 80)
    source = Harmed(MiniCity("source", train=48, size=size, flaws=0), share=0.25, kind="shifted", amount=0.15)
    target = MiniCity("target", train=4, val=2, test=2, size=size)
    data = DomainDataModule(source, target, size=size, num_workers=0)
    method = SourceOnly(label_space=data.label_space, network=tiny.NETWORK, optimizer={"lr": 3e-3})
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    L.Trainer(max_steps=60, accelerator="cpu", limit_val_batches=0, **options).fit(method, data)
    images = data.images("source", "train")
    assert isinstance(images, HarmedImages) and len(images.harmed) == 12
    found = rank(Judge(Predictor(method.eval(), size), images, source=True).look(lambda _: None))
    assert len(images.harmed & {one.position for one in found[:12]}) >= 11


@pytest.mark.parametrize(("slug", "by_batch"), [("joint", True), ("metapix", True), ("source-only", False)])
def test_source_images_are_normalised_as_the_training_did(slug: str, by_batch: bool) -> None:
    """The running statistics of a method that sees both domains are the target's, with which it misjudges the source."""
    method = tiny.method(slug).eval()
    images = [tiny.data().images("source", "train").image(i) for i in range(3)]
    inputs = torch.stack([torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images])
    before = {name: value.clone() for name, value in method.state_dict().items()}
    found = Predictor(method, tiny.SIZE).logits(images, source=True)
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        own = method.train()(inputs)
        method.load_state_dict(before)  # the pass moved the running statistics
        usual = method.eval()(inputs)
    torch.testing.assert_close(found, own if by_batch else usual)
    assert not torch.allclose(own, usual, atol=1e-2)
