"""One run of a method: its data, the method and the trainer, with a run folder."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator

from segzoo.callbacks import (
    CollapseWatch,
    ExampleImages,
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
from segzoo.cli.errors import translate
from segzoo.cli.expand import Invocation
from segzoo.cli.launch import Place, find_place
from segzoo.cli.options import read_options
from segzoo.cli.resume import compare_runs
from segzoo.cli.rundir import claim, create, discard_unused, missing_parents, run_folder
from segzoo.cli.sections import SHARED
from segzoo.cli.trainer_options import check_test_share, prepare_trainer_options
from segzoo.data import DomainDataModule
from segzoo.data.domains import ImageSet, Split
from segzoo.data.label_shares import shares_table
from segzoo.data.streams import Stream, usual_streams
from segzoo.errors import ConfigError
from segzoo.loggers.create import create_loggers
from segzoo.loggers.names import parse_names
from segzoo.methods.base import Method
from segzoo.methods.checkpoints import check_classes
from segzoo.methods.length import training_steps
from segzoo.methods.registry import load_method
from segzoo.methods.scoring import ScoredImages
from segzoo.runtime.lock import FolderLock
from segzoo.stopping import StopRequest

LONGEST_NAME = 200
"""Bytes of a run's name: file systems take 255, and the seed and a number follow."""
_SCORED: dict[str, Split] = {"validate": "val", "test": "test"}


class Run:
    """Builds data, method and trainer of one invocation, without running anything.

    Args:
        command: ``fit``, ``validate`` or ``test``.
        invocation: the expanded command line.
        request: what signals ask for; they are handled by whoever gives it.

    Attributes:
        config: everything that was decided, in plain types; it can be fed back with ``--config``.
        folder: where this invocation writes.
        data: the data module.
        method: the method.
        labels_images: whether it does, so that there is something to score.
        trainer: Lightning's trainer, with the run's loggers and callbacks.
        manifest: the callback that keeps the run's record.
        test_has_labels: whether a test after ``fit`` is possible.
        changed_options: old and new value of what a continued run changes.

    Raises:
        ConfigError: an option that cannot be, a combination of trainer options that Lightning refuses, or more processes than
            cores.
        DataError: the target's test split cannot be read, or labels cannot be right; better said now than after the training.
    """

    def __init__(self, command: str, invocation: Invocation, request: StopRequest | None = None) -> None:
        self.command, self.invocation, self.request = command, invocation, request or StopRequest()
        method = load_method(invocation.method)
        options = read_options(command, method, invocation)
        self.config = options.config
        self._check_config()
        self.changed_options, said = dict[str, tuple[Any, Any]](), list[str]()
        if options.before is not None:
            self.changed_options, said = compare_runs(options.before, self.config, invocation)
        self.folder, self.test_has_labels = Path(), True
        self._claimed, self._made = False, list[Path]()

        L.seed_everything(self.config["seed_everything"], workers=True)
        objects = options.parser.instantiate(options.parsed)
        seed = self.config["seed_everything"]
        self.data = DomainDataModule(**objects.data.as_dict(), seed=seed, protocol=objects.protocol)
        self.labels_images = issubclass(method, ScoredImages)
        self.place = _place(trainer := objects.trainer.as_dict())
        saved = None
        if (checkpoint := invocation.checkpoint) is not None:
            saved = read_checkpoint(checkpoint)
            # Before the classes are looked for in the labels.
            check_classes(saved, self.data.label_space, f"the checkpoint {checkpoint}")
        test = self._look_at_data(method)
        self.method = self._create_method(method, objects, saved)
        self.trainer = self._prepare_trainer(trainer, test)
        for line in said if self.trainer.is_global_zero else []:
            print(line)

    def discard_empty_run(self) -> None:
        """Removes the folder again when nothing came of the run."""
        if self.place.rank == 0 and self._claimed:
            discard_unused(self.folder, self._made)

    def _check_config(self) -> None:
        config = self.config
        parse_names(config["logger"])
        for option, name in (("name", config["name"]), ("data.name", config["data"]["name"])):
            if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
                raise ConfigError(
                    f"--{option} {name[:60]!r}: expected a folder's name, without '/' or line breaks and of up to "
                    f"{LONGEST_NAME} bytes; --runs DIR says where it is"
                )
        if not config["runs"]:  # most often an unset variable of the shell
            raise ConfigError("--runs is empty: expected a folder, e.g. `--runs .` for this one")
        check_range("--seed_everything", config["seed_everything"], 0, 2**32 - 1)

    # Building

    def _create_method(self, cls: type[Method], objects: Namespace, saved: dict[str, Any] | None) -> Method:
        """The method. What a checkpoint brings is not looked for in files, which may not be on this machine."""
        options = {name: value for name, value in objects.method.as_dict().items() if name != "name"}
        options |= {section: objects[section] for section in SHARED if section in objects}
        if saved is not None:
            options |= saved["restored"]
            for option in cls.STARTING_POINTS:
                if option in options:
                    options[option] = None
            if "network" in options:
                options["network"] = options["network"].without_weights()
        method = cls(label_space=self.data.label_space, **options)
        method.run_config = self.config
        return method

    def _look_at_data(self, method: type[Method]) -> ImageSet | None:
        """The images of the test, where there will be one, after a look at them and at the labels.

        Before the network is built, whose weights may have to be downloaded; what only its options tell is looked at then.
        """
        test = self.data.scored("test") if self.command == "fit" else None
        if self.command == "fit":
            self.test_has_labels = test is not None
            if test is not None:
                test.check()
            elif self.labels_images and not self.data.target.has_split("test", self.data.root):
                self._warn(f"{self.data.lacking('test')}: nothing will be scored")
        # A method that labels no images, such as a GAN, may learn from a resource without its labels.
        self._look_at_labels(usual_streams(method.resources) if self.labels_images else {})
        return test

    def _prepare_trainer(self, options: dict[str, Any], test: ImageSet | None) -> L.Trainer:
        self._look_at_labels(self.method.streams)
        self._show_shares()
        self.folder = self.place.share(self._locked_folder)
        try:
            trainer = self._create_trainer(options)
            _check_processes(trainer)
            if test is not None:
                check_test_share(trainer, len(test), self.data.protocol.batch_size(self.data.eval_batch_size))
        except Exception as error:
            self.discard_empty_run()
            if isinstance(error, ValueError | TypeError | ImportError | MisconfigurationException):
                raise _refusal(error) from error
            raise
        return trainer

    def _look_at_labels(self, streams: Mapping[str, Stream]) -> None:
        """What the DataModule does too, at the start of a training: here it is before there are processes and a run folder.

        Processes that a launcher started all look, as none would hear of the other's error.
        """
        fitting, validated = self.command == "fit", self.config["trainer"]["limit_val_batches"] != 0
        splits: list[Split] = (["val", "test"] if validated else ["test"]) if fitting else [_SCORED[self.command]]
        for warning in self.data.check_labels(streams if fitting else {}, splits if self.labels_images else []):
            self._warn(warning)

    def _show_shares(self) -> None:
        """The classes' shares of the sets of a training."""
        table = shares_table(list(self.data.looked.values()), self.data.label_space)
        if (
            self.command == "fit" and self.place.rank == 0 and table and self.invocation.checkpoint is None
        ):  # else they were shown before
            print("\n".join(table))

    def _warn(self, text: str) -> None:
        if self.place.rank == 0:
            print(f"warning: {translate(text)}", file=sys.stderr)

    def _create_trainer(self, options: dict[str, Any]) -> L.Trainer:
        config = dict(options)
        for option in ("val_check_interval", "accumulate_grad_batches"):
            if isinstance(value := config.get(option), int | float) and not value > 0:
                raise ConfigError(f"--trainer.{option} {value}: expected above 0")
        own = config.pop("callbacks", None) or []
        own = own if isinstance(own, list) else [own]
        prepare_trainer_options(config, own, self.folder)
        config["callbacks"] = [*own, *self._callbacks(config)]
        if self.place.plugins:
            plugins = config.get("plugins") or []
            config["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), *self.place.plugins]
        config["logger"] = create_loggers(self.config["logger"], self.folder, self.config)
        trainer: Any = L.Trainer(default_root_dir=str(self.folder), use_distributed_sampler=False, **config)
        if steps := training_steps(trainer):
            # A run shorter than the interval would log nothing: it logs its last step.
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)
        return cast(L.Trainer, trainer)

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
            parent = Path(config["runs"]) / self.invocation.method / config["data"]["name"]
            name = f"{config['name']}-s{config['seed_everything']}"
        else:
            # Beside the fit's own scores, never over them.
            assert checkpoint is not None
            parent, name = run_folder(checkpoint), f"{self.command}-{config['data']['name']}"
        self._claimed, self._made = True, missing_parents(parent)
        return claim(parent, name)

    def _callbacks(self, trainer: dict[str, Any]) -> list[L.Callback]:
        folder, config = self.folder, self.config
        self.manifest = RunManifest(folder, self.changed_options)
        progress: list[L.Callback] = [] if trainer.get("enable_progress_bar") is False else [StepProgress()]
        return [
            # Before the bar, which its lines would break.
            Opening(folder, say=lambda text: print(translate(text), flush=True)),
            *progress,
            self.manifest,
            SameData(),
            ImagePanels(folder, every_n_steps=config["panel_steps"]),
            HistoryFigures(folder),
            CollapseWatch(folder),
            ExampleImages(folder),
            FinalReport(folder),
            Interruption(self.request),
            LastCheckpoint(folder, config["checkpoint_steps"], config["keep_steps"]),
        ]


def _place(options: dict[str, Any]) -> Place:
    try:
        return find_place(options)
    except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
        raise _refusal(error) from error


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
