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
    from segzoo.cli.run import Run

PURPOSE = {
    "fit": "Train a method, test it with its last weights, and write a run folder.",
    "validate": "Score a checkpoint on the target's val split.",
    "test": "Score a checkpoint on the target's test split.",
}
ARGUMENTS = """\
  --method NAME         the method to train, see below
  --method.OPTION V     an option of the method; `--method NAME --method.help` lists them and the next four
  --network.OPTION V    e.g. --network.encoder resnet50, --network.encoder_weights imagenet
  --optimizer.OPTION V  e.g. --optimizer.lr 6e-5, --optimizer.name sgd
  --loss.OPTION V       e.g. --loss.overlap lovasz, --loss.class_balance 0.5
  --speed.OPTION V      e.g. --speed.compile true, --speed.channels_last true
  --data NAME|FILE      a packaged data set or your own YAML (default: minicity, embedded)
  --data.OPTION V       e.g. --data.target_labels 16, --data.root /data, --data.size 192 256
  --protocol NAME       a published way to score images: {protocols}
  --protocol.OPTION V   e.g. --protocol.input native --protocol.window 512 512, for large images; --protocol.flips true
  --trainer.OPTION V    e.g. --trainer.max_steps 400, --trainer.devices 2, --trainer.precision bf16-mixed
  --config FILE         a YAML with any of these options, such as a run's config.yaml; may be repeated
{recipe}  --seed_everything N   seed of weights, order and augmentation (default: 0)
  --ckpt_path PATH      {checkpoint}
  --runs DIR            folder of all runs (default: runs)
  --name NAME           name of the run: its folder is RUNS/<method>/<data>/NAME-s<seed> (default: default)
  --logger LIST         any of csv,tensorboard,wandb (default: csv; wandb is offline without a login)
{out}  --print_config        print the whole configuration as YAML and stop
  --help                print this; with --method NAME, print every option"""
CHECKPOINT = {
    "fit": "continue this run in its folder; `last` is the newest run with this method, data, name and seed",
    "validate": "the checkpoint to score, with its method and settings; flags win; `last` as for fit (needs --method)",
}
CHECKPOINT["test"] = CHECKPOINT["validate"]
RECIPE = """\
  --recipe NAME         a packaged setting of a published paper
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
  segzoo test --ckpt_path last.ckpt --data my_data.yaml --data.root /data
  segzoo test --ckpt_path last.ckpt --protocol cityscapes-val
  segzoo test --ckpt_path last.ckpt --protocol.input native --protocol.window 512 512 --protocol.scales 0.75 1 1.25""",
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
        protocols=", ".join(config_names("protocol")),
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
    if command == "fit":  # a test has no steps that gain by it
        keep_freed_memory()
    request = StopRequest()
    try:
        with request.listening(), Watch(request) as watch, _observed(watch):
            run = _create(command, invocation, request, watch)
            try:
                return _fit(run) if command == "fit" else _score(run)
            except Exception as error:
                # Loader processes that die one after the other interrupt the hooks that would have noted the first.
                if hasattr(signal, "SIGCHLD") and in_main_thread():
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run.manifest.note(error)
                raise
    except Stopped as stop:
        if speaks():
            print("interrupted", file=sys.stderr)
        return stop.status
    finally:
        os.environ.pop(VARIABLE, None)
        release_all()


def _create(command: str, invocation: Invocation, request: StopRequest, watch: Watch) -> "Run":
    from segzoo.cli.run import Run

    run = Run(command, invocation, request)
    watch.note = run.manifest.close
    return run


def _observed(watch: Watch) -> AbstractContextManager[None]:
    """The processes that Lightning starts are the watch's; those of a later trainer are Lightning's again."""
    from segzoo.compat.training import observed_processes

    return observed_processes(watch.follow)


def read(path: Path) -> dict[str, Any]:
    """See `segzoo.cli.checkpoint.read_checkpoint`, which imports torch."""
    from segzoo.cli.checkpoint import read_checkpoint

    return read_checkpoint(path)


def _fit(run: "Run") -> int:
    try:
        run.trainer.fit(run.method, datamodule=run.data, ckpt_path=_checkpoint(run), weights_only=True)
    except SystemExit:
        if not run.trainer.interrupted:  # Lightning turns a KeyboardInterrupt into an exit
            raise
        return _interrupted(run, signal.SIGINT)
    except Stopped as stop:
        return _interrupted(run, stop.signum)
    except Exception:
        if run.trainer.global_step == 0:
            run.discard_empty_run()
        raise
    if not run.manifest.trained and run.trainer.is_global_zero:
        print(f"nothing to train: the checkpoint is of step {run.trainer.global_step} of {run.trainer.max_steps}")
    if not run.labels_images:
        if run.trainer.is_global_zero:
            print(f"'{run.method.slug}' labels no images: nothing to score")
    elif run.test_has_labels:
        try:
            run.trainer.test(run.method, datamodule=run.data, verbose=False)
        except Stopped as stop:
            return _interrupted(run, stop.signum)
    elif run.trainer.is_global_zero:
        print(f"{run.data.lacking('test')}: nothing to score")
    if run.trainer.is_global_zero:
        print(f"run folder: {run.folder}")
    return 0


def _score(run: "Run") -> int:
    from segzoo.runtime.memory import give_freed_memory_back

    if not run.labels_images:
        raise ConfigError(f"the method '{run.method.slug}' labels no images: there is nothing to {run.command}")
    if not run.data.views.plain:
        give_freed_memory_back()
    score = run.trainer.validate if run.command == "validate" else run.trainer.test
    share = "limit_val_batches" if run.command == "validate" else "limit_test_batches"
    try:
        if getattr(run.trainer, share) == 0:
            raise ConfigError(f"--trainer.{share} 0 leaves nothing to {run.command}")
        score(run.method, datamodule=run.data, ckpt_path=_checkpoint(run), verbose=False, weights_only=True)
    except (Exception, Stopped):
        run.discard_empty_run()
        raise
    if run.trainer.is_global_zero:
        print(f"scores: {run.folder}")
    return 0


def _checkpoint(run: "Run") -> str | None:
    return str(run.invocation.checkpoint) if run.invocation.checkpoint else None


def _interrupted(run: "Run", signum: int) -> int:
    last = run.folder / "checkpoints" / "last.ckpt"
    if run.trainer.global_step == 0:
        run.discard_empty_run()
    if run.trainer.is_global_zero:
        file = methods()[run.invocation.method].file
        own = f"--method {shlex.quote(str(file))} " if file else ""
        then = f"continue with: segzoo fit {own}--ckpt_path {shlex.quote(str(last))}"
        if not last.is_file():
            then = "nothing to continue from"
        print(f"interrupted{'' if last.is_file() else ' before the first checkpoint'}; {then}", file=sys.stderr)
    return 128 + signum
