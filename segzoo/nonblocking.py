"""What torch does only while the host waits for a GPU to finish all its work, without that wait."""

import torch
from torch import Tensor


def sent(whole: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from the host to a GPU by way of pinned memory."""
    if whole.device.type == "cpu" and device.type == "cuda":
        return whole.pin_memory().to(device, non_blocking=True)
    return whole.to(device)


def bin_counts(index: Tensor, bins: int) -> Tensor:
    """How often each number occurs; `torch.bincount` waits, in order to look for larger ones.

    Args:
        index: (N,) int64 in 0..bins-1.
        bins: B.

    Returns:
        (B,) int64.
    """
    return index.new_zeros(bins).index_add_(0, index, torch.ones_like(index))


class Fetched:
    """The values of a tensor on their way to the host.

    Args:
        values: on any device. What was to compute them need not be done.
    """

    def __init__(self, values: Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        if values.is_cuda:
            self._values = values.to("cpu", non_blocking=True)  # into pinned memory
            self._copied = torch.cuda.current_stream(values.device).record_event()
        else:  # of other devices nothing says when they are done
            self._values = values.detach().to("cpu", copy=True)

    def read(self) -> Tensor:
        """The values, on the host, which waits until they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values
