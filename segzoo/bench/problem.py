"""The networks and the batch that all rows share: the same values in every process."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torchvision.models.resnet import BasicBlock, Bottleneck

from segzoo.bench.rows import LR, VIRTUAL_LR, WEIGHT_DECAY, Row, Task
from segzoo.compat.tensors import Dropout
from segzoo.data.label_spaces import IGNORE_INDEX, LabelSpace
from segzoo.data.streams import Batch
from segzoo.losses import cross_entropy, pixel_cross_entropy
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.registry import load_method
from segzoo.methods.segmentation import SegmentationMethod, pixel_count, valid_pixels
from segzoo.methods.speed import Speed
from segzoo.models.network import Network

DOMAINS = ("source", "target")
CLASSES = 19
BLOCK = 8
"""Side of the squares of one class that the labels are made of, in pixels."""
START_STEPS = 10
AUTOCAST = {"bf16": torch.bfloat16}


def create_method(task: Task, row: Row) -> SegmentationMethod:
    """The row's method with the networks that all rows start from, without dropout.

    Dropout masks differ between implementations; without them all rows compute the same hypergradient.
    """
    space = LabelSpace("bench", tuple(f"class{i}" for i in range(CLASSES)), tuple((i, i, i) for i in range(CLASSES)))
    options = dict(row.options)
    if "weight_width" in options:
        options["weight_width"] = task.weight_width
    torch.manual_seed(0)
    create: Callable[..., SegmentationMethod] = load_method(row.method)  # type: ignore[assignment]  # all rows segment
    method = create(
        label_space=space,
        network=Network(architecture=task.architecture, encoder=task.encoder, encoder_weights=None),
        optimizer=Optimizer(name="adamw", lr=LR, weight_decay=WEIGHT_DECAY, schedule="constant"),
        speed=Speed(**row.speed),
        **options,
    )
    for module in method.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
        elif hasattr(module, "drop_prob"):  # drop path of timm and segmentation_models_pytorch
            module.drop_prob = 0.0  # type: ignore[assignment]
    if task.start and Path(task.start).is_file():
        method.segmenter.load_state_dict(torch.load(task.start, map_location="cpu", weights_only=True))
    return method


def write_start(task: Task, device: torch.device) -> None:
    """Trains the seeded segmenter for some steps of joint training and writes it where all rows will find it.

    The gradient of an untrained network with batch norm is so large that after one step along it float32 and float64 part:
    cosines would say more of that than of the rows. The small networks of a CPU need few steps, and the measured batch will do.
    The residual branches of a ResNet begin at zero: a deep one of random branches amplifies rounding by itself, trained ones do
    not, and training from there keeps them small.
    """
    segmenter = create_method(task, Row("joint")).segmenter
    for block in segmenter.modules():
        if isinstance(block, Bottleneck | BasicBlock):
            nn.init.zeros_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight)
    segmenter.to(device).train()
    optimizer = AdamW(segmenter.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    batches = _batches(task, device)
    batch = next(batches)
    for _ in range(START_STEPS if task.start_steps is None else task.start_steps):
        if task.start_steps is not None:
            batch = next(batches)
        optimizer.zero_grad()
        for domain in DOMAINS:
            image, label = batch[domain]["image"], batch[domain]["label"]
            cross_entropy(segmenter(image), label, pixel_count(valid_pixels(label))).backward()
        optimizer.step()
    part = Path(f"{task.start}.part")  # a run that is stopped must not leave half a start for the next one
    torch.save(segmenter.state_dict(), part)
    part.replace(task.start)


def create_batch(task: Task, device: torch.device) -> dict[str, Batch]:
    """The batch that is measured, one per domain; the same in every process."""
    batch = next(_batches(task, device))
    # What `paper` draws afresh costs the same when it is not fresh, and the hypergradient is then that of the other rows.
    return batch | {f"meta_{domain}": images for domain, images in batch.items()}


def _batches(task: Task, device: torch.device) -> Iterator[dict[str, Batch]]:
    """Noisy squares of the classes' colours, two domains of other colours; a margin is void."""
    generator = torch.Generator().manual_seed(1)
    height, width = task.size
    colours: dict[str, Tensor] = {}

    def draw(domain: str) -> Batch:
        blocks = (task.batch, math.ceil(height / BLOCK), math.ceil(width / BLOCK))
        label = torch.randint(CLASSES, blocks, generator=generator)
        label = label.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :height, :width].contiguous()
        if domain not in colours:
            colours[domain] = torch.rand(CLASSES, 3, generator=generator)
        image = colours[domain][label].movedim(-1, 1)
        image = ((image + torch.rand(image.shape, generator=generator)) / 2).contiguous()
        label[:, :, :2] = IGNORE_INDEX
        return {"image": image.to(device), "label": label.to(device)}

    while True:
        yield {domain: draw(domain) for domain in DOMAINS}


@dataclass(frozen=True)
class Problem:
    """What an adapter of another library makes a training step of.

        theta' = theta - virtual_lr grad source_loss(segmenter(x_s), weighting(x_s, y_s))
        phi    <- AdamW on d target_loss(segmenter'(x_t)) / d phi
        theta  <- AdamW on source_loss(segmenter(x_s), stopgrad w) + target_loss(segmenter(x_t))

    Attributes:
        segmenter: images (B, 3, H, W) to logits (B, C, H, W); theta.
        weighting: source images and labels to weights (B, H, W); phi.
        source: images and labels (B, H, W).
        target: the same.
        virtual_lr: step size of the virtual step, plain SGD.
        autocast: context of every forward pass.
    """

    segmenter: nn.Module
    weighting: nn.Module
    source: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]
    virtual_lr: float
    autocast: Callable[[], AbstractContextManager[None]]

    def source_loss(self, logits: Tensor, weights: Tensor) -> Tensor:
        """Weighted mean over the valid pixels."""
        label = self.source[1]
        return (weights * pixel_cross_entropy(logits, label)).sum() / pixel_count(valid_pixels(label))

    def target_loss(self, logits: Tensor) -> Tensor:
        """Mean over the valid pixels."""
        label = self.target[1]
        return cross_entropy(logits, label, pixel_count(valid_pixels(label)))

    def optimizer(self, module: nn.Module) -> AdamW:
        """The real optimiser of a network's parameters, the same in all rows."""
        fused = True if next(module.parameters()).is_cuda else None  # as for our own rows
        return AdamW(module.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=fused)


def create_problem(task: Task, row: Row, device: torch.device) -> Problem:
    """The networks of a row of ours, in training mode, and the batch, for the adapters of other libraries."""
    method = create_method(task, row).to(device).train()
    batch = create_batch(task, device)
    source, target = ((batch[domain]["image"], batch[domain]["label"]) for domain in DOMAINS)
    dtype = AUTOCAST.get(task.precision)
    # Cast weights are not cached, as in Lightning: the look-ahead replaces the weights between two passes.
    cast = partial(torch.autocast, device.type, dtype, cache_enabled=False) if dtype else nullcontext
    weighting = method.weighting
    assert isinstance(weighting, nn.Module)
    return Problem(method.segmenter, weighting, source, target, VIRTUAL_LR, cast)
