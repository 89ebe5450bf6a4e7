"""The sets of images that a DataModule has: every split of both domains, and the photographs without labels."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from segzoo.data import DomainDataModule
from segzoo.data.domains import SPLITS, Domain, ImageSet, Split
from segzoo.data.folders import PairedFolders
from segzoo.data.several import SeveralDomains
from segzoo.errors import DataError

UNLABELLED = "target/unlabelled"
Job = TypeVar("Job")
Done = TypeVar("Done")


@dataclass
class Sets:
    """All sets of a DataModule.

    Attributes:
        images: by name, e.g. ``source/train``, of several sources ``source/train: NAME``; empty sets are left out.
        problems: lines by name of the set, on files without a partner and on sets that cannot be listed.
    """

    images: dict[str, ImageSet] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of images."""
        return sum(map(len, self.images.values()))


def find_sets(data: DomainDataModule) -> Sets:
    """Lists the files of every set. What is wrong with one is noted, and the others are listed all the same.

    Of the source a training needs its train split alone: others are taken where they are there.
    """
    found = Sets()
    for name, split, described in _described(data):
        if not described.has_split(split, data.root):
            continue
        unpaired: list[str] = []
        try:
            if isinstance(described, PairedFolders):
                images = described.images(split, data.root, unpaired)
            else:
                images = described.images(split, data.root)
        except DataError as error:
            if name.startswith("target") or split == "train":
                _note(found, name, [str(error)])
            continue
        _add(found, name, images, unpaired)
    try:
        further = data.further_images()
    except DataError as error:
        found.problems[UNLABELLED] = [str(error)]
    else:
        if further is not None:
            _add(found, UNLABELLED, further, [])
    return found


def parts_of(domain: Domain) -> dict[str, Domain]:
    """The domains that one consists of, by what their sets' names have after the split: several sources, or itself alone."""
    several = domain.domains if isinstance(domain, SeveralDomains) else {}
    return {f": {name}": one for name, one in several.items()} or {"": domain}


def _described(data: DomainDataModule) -> Iterator[tuple[str, Split, Domain]]:
    """The name, the split and the domain of every set that there may be; several sources have a set each."""
    for name, domain in (("source", data.source), ("target", data.target)):
        for split in SPLITS:
            for end, part in parts_of(domain).items():
                yield f"{name}/{split}{end}", split, part


def in_threads(work: Callable[[Job], Done], jobs: Iterable[Job], threads: int) -> Iterator[tuple[Job, Done]]:
    """Does jobs at once in threads, and gives each when it is done; a few wait, however many there are.

    Decoding and writing pictures leave the interpreter's lock, and processes would have to import everything first. When one
    fails, or the command is interrupted, those that began are awaited and no other begins.
    """
    todo = iter(jobs)
    with ThreadPoolExecutor(threads) as pool:
        try:
            running: dict[Future[Done], Job] = {pool.submit(work, job): job for job in islice(todo, 2 * threads)}
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    yield job, future.result()
                    running |= {pool.submit(work, following): following for following in islice(todo, 1)}
        finally:
            pool.shutdown(cancel_futures=True)


def _add(found: Sets, name: str, images: ImageSet, unpaired: list[str]) -> None:
    if len(images):
        found.images[name] = images
    _note(found, name, unpaired)


def _note(found: Sets, name: str, problems: list[str]) -> None:
    """Notes each problem once: splits that are cut off one folder share its files."""
    domain = name.partition("/")[0]
    known = {line for other, lines in found.problems.items() if other.startswith(domain) for line in lines}
    if new := [line for line in problems if line not in known]:
        found.problems[name] = new
