"""Writes CARLA's training images three times: with right masks, with harmed ones, and without those that are doubted.

    python -m docs.pixel_weights.cleaned DATA                           # DATA/harmed/right and DATA/harmed/harmed
    python -m docs.pixel_weights.cleaned DATA --doubts found/doubts.csv # DATA/harmed/cleaned

`docs/pixel_weights/cleaned.yaml` trains with them.
"""

import argparse
import csv
import shutil
from pathlib import Path

from PIL import Image

from segzoo.configs import config_path
from segzoo.data import PairedFolders
from segzoo.data.domains import ImageSet
from segzoo.data.harm import Harmed
from segzoo.yaml_files import read_yaml

CLASSES = ("Road", "Pavement")
SHARE = 0.25
PLACE = "harmed"


def write(images: ImageSet, folder: Path, without: frozenset[str] = frozenset()) -> int:
    """Writes images and masks of label ids into ``folder/image`` and ``folder/label``.

    Args:
        images: what there is.
        folder: of the copy; an old one is replaced.
        without: names that are left out.

    Returns:
        how many were written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("image", "label"):
        (folder / part).mkdir(parents=True)
    kept = [i for i, name in enumerate(images.names) if name not in without]
    for i in kept:
        name = images.names[i]
        shutil.copyfile(images.files[i], folder / "image" / f"{name}{images.files[i].suffix}")
        Image.fromarray(images.label(i)).save(folder / "label" / f"{name}.png")
    return len(kept)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of carla and camvid; copies are written into it")
    parser.add_argument("--doubts", type=Path, help="list of `segzoo data doubts`")
    arguments = parser.parse_args()
    source = PairedFolders(**read_yaml(config_path("data", "carla_to_camvid"))["data"]["source"]["init_args"])
    right = source.images("train", arguments.root)
    harmed = Harmed(source, SHARE, "exchanged", classes=CLASSES).images("train", arguments.root)
    place = arguments.root / PLACE
    if arguments.doubts is None:
        print(write(right, place / "right"), write(harmed, place / "harmed"))
        return
    with arguments.doubts.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = frozenset(row["image"] for row in rows[: round(SHARE * len(rows))])
    wrong = {harmed.names[i] for i in harmed.harmed}
    print(f"{len(wrong & first)} of {len(wrong)} harmed masks are left out, of {len(first)}")
    print(write(harmed, place / "cleaned", first))


if __name__ == "__main__":
    main()
