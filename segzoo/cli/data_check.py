"""``segzoo data check``: every file of a data set, before anything is trained on it."""

import os
import sys
from pathlib import Path

from segzoo.checks import check_range
from segzoo.cli.counting import counting
from segzoo.cli.data_options import add_data, build_data, read_invocation, split_data_options
from segzoo.cli.errors import translate
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import create

DESCRIPTION = """\
Read every image and mask of both domains, in all splits, and say what is there and what is wrong with it.

Prints sizes, kinds of files and the ids in the masks, the classes' shares of every set side by side, all files that are wrong,
and images of two sets that look alike (neighbours of one video, copies). Writes
  OUT/report.txt            what is printed
  OUT/files.csv             a row per image: files, size, kinds, ids, what is wrong
  OUT/near-duplicates.csv   a row per pair of images that look alike
  OUT/source.png            some images with their masks over them, and the classes' colours: look whether they fit
  OUT/target.png            the same of the target

exit status: 0, nothing is wrong, warnings aside; 1, something is, and all of it is named; 2, the data could not be looked at"""
EXAMPLES = """\
examples:
  segzoo data check my_data.yaml
  segzoo data check carla_to_camvid --data.root /data --out checks/carla
  segzoo data check my_data.yaml --data.target.blocks 0.7 0.1 0.2"""
SHOWN = 20
"""Files that are wrong, of those that are printed; all are in the files."""


def check(argv: list[str]) -> int:
    """Runs the command."""
    own, options = split_data_options(argv)
    args = _parser().parse(own)
    check_range("--workers", args.workers, 1)
    data = build_data(read_invocation(args.data, options))
    folder = create(args.out or Path(f"check-{data.name}"))

    from segzoo.dataprep.montage import write_montage
    from segzoo.dataprep.report import TABLE, report, write_files
    from segzoo.dataprep.sets import find_sets
    from segzoo.dataprep.survey import survey
    from segzoo.files import write_text

    sets = find_sets(data)
    with counting(sets.total) as done:
        found = survey(sets, data.label_space, args.workers, done)
    text = report(found)
    print(text)
    lines = [*(f"error: {translate(line)}" for line in found.problems)]
    said = [*(f"warning: {translate(line)}" for line in found.warnings)]
    for line in [*lines[:SHOWN], *said]:
        print(line, file=sys.stderr)
    if len(lines) > SHOWN:
        print(f"error: and {len(lines) - SHOWN} more, which are in {folder / TABLE}", file=sys.stderr)
    write_text(folder / TABLE, "\n".join([text, "", *lines, *said, ""]))
    write_files(found, folder)
    for domain in ("source", "target"):
        write_montage(domain, found.sets, found.space, folder / f"{domain}.png")
    images = sum(len(one.items) for one in found.sets.values())
    print(f"{images} images, {len(found.problems)} errors, {len(found.warnings)} warnings: {folder}")
    return 1 if found.problems else 0


def _parser() -> Parser:
    parser = Parser("segzoo data check", DESCRIPTION, EXAMPLES)
    add_data(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the report (default: check-NAME)")
    cores = min(8, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=cores, metavar="N", help=f"files at once (default: {cores})")
    return parser
