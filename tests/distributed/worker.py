"""Trains a tiny method on however many processes torchrun started; rank zero saves the parameters.

python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.worker OUT SPEC, with SPEC as JSON.
"""

import json
import os
import sys

import lightning as L
import torch

from segzoo.methods import metapix
from tests import tiny


def main(out: str, spec: str) -> None:
    settings = json.loads(spec)
    torch.set_num_threads(1)
    if os.environ.get("SEGZOO_TEST_SKIP_AVERAGE"):  # the mistake that a test wants to see noticed
        metapix.average_gradients = lambda gradients: gradients
    L.seed_everything(0, verbose=False)
    trained = tiny.method(settings["slug"], **settings["options"])
    trainer = tiny.trainer(3, precision=settings["precision"], devices=settings["world"], strategy=settings["strategy"])
    data = tiny.data(batch_size=4 // settings["world"], flip=True)
    trainer.fit(trained, datamodule=data)
    if trainer.is_global_zero:
        torch.save({name: p.detach() for name, p in trained.named_parameters()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
