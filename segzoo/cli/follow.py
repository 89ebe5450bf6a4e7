"""``python -m segzoo.cli.follow COMMAND ...`` is ``segzoo COMMAND ...`` that stops when its standard input ends.

Whoever starts it holds the other end, and when that process is gone, however it ended, this one is told to stop.
"""

import os
import signal
import sys
import threading
import time

from segzoo.cli.main import main

PATIENCE = 300.0
"""Seconds in which a process that was told to stop may save."""


def follow(file: int = 0, patience: float = PATIENCE) -> None:
    """Ends this process, and its process group if it leads one, once ``file`` has come to its end."""

    def watch() -> None:
        while os.read(file, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="follow", daemon=True).start()


if __name__ == "__main__":
    sys.argv[0] = "segzoo"  # as the manifest notes it
    if os.environ.get("LOCAL_RANK", "0") == "0":  # other ranks end with theirs
        follow()
    sys.exit(main())
