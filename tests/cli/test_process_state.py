"""The command within a process that does other things, too: what it leaves behind, and other threads."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.strategies.launchers import subprocess_script

from segzoo.runtime import lock
from tests.cli.conftest import Result, Segzoo


def state() -> dict[str, Any]:
    """What a command could leave behind, for whatever the process does next."""
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return {
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "wakeup": wakeup,
        "observer": subprocess_script._launch_process_observer,
        "locks": set(lock._HELD),
        "watches": [thread for thread in threading.enumerate() if thread.name == "segzoo-watch"],
        "variables": {n: value for n, value in os.environ.items() if n.startswith(("SEGZOO", "LOCAL_", "MASTER_"))},
    }


@pytest.mark.fault("training-among-other-things")
@pytest.mark.parametrize("options", [[], ["--optimizer.lr", "1e30", "--trainer.max_steps", "4"]], ids=["ends", "fails"])
def test_a_training_leaves_nothing_behind(options: list[str], segzoo: Segzoo, toy: Path) -> None:
    before = state()
    result = segzoo("fit", "--method", "source-only", "--data", toy, *options)
    assert result.status == (2 if options else 0), result.err
    assert state() == before


@pytest.mark.fault("training-among-other-things")
def test_an_error_in_another_thread_is_one_line(segzoo: Segzoo, toy: Path) -> None:
    results: list[Result] = []
    argv = ("fit", "--method", "source-only", "--data", toy, "--optimizer.lr", "1e30", "--trainer.max_steps", "4")
    thread = threading.Thread(target=lambda: results.append(segzoo(*argv)))
    thread.start()
    thread.join()
    assert results and results[0].status == 2
    assert results[0].err.startswith("error: ") and results[0].err.count("\n") == 1
