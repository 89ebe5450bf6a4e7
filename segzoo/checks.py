"""Checks of numbers that options give, with a one-line error."""

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
