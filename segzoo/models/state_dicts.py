"""Why a state dict does not fit, said of one entry: torch's own message lists all of them."""

from collections.abc import Mapping

from torch import Tensor


def misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first entry that is missing, of another shape or unexpected.

    Args:
        expected: the network's own.
        found: what is to be loaded.

    Returns:
        Half a sentence, or None when all names and shapes agree.
    """
    for name, value in expected.items():
        if name not in found:
            return f"'{name}' is missing"
        if found[name].shape != value.shape:
            return f"'{name}' has the shape {tuple(found[name].shape)}, expected {tuple(value.shape)}"
    extra = next((name for name in found if name not in expected), None)
    return f"'{extra}' is unexpected" if extra is not None else None
