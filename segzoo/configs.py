"""The YAML files that ship with segzoo: `configs/` of a checkout, `segzoo/configs/` of an installed wheel."""

from pathlib import Path
from typing import Any

import segzoo
from segzoo.errors import ConfigError
from segzoo.suggest import did_you_mean
from segzoo.yaml_files import dump_yaml


def config_root() -> Path:
    """The folder that holds the packaged configurations."""
    package = Path(__file__).resolve().parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def config_names(kind: str) -> list[str]:
    """Names of the packaged files of one kind: ``method``, ``data``, ``recipe``, ``label_spaces``."""
    return sorted(path.stem for path in (config_root() / kind).glob("*.yaml"))


def config_path(kind: str, name: str) -> Path:
    """Path of a packaged file, or of the user's own when ``name`` is a path to a YAML file.

    Raises:
        ConfigError: neither a packaged name nor an existing file.
    """
    own = Path(name)
    if own.suffix in (".yaml", ".yml"):
        if own.is_file():
            return own
        beside = [str(path) for path in own.parent.glob("*.y*ml")] if own.parent.is_dir() else []
        raise ConfigError(f"no such file: {name}{did_you_mean(name, beside)}")
    path = config_root() / kind / f"{name}.yaml"
    if not path.is_file():
        known = config_names(kind)
        raise ConfigError(f"unknown {kind.rstrip('s').replace('_', ' ')} '{name}'{did_you_mean(name, known)}")
    return path


def config_text(config: dict[str, Any]) -> str:
    """A run's configuration as its ``config.yaml`` has it."""
    return f"# segzoo {segzoo.__version__}\n{dump_yaml(config)}"
