"""What `tests.benchmarks.gpu_day` runs, in the order of what matters."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

SEQUENTIAL = "metapix/sequential"
FIRST_ORDER = f"{SEQUENTIAL},metapix/graph,metapix/fused,metapix/paper"
SECOND_ORDER = "metapix/double-backward,higher,torchopt"
NETWORKS = {"deeplabv3plus-resnet50": ("deeplabv3plus", "resnet50"), "segformer-mit_b2": ("segformer", "mit_b2")}
START_STEPS = 40


@dataclass(frozen=True)
class Step:
    """A step of the day.

    Attributes:
        name: of its files.
        module: ``segzoo``, whose command is run, or a module of `tests.benchmarks`; "": the arguments are a program's, which
            runs in a process of its own.
        arguments: of the command.
        limit: seconds after which it is stopped.
        least: seconds that have to be left for it to begin.
        fresh: whether its process must have run nothing before.
        beside: whether the program runs beside the steps that follow; it leaves the GPU alone.
    """

    name: str
    module: str
    arguments: list[str]
    limit: int
    least: int = 5
    fresh: bool = False
    beside: bool = False


def full(out: Path, scratch: Path) -> list[Step]:
    """The steps on a CUDA device: 512 x 512, four images per domain."""
    # The width that is recommended for photographs (docs/defaults.md).
    shape = ["--size", "512", "512", "--batch", "4", "--weight_width", "16"]

    def network(name: str) -> list[str]:
        architecture, encoder = NETWORKS[name]
        return ["--architecture", architecture, "--encoder", encoder]

    def table(name: str, precision: str, rows: str, ending: str, steps: int, limit: int, least: int) -> Step:
        stem = f"{name}-{precision}{ending}"
        measured = ["--precision", precision, "--rows", rows, "--rounds", "1", "--steps", str(steps), "--warmup", "2"]
        start = ["--start_steps", str(START_STEPS), "--keep", str(scratch / name), "--one_process"]
        files = ["--json", str(out / f"{stem}.json"), "--figure", str(out / f"{stem}.png")]
        command = ["bench", "bilevel", "--device", "cuda", *network(name), *shape, *measured, *start, *files]
        return Step(stem, "segzoo", command, limit, least)

    def first_order(name: str, precision: str) -> Step:
        return table(name, precision, FIRST_ORDER, "", 8, 60, 12)

    def second_order(name: str, precision: str) -> Step:
        return table(name, precision, SECOND_ORDER, "-second-order", 2, 60, 20)

    def phases(name: str) -> Step:
        rows = ["--rows", f"joint,{SEQUENTIAL},metapix/graph", "--steps", "4", "--kernels", "3"]
        command = ["--device", "cuda", *network(name), *shape, "--precision", "bf16", *rows]
        return Step(f"{name}-bf16-phases", "phases", command, 30, 8)

    def adaptation(variants: str, name: str) -> Step:
        what = ["--device", "cuda", "--encoder", "resnet50", "--size", "512", "--rounds", "1", "--steps", "4"]
        command = [*what, "--variants", variants, "--json", str(out / f"{name}.json")]
        return Step(name, "adaptation", command, 45, 15)

    def distributed(name: str) -> Step:
        what = ["--device", "cuda", *network(name), "--size", "512", "--batch", "4", "--precision", "bf16"]
        command = [*what, "--rows", f"joint,{SEQUENTIAL},metapix/graph", "--json", str(out / f"{name}-bf16-nccl.json")]
        return Step(f"{name}-bf16-nccl", "reductions", command, 25, 10, fresh=True)

    deeplab, segformer = NETWORKS
    images = ["--shape", "1024", "2048", "--images", "16", "--draws", "96", "--size", "512", "512", "--workers", "2"]
    return [
        first_order(deeplab, "bf16"),
        first_order(segformer, "bf16"),
        phases(deeplab),
        phases(segformer),
        # Three of many cores are busy with it while the methods' steps, a matter of one core, are measured.
        Step("loading", "", [*program("loading"), *images, "--json", str(out / "loading.json")], 90, 30, beside=True),
        adaptation("bf16", "adaptation-bf16"),
        first_order(deeplab, "32"),
        first_order(segformer, "32"),
        distributed(deeplab),
        adaptation("bf16/channels-last", "adaptation-bf16-channels-last"),
        second_order(deeplab, "bf16"),
        adaptation("32", "adaptation-32"),
        second_order(segformer, "bf16"),
        second_order(deeplab, "32"),
        second_order(segformer, "32"),
    ]


def tiny(out: Path, scratch: Path) -> list[Step]:
    """The same steps on a CPU with a tiny network, and two processes with gloo for NCCL's one."""
    smaller = {"--architecture": "unet", "--encoder": "tu-test_resnet", "--device": "cpu", "--steps": "1"}
    smaller |= {"--start_steps": "2", "--batch": "2", "--images": "2", "--draws": "6", "--kernels": "1"}
    smaller |= {"--warmup": "1", "--variants": "32", "--rows": f"joint,{SEQUENTIAL}"}
    found = []
    for step in full(out, scratch):
        arguments = list(step.arguments)
        for i, word in enumerate(arguments[:-1]):
            arguments[i + 1] = smaller.get(word, arguments[i + 1])
            if word in ("--size", "--shape"):
                side = "64" if word == "--shape" else "32"
                for k in range(i + 1, i + 3):
                    if arguments[k].isdigit():
                        arguments[k] = side
        if step.module == "adaptation":
            arguments += ["--architecture", "unet", "--rows", "source-only;joint;sepico/bank;ssda"]
        if step.module == "reductions":
            launcher = [*program("reductions")[:1], "-m", "torch.distributed.run", "--nproc_per_node", "2"]
            arguments = [*launcher, *program("reductions")[1:], *arguments]
            found.append(Step(step.name, "", arguments, 120))
        else:
            found.append(replace(step, arguments=arguments, limit=120))
    return found


def program(module: str) -> list[str]:
    """A module of `tests.benchmarks` as a program of its own."""
    return [sys.executable, "-m", f"tests.benchmarks.{module}"]
