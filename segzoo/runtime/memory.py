"""Keeps the memory that a training step frees for the next one, or gives it back where little is needed."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
LARGE = 2**20
"""Bytes from which on a block is given back to the system as soon as it is freed."""


def keep_freed_memory() -> bool:
    """Tells glibc's malloc, which torch allocates on a CPU with, not to give freed memory back to the system.

    It does so whenever much is free, which is between any two passes through a network; the next pass then gets every page
    anew, one by one and cleared. Steps of several passes lose 5 to 10 % of their time to that. The price is fragmentation: a
    twelfth more memory in a run of MetaPix. (On a GPU torch does the same.)

    Returns:
        Whether it was told: not where malloc is another, or where the environment has settings for it (``MALLOC_...``).
    """
    # Mapped blocks, which all large ones would be, are unmapped when they are freed.
    return _told({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def give_freed_memory_back() -> bool:
    """Tells glibc's malloc to give large blocks back to the system when they are freed.

    By itself it keeps ever larger ones, up to 32 MiB, whose gaps the windows of a large image do not fill beside the logits
    that are kept from window to window.

    Returns:
        Whether it was told, see `keep_freed_memory`.
    """
    return _told({M_MMAP_THRESHOLD: LARGE})


def _told(settings: dict[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    malloc_option = ctypes.CDLL(None).mallopt
    return all(malloc_option(option, value) for option, value in settings.items())
