"""Which loggers there are. Free of torch, so that a typo is answered at once."""

from collections.abc import Sequence

from segzoo.errors import ConfigError
from segzoo.loggers.wandb_mode import wandb_mode
from segzoo.suggest import did_you_mean

NAMES = ("csv", "tensorboard", "wandb")


def parse_names(names: str) -> Sequence[str]:
    """Splits and checks a list of logger names.

    Raises:
        ConfigError: an unknown name, or variables of wandb that it would refuse.
    """
    wanted = [name.strip() for name in names.strip("[]").split(",") if name.strip()]
    for name in wanted:
        if name not in NAMES:
            raise ConfigError(f"unknown logger '{name}'{did_you_mean(name, NAMES)} (any of {','.join(NAMES)})")
    if "wandb" in wanted:
        wandb_mode()
    return wanted
