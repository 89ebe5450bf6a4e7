"""LightningCLI for one method, with a run folder and messages that name options as they are typed."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, cast

import lightning as L
from jsonargparse import Namespace, set_dumper
from jsonargparse.typing import PositiveInt
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import segzoo
from segzoo.callbacks import (
    FinalReport,
    HistoryFigures,
    ImagePanels,
    Interruption,
    LastCheckpoint,
    Opening,
    RunManifest,
    SameData,
    StepProgress,
)
from segzoo.checks import check_range
from segzoo.cli.checkpoint import read_checkpoint
from segzoo.cli.expand import Invocation, Layer
from segzoo.cli.explain_options import explain_options, explain_value, spell
from segzoo.cli.launch import Place, find_place
from segzoo.cli.lock import FolderLock
from segzoo.cli.logger_names import NAMES, parse_names
from segzoo.cli.loggers import create_loggers
from segzoo.cli.null_values import forbidden_nulls
from segzoo.cli.resume import compare_runs
from segzoo.cli.rundir import claim, create, discard_unused, missing_parents, run_folder
from segzoo.cli.trainer_options import check_test_share, prepare_trainer_options
from segzoo.configs import config_names
from segzoo.data import DomainDataModule
from segzoo.data.domains import Split
from segzoo.errors import ConfigError
from segzoo.methods.checkpoints import check_classes
from segzoo.methods.length import training_steps
from segzoo.methods.registry import load_method
from segzoo.methods.segmentation import SegmentationMethod
from segzoo.stopping import StopRequest
from segzoo.yaml_files import dump_yaml, parse_yaml

# Set by the command itself: folder, loggers, sharding (by the DataModule). Checkpoints are always written.
OWN_TRAINER_OPTIONS = {
    "logger",
    "default_root_dir",
    "use_distributed_sampler",
    "enable_checkpointing",
    "barebones",
    "model_registry",
    # Nothing is predicted with a trainer, and loaders are made once, as there are no epochs.
    "limit_predict_batches",
    "reload_dataloaders_every_n_epochs",
}
SECTIONS = ("model", "data", "trainer")
LONGEST_NAME = 200
"""Bytes of a run's name: file systems take 255, and the seed and a number follow."""
_SCORED: dict[str, Split] = {"validate": "val", "test": "test"}
# Resolved before parsing (`segzoo.cli.expand`), so the parser does not know them.
EXPANDED = (
    "--data",
    *(["--recipe"] if config_names("recipe") else []),
    "--ckpt_path",
    "--config",
    "--debug",
    "--method.help",
)


class Parser(LightningArgumentParser):
    """Shows ``--method.x`` where LightningCLI needs ``--model.x``."""

    def resolved_help(self, config: Namespace, section: str = "") -> str:
        """All options with the values they would have now, as the user types them.

        Args:
            config: what the command line amounts to.
            section: one section only, e.g. ``model``.
        """
        for group in self._action_groups:
            shown = False
            for action in group._group_actions:
                if action.dest in SECTIONS or not action.dest.startswith(section) or "label_space" in action.dest:
                    action.help = argparse.SUPPRESS
                    continue
                shown = True
                action.required = False
                if action.dest in config:
                    action.default = config[action.dest]
            if not shown or (section and group.title == "Linked arguments"):
                group.title = group.description = None
        self.usage = f"{self.prog} [OPTIONS]"
        return spell(self.format_help())

    def option_names(self) -> list[str]:
        """All options as the user types them."""
        return [spell(name) for action in self._actions for name in action.option_strings if name.startswith("--")]


class SegzooCLI(LightningCLI):
    """Builds method, data and trainer of one invocation, without running anything.

    Args:
        command: ``fit``, ``validate`` or ``test``.
        invocation: the expanded command line.
        request: what signals ask for; they are handled by whoever gives it.

    Attributes:
        run_dir: where this invocation writes.
        run_config: YAML of everything that was decided; it can be fed back with ``--config``.
        test_has_labels: whether a test after ``fit`` is possible.
        changed_options: old and new value of what a continued run changes.
    """

    def __init__(self, command: str, invocation: Invocation, request: StopRequest | None = None) -> None:
        self.command, self.invocation, self.request = command, invocation, request or StopRequest()
        set_dumper("yaml", dump_yaml)  # of the configuration that is written
        self.run_dir = Path()
        self.run_config = ""
        self.test_has_labels = True
        self._claimed, self._made = False, list[Path]()
        self.place = Place()
        self.changed_options: dict[str, tuple[Any, Any]] = {}
        self._said: list[str] = []
        super().__init__(
            load_method(invocation.method),
            DomainDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "prog": f"segzoo {command} --method {invocation.method}",
                "description": f"See `segzoo {command} --help` for --data NAME, --config FILE and examples.",
                "exit_on_error": False,
                "allow_abbrev": False,  # a typo must not count as an abbreviation
                "dump_header": [f"segzoo {segzoo.__version__}"],
            },
            run=False,
            auto_configure_optimizers=False,
            # Ours reads the whole configuration from the checkpoint, and lets flags win.
            load_from_checkpoint_support=False,
        )

    # Parsing

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of the command itself."""
        parser.add_argument(
            "--method", type=str, default=self.invocation.method, help="what to train: `segzoo methods`"
        )
        parser.add_argument("--seed_everything", type=int, default=0, help="seed of weights, order and augmentation")
        parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")
        parser.add_argument(
            "--name", type=str, default="default", help="RUNS/<method>/<data>/NAME-s<seed> is the run folder"
        )
        parser.add_argument("--logger", type=str, default="csv", help=f"any of {','.join(NAMES)}; csv is always on")
        parser.add_argument(
            "--checkpoint_steps",
            type=PositiveInt,
            default=200,
            help="steps between two checkpoints; the last step has one",
        )
        parser.add_argument(
            "--keep_steps",
            type=PositiveInt | None,
            default=None,
            help="steps between two checkpoints that stay (`segzoo folds`); null: only the last one",
        )
        parser.add_argument(
            "--panel_steps",
            type=PositiveInt | None,
            default=None,
            help="steps between two pictures; null: at steps 10, 20, 50, 100, 200, 500, ..., however the training ends",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of the method, the data and the trainer."""
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(DomainDataModule, "data")
        parser.add_class_arguments(
            L.Trainer,
            "trainer",
            skip={*OWN_TRAINER_OPTIONS},
            instantiate=False,
            fail_untyped=False,
            sub_configs=True,
        )
        parser.link_arguments("data.label_space", "model.label_space", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses layers, then flags.

        Raises:
            ConfigError: an unknown option, or a value of the wrong type or outside its range.
        """
        assert isinstance(parser, Parser)
        # The help of a class (--data.source.help NAME) reads all that follows it: it comes last.
        flags = sorted(self.invocation.flags, key=lambda flag: flag.partition("=")[0].endswith(".help"))
        layers, flags = self.invocation.layers, [f"--method={self.invocation.method}", *flags]
        try:
            self.config = parser.parse_args([*(f"--config={_text(layer)}" for layer in layers), *flags])
        except argparse.ArgumentError as error:
            options = [*parser.option_names(), *EXPANDED, *([] if self.command == "fit" else ["--out"])]
            raise ConfigError(explain_options(str(error), options, layers, flags)) from error
        for key, expected in forbidden_nulls(parser, self.config):
            raise ConfigError(explain_value(key, expected, "null", layers, flags))
        if "--print_config" in self.invocation.switches:
            print(parser.dump(self.config, skip_unset=False), end="")
            raise SystemExit(0)
        if self.invocation.switches & {"--help", "--method.help"}:
            section = "" if "--help" in self.invocation.switches else "model."
            print(parser.resolved_help(self.config, section), end="")
            raise SystemExit(0)
        parse_names(self.config.logger)
        for option in ("name", "data.name"):
            name = self.config[option]
            if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
                raise ConfigError(
                    f"--{option} {name[:60]!r}: expected a folder's name, without '/' or line breaks and of up to "
                    f"{LONGEST_NAME} bytes; --runs DIR says where it is"
                )
        if not self.config.runs:  # most often an unset variable of the shell
            raise ConfigError("--runs is empty: expected a folder, e.g. `--runs .` for this one")
        check_range("--seed_everything", self.config.seed_everything, 0, 2**32 - 1)
        self.run_config = str(parser.dump(self.config, skip_unset=False))
        if self.invocation.before:
            then = parser.parse_args([*(f"--config={_text(layer)}" for layer in self.invocation.before), flags[0]])
            old, now = (parse_yaml(parser.dump(some, skip_unset=False), "") for some in (then, self.config))
            self.changed_options, self._said = compare_runs(old, now, self.invocation, flags)
        if self.invocation.checkpoint is not None:
            # The weights come with the checkpoint; the files that they started from may not be on this machine.
            for option in load_method(self.invocation.method).STARTING_POINTS:
                if f"model.{option}" in self.config:
                    self.config[f"model.{option}"] = None

    # Building

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer with the run's loggers and callbacks.

        Raises:
            ConfigError: a combination of trainer options that Lightning refuses, or more processes than cores.
            DataError: the target's test split cannot be read, or labels cannot be right; better said now than after the
                training.
        """
        try:
            self.place = find_place(self.config_init["trainer"].as_dict())
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            raise _refusal(error) from error
        if (checkpoint := self.invocation.checkpoint) is not None:  # before its classes are looked for in the labels
            check_classes(read_checkpoint(checkpoint), self.datamodule.label_space, f"the checkpoint {checkpoint}")
        if self.command == "fit":
            test = self.datamodule.scored("test")
            self.test_has_labels = test is not None
            if test is not None:
                test.check()
            elif self.model.segments and not self.datamodule.target.has_split("test", self.datamodule.root):
                self._warn(f"{self.datamodule.lacking('test')}: nothing will be scored")
        self._look_at_labels()
        self.run_dir = self.place.share(self._locked_folder)
        try:
            trainer = self._create_trainer(kwargs)
            _check_processes(trainer)
            if self.command == "fit" and self.test_has_labels:
                check_test_share(trainer, len(test), self.datamodule.eval_batch_size)
        except Exception as error:
            self.discard_empty_run()
            if isinstance(error, ValueError | TypeError | ImportError | MisconfigurationException):
                raise _refusal(error) from error
            raise
        return trainer

    def _look_at_labels(self) -> None:
        """What the DataModule does too, at the start of a training: here it is before there are processes and a run folder.

        Processes that a launcher started all look, as none would hear of the other's error.
        """
        fitting, validated = self.command == "fit", self.config.trainer.limit_val_batches != 0
        splits: list[Split] = (["val", "test"] if validated else ["test"]) if fitting else [_SCORED[self.command]]
        streams = self.model.streams if fitting else {}
        for warning in self.datamodule.check_labels(streams, splits if self.model.segments else []):
            self._warn(warning)

    def _warn(self, text: str) -> None:
        if self.place.rank == 0:
            print(f"warning: {text}", file=sys.stderr)

    def _create_trainer(self, kwargs: dict[str, Any]) -> L.Trainer:
        config = {**self.config_init["trainer"].as_dict(), **kwargs}
        for option in ("val_check_interval", "accumulate_grad_batches"):
            if isinstance(value := config.get(option), int | float) and not value > 0:
                raise ConfigError(f"--trainer.{option} {value}: expected above 0")
        own = config.pop("callbacks", None) or []
        own = own if isinstance(own, list) else [own]
        prepare_trainer_options(config, own, self.run_dir)
        config["callbacks"] = [*own, *self._callbacks(config)]
        if self.place.plugins:
            plugins = config.get("plugins") or []
            config["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), *self.place.plugins]
        config["logger"] = create_loggers(
            self.config.logger, self.run_dir, parse_yaml(self.run_config, "the configuration")
        )
        trainer: Any = L.Trainer(default_root_dir=str(self.run_dir), use_distributed_sampler=False, **config)
        if steps := training_steps(trainer):
            # A run shorter than the interval would log nothing: it logs its last step.
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)
        return cast(L.Trainer, trainer)

    def after_instantiate_classes(self) -> None:
        """Gives the method the configuration that its checkpoints carry, and says what a continued run changes."""
        assert isinstance(self.model, SegmentationMethod)
        self.model.run_config = self.run_config
        for line in self._said if self.trainer.is_global_zero else []:
            print(line)

    def discard_empty_run(self) -> None:
        """Removes the folder again when nothing came of the run."""
        if self.place.rank == 0 and self._claimed:
            discard_unused(self.run_dir, self._made)

    def _locked_folder(self) -> Path:
        folder = self._folder()
        FolderLock(folder)  # until this command ends, however it does
        return folder

    def _folder(self) -> Path:
        config, checkpoint = self.config, self.invocation.checkpoint
        if self.invocation.out is not None:
            return create(self.invocation.out)
        if self.command == "fit":
            if checkpoint is not None and checkpoint.resolve().parent.name == "checkpoints":
                return run_folder(checkpoint)  # the same run goes on
            parent = Path(config.runs) / config.method / config.data.name
            name = f"{config.name}-s{config.seed_everything}"
        else:
            # Beside the fit's own scores, never over them.
            assert checkpoint is not None
            parent, name = run_folder(checkpoint), f"{self.command}-{config.data.name}"
        self._claimed, self._made = True, missing_parents(parent)
        return claim(parent, name)

    def _callbacks(self, trainer: dict[str, Any]) -> list[L.Callback]:
        folder, config = self.run_dir, self.config
        self.manifest = RunManifest(folder, self.changed_options)
        progress: list[L.Callback] = [] if trainer.get("enable_progress_bar") is False else [StepProgress()]
        return [
            Opening(folder),  # before the bar, which its lines would break
            *progress,
            self.manifest,
            SameData(),
            ImagePanels(folder, every_n_steps=config.panel_steps),
            HistoryFigures(folder),
            FinalReport(folder),
            Interruption(self.request),
            LastCheckpoint(folder, config.checkpoint_steps, config.keep_steps),
        ]


def _refusal(error: Exception) -> ConfigError:
    return ConfigError(f"--trainer: {' '.join(str(error).split())}")


def _check_processes(trainer: L.Trainer) -> None:
    """Refuses more CPU processes than cores before they start; Lightning itself refuses absent GPUs."""
    processes, cores = trainer.num_devices, os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and processes > cores:
        raise ConfigError(
            f"--trainer.devices {processes}: {processes} processes, but this machine has {cores} "
            f"core{'s' if cores > 1 else ''}; use at most one process per core"
        )


def _text(layer: Layer) -> str:
    # An empty layer must still look like a configuration and not like a file name.
    return dump_yaml(layer.content or {"trainer": {}})
