"""``segzoo fit``, ``validate`` and ``test``."""

import os
import shlex
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzoo.cli.errors import speaks, translate
from segzoo.cli.expand import Invocation, expand
from segzoo.cli.methods import table
from segzoo.cli.rundir import VARIABLE
from segzoo.configs import config_names
from segzoo.errors import ConfigError
from segzoo.methods.registry import methods
from segzoo.runtime.lock import release_all
from segzoo.runtime.watch import Watch
from segzoo.stopping import Stopped, StopRequest, in_main_thread

if TYPE_CHECKING:
    from segzoo.cli.lightning import SegzooCLI

PURPOSE = {
    "fit": "Train a method, test it with its last weights, and write a run folder.",
    "validate": "Score a checkpoint on the target's val split.",
    "test": "Score a checkpoint on the target's test split.",
}
ARGUMENTS = """\
  --method NAME         what to train, see below
  --method.OPTION V     an option of the method; `--method NAME --method.help` lists them
  --data NAME|FILE      a packaged data set or your own YAML (default: minicity, embedded)
  --data.OPTION V       e.g. --data.target_labels 16, --data.root /data, --data.size 192 256
  --trainer.OPTION V    e.g. --trainer.max_steps 400, --trainer.devices 2, --trainer.precision bf16-mixed
  --config FILE         a YAML with any of these, such as a run's config.yaml; may be repeated
{recipe}  --seed_everything N   seed of weights, order and augmentation (default: 0)
  --ckpt_path PATH      {checkpoint}
  --runs DIR            folder of all runs (default: runs)
  --name NAME           the run folder is RUNS/<method>/<data>/NAME-s<seed>, with -2, -3, ... when it exists (default: default)
  --logger LIST         any of csv,tensorboard,wandb (default: csv; wandb is offline without a login)
{out}  --print_config        print the whole configuration as YAML and stop
  --help                this; with --method NAME every option there is"""
CHECKPOINT = {
    "fit": "continue this run in its folder; `last` is the newest one of that method, data, name and seed",
    "validate": "the model; method and settings come with it, flags win; `last` as for fit (needs --method)",
}
CHECKPOINT["test"] = CHECKPOINT["validate"]
RECIPE = """\
  --recipe NAME         a packaged setting of a publication
"""
OUT = """\
  --out DIR             where the scores go (default: <command>-<data> in the checkpoint's run folder)
"""
EXAMPLES = {
    "fit": """\
  segzoo fit --method metapix
  segzoo fit --method joint --data carla_to_camvid --data.root /data --data.target_labels 16
  segzoo fit --method metapix --ckpt_path last --trainer.max_steps 800
  segzoo fit --config runs/metapix/minicity/default-s0/config.yaml --seed_everything 1""",
    "validate": "  segzoo validate --ckpt_path runs/metapix/minicity/default-s0/checkpoints/last.ckpt",
    "test": """\
  segzoo test --ckpt_path runs/metapix/minicity/default-s0/checkpoints/last.ckpt
  segzoo test --method metapix --ckpt_path last --out scores
  segzoo test --ckpt_path last.ckpt --data my_data.yaml --data.root /data""",
}


def fit(argv: list[str]) -> int:
    """Trains, then tests with the last weights."""
    return _run("fit", argv)


def validate(argv: list[str]) -> int:
    """Scores a checkpoint on the val split."""
    return _run("validate", argv)


def test(argv: list[str]) -> int:
    """Scores a checkpoint on the test split."""
    return _run("test", argv)


def usage(command: str) -> str:
    """The help of a command when no method is named; needs no torch."""
    arguments = ARGUMENTS.format(
        checkpoint=CHECKPOINT[command],
        out="" if command == "fit" else OUT,
        recipe=RECIPE if config_names("recipe") else "",
    )
    return (
        f"usage: segzoo {command} [OPTIONS]\n\n{PURPOSE[command]}\n\noptions:\n{arguments}\n\n"
        f"methods:\n{table(list(methods().values()))}\n\nexamples:\n{EXAMPLES[command]}"
    )


def _run(command: str, argv: list[str]) -> int:
    invocation = expand(command, argv, read)
    if invocation is None:
        print(usage(command))
        return 0
    from segzoo.runtime.memory import keep_freed_memory
    from segzoo.runtime.quiet import be_quiet

    be_quiet(translate)
    keep_freed_memory()
    request = StopRequest()
    try:
        with request.listening(), Watch(request) as watch, _observed(watch):
            cli = _create(command, invocation, request, watch)
            try:
                return _fit(cli) if command == "fit" else _score(cli)
            except Exception as error:
                # Loader processes that die one after the other interrupt the hooks that would have noted the first.
                if hasattr(signal, "SIGCHLD") and in_main_thread():
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                cli.manifest.note(error)
                raise
    except Stopped as stop:
        if speaks():
            print("interrupted", file=sys.stderr)
        return stop.status
    finally:
        os.environ.pop(VARIABLE, None)
        release_all()


def _create(command: str, invocation: Invocation, request: StopRequest, watch: Watch) -> "SegzooCLI":
    from segzoo.cli.lightning import SegzooCLI

    cli = SegzooCLI(command, invocation, request)
    watch.note = cli.manifest.close
    return cli


def _observed(watch: Watch) -> AbstractContextManager[None]:
    """The processes that Lightning starts are the watch's; those of a later trainer are Lightning's again."""
    from segzoo.compat.training import observed_processes

    return observed_processes(watch.follow)


def read(path: Path) -> dict[str, Any]:
    """See `segzoo.cli.checkpoint.read_checkpoint`, which imports torch."""
    from segzoo.cli.checkpoint import read_checkpoint

    return read_checkpoint(path)


def _fit(cli: "SegzooCLI") -> int:
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=_checkpoint(cli), weights_only=True)
    except SystemExit:
        if not cli.trainer.interrupted:  # Lightning turns a KeyboardInterrupt into an exit
            raise
        return _interrupted(cli, signal.SIGINT)
    except Stopped as stop:
        return _interrupted(cli, stop.signum)
    except Exception:
        if cli.trainer.global_step == 0:
            cli.discard_empty_run()
        raise
    if not cli.manifest.trained and cli.trainer.is_global_zero:
        print(f"nothing to train: the checkpoint is of step {cli.trainer.global_step} of {cli.trainer.max_steps}")
    if not cli.model.segments:
        if cli.trainer.is_global_zero:
            print(f"'{cli.model.slug}' labels no images: nothing to score")
    elif cli.test_has_labels:
        try:
            cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
        except Stopped as stop:
            return _interrupted(cli, stop.signum)
    elif cli.trainer.is_global_zero:
        print(f"{cli.datamodule.lacking('test')}: nothing to score")
    if cli.trainer.is_global_zero:
        print(f"run folder: {cli.run_dir}")
    return 0


def _score(cli: "SegzooCLI") -> int:
    if not cli.model.segments:
        raise ConfigError(f"the method '{cli.model.slug}' labels no images: there is nothing to {cli.command}")
    run = cli.trainer.validate if cli.command == "validate" else cli.trainer.test
    share = "limit_val_batches" if cli.command == "validate" else "limit_test_batches"
    try:
        if getattr(cli.trainer, share) == 0:
            raise ConfigError(f"--trainer.{share} 0 leaves nothing to {cli.command}")
        run(cli.model, datamodule=cli.datamodule, ckpt_path=_checkpoint(cli), verbose=False, weights_only=True)
    except (Exception, Stopped):
        cli.discard_empty_run()
        raise
    if cli.trainer.is_global_zero:
        print(f"scores: {cli.run_dir}")
    return 0


def _checkpoint(cli: "SegzooCLI") -> str | None:
    return str(cli.invocation.checkpoint) if cli.invocation.checkpoint else None


def _interrupted(cli: "SegzooCLI", signum: int) -> int:
    last = cli.run_dir / "checkpoints" / "last.ckpt"
    if cli.trainer.global_step == 0:
        cli.discard_empty_run()
    if cli.trainer.is_global_zero:
        then = f"continue with: segzoo fit --ckpt_path {shlex.quote(str(last))}"
        if not last.is_file():
            then = "nothing to continue from"
        print(f"interrupted{'' if last.is_file() else ' before the first checkpoint'}; {then}", file=sys.stderr)
    return 128 + signum
