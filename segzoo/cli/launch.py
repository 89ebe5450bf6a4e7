"""Which of a run's processes this one is, and the folder that they share.

Variables such as ``RANK`` or ``SLURM_PROCID`` say who started a process, not that it belongs to a distributed run: four tasks
of SLURM may be four runs. What counts is how many processes this run asks for; only where a launcher started as many of them do
they belong together.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from segzoo.cli.rundir import VARIABLE
from segzoo.errors import ConfigError, SegzooError

# The order in which Lightning asks them, and what users call them.
LAUNCHERS: dict[type[ClusterEnvironment], str] = {
    TorchElasticEnvironment: "torchrun",
    SLURMEnvironment: "SLURM",
    LSFEnvironment: "jsrun",
    MPIEnvironment: "mpirun",
}
CHILDREN = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What Lightning sets for the processes that it starts."""
BY_HAND = ("MASTER_ADDR", "NODE_RANK", "GROUP_RANK")
"""What users set who start a run on several nodes themselves."""
DECIDING = ("accelerator", "devices", "num_nodes", "strategy", "plugins")
"""Options of the trainer that decide how many processes there are, and how they find each other."""


@dataclass(frozen=True)
class Place:
    """One process of a run.

    Attributes:
        rank: its number; zero writes.
        folder: the run's, for a process that Lightning started for rank zero.
        group: a trainer whose processes are connected, where a launcher started all of them.
        plugins: what the run's trainer needs so as not to believe the launcher.
    """

    rank: int = 0
    folder: Path | None = None
    group: L.Trainer | None = None
    plugins: list[Any] = field(default_factory=list)

    def share(self, claim: Callable[[], Path]) -> Path:
        """The run's folder, which rank zero claims.

        Raises:
            SegzooError: what ``claim`` raised, on all ranks.
        """
        if self.folder is not None:
            return self.folder
        if self.group is None:
            folder = claim()
            os.environ[VARIABLE] = f"{os.getpid()}:{folder}"
            return folder
        answer = ("", "")
        if self.rank == 0:
            try:
                answer = (str(claim()), "")
            except SegzooError as error:
                answer = ("", str(error))
        path, refusal = self.group.strategy.broadcast(answer)
        if refusal:
            raise ConfigError(refusal)
        return Path(path)


def find_place(options: Mapping[str, Any]) -> Place:
    """Who this process is in the run that it was asked for.

    Args:
        options: of the trainer; those of `DECIDING` count.

    Raises:
        ConfigError: a launcher started another number of processes than the run asks for.
    """
    deciding = {name: options[name] for name in DECIDING if options.get(name) is not None}
    folder = _inherited()
    if folder is not None:
        return Place(rank=int(os.environ["LOCAL_RANK"]), folder=folder)
    launcher = next((env for env in LAUNCHERS if env.detect()), None)
    by_hand = launcher is None and "LOCAL_RANK" in os.environ
    if launcher is None and not by_hand:
        nodes = deciding.get("num_nodes", 1)
        if nodes > 1 and not any(os.environ.get(name) for name in BY_HAND) and not deciding.get("plugins"):
            raise ConfigError(
                f"--trainer.num_nodes {nodes}, and nothing says where the other nodes are: start the run on each of them with "
                "torchrun or srun, or set MASTER_ADDR and NODE_RANK"
            )
        rank_zero_only.rank = 0  # type: ignore[attr-defined]  # Lightning believed the variables when it was imported
        return Place()
    devices, nodes = _asked(deciding)
    started = _started(launcher)
    if launcher is not TorchElasticEnvironment and devices * nodes == 1:
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        if launcher is not None and started != 1:
            name = LAUNCHERS[launcher]
            print(
                f"{name} started {started} processes, this run asks for one: each is a run of its own", file=sys.stderr
            )
        return Place(plugins=[] if launcher and started == 1 else [LightningEnvironment()])
    if started is not None and started != devices * nodes:
        raise ConfigError(_mismatch(started, LAUNCHERS[launcher] if launcher else "hand", devices, nodes))
    if started == 1:
        return Place()
    return _connected(deciding, devices, nodes)


def _inherited() -> Path | None:
    """The folder of the run whose rank zero started this process; a variable that is only left over is removed."""
    starter, _, folder = os.environ.get(VARIABLE, "").partition(":")
    if not folder:
        return None
    if os.environ.get("LOCAL_RANK", "0") != "0":
        if starter == str(os.getppid()) or os.name == "nt":
            return Path(folder)
        if not _is_alive(starter):
            raise ConfigError("the process that started this one is gone")
    for name in (VARIABLE, *CHILDREN):  # of a run that this one was started from
        os.environ.pop(name, None)
    return None


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def _asked(options: dict[str, Any]) -> tuple[int, int]:
    """Processes per node and nodes, as Lightning resolves ``auto`` and -1."""
    if any(isinstance(plugin, ClusterEnvironment) for plugin in _plugins(options)):
        trainer = _trainer(options)
    else:  # one that checks nothing
        trainer = _trainer({**options, "strategy": "auto", "plugins": [LightningEnvironment()]})
    return trainer.num_devices, trainer.num_nodes


def _started(launcher: type[ClusterEnvironment] | None) -> int | None:
    if launcher is None or launcher is TorchElasticEnvironment:
        size = os.environ.get("WORLD_SIZE")
    elif launcher is SLURMEnvironment:
        size = os.environ["SLURM_NTASKS"]
    elif launcher is LSFEnvironment:
        size = os.environ["JSM_NAMESPACE_SIZE"]
    else:
        size = str(launcher().world_size())
    return int(size) if size and size.isdigit() else None


def _mismatch(started: int, launcher: str, devices: int, nodes: int) -> str:
    processes = "1 process was" if started == 1 else f"{started} processes were"
    asked = f"--trainer.devices is {devices}" + (f" on each of {nodes} nodes" if nodes > 1 else "")
    return f"{processes} started by {launcher}, {asked}: give both the same number"


def _connected(options: dict[str, Any], devices: int, nodes: int) -> Place:
    try:
        trainer = _trainer(options)
        environment = trainer.strategy.cluster_environment
        environment.validate_settings(num_devices=devices, num_nodes=nodes)
    except (RuntimeError, ValueError, KeyError) as error:  # Lightning's complaints about variables of the launcher
        missing = f"the variable {error} of the launcher is missing"
        raise ConfigError(missing if isinstance(error, KeyError) else " ".join(str(error).split())) from error
    trainer.strategy.setup_environment()
    return Place(rank=trainer.global_rank, group=trainer)


def _plugins(options: Mapping[str, Any]) -> list[Any]:
    plugins = options.get("plugins") or []
    return list(plugins) if isinstance(plugins, list | tuple) else [plugins]


def _trainer(options: Mapping[str, Any]) -> Any:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    settings: dict[str, Any] = {**options, **dict.fromkeys(quiet, False)}
    return L.Trainer(**settings)
