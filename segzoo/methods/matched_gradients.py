"""The gradient of a student in the parameters that a method compares."""

import contextlib
import re
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from segzoo.bilevel import Replayed
from segzoo.distributed import average_gradients
from segzoo.errors import ConfigError
from segzoo.methods.generated import GeneratedImagesTraining
from segzoo.models.segmenter import Segmenter


class MatchedGradients(GeneratedImagesTraining):
    """A student with gradients to be compared.

    Attributes:
        matched: names of the parameters whose gradients are.
        engine: how their derivative is taken.
    """

    matched: list[str]
    engine: Literal["forward", "double_backward"]

    def matched_gradient(
        self, image: Tensor, loss: Callable[[Tensor], Tensor], seed: int, track: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss of the student, detached, and its gradient in the matched parameters, the mean over the ranks."""
        # What is not matched is constant: no graph is kept for an encoder whose gradient nobody asks for.
        params = {
            name: p if name in self.matched else p.detach() for name, p in self.segmenter.parameters_of("all").items()
        }
        own = [params[name] for name in self.matched]
        second_order = self.engine == "double_backward"
        with sdpa_kernel(SDPBackend.MATH) if second_order else contextlib.nullcontext():
            value = Replayed(self.segmenter, image, loss, seed, track)(params)
            scale = self.loss_scale
            found = torch.autograd.grad(
                scale * value, own, create_graph=second_order, allow_unused=True, materialize_grads=True
            )
        local = {name: g / scale for name, g in zip(self.matched, found, strict=True)}
        mean = average_gradients({name: g.detach() for name, g in local.items()})
        if second_order:  # the value of the mean with the graph of this rank's part
            mean = {name: g + (mean[name] - g).detach() for name, g in local.items()}
        return value.detach(), mean

    def watch(
        self, real_loss: Tensor, loss: Tensor, distance: Tensor, slope: Tensor, norm: Tensor, real_norm: Tensor
    ) -> None:
        """Stops a run whose losses or gradients are no numbers, and logs them."""
        terms = {"labelled": real_loss, "synthetic": loss}
        if not self.scaler:  # with one (float16) an infinite gradient is no error: it skips the step
            terms |= {"gradient distance": distance, "annotator gradient": slope.norm()}
        means = self.check_finite(terms)
        # Distance and norms are of gradients that are means over the ranks already.
        self.log_dict({"match/distance": distance, "match/labelled_loss": means["labelled"]}, prog_bar=False)
        self.log_dict({"match/synthetic_norm": norm, "match/labelled_norm": real_norm})


def matched_parameters(segmenter: Segmenter, pattern: str) -> list[str]:
    """The names of the parameters whose gradients are compared.

    Args:
        segmenter: the student.
        pattern: all, decoder, head, or a regular expression for whole names.

    Raises:
        ConfigError: no regular expression, or one that matches no weight.
    """
    if pattern in ("all", "decoder", "head"):
        return list(segmenter.parameters_of(pattern))  # type: ignore[arg-type]
    parameters = segmenter.parameters_of("all")
    try:
        found = [name for name in parameters if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ConfigError(f"`method.scope` {pattern} is not a regular expression: {error}") from error
    if not any(parameters[name].dim() > 1 for name in found):
        weights = [name for name, p in parameters.items() if p.dim() > 1]
        raise ConfigError(
            f"`method.scope` {pattern} matches no weight of the segmenter; they are named {weights[0]} to {weights[-1]}"
        )
    return found
