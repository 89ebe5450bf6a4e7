"""``segzoo bench``: time, memory and accuracy of a training step, row by row."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from segzoo.bench.peers import Peer, default_peers, load_peers
from segzoo.bench.rows import SUITES, WEIGHT_WIDTH, Suite, Task
from segzoo.cli.parser import Parser
from segzoo.errors import ConfigError
from segzoo.suggest import did_you_mean

if TYPE_CHECKING:
    from segzoo.bench.kept import KeptStart

DESCRIPTION = """\
Measure one training step. bilevel: MetaPix's update orders, meta update included, and the same step written with other
libraries, against a step of joint training. annotator: gradient-annotator's step by a forward-mode pass and by double
backward, against a step on the labelled images alone. Every row runs in processes of its own: one for peak memory and
hypergradient, and one per round for time. Those of a round take turns, one step each (every-4: four), so that a machine that
is slow for a while is so for all; they need the memory of all of them. On CUDA one row runs after the other, the first round
counts memory, too, and a row's steps are paired with the reference's in their order.

  s/step    median over the steps of all rounds
  × joint   median of the ratios of steps in one turn, and its quartiles
  peak MiB  above an idle process that holds networks, batch and optimiser state
  cosine    of the first step's hypergradient with that of double backward in float64"""
ROWS = "\n".join(
    f"  {name}: {', '.join(row + ' (on CUDA)' * (about.device == 'cuda') for row, about in suite.rows.items())}"
    for name, suite in SUITES.items()
)
EXAMPLES = f"""\
rows:
{ROWS}
  and in bilevel other libraries where they are installed: higher, torchopt, betty

examples:
  segzoo bench bilevel
  segzoo bench annotator --architecture unet --size 64 64 --batch 8
  segzoo bench bilevel --rows metapix/sequential,higher --size 128 128 --rounds 1
  segzoo bench bilevel --device cuda --encoder resnet50 --size 512 512 --batch 4 --precision bf16 --start_steps 50"""
FIGURE_ENDINGS = (".png", ".pdf", ".svg")


def bench(argv: list[str]) -> int:
    """Runs the command."""
    args = _parser().parse(argv)
    _check(args)
    suite = SUITES[args.what]
    file = args.peers or default_peers() if suite.fastest else None
    peers = _peers(file)
    names = _rows(args.rows, suite, peers, args.device)
    skipped = {name: reason for name in names if name in peers and (reason := peers[name].missing())}

    from segzoo.bench.runner import Runner

    with TemporaryDirectory() as folder:
        task = _task(args, file)
        kept = _kept(args.keep, task)
        runner = Runner(task, Path(folder), args.rounds, _write, args.one_process, kept)
        costs = runner.run([name for name in names if name not in skipped])
    skipped |= runner.skipped

    from segzoo.bench.costs import cost_json, cost_table, speed_up

    print(f"\n{cost_table(costs, suite.unit, skipped)}")
    if suite.fastest and (sentence := speed_up(costs, suite.fastest, peers)):
        print(f"\n{sentence}")
    settings = _settings(args, runner.environment)
    settings["peers"] = {name: peers[name].installed() for name in costs if name in peers}
    settings["skipped"] = skipped
    if args.json:
        args.json.write_text(json.dumps(cost_json(costs, suite.unit, settings), indent=2) + "\n")
    if args.figure:
        from segzoo.bench.figures import cost_figure
        from segzoo.evaluation.plots import save_figure

        save_figure(cost_figure(costs, suite.unit, peers, _title(settings)), args.figure)
    for path in filter(None, (args.json, args.figure)):
        print(f"written to {path}")
    return 0


def _parser() -> Parser:
    parser = Parser("segzoo bench", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("what", choices=list(SUITES), metavar="{" + ",".join(SUITES) + "}", help="what to measure")
    add("--rows", metavar="LIST", help="rows, separated by commas (default: all); the first one is always measured")
    add("--architecture", default="deeplabv3plus", metavar="NAME", help="of the segmenter (default: deeplabv3plus)")
    add("--encoder", default="resnet18", metavar="NAME", help="of the segmenter (default: resnet18)")
    add("--size", type=int, nargs=2, default=(192, 192), metavar=("H", "W"), help="of the images (default: 192 192)")
    add("--batch", type=int, default=2, metavar="N", help="images per domain and step (default: 2)")
    add(
        "--weight_width",
        type=int,
        default=WEIGHT_WIDTH,
        metavar="N",
        help=f"channels of bilevel's weight network (default: {WEIGHT_WIDTH})",
    )
    add("--precision", choices=["32", "bf16", "16"], default="32", help="16 on CUDA only (default: 32)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    add("--threads", type=int, metavar="N", help="threads of torch on the CPU (default: torch's own choice)")
    add("--steps", type=int, default=10, metavar="N", help="turns of a round (default: 10)")
    add("--warmup", type=int, default=3, metavar="N", help="steps before them (default: 3)")
    add(
        "--start_steps",
        type=int,
        metavar="N",
        help="of joint training that all rows start from, each on a batch of its own; for the cosines of large networks with "
        "batch norm and of half precision (default: ten on the measured batch)",
    )
    add(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="times that all rows are timed, in new processes (default: 3)",
    )
    add(
        "--one_process",
        action="store_true",
        help="measure all rows in this process, one after the other: quick to start; memory is then counted on CUDA only",
    )
    add(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep the start and its float64 gradient there, or take them from there: runs in several precisions share them",
    )
    add("--peers", type=Path, metavar="FILE", help="adapters (default: tests/benchmarks/peers.py of a checkout)")
    add("--json", type=Path, metavar="FILE", help="write the numbers there")
    add("--figure", type=Path, metavar="FILE", help="draw them: a bar chart as PNG, PDF or SVG")
    return parser


def _check(args: argparse.Namespace) -> None:
    if min(args.size) < 32:
        raise ConfigError(f"--size {args.size[0]} {args.size[1]}: expected at least 32 32")
    if args.device == "auto":
        raise ConfigError("--device auto: name the device that is to be measured: cpu, cuda, cuda:1")
    if args.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(f"--device {args.device}: no CUDA device here")
    elif args.precision == "16":
        raise ConfigError("--precision 16 needs a CUDA device; a CPU has 32 and bf16")
    defaults = ("deeplabv3plus", "resnet18")
    if (args.architecture, args.encoder) != defaults:  # reading the names takes seconds, starting the processes more
        from segzoo.models.segmenter import check_names

        check_names(args.architecture, args.encoder)
    for name in ("batch", "steps", "warmup", "rounds", "threads", "start_steps", "weight_width"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: expected at least 1")
    if args.figure and args.figure.suffix not in FIGURE_ENDINGS:
        raise ConfigError(f"--figure {args.figure}: expected a name that ends in {', '.join(FIGURE_ENDINGS)}")
    # What cannot be written is said now, and not after the measurement.
    for path in filter(None, (args.json, args.figure)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
        except OSError as error:
            raise ConfigError(f"cannot write to {path}: {error.strerror}") from error


def _peers(file: Path | None) -> dict[str, Peer]:
    try:
        return load_peers(file)
    except ConfigError as error:
        raise ConfigError(f"--peers {error}") from error


def _kept(folder: Path | None, task: Task) -> "KeptStart | None":
    if folder is None:
        return None
    from segzoo.bench.kept import KeptStart

    try:
        return KeptStart(folder, task)
    except (ConfigError, OSError) as error:
        raise ConfigError(f"--keep {error}") from error


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _rows(text: str | None, suite: Suite, peers: Mapping[str, Peer], device: str) -> list[str]:
    known = [*suite.rows, *peers]
    here = [name for name, row in suite.rows.items() if device.startswith(row.device or "")]
    wanted = text.split(",") if text else [*here, *peers]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"unknown row '{name}'{did_you_mean(name, known)}")
    return list(dict.fromkeys([suite.unit, *wanted]))


def _task(args: argparse.Namespace, peers: Path | None) -> Task:
    return Task(
        row=SUITES[args.what].unit,
        architecture=args.architecture,
        encoder=args.encoder,
        size=tuple(args.size),
        batch=args.batch,
        precision=args.precision,
        device=args.device,
        threads=args.threads,
        warmup=args.warmup,
        steps=args.steps,
        peers=str(peers) if peers else None,
        suite=args.what,
        start_steps=args.start_steps,
        weight_width=args.weight_width,
    )


def _settings(args: argparse.Namespace, environment: Mapping[str, Any]) -> dict[str, Any]:
    names: Iterable[str] = (
        "architecture",
        "encoder",
        "size",
        "batch",
        "precision",
        "steps",
        "warmup",
        "rounds",
        "start_steps",
        "weight_width",
        "one_process",
    )
    return dict(environment) | {name: getattr(args, name) for name in names}


def _title(settings: Mapping[str, Any]) -> str:
    height, width = settings["size"]
    return (
        f"{settings['architecture']} on {settings['encoder']}, {settings['batch']} × {height}×{width} per domain, "
        f"precision {settings['precision']}; {settings['device']}, torch {settings['torch']}"
    )
