"""The device that a network runs on."""

import torch

from segzoo.errors import ConfigError


def find_device(name: str) -> torch.device:
    """The device of that name: ``auto`` is the first of cuda, mps and cpu that is there.

    Raises:
        ConfigError: unknown, or absent on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name} is not available: {str(error).splitlines()[0]}") from error
    return device
