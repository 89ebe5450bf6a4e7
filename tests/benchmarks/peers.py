"""MetaPix's training step in the libraries that offer bilevel optimisation, as a user of each would write it.

One function per library; `segzoo bench bilevel` finds them here. All compute, on one pair of batches, the hypergradient of
the weight network, its update, and the segmenter's update on the weighted source loss plus the target loss, with the weights
that the hypergradient saw. Each is pruned: where a library lets the caller choose, the target loss is differentiated with
respect to the weight network alone, and the second-order graph is freed before the segmenter's own step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from segzoo.bench.peers import Peer, Step

if TYPE_CHECKING:
    from segzoo.bench.problem import Problem


class _Updates:
    """What the unrolling libraries leave to the user: the real updates of both networks."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.theta, self.phi = problem.optimizer(problem.segmenter), problem.optimizer(problem.weighting)
        self.phi_params = list(problem.weighting.parameters())

    def __call__(self, gradient: Sequence[Tensor], weights: Tensor) -> None:
        p = self.problem
        for param, g in zip(self.phi_params, gradient, strict=True):
            param.grad = g
        self.phi.step()
        self.theta.zero_grad()
        with p.autocast():
            loss = p.source_loss(p.segmenter(p.source[0]), weights) + p.target_loss(p.segmenter(p.target[0]))
        loss.backward()
        self.theta.step()


def higher_step(p: Problem) -> Step:
    """higher 0.2.1: a patched copy of the segmenter and a differentiable optimiser."""
    import higher

    updates = _Updates(p)
    virtual = SGD(p.segmenter.parameters(), lr=p.virtual_lr)

    def hypergradient() -> tuple[Sequence[Tensor], Tensor]:
        with higher.innerloop_ctx(p.segmenter, virtual) as (segmenter, optimizer):
            with p.autocast():
                weights = p.weighting(*p.source)
                loss = p.source_loss(segmenter(p.source[0]), weights)
            optimizer.step(loss)
            with p.autocast():
                target_loss = p.target_loss(segmenter(p.target[0]))
            return torch.autograd.grad(target_loss, updates.phi_params), weights.detach()

    def step() -> Sequence[Tensor]:
        gradient, weights = hypergradient()
        updates(gradient, weights)
        return gradient

    return step


def torchopt_step(p: Problem) -> Step:
    """TorchOpt 0.7.3: `MetaSGD` replaces the segmenter's tensors; its state is saved before and recovered after."""
    import torchopt

    updates = _Updates(p)
    virtual = torchopt.MetaSGD(p.segmenter, lr=p.virtual_lr)

    def hypergradient() -> tuple[Sequence[Tensor], Tensor]:
        segmenter_state = torchopt.extract_state_dict(p.segmenter, by="reference", detach_buffers=True)
        virtual_state = torchopt.extract_state_dict(virtual, by="reference")
        with p.autocast():
            weights = p.weighting(*p.source)
            loss = p.source_loss(p.segmenter(p.source[0]), weights)
        virtual.step(loss)
        with p.autocast():
            target_loss = p.target_loss(p.segmenter(p.target[0]))
        gradient = torch.autograd.grad(target_loss, updates.phi_params)
        torchopt.recover_state_dict(p.segmenter, segmenter_state)
        torchopt.recover_state_dict(virtual, virtual_state)
        return gradient, weights.detach()

    def step() -> Sequence[Tensor]:
        gradient, weights = hypergradient()
        updates(gradient, weights)
        return gradient

    return step


def betty_step(p: Problem) -> Step:
    """Betty 0.2.1 with its default, the finite difference of DARTS.

    Betty differentiates at the parameters *after* the segmenter's real step, which stands for the virtual step: its
    hypergradient is that of another point (and 1/alpha as long), and its cosine says how much that and the difference matter.
    """
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    found: list[Tensor] = []

    class Segmenter(ImplicitProblem):  # type: ignore[misc]
        perturbed = False

        def get_batch(self) -> None:
            return None  # the batch is the problem's

        def training_step(self, batch: None) -> Tensor:
            with p.autocast():
                loss = p.source_loss(self(p.source[0]), self.weighting(*p.source))
                # The target loss does not depend on the weights: the two perturbed passes can do without it.
                return loss if self.perturbed else loss + p.target_loss(self(p.target[0]))

    class Weighting(ImplicitProblem):  # type: ignore[misc]
        def get_batch(self) -> None:
            return None

        def training_step(self, batch: None) -> Tensor:
            self.segmenter.perturbed = True
            with p.autocast():
                return p.target_loss(self.segmenter(p.target[0]))

        def grad_callback(self) -> None:
            self.segmenter.perturbed = False
            found[:] = [param.grad for param in self.trainable_parameters()]

    def optimizer(module: nn.Module) -> Adam:
        # AdamW by another name: Betty makes its own copy from the defaults, which AdamW of torch 2.8 itself refuses.
        return Adam(module.parameters(), **p.optimizer(module).defaults)

    upper = Weighting("weighting", Config(), module=p.weighting, optimizer=optimizer(p.weighting))
    lower = Segmenter("segmenter", Config(), module=p.segmenter, optimizer=optimizer(p.segmenter))
    engine = Engine(
        problems=[upper, lower],
        config=EngineConfig(strategy="gpu" if p.source[0].is_cuda else "cpu"),
        dependencies={"u2l": {upper: [lower]}, "l2u": {lower: [upper]}},
    )
    engine.train()

    def step() -> Sequence[Tensor]:
        engine.train_step()
        return found

    return step


PEERS = {
    "higher": Peer(higher_step, "higher", "0.2.1", "higher==0.2.1"),
    "torchopt": Peer(torchopt_step, "torchopt", "0.7.3", "torchopt==0.7.3"),
    # The release admits Python below 3.11 only, and pip falls back to 0.1.1, another program, without a word.
    "betty": Peer(betty_step, "betty-ml", "0.2.1", "--ignore-requires-python --no-deps betty-ml==0.2.1"),
}
