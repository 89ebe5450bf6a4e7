"""What Python does at the end of a process, in a copy of one."""

import atexit
import logging
import weakref
from multiprocessing import util


def forget_ends() -> None:
    """Leaves to the original of a copied process what it registered for its end, and keeps what ends the copy itself.

    What was made at an import, such as wandb's folder of pictures, is no copy's to remove.
    """
    atexit._clear()
    vars(weakref.finalize)["_registry"].clear()
    for function in (weakref.finalize._exitfunc, util._exit_function, logging.shutdown):  # type: ignore[attr-defined]
        atexit.register(function)
