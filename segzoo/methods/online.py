"""Pixel weights without a network (Ren et al., "Learning to reweight examples", ICML 2018, arXiv 1803.09050).

A pixel weighs what a little more of it would help the target, before any virtual step is taken:

    w_i = relu(-dL_T(theta'(w)) / dw_i) at w = 0,     divided by their mean

At w = 0 the virtual step stays at theta, so that the target gradient there serves both the weights and the segmenter's update.
"""

import torch
from torch import Tensor

from segzoo.bilevel import Kept, attach_gradient, pixel_jvp
from segzoo.data.streams import Batch
from segzoo.distributed import average_gradients
from segzoo.methods.lookahead import LookAheadTraining


class OnlineWeights(LookAheadTraining):
    """Weighted joint training whose weights are computed anew for every batch."""

    def online_step(self, source: Batch, target: Batch, keep: bool) -> Tensor:
        """The loss of a step.

        Args:
            source: what is weighed.
            target: what it shall help.
            keep: the derivative takes up what large layers returned in the source pass (`segzoo.bilevel.kept`).
        """
        theta = self.theta
        target_loss, scale = self.target_pass(target, track=True)(), self.loss_scale
        v = torch.autograd.grad(scale * target_loss, list(theta.values()), allow_unused=True, materialize_grads=True)
        mean = average_gradients({name: g / scale for name, g in zip(theta, v, strict=True)})
        direction = {name: mean[name] for name in self.reach}
        replayed = self.source_pass(source)
        source_pass = Kept(replayed, self.segmenter, self.reach) if keep else replayed
        losses = source_pass()
        helps = pixel_jvp(source_pass, theta, direction)[1].relu()
        if self.scaler:  # an infinite v makes it skip the step; until then the loss has to stay finite
            helps = helps.nan_to_num(0, 0, 0)
        weights = self.to_mean_one(helps, source["label"])[0]
        self.log_weights(weights, source["label"])
        source_loss = (weights * losses).sum() / self.source_count(source["label"])
        loss = self.total({"source": source_loss, "target": target_loss.detach()})
        return loss + attach_gradient(torch.zeros_like(loss), list(theta.values()), list(mean.values()))
