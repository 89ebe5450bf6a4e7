"""Checks of numbers that options give, with a one-line error."""

import math
from typing import Any

from segzoo.errors import ConfigError


def check_range(option: str, value: float, least: float, most: float = float("inf")) -> None:
    """Refuses a number outside [least, most]; NaN is outside.

    Args:
        option: what the message calls it, e.g. "`data.batch_size`": a parameter with its section, in backticks.
        value: what was given.
        least: smallest allowed value.
        most: largest allowed value.

    Raises:
        ConfigError: it is outside.
    """
    if not least <= value <= most:
        expected = f"{least} or more" if most == float("inf") else f"{least} to {most}"
        raise ConfigError(f"{option} {value}: expected {expected}")


def check_weight(option: str, value: Any) -> None:
    """Refuses what is no weight.

    Args:
        option: what the message calls it.
        value: what was given.

    Raises:
        ConfigError: it is not a finite number above 0.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ConfigError(
            f"{option}: expected a number above 0, found {value!r}; what is to have no weight is left out"
        )
