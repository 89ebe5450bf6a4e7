"""``python -m segzoo.cli.follow COMMAND ...`` is ``segzoo COMMAND ...`` that stops when its standard input ends.

Whoever starts it holds the other end, and when that process is gone, however it ended, this one is told to stop. Without a
command it takes any number of them from there, see `segzoo.cli.warm`.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from segzoo.cli.main import main

PATIENCE = 300.0
"""Seconds in which a process that was told to stop may save."""


def follow(await_end: Callable[[], object] | None = None, patience: float = PATIENCE) -> None:
    """Ends this process, and its process group if it leads one, once whoever started it is gone.

    Args:
        await_end: returns then; None: it waits for the end of the standard input.
        patience: seconds in which this process may save.
    """

    def watch() -> None:
        (await_end or _read_to_end)()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="follow", daemon=True).start()


def _read_to_end() -> None:
    while os.read(0, 1024):
        pass


if __name__ == "__main__":
    sys.argv[0] = "segzoo"  # as the manifest notes it
    if len(sys.argv) == 1:
        from segzoo.cli.warm import await_command

        command = await_command(follow)
        sys.exit(0 if command is None else main(command))
    if os.environ.get("LOCAL_RANK", "0") == "0":  # other ranks end with theirs
        follow()
    sys.exit(main())
