"""All tables that need a GPU, in a few minutes: what costs a step of each method, phases, distributed steps, loaders.

    python -m tests.benchmarks.gpu_day OUT --seconds 220 --archive FILE.tar.gz
    python -m tests.benchmarks.gpu_day OUT --tiny                       the same to its last line on a CPU, in a minute

The steps below run one after the other, what matters most first, each under a time limit of its own and with its output in
OUT/NAME.txt; JSON and figures are beside it, and the archive is written anew after each. They share one process, which has
imported everything: a process and its CUDA context take many seconds to start. A step that fails, or takes too long, costs that
process and nothing else; the next one continues in a process that has been waiting.
"""

import argparse
import importlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.gpu_steps import Step, full, tiny

NOISE = re.compile(r"^\s*$|^\d+/\d+ |^warning: |^written to |^about \d+")
READY = "ready"
LONGEST, WIDEST = 1800, 150
"""Characters of a step and of a line that are printed: the end of all output has to hold the tables of all steps."""


def serve() -> int:
    """A worker: imports everything, and runs the steps that it is told, each with its output in a file."""
    control = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from segzoo.cli.main import main as segzoo
    from segzoo.runtime.memory import keep_freed_memory
    from segzoo.runtime.quiet import be_quiet

    be_quiet()
    keep_freed_memory()
    for module in ("segzoo.bench.measure", "segzoo.bench.runner", "segmentation_models_pytorch", "matplotlib.figure"):
        importlib.import_module(module)
    for module in ("adaptation", "loading", "phases", "reductions"):
        importlib.import_module(f"tests.benchmarks.{module}")
    control.write(READY + "\n")
    for line in sys.stdin:
        module, arguments, log = json.loads(line)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(file, number)
        os.close(file)
        try:
            if module == "segzoo":
                status = segzoo(arguments)
            else:
                sys.argv = [module, *arguments]
                importlib.import_module(f"tests.benchmarks.{module}").main()
                status = 0
        except BaseException as error:  # all else would end the worker without a word
            print(f"{type(error).__name__}: {error}")
            status = 1
        sys.stdout.flush()
        control.write(f"{status}\n")
    return 0


class Worker:
    """A process that waits for steps."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.gpu_day", "--serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.ready = False
        self._selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self._selector.register(self.process.stdout, selectors.EVENT_READ)

    def answer(self, seconds: float) -> str | None:
        """The next line that it says; "" if it has died, None if it says nothing in time."""
        if not self._selector.select(max(seconds, 0.0)):
            return None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def await_ready(self, seconds: float) -> bool:
        """Whether it has imported everything within some seconds."""
        if not self.ready:
            self.ready = self.answer(seconds) == READY
        return self.ready

    def run(self, step: Step, log: Path, seconds: float) -> str:
        """How the step ended, in words; "" if well."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([step.module, step.arguments, str(log)]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return "its process died"
        status = self.answer(seconds)
        if status is None:
            return f"took more than {seconds:.0f} s"
        return "" if status == "0" else f"failed ({status or 'its process died'})"

    def end(self) -> None:
        """It, and the processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Workers:
    """A worker, and one that waits in case that the first one is lost."""

    def __init__(self) -> None:
        self.waiting = [Worker(), Worker()]

    def get(self, fresh: bool) -> Worker:
        """The one that has run the steps before, or one that has run none."""
        if fresh:
            self.drop()
        return self.waiting[0]

    def drop(self) -> None:
        """Ends the first one; another one starts to import."""
        self.waiting.pop(0).end()
        self.waiting.append(Worker())

    def end(self) -> None:
        """All of them."""
        for worker in self.waiting:
            worker.end()


class Program:
    """A program that runs by itself, with its output in a file."""

    def __init__(self, step: Step, log: Path) -> None:
        self.step, self._began = step, time.monotonic()
        with log.open("w") as file:
            self.process = subprocess.Popen(step.arguments, stdout=file, stderr=file, start_new_session=True)

    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Until its limit."""
        return self.step.limit - self.seconds()

    def result(self, seconds: float) -> str:
        """How it ended within some seconds, in words; "" if well."""
        try:
            status = self.process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            return f"took more than {self.seconds():.0f} s"
        return f"failed ({status})" if status else ""

    def end(self) -> None:
        """It, and the processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Day:
    """A run of the steps.

    Attributes:
        out: the folder of the results.
        ends: when it has to be over, on the monotonic clock.
        archive: what the folder is packed into after each step; None: nothing.
        seconds: of every step, and why it failed.
    """

    out: Path
    ends: float
    archive: Path | None
    seconds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, steps: Sequence[Step]) -> int:
        """Runs what there is time for; returns how many steps failed or were left out."""
        began = time.monotonic()
        workers, beside = Workers(), list[tuple[Step, Program]]()
        try:
            workers.waiting[0].await_ready(self._left())
            print(f"imported in {time.monotonic() - began:.0f} s", flush=True)
            for step in steps:
                if step.beside and self._left() >= step.least:
                    beside.append((step, Program(step, self._log(step))))
                    continue
                start = time.monotonic()
                failure = self._step(workers, step)
                self._done(step, time.monotonic() - start, failure)
                for pair in [pair for pair in beside if pair[1].process.poll() is not None]:
                    beside.remove(pair)
                    self._done(pair[0], pair[1].seconds(), pair[1].result(0))
            for step, program in beside:
                failure = program.result(min(program.left(), self._left()))
                self._done(step, program.seconds(), failure)
        finally:
            workers.end()
            for _, program in beside:
                program.end()
        bad = sum(bool(found["failure"]) for found in self.seconds.values())
        print(f"\n{len(steps) - bad} of {len(steps)} steps in {time.monotonic() - began:.0f} s: ", end="")
        print(", ".join(f"{name} {found['seconds']:.0f}" for name, found in self.seconds.items()), flush=True)
        return bad

    def _step(self, workers: Workers, step: Step) -> str:
        if self._left() < step.least:
            return f"left out: it takes {step.least} s, {max(self._left(), 0):.0f} s are left"
        if not step.module:
            program = Program(step, self._log(step))
            try:
                return program.result(min(step.limit, self._left()))
            finally:
                program.end()
        worker = workers.get(step.fresh)
        if not worker.await_ready(self._left()):
            workers.drop()
            return "its process did not start"
        failure = worker.run(step, self._log(step), min(step.limit, self._left()))
        if failure:
            workers.drop()
        return failure

    def _left(self) -> float:
        return self.ends - time.monotonic()

    def _log(self, step: Step) -> Path:
        return self.out / f"{step.name}.txt"

    def _done(self, step: Step, seconds: float, failure: str) -> None:
        """Keeps how a step ended, prints its table and packs all there is."""
        self.seconds[step.name] = {"seconds": round(seconds, 1), "failure": failure}
        (self.out / "seconds.json").write_text(json.dumps(self.seconds, indent=2) + "\n")
        print(f"\n== {step.name}: {seconds:.0f} s{'; ' + failure if failure else ''}", flush=True)
        log = self._log(step)
        if log.is_file():
            lines = [
                line.rstrip()[:WIDEST] for line in log.read_text(errors="replace").splitlines() if not NOISE.match(line)
            ]
            print("\n".join(lines)[-LONGEST:], flush=True)
        if self.archive is None:
            return
        part = self.archive.with_name(self.archive.name + ".part")
        with tarfile.open(part, "w:gz") as archive:
            archive.add(self.out, arcname="gpu_day")
        part.replace(self.archive)


def main() -> int:
    """Runs the steps, and prints a table of each when it ends."""
    if sys.argv[1:] == ["--serve"]:
        return serve()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=220)
    parser.add_argument("--archive", type=Path, help="a .tar.gz of OUT")
    parser.add_argument("--tiny", action="store_true", help="small networks and images on the CPU")
    parser.add_argument("--only", help="names of steps, or their beginnings, separated by commas")
    args = parser.parse_args()
    began = time.monotonic()
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    with TemporaryDirectory() as scratch:
        steps = (tiny if args.tiny else full)(args.out.resolve(), Path(scratch))
        if args.only:
            steps = [step for step in steps if step.name.startswith(tuple(args.only.split(",")))]
        bad = Day(args.out.resolve(), began + args.seconds, args.archive).run(steps)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
