"""LightningCLI with the options of one method, its own run folder, and messages that name options as they are typed."""

import argparse
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import segzoo
from segzoo.cli.expand import Invocation, Layer
from segzoo.cli.explain_options import explain_options, spell
from segzoo.cli.loggers import NAMES, create_loggers, parse_names
from segzoo.cli.rundir import claim, create, discard_unused, run_folder
from segzoo.data import DomainDataModule
from segzoo.errors import ConfigError
from segzoo.methods.base import SegmentationMethod
from segzoo.methods.registry import load_method

# Set by the command itself: the run folder, the loggers option, sharding by the DataModule; checkpoints are always written.
OWN_TRAINER_OPTIONS = {
    "logger", "default_root_dir", "use_distributed_sampler", "enable_checkpointing", "barebones", "model_registry"
}  # fmt: skip
# Resolved before parsing (`segzoo.cli.expand`), so the parser does not know them.
EXPANDED = ("--data", "--recipe", "--ckpt_path", "--config", "--debug", "--method.help")


class Parser(LightningArgumentParser):
    """Shows ``--method.x`` where LightningCLI needs ``--model.x``."""

    def format_help(self) -> str:
        """The help text, in the user's spelling."""
        return spell(super().format_help())

    def section_help(self, key: str) -> str:
        """The help of one section, e.g. ``model``."""
        formatter = self._get_formatter()
        for group in self._action_groups:
            actions = [action for action in group._group_actions if action.dest.partition(".")[0] == key]
            if actions:
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments([action for action in actions if action.dest != key])
                formatter.end_section()
        return spell(formatter.format_help())

    def option_names(self) -> list[str]:
        """All options as the user types them."""
        return [spell(name) for action in self._actions for name in action.option_strings if name.startswith("--")]


class SegzooCLI(LightningCLI):
    """Builds method, data and trainer of one invocation, without running anything.

    Args:
        command: ``fit``, ``validate`` or ``test``.
        invocation: the expanded command line.

    Attributes:
        run_dir: where this invocation writes.
        run_config: YAML of everything that was decided; it can be fed back with ``--config``.
        test_has_labels: whether a test after ``fit`` is possible.
    """

    def __init__(self, command: str, invocation: Invocation) -> None:
        self.command, self.invocation = command, invocation
        self.run_dir = Path()
        self.run_config = ""
        self.test_has_labels = True
        self._resumes = False
        super().__init__(
            load_method(invocation.method),
            DomainDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "prog": f"segzoo {command} --method {invocation.method}",
                "description": f"Options of `segzoo {command} --method {invocation.method}`.",
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
        parser.add_argument("--method", type=str, default=self.invocation.method, help="what to train: `segzoo methods`")
        parser.add_argument("--seed_everything", type=int, default=0, help="seed of weights, order and augmentation")
        parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")
        parser.add_argument("--name", type=str, default="default", help="RUNS/<method>/<data>/NAME-s<seed> is the run folder")
        parser.add_argument("--logger", type=str, default="csv", help=f"any of {','.join(NAMES)}; csv is always on")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of the method, the data and the trainer."""
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(DomainDataModule, "data")
        parser.add_class_arguments(
            L.Trainer, "trainer", skip=set(OWN_TRAINER_OPTIONS), instantiate=False, fail_untyped=False, sub_configs=True
        )
        parser.link_arguments("data.label_space", "model.label_space", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses layers, then flags.

        Raises:
            ConfigError: an unknown option or a value of the wrong type.
        """
        assert isinstance(parser, Parser)
        for switch, text in (("--method.help", lambda: parser.section_help("model")), ("--help", parser.format_help)):
            if switch in self.invocation.switches:
                print(text(), end="")
                raise SystemExit(0)
        layers, flags = self.invocation.layers, [*self.invocation.flags, f"--method={self.invocation.method}"]
        if "--print_config" in self.invocation.switches:
            flags.append("--print_config")
        try:
            self.config = parser.parse_args([*(f"--config={_text(layer)}" for layer in layers), *flags])
        except argparse.ArgumentError as error:
            options = [*parser.option_names(), *EXPANDED]
            raise ConfigError(explain_options(str(error), options, layers, flags)) from error
        parse_names(self.config.logger)
        self.run_config = parser.dump(self.config, skip_none=False)

    # Building

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer with the run's loggers and callbacks.

        Raises:
            ConfigError: a combination of trainer options that Lightning refuses.
            DataError: the target's test split is not what it should be; better said before the training than after.
        """
        if self.command == "fit":
            self.test_has_labels = self.datamodule.images("target", "test").has_labels
        self.run_dir = self._folder()
        config = {**self.config_init["trainer"].as_dict(), **kwargs}
        own = config.pop("callbacks", None) or []
        config["callbacks"] = [*(own if isinstance(own, list) else [own]), *self._callbacks(config)]
        config["logger"] = create_loggers(self.config.logger, self.run_dir, yaml.safe_load(self.run_config))
        try:
            return L.Trainer(default_root_dir=str(self.run_dir), use_distributed_sampler=False, **config)
        except (ValueError, TypeError, ImportError) as error:
            raise ConfigError(f"--trainer: {' '.join(str(error).split())}") from error

    def after_instantiate_classes(self) -> None:
        """Gives the method the configuration that its checkpoints carry."""
        assert isinstance(self.model, SegmentationMethod)
        self.model.run_config = self.run_config

    def save_config(self) -> None:
        """Writes ``config.yaml``."""
        if rank_zero_only.rank == 0:
            (self.run_dir / "config.yaml").write_text(self.run_config)

    def discard_empty_run(self) -> None:
        """Removes the run folder of a run that did not start."""
        if rank_zero_only.rank == 0 and not self._resumes:
            discard_unused(self.run_dir)

    def _folder(self) -> Path:
        config, checkpoint, rank = self.config, self.invocation.checkpoint, rank_zero_only.rank
        if self.command == "fit":
            self._resumes = checkpoint is not None and checkpoint.resolve().parent.name == "checkpoints"
            if checkpoint is not None and self._resumes:
                return run_folder(checkpoint)
            parent = Path(config.runs) / config.method / config.data.name
            return claim(parent, f"{config.name}-s{config.seed_everything}", rank)
        if self.invocation.out is not None:
            return create(self.invocation.out, rank)
        # Beside the fit's own scores, never over them.
        assert checkpoint is not None
        return claim(run_folder(checkpoint), f"{self.command}-{config.data.name}", rank)

    def _callbacks(self, trainer: dict[str, Any]) -> list[L.Callback]:
        from segzoo.callbacks import FinalReport, ImagePanels, LastCheckpoint, RunManifest, StepProgress

        progress = [StepProgress()] if trainer.get("enable_progress_bar") is not False else []
        return [*progress, RunManifest(self.run_dir), ImagePanels(self.run_dir), FinalReport(self.run_dir), LastCheckpoint(self.run_dir)]


def _text(layer: Layer) -> str:
    # An empty layer must still look like a configuration and not like a file name.
    return yaml.safe_dump(layer.content or {"trainer": {}})
