"""What is known of every class in the feature space, gathered over training and over all ranks.

The state is in buffers: a resumed run continues with it. Features of higher precision than the buffers widen them.
"""

import torch
from torch import Tensor, nn

from segzoo.distributed import sum_across_ranks
from segzoo.nonblocking import bin_counts


class ClassStatistics(nn.Module):
    """Mean and diagonal variance of all features ever seen of each class (SePiCo's concepts).

    Cumulative, not a moving average: after any number of updates they are the mean and the biased variance of everything that
    was fed in.

    Args:
        num_classes: C.
        dim: A, the number of features.

    Attributes:
        mean: (C, A), 0 for a class that has not occurred.
        variance: (C, A), likewise.
        count: (C,) int64, the number of pixels.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_classes, dim))
        self.register_buffer("variance", torch.zeros(num_classes, dim))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))

    @property
    def seen(self) -> Tensor:
        """(C,) bool, the classes that have occurred."""
        return self.count > 0

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Adds the pixels of all ranks; every rank must call it, with none if it has none.

        Args:
            features: (P, A).
            labels: (P,) in 0..C-1.
        """
        self.mean, self.variance = _widened(self.mean, features), _widened(self.variance, features)
        features = features.detach().to(self.mean.dtype)
        mean, count = _class_means(features, labels, len(self.mean))
        # Squares about the batch's mean: the difference of two large sums would cancel in single precision.
        squares = _class_sums(mean[labels].sub_(features).square_(), labels, len(mean))
        variance = squares / count.clamp_min(1).unsqueeze(1)

        self.count += count
        weight = (count.to(mean.dtype) / self.count.clamp_min(1)).unsqueeze(1)
        between = (mean - self.mean).square_()
        self.variance.lerp_(variance, weight).add_(weight * (1 - weight) * between)
        self.mean.lerp_(mean, weight)


class ClassBank(nn.Module):
    """The last few batch means of each class, one for each update in which the class occurred (SePiCo's bank).

    Args:
        num_classes: C.
        dim: A, the number of features.
        length: M, the number of means that are kept.
        seed_zero: as published, every bank starts with one zero vector, which counts as an entry until M means have pushed it
            out; a class that never occurs is then a negative of similarity 0. Otherwise banks start empty.

    Attributes:
        bank: (C, M, A); class c has its entries in ``bank[c, :filled[c]]``, in no particular order.
        pushed: (C,) int64, the number of entries ever made.
    """

    bank: Tensor
    pushed: Tensor

    def __init__(self, num_classes: int, dim: int, length: int, seed_zero: bool = True) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(num_classes, length, dim))
        self.register_buffer("pushed", torch.full((num_classes,), int(seed_zero)))

    @property
    def filled(self) -> Tensor:
        """(C,) int64, the number of entries in use."""
        return self.pushed.clamp_max(self.bank.shape[1])

    def entries(self, index: int) -> Tensor:
        """The entries (m, A) of a class, oldest first."""
        pushed, length = int(self.pushed[index]), self.bank.shape[1]
        return self.bank[index, :pushed] if pushed < length else self.bank[index].roll(-(pushed % length), 0)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Appends each class's mean over the pixels of all ranks; every rank must call it, with no pixels if it has none.

        Args:
            features: (P, A).
            labels: (P,) in 0..C-1.
        """
        self.bank = _widened(self.bank, features)
        mean, count = _class_means(features.detach().to(self.bank.dtype), labels, len(self.bank))
        occurs = count > 0
        # A ring: the next mean overwrites the oldest one.
        slot = torch.arange(len(occurs), device=occurs.device), self.pushed % self.bank.shape[1]
        self.bank[slot] = mean.where(occurs.unsqueeze(1), self.bank[slot])
        self.pushed += occurs


def _class_means(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Means (C, A) of the features of each class over all ranks, 0 for one that does not occur, and the counts (C,)."""
    count = sum_across_ranks(bin_counts(labels, num_classes))
    return _class_sums(features, labels, num_classes) / count.clamp_min(1).unsqueeze(1), count


def _class_sums(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sums (C, A) of the rows of each class over all ranks."""
    # In blocks of rows: added to one total row by row, tens of thousands of pixels lose two digits of single precision.
    block = torch.arange(len(labels), device=labels.device) // 256
    sums = values.new_zeros((len(labels) // 256 + 1) * num_classes, values.shape[1])
    sums.index_add_(0, block * num_classes + labels, values)
    return sum_across_ranks(sums.view(-1, num_classes, values.shape[1]).sum(0))


def _widened(buffer: Tensor, features: Tensor) -> Tensor:
    return buffer.to(torch.promote_types(buffer.dtype, features.dtype))
