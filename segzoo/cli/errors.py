"""Which exceptions are a user's to fix, and what the one line says. Free of torch."""

import argparse
import errno

from segzoo.errors import SegzooError

TORCHVISION = (
    "torch and torchvision do not match (a CPU-only torch beside the package index's torchvision); install "
    "both from one place: pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
)


def explain(error: BaseException) -> str | None:
    """The one line for an error that a user can fix; None for a bug, which keeps its traceback."""
    text = str(error)
    if isinstance(error, SegzooError):
        return _of_worker(text)
    if isinstance(error, argparse.ArgumentError):
        return " ".join(text.split())
    if isinstance(error, ModuleNotFoundError) and "Requirement" in text:  # of an option of Lightning's, e.g. a callback
        return " ".join(text.split())
    if "torchvision::nms does not exist" in text:
        return TORCHVISION
    names = {cls.__name__ for cls in type(error).__mro__}
    if "MisconfigurationException" in names:  # Lightning's own complaint about the trainer's options
        return " ".join(text.split())
    if "DerivativeError" in names:  # of segzoo.bilevel, which knows no other module of ours
        return " ".join(text.split())
    if "Expected more than 1 value per channel" in text:
        what = "a batch norm saw a single value per channel"
        return f"{what}; use a larger --data.batch_size or --data.size, or --method.norm group"
    if isinstance(error, OSError) and error.filename and error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC):
        return f"{error.filename}: {error.strerror}"
    if "OutOfMemoryError" in names:
        return f"out of memory on the device; lower --data.batch_size or --data.size ({text.splitlines()[0]})"
    return None


def _of_worker(text: str) -> str:
    # A loader process hands its error on as a formatted traceback; the message proper is its last line.
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Caught "):
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(line.strip() for line in lines)
