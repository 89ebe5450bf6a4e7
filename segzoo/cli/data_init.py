"""``segzoo data init``: the YAML of two folders, guessed from what is in them."""

import argparse
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segzoo.cli.parser import Parser
from segzoo.configs import config_names
from segzoo.errors import ConfigError, DataError, SegzooError
from segzoo.suggest import did_you_mean_folder

if TYPE_CHECKING:
    from segzoo.dataprep.classes import Classes
    from segzoo.dataprep.describe import Found
    from segzoo.dataprep.mask_kinds import Stored

DESCRIPTION = """\
Look into the folders of synthetic images and of photographs, and write the YAML that --data reads,
with a comment per line.

It finds which mask belongs to which image (equal names, or names with a common ending), the folders
of the splits (train, val, test), what the masks store (ids, 0 and 255, a colour per class, ids in
the red channel), the classes, and the input size of the network. The classes go to
OUT_classes.yaml, unless --label_space names them. Uncertain lines are marked GUESSED. On a
terminal, the command asks for the names of the classes; Enter keeps the suggestion."""
RENAMED = "give --classes A,B,... to data init"
OPTION = re.compile(r"`(?:data\.)?(target[._](?:unlabelled|masks)|label_space)((?: [^`]*)?)`")
"""How the messages of other rooms name an option that this command has, too."""
EXAMPLES = """\
examples:
  segzoo data init --source_images synthetic/rgb --source_masks synthetic/ids --target_images photos --out my_data.yaml
  segzoo data init --source_images syn --target_images real/train/images --target_masks real/train/masks --out my_data.yaml
  segzoo data init --source_images syn --target_images real --classes background,crack --out cracks.yaml
  segzoo data init --source_images gta5 --target_images city --label_space cityscapes --out city.yaml"""


def init(argv: list[str]) -> int:
    """Runs the command."""
    # Shells and other tools write source-images.
    args = _parser().parse([_with_underscores(argument) for argument in argv])
    _check(args)
    classes_file = args.out.with_name(f"{args.out.stem}_classes.yaml")
    for path in (args.out, *([] if args.label_space else [classes_file])):
        if path.exists() and not args.overwrite:
            raise ConfigError(f"{path} exists; choose another --out, or --overwrite it")

    from segzoo.dataprep.classes import classes_yaml
    from segzoo.dataprep.describe import data_yaml, fitting_method, said_of_splits
    from segzoo.files import write_text
    from segzoo.yaml_files import is_text

    with _own_options():
        found, stored = _look(args)
    name = args.out.stem
    if args.label_space:
        domains = _with_space(args.label_space, found)
        space, note = args.label_space, "the classes"
    else:
        with _own_options():
            domains, classes = _with_classes(found, stored, args.classes)
        space, note = classes_file.name, "the classes, in the file of that name beside this one"
        write_text(classes_file, classes_yaml(f"{name}_classes", classes, stored, RENAMED))
        for line in classes.notes:
            print(f"guessed: {line}", file=sys.stderr)
    file = shlex.quote(str(args.out))
    check = f"segzoo data check {file}"
    train = f"segzoo fit --method {fitting_method(domains['target'])} --data {file}"
    text = data_yaml(name, domains, space, note, train)
    if not is_text(text):
        raise ConfigError("the folders have names that are no text in UTF-8, which no YAML could hold; rename them")
    write_text(args.out, text)
    for domain, one in domains.items():
        _say(domain, one)
    if said := said_of_splits(domains["target"]):
        print(f"warning: {said}", file=sys.stderr)
    print(f"written: {args.out}{'' if args.label_space else f', {classes_file}'}")
    print(f"look at the lines marked GUESSED, then\n  {check}\n  {train}")
    return 0


def _look(args: argparse.Namespace) -> "tuple[dict[str, Found], dict[str, Stored]]":
    from segzoo.dataprep.describe import Found
    from segzoo.dataprep.mask_kinds import what_is_stored
    from segzoo.dataprep.photographs import photographs_of
    from segzoo.dataprep.places import find_places, pair_files

    found: dict[str, Found] = {}
    stored: dict[str, Stored] = {}
    for domain in ("source", "target"):
        images, masks = getattr(args, f"{domain}_images"), getattr(args, f"{domain}_masks")
        pairs = pair_files(find_places(images.expanduser(), masks and masks.expanduser()))
        if pairs.masks:
            stored[domain] = what_is_stored(pairs.masks)
        elif domain == "source":
            raise ConfigError(
                f"--source_images {images}: there are no masks beside them; name their folder as --source_masks, the same one "
                "where they lie among the images"
            )
        further, given = None, args.target_unlabelled
        if domain == "target":
            try:
                further = photographs_of(pairs, given and given.expanduser().absolute())
            except DataError as error:
                raise (DataError(f"--target_unlabelled {given}: {error}") if given else error) from error
        found[domain] = Found(pairs, stored.get(domain), "identity", further)
    return found, stored


def _with_space(name: str, found: "dict[str, Found]") -> "dict[str, Found]":
    """The domains with the maps of a label space that is there already."""
    from segzoo.data.label_spaces import load_label_space
    from segzoo.dataprep.classes import fitting_map

    space = load_label_space(name)
    done = dict(found)
    for domain, one in found.items():
        if one.stored is None:
            continue
        class_map = fitting_map(space, one.stored)
        note = "" if class_map else f"GUESSED: no map of {name} knows all of these, write one; "
        done[domain] = replace(one, class_map=class_map or "identity", note=note)
    return done


def _with_classes(
    found: "dict[str, Found]", stored: "dict[str, Stored]", names: list[str]
) -> "tuple[dict[str, Found], Classes]":
    """The domains with maps for the classes that were found in their masks."""
    from segzoo.dataprep.classes import guess_classes
    from segzoo.dataprep.describe import chosen_map

    classes = guess_classes(stored, names)
    if not names and sys.stdin.isatty():
        classes = guess_classes(stored, _ask(classes.names))
    maps = {domain: chosen_map(domain, mapped) for domain, mapped in classes.maps.items()}
    return {d: replace(one, class_map=maps.get(d, "identity")) for d, one in found.items()}, classes


def _ask(names: Sequence[str]) -> list[str]:
    print(f"{len(names)} classes were found in the masks. Their names (Enter keeps what stands there):")
    try:
        return [input(f"  {i} [{name}]: ").strip() or name for i, name in enumerate(names)]
    except EOFError:
        return list(names)


def _say(domain: str, found: "Found") -> None:
    """Prints what a domain has, and what of it is not used or would stop a training."""
    from segzoo.dataprep.describe import said_of_unpaired

    further = found.unlabelled
    for line in (found.pairs.layout.said, further.warning if further else "", *said_of_unpaired(domain, found)):
        if line:
            print(f"warning: {_with_own_options(line)}", file=sys.stderr)
    print(f"{domain}: {found.pairs.count} images, {len(found.pairs.masks)} with masks")
    if further:
        which = ", those of its images that have no mask" if further.without_masks else ""
        print(f"{domain}: {further.count} unlabelled photographs in {further.folder}{which}")


@contextmanager
def _own_options() -> Iterator[None]:
    """Errors name the options of this command."""
    try:
        yield
    except SegzooError as error:
        raise type(error)(_with_own_options(str(error))) from error


def _with_own_options(text: str) -> str:
    return OPTION.sub(lambda match: f"--{match[1].replace('.', '_')}{match[2]}", text)


def _with_underscores(argument: str) -> str:
    option, equals, value = argument.partition("=")
    return option[:2] + option[2:].replace("-", "_") + equals + value if option.startswith("--") else argument


def _check(args: argparse.Namespace) -> None:
    if args.out.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--out {args.out}: expected the name of a YAML file, e.g. {args.out.name or 'my_data'}.yaml")
    if args.classes and args.label_space:
        raise ConfigError("--classes and --label_space both say which classes there are; give one of them")
    args.classes = [name.strip() for name in args.classes.split(",")] if args.classes else []
    if len(set(args.classes)) < len(args.classes) or "" in args.classes:
        raise ConfigError(f"--classes {','.join(args.classes)}: expected distinct names, separated by commas")
    if args.label_space and args.label_space.endswith((".yaml", ".yml")):
        args.label_space = str(Path(args.label_space).expanduser().absolute())
    if (folder := args.target_unlabelled) is not None and not folder.expanduser().is_dir():
        meant = did_you_mean_folder(folder.expanduser())
        raise ConfigError(f"--target_unlabelled {folder} is not a folder; expected one of photographs{meant}")


def _parser() -> Parser:
    parser = Parser("segzoo data init", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    for domain, what in (("source", "synthetic images"), ("target", "photographs")):
        add(
            f"--{domain}_images",
            type=Path,
            required=True,
            metavar="DIR",
            help=f"the {what}; or a folder with images/ and masks/, or with train/, val/ and test/, in it",
        )
        add(
            f"--{domain}_masks", type=Path, metavar="DIR", help=f"their masks{'' if domain == 'source' else ', if any'}"
        )
    add(
        "--target_unlabelled",
        type=Path,
        metavar="DIR",
        help="more photographs, without masks; or a folder with images/ in it",
    )
    add("--classes", metavar="LIST", help="names of the classes, separated by commas, in the order of their ids")
    spaces = ", ".join(config_names("label_spaces")[:4])
    add("--label_space", metavar="NAME|FILE", help=f"the classes, packaged ({spaces}, ...) or in your own YAML")
    add("--out", type=Path, required=True, metavar="FILE", help="the YAML to write")
    add("--overwrite", action="store_true", help="replace existing files")
    return parser
