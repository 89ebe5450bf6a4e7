"""Which exceptions are a user's to fix, and what the one line says. Free of torch."""

import argparse
import errno
import os
import re
import sys
import traceback

from segzoo.errors import SegzooError

TORCHVISION = (
    "torch and torchvision do not match (a CPU-only torch beside the package index's torchvision); install "
    "both from one place: pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
)


NO_SHARED_MEMORY = (
    "no room in the machine's shared memory, through which loader processes hand over their batches; use "
    "--data.num_workers 0, or enlarge /dev/shm (docker run --shm-size 2g)"
)
# Errors of the machine, by what their texts have in common: torch and the loaders have no classes for them.
MACHINE = (
    (
        r"shared memory|bus error|torch_shm|/dev/shm|/torch_\d+",
        NO_SHARED_MEMORY,
    ),
    (
        r"DataLoader worker .*(killed by signal|exited unexpectedly)",
        "a loader process was ended from outside, most often because memory ran out; lower --data.num_workers (0: none) or "
        "--data.batch_size",
    ),
    (
        r"DefaultCPUAllocator|[Cc]annot allocate memory|std::bad_alloc|Insufficient memory",
        "out of memory; lower --data.batch_size, --data.size or --data.num_workers",
    ),
    (
        r"[Cc]onnection (closed|reset) by peer|[Cc]onnection was likely closed|gloo.*(Broken pipe|[Tt]imed out)|"
        r"NCCL.*(remote process exited|aborted|[Tt]imeout)|failed to recv|DistBackendError|DistNetworkError",
        "a process of this run ended; its own message, if it had one, is above (one that ran out of memory leaves none)",
    ),
    (
        r"[Cc]an't start new thread|Resource temporarily unavailable",
        "the machine allows no more processes or threads; lower --data.num_workers, or raise the limit (ulimit -u)",
    ),
)
DISK = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENXIO")
    if hasattr(errno, name)
}


PARAMETER = re.compile(r"`((?:method|network|optimizer|loss|speed|data|protocol|trainer)(?:\.\w+)+(?: [^`\n]*)?)`")
"""How a message names a parameter, with or without a value: `data.batch_size`, `optimizer.schedule constant`."""

ENTRY = re.compile(r"`(data\.source\[\d+\][\w.]*)`")
"""One of several sources, which only a file can list."""


def translate(text: str) -> str:
    """A message with the command's option in the place of every parameter: ``--data.size`` for "`data.size`"."""
    return PARAMETER.sub(r"--\1", ENTRY.sub(r"'\1'", text))


def speaks() -> bool:
    """Whether this process prints what all processes of a run would; Lightning knows their numbers once it is imported."""
    module = sys.modules.get("lightning.fabric.utilities.rank_zero")
    return module is None or not getattr(module.rank_zero_only, "rank", 0)


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
        return f"{what}; use a larger --data.batch_size or --data.size, or --network.norm group"
    if "OutOfMemoryError" in names:
        return f"out of memory on the device; lower --data.batch_size or --data.size ({text.splitlines()[0]})"
    return _of_machine(error)


def _of_machine(error: BaseException) -> str | None:
    """What the disk, the memory or another process did; libraries hide it behind errors of their own."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    for one in chain:
        if isinstance(one, OSError) and one.errno == errno.ENOSPC and one.filename is None and _in_multiprocessing(one):
            return NO_SHARED_MEMORY
        if isinstance(one, OSError) and one.errno in DISK and "shm" not in str(one.filename):
            return f"{one.filename or 'a file cannot be written'}: {one.strerror}"
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working directory was removed; change to one that exists"
    for one in chain:
        if isinstance(one, MemoryError):
            return "out of memory; lower --data.batch_size, --data.size or --data.num_workers"
        if not isinstance(one, RuntimeError | OSError) and type(one).__module__ != "cv2":
            continue
        text = " ".join(str(one).split())
        for pattern, line in MACHINE:
            if re.search(pattern, text):
                return line
    return None


def _in_multiprocessing(error: BaseException) -> bool:
    """Whether an error comes from the locks and queues between processes, whose room is the shared memory."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return bool(files) and "multiprocessing" in files[-1]


def _of_worker(text: str) -> str:
    # A loader process hands its error on as a formatted traceback; the message proper is its last line.
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Caught "):
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(line.strip() for line in lines)
