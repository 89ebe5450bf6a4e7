"""How much each term of a trained method's loss pulls at the segmenter's encoder.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.gradient_shares runs/sepico/minicity/default-s0/checkpoints/last.ckpt [...]

Prints, over some batches of MiniCity at the checkpoint's parameters, the mean norm of each term's gradient to the encoder and
its ratio to that of the source's cross-entropy. Terms that begin late are on.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import lightning as L
import torch
from torch import Tensor

from segzoo.data import DomainDataModule, MiniCity
from segzoo.inference import read_checkpoint
from segzoo.methods.registry import load_method
from segzoo.runtime.quiet import be_quiet
from tests import tiny

STARTS = {"maxsquare": ("target_start",), "minent": ("target_start",), "sepico": ("contrast_start",)}


def shares(path: Path, batches: int) -> dict[str, float]:
    cls = load_method(str(read_checkpoint(path)["method"]))
    content = torch.load(path, map_location="cpu", weights_only=True)
    still = {"optimizer": {"lr": 0.0, "weight_decay": 0.0}} | dict.fromkeys(STARTS.get(cls.slug, ()), 0)
    method = cls.restored(content["hyper_parameters"] | still)
    method.load_state_dict(content["state_dict"])
    norms: dict[str, list[float]] = defaultdict(list)
    encoder = list(method.segmenter.network.encoder.parameters())  # type: ignore[union-attr]
    total = method.total

    def measured(terms: dict[str, Tensor]) -> Tensor:
        for name, term in terms.items():
            if term.requires_grad:
                gradients = torch.autograd.grad(term, encoder, retain_graph=True, allow_unused=True)
                norms[name].append(float(torch.stack([g.norm() for g in gradients if g is not None]).norm()))
        return total(terms)

    method.total = measured  # type: ignore[method-assign]
    data = DomainDataModule(MiniCity("source"), MiniCity("target"), size=(96, 160), target_labels=16, num_workers=0)
    tiny.trainer(batches).fit(method, datamodule=data)
    return {name: fmean(values) for name, values in norms.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--json", type=Path, help="file to write the norms to, by method")
    args = parser.parse_args()
    be_quiet()
    kept: dict[str, dict[str, float]] = {}
    for path in args.checkpoints:
        L.seed_everything(0, verbose=False)
        found = shares(path, args.batches)
        kept[str(read_checkpoint(path)["method"])] = found
        print(path)
        for name, norm in found.items():
            print(f"  {name:20} {norm:.2e}  {norm / found['source']:8.4f}")
        if args.json:
            args.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
