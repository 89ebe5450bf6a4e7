"""Files of weights: read as tensors and plain types alone, and those of `torch.save` not without their checksums."""

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from segzoo.errors import CheckpointError


def load_tensors(path: Path) -> Any:
    """What a file of `torch.save` or of safetensors holds, on the CPU; nothing is copied before it is used.

    Raises:
        CheckpointError: its own checksums say that it is damaged.
        Exception: whatever torch's unpickler and zip reader, or safetensors, raise.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    zipped = zipfile.is_zipfile(path)
    if zipped:
        about = path.stat()
        if bad := _damaged(path.resolve(), about.st_mtime_ns, about.st_size):
            raise CheckpointError(
                f"{path} is damaged: the checksum of '{bad}' in it is not that of its content; take another copy"
            )
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


@lru_cache(maxsize=16)
def _damaged(path: Path, mtime_ns: int, size: int) -> str | None:
    """The first part of a file whose checksum is not its content's. A file that stays as it is, is read once."""
    try:
        with zipfile.ZipFile(path) as file:
            # torch can be told to save without checksums, which are then all 0.
            return file.testzip() if any(part.CRC for part in file.infolist()) else None
    except OSError:
        raise
    except (
        Exception
    ) as error:  # zipfile raises what the broken part makes it: BadZipFile, zlib.error, RuntimeError, ...
        return str(error) or type(error).__name__
