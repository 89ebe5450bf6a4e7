"""A score of every class."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from segzoo.suggest import did_you_mean


class ByClass(np.ndarray[tuple[int], np.dtype[np.float64]]):
    """An array (C,) in the order of the classes, which also takes the name of a class: ``iou["car"]``.

    Everything else is as with any array of numpy; what is computed from it, or cut out of it, has no names any more.

    Args:
        values: (C,) a score per class.
        classes: C names.
    """

    classes: tuple[str, ...]

    def __new__(cls, values: npt.NDArray[np.float64], classes: Sequence[str]) -> "ByClass":
        """The values with names."""
        named = np.asarray(values, np.float64).view(cls)
        named.classes = tuple(classes)
        return named

    def __array_finalize__(self, other: Any) -> None:
        """A copy has the names of what it is a copy of."""
        self.classes = getattr(other, "classes", ())

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Results of computations are plain arrays."""
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    @overload
    def __getitem__(self, key: str) -> float: ...
    @overload
    def __getitem__(self, key: Any) -> Any: ...

    def __getitem__(self, key: Any) -> Any:
        """A score by the name of its class, or whatever an array gives.

        Raises:
            KeyError: there is no class of that name.
        """
        if not isinstance(key, str):
            return np.asarray(self)[key]
        if key not in self.classes:
            raise KeyError(f"there is no class '{key}'{did_you_mean(key, self.classes)}")
        return float(np.asarray(self)[self.classes.index(key)])

    def __repr__(self) -> str:
        return (
            "{"
            + ", ".join(f"{name}: {value:.3f}" for name, value in zip(self.classes, self.tolist(), strict=True))
            + "}"
        )

    __str__ = __repr__
