"""What a study of many short runs costs beside its trainings: processor time, as the clock of a shared machine says little.

    python -m tests.benchmarks.study_costs OUT [--json FILE]

Three studies of source-only on MiniCity: runs that import for themselves, and copies of a process that has imported everything
(`segzoo.cli.warm`), of few steps, which is what a run costs beside its steps; and copies of more steps, which gives the cost of
one. Validations are left out: how many there are is the user's choice. The report is that of 60 runs that nobody trained.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from segzoo.study.study_file import read_study
from tests.study_runs import write_runs

FEW, MORE = 2, 42
STEPS = (200, 500, 1000, 2000, 4000)
CODE = """
import sys
from segzoo.cli.main import main
from segzoo.study import trainings
trainings.AVAILABLE = trainings.AVAILABLE and {warm}
sys.exit(main(sys.argv[1:]))
"""


def seconds(warm: bool, words: list[str]) -> float:
    """Processor seconds of a command of segzoo, with all processes that it starts."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", CODE.format(warm=warm), *words], dict(os.environ))
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"segzoo {' '.join(words)} failed ({status})")
    return used.ru_utime + used.ru_stime


def study_seconds(out: Path, runs: int, steps: int, warm: bool, *more: str) -> float:
    """Processor seconds of a study of runs of some steps."""
    words = ["compare", "--rows", "source-only", "--seeds", f"0-{runs - 1}", "--out", str(out), *more]
    return seconds(warm, [*words, "--", "--trainer.max_steps", str(steps), "--trainer.limit_val_batches", "0"])


def report_seconds(out: Path) -> float:
    """Processor seconds of the report of 60 runs."""
    rows = {f"row-{i}": "joint" for i in range(12)}
    out.mkdir(parents=True)
    path = out / "study.yaml"
    path.write_text(yaml.safe_dump({"rows": rows, "seeds": "0-4", "data": "minicity"}))
    write_runs(read_study(path), out / "runs", lambda row, seed: 0.5)
    return seconds(True, ["compare", str(path), "--report", "--out", str(out / "runs")])


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=3, help="of each study (default: 3)")
    parser.add_argument("--json", type=Path, help="file to write what was measured to")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shutil.rmtree(args.out, ignore_errors=True)
    report = report_seconds(args.out / "report")
    own = study_seconds(args.out / "own", args.runs, FEW, warm=False)
    few = study_seconds(args.out / "few", args.runs, FEW, warm=True)
    more = study_seconds(args.out / "more", args.runs, MORE, warm=True)
    step = (more - few) / (args.runs * (MORE - FEW))
    alone = study_seconds(args.out / "own", 1, FEW, True, "--report")
    own, few = (own - alone) / args.runs, few - alone
    copy = (few - own) / (args.runs - 1)  # as few is one import, and what is left of every run
    imported, beside = own - copy, copy - FEW * step
    print(
        f"report of 60 runs {report:.1f} s, of one {alone:.1f} s; a step {step:.3f} s; of a run the imports "
        f"{imported:.1f} s and all else beside its steps {beside:.1f} s\n"
    )
    print("| steps of a run | training | beside it, each imports | beside it, copies |\n|---:|---:|---:|---:|")
    found: dict[str, Any] = {"settings": {"runs": args.runs, "few": FEW, "more": MORE, "torch": torch.__version__}}
    found |= {"report": report, "step": step, "imports": imported, "beside": beside}
    for steps in STEPS:
        shares = [100 * (imports * imported + 60 * beside + report) / (60 * steps * step) for imports in (60, 1)]
        found[str(steps)] = shares
        print(f"| {steps} | {steps * step:.0f} s | {shares[0]:.1f} % | {shares[1]:.1f} % |")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
