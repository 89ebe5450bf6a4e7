"""A method in one Python file: trained, resumed, scored, compared and used, and what such a file can have wrong."""

import os
from pathlib import Path

import pytest

from segzoo.cli.method_words import named_files
from segzoo.errors import ConfigError
from segzoo.methods.method_files import VARIABLE, add_method_file, class_in
from segzoo.methods.registry import load_method, methods
from tests.cli.conftest import Segzoo
from tests.docs.test_extending import PAGE, blocks

CODE = blocks(PAGE, "python")["A method"]


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that it is put back after tests that add to it
    monkeypatch.delenv(VARIABLE)


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """The method of docs/extending.md."""
    path = tmp_path / "half.py"
    path.write_text(CODE)
    return path


def test_the_file_of_the_page_trains_and_is_used(half: Path, segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    fit = segzoo("fit", "--method", "half.py", "--data", toy, "--method.share", "0.25", "--trainer.max_steps", "2")
    assert fit.status == 0, fit.err
    run = tmp_path / "runs/half/toy/default-s0"
    assert "share: 0.25" in (run / "config.yaml").read_text() and VARIABLE not in os.environ
    more = segzoo("fit", "--method=half.py", "--ckpt_path", "last", "--data", toy, "--trainer.max_steps", "3")
    assert more.status == 0 and "continues at step 2 of 3" in more.out, more.err
    assert segzoo("test", "--method", half, "--ckpt_path", run).status == 0
    photos = run / "examples"
    assert segzoo("predict", "--method", half, "--ckpt_path", run, "--input", photos, "--out", "seen").status == 0
    assert segzoo("fit", "--method", half, "--method.shar", "1", "--data", toy).err == (
        "error: unknown option '--method.shar'; did you mean '--method.share'?\n"
    )


def test_a_variable_names_it_for_every_command(
    half: Path, segzoo: Segzoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unknown = segzoo("compare", "--rows", "joint,half")
    assert unknown.status == 2 and "unknown method 'half'" in unknown.err
    listed = segzoo("methods", "--method", half)
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(half), str(half)]))
    assert listed.out == segzoo("methods").out
    assert next(line for line in listed.out.splitlines() if line.startswith("half ")).split()[1:3] == ["x", "x"]
    assert load_method("half").slug == "half" and methods()["half"].file == half


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "no such file: .*mine.py; expected the Python file of a method"),
        (
            "class A",
            r"mine.py is no Python that can be read: .*\(mine.py, line 1\)|mine.py is no Python that can be read",
        ),
        ("class A:\n    pass\n", 'expected one class with a line such as slug = "my-method", found none'),
        ("class A:\n    slug = 'a'\nclass B:\n    slug: str = 'b'\n", "found A, B"),
    ],
)
def test_a_file_that_holds_no_method(code: str | None, message: str, tmp_path: Path) -> None:
    if code is not None:
        (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ConfigError, match=message):
        class_in(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class A:\n    slug = 'joint'\n", "there is a method 'joint' already; give the class another slug"),
        (
            "import nothing_like_it\nclass A:\n    slug = 'own-a'\n",
            "cannot be imported: ModuleNotFoundError: No module",
        ),
        ("class A:\n    slug = 'own-b'\n    resources = ('labels',)\n", "is no Method; derive its class from"),
    ],
)
def test_a_method_that_cannot_be_used(code: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(code)
    slug = add_method_file(str(tmp_path / "mine.py"))
    with pytest.raises(ConfigError, match=message):
        load_method(slug) if slug != "joint" else methods()


def test_a_class_that_the_process_has_imported_needs_no_file() -> None:
    from segzoo.methods import SourceOnly

    class Imported(SourceOnly):
        slug = "imported-by-a-script"

    assert load_method("imported-by-a-script") is Imported
    with pytest.raises(ConfigError, match=r"unknown method 'imported-by-nobody'.*set SEGZOO_METHODS=FILE.py"):
        load_method("imported-by-nobody")


@pytest.mark.parametrize(
    ("words", "kept", "dropped"),
    [
        (["--method", "{}", "--a", "b"], ["--method", "half", "--a", "b"], ["--a", "b"]),
        (["--a=b", "--method={}"], ["--a=b", "--method", "half"], ["--a=b"]),
        (["--method", "joint", "x.py"], None, None),
        (["--method=joint", "--input", "x.py", "--method"], None, None),
    ],
)
def test_words_other_than_a_method_file_stay(
    words: list[str], kept: list[str] | None, dropped: list[str] | None, half: Path
) -> None:
    words = [word.format(half) for word in words]
    for keep, expected in ((True, kept), (False, dropped)):
        with named_files(words, keep=keep) as found:
            assert found == (words if expected is None else expected)
            assert (VARIABLE in os.environ) == (expected is not None)
        assert VARIABLE not in os.environ
