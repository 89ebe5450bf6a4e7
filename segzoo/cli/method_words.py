"""A command's words in which a method is named by its Python file: ``segzoo fit --method half.py``."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from segzoo.methods.method_files import VARIABLE, add_method_file


@contextmanager
def named_files(arguments: Sequence[str], keep: bool) -> Iterator[list[str]]:
    """The arguments of a command, in which ``--method half.py`` is the name of that file's method.

    Args:
        arguments: after the command's name.
        keep: whether the command has an option ``--method``; for others the file is only made known.

    Raises:
        ConfigError: see `class_in`.
    """
    before, words, rest = os.environ.get(VARIABLE), list(arguments), []
    try:
        while words:
            word = words.pop(0)
            option, equals, value = word.partition("=")
            if option == "--method" and not equals and words:
                value = words.pop(0)
            if option != "--method" or not value.endswith(".py"):
                rest += [word] if option != "--method" or equals else [word, *([value] if value else [])]
                continue
            slug = add_method_file(value)
            rest += ["--method", slug] if keep else []
        yield rest
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
