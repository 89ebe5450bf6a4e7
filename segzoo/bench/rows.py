"""What `segzoo bench` measures, and what it tells a measuring process. Free of torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

UNIT = "joint"
"""The row that the others are compared with; it is always measured."""

WAITS = "segzoo bench: waits for its turn"
"""What a measuring process writes before it reads a line and goes on with the next step."""

LR, WEIGHT_DECAY = 1e-3, 1e-4
VIRTUAL_LR = 0.1
"""Step of the meta objective: large enough that the look-ahead shows in the hypergradient."""
WEIGHT_WIDTH = 8
"""Channels of the weight network: enough for squares of one colour."""


@dataclass(frozen=True)
class Row:
    """One of our own methods.

    Attributes:
        method: its slug.
        options: its own options.
        speed: how it is made fast, or to need little memory.
        device: the only kind of device that it runs on; None for any.
        warmup: steps that it needs before its costs are the usual ones.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    speed: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    warmup: int = 0

    @property
    def period(self) -> int:
        """Steps after which the costs repeat; a measured time is the mean over so many."""
        return int(self.options.get("meta_every", 1))


def _metapix(speed: Mapping[str, Any] | None = None, device: str | None = None, warmup: int = 0, **options: Any) -> Row:
    # No normalisation of the weights: the peers, which have none, compute the same hypergradient.
    shared = {"normalize": "none", "virtual": "sgd", "virtual_lr": VIRTUAL_LR, "weight_lr": LR}
    shared |= {"weight_width": WEIGHT_WIDTH}
    # Captured on CUDA only where the row says so.
    return Row("metapix", shared | options, {"cuda_graph": False} | dict(speed or {}), device, warmup)


REFERENCE = "metapix/double-backward"
"""In float64 the truth that every row's hypergradient is compared with."""

# A new row is one line here.
ROWS = {
    UNIT: Row("joint"),
    "metapix/sequential": _metapix(update="sequential"),
    "metapix/fused": _metapix(update="fused"),
    "metapix/paper": _metapix(update="paper"),
    # `sequential`, recorded in its third step and launched as a whole from then on.
    "metapix/graph": _metapix({"cuda_graph": True}, "cuda", warmup=3),
    # The strongest second-order rival: pruned to the weights, its gradients used again like those of `sequential`.
    REFERENCE: _metapix(update="sequential", engine="double_backward"),
    # Below the cost of the exact step; their cosines say what that costs.
    "metapix/decoder": _metapix(scope="decoder"),
    "metapix/head": _metapix(scope="head"),
    "metapix/every-4": _metapix(meta_every=4),
    "metapix/finite-difference": _metapix(engine="finite_difference"),
    # Exact, in the least memory: the forward-mode pass computes the values of all layers again.
    "metapix/recomputed": _metapix({"keep_outputs": False}),
}


def _annotator(**options: Any) -> Row:
    return Row("gradient-annotator", {"annotator_lr": LR} | options)


@dataclass(frozen=True)
class Suite:
    """Rows that belong together.

    Attributes:
        rows: by name.
        unit: the row that the others are compared with; it is always measured.
        reference: the row whose gradient, in float64, is the truth.
        network: the method's network whose gradient that is.
        fastest: the row that is compared with the fastest other library, if there are any.
    """

    rows: Mapping[str, Row]
    unit: str
    reference: str
    network: str
    fastest: str | None = None


SUITES = {
    "bilevel": Suite(ROWS, UNIT, REFERENCE, "weighting", "metapix/sequential"),
    "annotator": Suite(
        {
            "target-only": Row("target-only"),
            "annotator/forward": _annotator(),
            "annotator/double-backward": _annotator(engine="double_backward"),
        },
        "target-only",
        "annotator/double-backward",
        "annotator",
    ),
}


@dataclass(frozen=True)
class Task:
    """All that a measuring process is told.

    Attributes:
        row: what it measures; a row of its suite, or a peer.
        architecture: of the segmenter.
        encoder: of the segmenter.
        size: (height, width) of the images.
        batch: images per domain and step.
        precision: 32, bf16, 16; or 64 for the reference.
        device: cpu, cuda, cuda:1.
        threads: threads of torch on the CPU; None for torch's own choice.
        warmup: steps that are not measured.
        steps: steps that are; a multiple of the row's period.
        start: the trained segmenter that all rows start from; the first process writes it.
        result: where it writes what it found, as JSON.
        gradient: where it writes the first step's hypergradient, if it has one.
        peers: file of the adapters.
        suite: a key of `SUITES`.
        start_steps: steps of joint training, each on a batch of its own, that the segmenter starts with; None: a few on the
            measured batch.
        weight_width: channels of the weight network, for rows that have one.
    """

    row: str
    architecture: str
    encoder: str
    size: tuple[int, int]
    batch: int
    precision: str
    device: str
    threads: int | None
    warmup: int
    steps: int
    start: str = ""
    result: str = ""
    gradient: str = ""
    peers: str | None = None
    suite: str = "bilevel"
    start_steps: int | None = None
    weight_width: int = WEIGHT_WIDTH

    def to_json(self) -> str:
        """As an argument of a process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        return cls(**fields | {"size": tuple(fields["size"])})
