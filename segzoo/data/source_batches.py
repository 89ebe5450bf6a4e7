"""From which of several sources each training image comes, as a pure function of the draw.

    p_k = weight_k / sum_j weight_j

Source k is given p_k of the draws, whatever its size, and not by chance: after any number of batches, of n images in all, its
count differs from n p_k by less than k (counted from 1), of two sources each by less than 1. Inside a source images come as if
it were alone: in passes without repetition, or by rare classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from segzoo.data.sampling import EndlessBatches, Key, derived_seed, shuffled


@dataclass(frozen=True)
class SourceDraws:
    """The draws of one source.

    Attributes:
        weight: above 0.
        positions: of its images in the stream's data set.
        batches: gives its n-th draw, a position in ``positions``.
    """

    weight: float
    positions: Sequence[int]
    batches: EndlessBatches


class Turns:
    """Which source a draw is of, and how many draws before it were of the same one; both in closed form, exactly.

    The first source takes floor(n p_1 + u_1) of the first n draws; of those that are left the second takes
    floor(n' p_2 / (1 - p_1) + u_2), and so on; the last one takes the rest.

    Args:
        weights: of the sources, above 0.
        seed: of the u_k in [0, 1), by which seeds differ.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        exact = [Fraction(weight) for weight in weights]
        self._splits: list[tuple[int, int, int]] = []
        for number, weight in enumerate(exact):
            share = weight / sum(exact[number:])
            offset = (derived_seed(seed, "turn", number) * share.denominator) >> 31
            self._splits.append((share.numerator, share.denominator, offset))

    def turn(self, draw: int) -> tuple[int, int]:
        """The source of a draw, and the number of the draw among those of this source."""
        left = draw
        for source, (numerator, denominator, offset) in enumerate(self._splits):
            before = (left * numerator + offset) // denominator
            if ((left + 1) * numerator + offset) // denominator > before:
                return source, before
            left -= before
        raise AssertionError("the last source takes all that is left")


class SourceBatches(EndlessBatches):
    """Batches without end from several sources, see above; keys are those of the sources, with positions in the data set.

    Turns are regular, so they are shuffled within each batch of all ranks: else every rank could get a source of its own. As in
    `EndlessBatches` a batch is a function of the arguments alone, and ``world`` ranks draw what one process would draw.

    Args:
        sources: their draws.
        batch_size: images per batch and rank.
        seed: seed of the turns.
        rank: this process.
        world: number of processes.
        start: number of the first batch.
        cycle: after so many batches the first one comes again.
    """

    def __init__(
        self,
        sources: Sequence[SourceDraws],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: Callable[[], int] = lambda: 0,
        cycle: int | None = None,
    ) -> None:
        self.sources = sources
        super().__init__(sum(len(s.positions) for s in sources), batch_size, seed, rank, world, start, cycle)
        self._turns = Turns([source.weight for source in sources], seed)

    def key(self, draw: int) -> Key:
        """See `EndlessBatches.key`."""
        batch, place = divmod(draw, self.batch_size * self.world)
        order = shuffled(self.batch_size * self.world, self.seed, batch)
        chosen, number = self._turns.turn(draw - place + int(order[place]))
        source = self.sources[chosen]
        key = source.batches.key(number)
        place_in_set = source.positions[key[1]]
        return (key[0], place_in_set) if len(key) == 2 else (key[0], place_in_set, key[2])
