"""``segzoo data prepare``: a copy of a data set at the size that is trained on."""

import copy
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzoo.checks import check_range
from segzoo.cli.counting import counting
from segzoo.cli.data_options import add_data, build_data, read_invocation, split_data_options
from segzoo.cli.domain_names import pair_of
from segzoo.cli.errors import translate
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import create
from segzoo.configs import config_path
from segzoo.files import write_text
from segzoo.runtime.lock import locked
from segzoo.yaml_files import dump_yaml, read_yaml

if TYPE_CHECKING:
    from segzoo.data import DomainDataModule
    from segzoo.data.domains import ImageSet
    from segzoo.dataprep.sets import Sets

DESCRIPTION = """\
Copy the images and masks of both domains at the size that is trained on, which is read many times as fast as large images.

Writes OUT/{source,target}/{train,val,test}/images/NAME.jpg and masks/NAME.png (label ids, in the classes' colours), of several
sources in a folder each (OUT/source/train/carla/images), and
  OUT/data.yaml       the same data set, to train on: segzoo fit --data OUT/data.yaml
  OUT/manifest.json   the SHA-256 of every file, and the pixels of every class in every set

Training images keep their shape and are reduced until the smallest crop of a training (--data.crop_scale) would have to be
enlarged; none is enlarged. The target's val and test images keep their own size, as scores are taken there, unless
--resize_scored is given. An interrupted command goes on when it is given again: files are whole or not there.

exit status: 0, all is copied; 1, some files are wrong and named, and OUT/data.yaml is not written; 2, an error"""
EXAMPLES = """\
examples:
  segzoo data prepare my_data.yaml --out prepared
  segzoo data prepare gta5_to_cityscapes --data.root /data --data.size 512 1024 --out /fast/gta5
  segzoo fit --method joint --data prepared/data.yaml"""
FILE, CLASSES = "data.yaml", "classes.yaml"


def prepare(argv: list[str]) -> int:
    """Runs the command."""
    own, options = split_data_options(argv)
    args = _parser().parse(own)
    check_range("--workers", args.workers, 1)
    invocation = read_invocation(args.data, options)
    data = build_data(invocation)
    folder = create(args.out)

    from segzoo.dataprep.copies import Copy
    from segzoo.dataprep.sets import find_sets

    sets = find_sets(data)
    domains = {domain: _domain(data, sets, domain) for domain in ("source", "target")}
    with locked(folder):
        writer = Copy(folder, data, args.png, args.resize_scored)
        todo = writer.missing(sets)
        with counting(len(todo)) as done:
            problems = [f"{name}: {line}" for name, lines in sets.problems.items() for line in lines]
            problems += writer.write(sets, todo, args.workers, done)
        if problems:
            for line in problems:
                print(f"error: {translate(line)}", file=sys.stderr)
            print(f"{len(problems)} errors: put the files right and give the command again", file=sys.stderr)
            return 1
        writer.write_manifest(sets)
        _write_yaml(folder, args.data, [option for option in options if option.startswith("--")], data, domains)
    before = f", {sets.total - len(todo)} were before" if len(todo) < sets.total else ""
    print(f"{len(todo)} images copied{before}: {folder}")
    print(f"train on them: segzoo fit --method joint --data {shlex.quote(str(folder / FILE))}")
    return 0


def _domain(data: "DomainDataModule", sets: "Sets", domain: str) -> Any:
    """A domain of the copy as the YAML has it, without its label space: a class and its options, or a list of several."""
    from segzoo.dataprep.sets import parts_of

    entries = []
    for end, part in parts_of(getattr(data, domain)).items():
        names = {split: f"{domain}/{split}{end}" for split in ("train", "val", "test", "unlabelled")}
        mine = {split: sets.images[one] for split, one in names.items() if one in sets.images}
        options = _options(domain, end.replace(": ", "/"), part.name, mine)
        entries.append({"class_path": "segzoo.data.PairedFolders", "init_args": options})
    if not data.source_weights or domain == "target":
        return entries[0]
    return [entry | {"weight": weight} for entry, weight in zip(entries, data.source_weights.values(), strict=True)]


def _options(domain: str, inner: str, name: str, mine: "Mapping[str, ImageSet]") -> dict[str, Any]:
    """The options of a domain in the copy.

    Args:
        domain: ``source`` or ``target``.
        inner: what its folders have after the split, e.g. ``/carla`` for one of several sources.
        name: its own.
        mine: its sets by split, and ``unlabelled``.
    """
    splits = [split for split in mine if split != "unlabelled"]
    labelled = [split for split in splits if mine[split].has_labels]
    folder = f"{domain}/{'train' if splits == ['train'] else '{split}'}{inner}"
    found: dict[str, Any] = {
        "images": f"{folder}/images",
        "masks": f"{folder}/masks" if labelled else None,
        "name": name,
        "upright": False,
    }
    if labelled and splits != ["train"]:
        # Those that are missing, too, as it would be a mistake otherwise.
        without = [split for split in ("train", "val", "test") if split in mine and split not in labelled]
        without += [split for split in ("val", "test") if split not in mine]
        if without:
            found["splits_without_masks"] = without
    if "unlabelled" in mine:
        found["unlabelled"] = f"{domain}/unlabelled/images"
    if domain == "target" and "train" in mine and mine["train"].has_references:
        found["references"] = f"{domain}/train/references"
    return found


def _write_yaml(
    folder: Path,
    name: str | None,
    options: Sequence[str],
    data: "DomainDataModule",
    domains: Mapping[str, Any],
) -> None:
    """What `fit` reads: the data's own YAML, if any, with the folders of the copy and the options that were given."""
    from segzoo.data.label_spaces import load_label_space
    from segzoo.dataprep.copies import same_space

    space = data.label_space
    if same_space(space.name, space, load_label_space):
        label_space = space.name
    else:
        label_space = CLASSES
        content = {
            "name": space.name,
            "classes": {one: list(colour) for one, colour in zip(space.classes, space.palette, strict=True)},
            "subsets": {key: [space.classes[i] for i in ids] for key, ids in space.subsets.items()},
        }
        write_text(folder / CLASSES, f"# The classes of {data.name}\n{dump_yaml(content)}")
    if name is None or pair_of(name):
        own: dict[str, Any] = {"data": {"name": data.name, "size": list(data.size)}}
    else:
        own = copy.deepcopy(read_yaml(config_path("data", name)) or {})
    section = {key: value for key, value in own.get("data", {}).items() if key not in ("source", "target", "root")}
    for option in options:
        key = option.removeprefix("--data.").partition("=")[0]
        if "." not in key and key not in ("source", "target", "root"):
            value = (
                data.train_sizes[key.removesuffix("_size")]
                if key in ("source_size", "target_size")
                else getattr(data, key)
            )
            section[key] = list(value) if isinstance(value, tuple) else value
    section["root"] = str(folder.absolute())
    for domain, described in domains.items():
        for entry in described if isinstance(described, list) else [described]:
            entry["init_args"]["label_space"] = label_space
        section[domain] = described
    head = f"# A copy of {name or data.name}, made by `segzoo data prepare`. After it was moved: --data.root FOLDER\n"
    write_text(folder / FILE, head + dump_yaml(own | {"data": section}))


def _parser() -> Parser:
    parser = Parser("segzoo data prepare", DESCRIPTION, EXAMPLES)
    add_data(parser)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the copy")
    add(
        "--png",
        action="store_true",
        help="images as PNG, which lose nothing and take more room and time (default: JPEG)",
    )
    add("--resize_scored", action="store_true", help="reduce val and test, too: scores are then those of reduced masks")
    cores = min(8, os.cpu_count() or 1)
    add("--workers", type=int, default=cores, metavar="N", help=f"files at once (default: {cores})")
    return parser
