"""Time and memory of training steps, on a CPU under Linux and on CUDA."""

import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch


class Meter:
    """Measures steps after a warm-up; call `begin` and `end` around every step, with its number from 0.

    Peak memory is counted from an idle process after the first step: networks, batch, optimiser state and loaded code do not
    count; activations, gradients and copies do.

    Args:
        device: where the steps run.
        warmup: steps that are not measured.
        drop_gradients: sets all gradients to None.
        period: steps after which the costs repeat.
        wait: called before every measured period; returns when it may begin.
    """

    def __init__(
        self,
        device: torch.device,
        warmup: int,
        drop_gradients: Callable[[], None],
        period: int = 1,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.device, self.warmup, self.drop_gradients = device, warmup, drop_gradients
        self.period, self.wait = period, wait
        self.seconds: list[float] = []
        self._idle: int | None = None
        self._peak: int | None = None
        self._start = 0.0

    @property
    def peak_bytes(self) -> int | None:
        """Peak above idle; None where it cannot be measured, and without a warm-up of two steps."""
        return None if self._idle is None or self._peak is None else self._peak - self._idle

    def begin(self, step: int) -> None:
        """Just before a step."""
        if step == 1 and self.warmup > 1:
            # One more step of the warm-up makes the gradients again: the measured steps do not notice.
            self.drop_gradients()
            gc.collect()
            self._idle = _memory(self.device, peak=False)
        # On CUDA a recorded graph allocates its memory in the warm-up, and has it from then on.
        if step == (1 if self.device.type == "cuda" else self.warmup):
            _reset_peak(self.device)
        if step >= self.warmup and (step - self.warmup) % self.period == 0:
            self.wait()
        self._start = self._now()

    def end(self, step: int) -> None:
        """Just after a step."""
        seconds = self._now() - self._start
        if step >= self.warmup:
            self.seconds.append(seconds)
            self._peak = _memory(self.device, peak=True)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _memory(device: torch.device, peak: bool) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return 1024 * int(fields["VmHWM" if peak else "VmRSS"].split()[0])


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # 5: the peak resident size becomes the present one
