"""YAML that could be meant in two ways, or is not what it seems, is one line; so is null where an option takes none."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from segzoo.cli.option_index import option_index
from segzoo.data.label_spaces import load_class_map, load_label_space
from segzoo.errors import ConfigError
from segzoo.methods.registry import methods
from segzoo.yaml_files import dump_yaml, parse_yaml, read_yaml
from tests.cli.conftest import SPACE, Segzoo

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
)


@pytest.mark.fault("key-that-stands-twice")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_steps: 3}\ntrainer: {max_steps: 4}", "line 2: the key 'trainer' stands already in line 1"),
        ("trainer:\n  max_steps: 3\n  max_steps: 4", "line 3: the key 'max_steps' stands already in line 2"),
        ("network:\n  options: {a: 1, 'a': 2}", "line 2: the key 'a' stands already in line 2"),
        ("x: [{1: a, 0x1: b}]", "line 1: the key '0x1' stands already in line 1"),
        ("{1: a, true: b}", "line 1: the key 'true' stands already in line 1"),
    ],
)
def test_a_key_stands_once(segzoo: Segzoo, text: str, message: str) -> None:
    Path("own.yaml").write_text(text)
    for arguments in (["--config", "own.yaml"], ["--data", "own.yaml"], ["--recipe", "own.yaml"]):
        result = segzoo("fit", "--method", "joint", *arguments)
        assert result.status == 2
        assert result.err == f"error: the configuration own.yaml: {message}; keep one of them\n"


@pytest.mark.fault("key-that-stands-twice")
def test_a_raw_id_of_a_class_map_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"{yaml.safe_dump(SPACE)}maps:\n  raw:\n    0: sky\n    1: road\n    0: car\n")
    with pytest.raises(
        ConfigError, match=r"the label space .*space\.yaml: line \d+: the key '0' stands already in line"
    ):
        load_label_space(path)


@pytest.mark.fault("key-that-stands-twice")
def test_a_key_of_a_typed_mapping_stands_once(segzoo: Segzoo) -> None:
    result = segzoo("fit", "--method", "joint", "--network.options", "{a: 1, a: 2}")
    assert result.err.startswith("error: --network.options: line 1: the key 'a' stands already in line 1")


@pytest.mark.fault("aliases-that-explode")
def test_aliases_that_explode_are_refused_at_once(segzoo: Segzoo) -> None:
    Path("own.yaml").write_text(BOMB)
    started = time.monotonic()
    result = segzoo("fit", "--method", "joint", "--config", "own.yaml")
    assert time.monotonic() - started < 5
    assert "own.yaml: line" in result.err and "values, once its aliases are written out" in result.err
    Path("own.yaml").write_text("a: &a [*a]")
    assert "holds itself" in segzoo("fit", "--method", "joint", "--config", "own.yaml").err


def test_anchors_and_merge_keys_work() -> None:
    text = "base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: *b"
    assert parse_yaml(text, "") == {"base": {"x": 1, "y": 2}, "one": {"x": 1, "y": 3}, "two": {"x": 1, "y": 2}}


@pytest.mark.fault("yaml-that-reads-as-something-else")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("0100", 100),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", 1000),
        ("'1e-4'", "1e-4"),
        ("", None),
    ],
)
def test_numbers_are_those_of_flags(text: str, value: Any) -> None:
    assert parse_yaml(text, "") == value
    assert type(parse_yaml(text, "")) is type(value)


@pytest.mark.fault("yaml-that-reads-as-something-else")
@pytest.mark.parametrize(
    "value", ["1e3", "0100", "no", "null", "2024-01-01", "12:30", "a: b", "é", ".nan", "", "=", "<<"]
)
def test_what_is_written_is_read_back(value: str) -> None:
    for content in (value, {value: value}, [value]):
        assert parse_yaml(dump_yaml(content), "") == content


@pytest.mark.fault("yaml-that-reads-as-something-else")
def test_a_file_means_what_a_flag_means(segzoo: Segzoo) -> None:
    Path("own.yaml").write_bytes(
        b"\xef\xbb\xbfname: '1e3'\r\noptimizer:\r\n  lr: 1e-4\r\ntrainer: {max_steps: 0100, max_time: 12:00:00:00}\r\n"
    )
    result = segzoo("fit", "--method", "joint", "--config", "own.yaml", "--print_config")
    assert result.status == 0, result.err
    content = read_yaml_text(result.out)
    assert content["name"] == "1e3" and content["optimizer"]["lr"] == 1e-4
    assert content["trainer"]["max_steps"] == 100 and content["trainer"]["max_time"] == "12:00:00:00"
    Path("again.yaml").write_text(result.out)
    assert segzoo("fit", "--config", "again.yaml", "--print_config").out == result.out


def read_yaml_text(text: str) -> Any:
    return parse_yaml(text, "")


@pytest.mark.fault("yaml-that-reads-as-something-else")
def test_a_class_called_no_is_to_be_quoted(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    for text in (
        "name: a\nclasses: {on: [1, 1, 1], b: [2, 2, 2]}",
        "name: a\nclasses: {'on': [1, 1, 1]}\nmaps: {m: {0: on}}",
        "name: a\nclasses: {'on': [1, 1, 1]}\nsubsets: {s: [on]}",
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match="quote"):
            load_label_space(path)
    path.write_text("name: a\nclasses: {'on': [1, 1, 1], b: [2, 2, 2]}\nmaps: {m: {007: 'on', 010: b}}")
    assert load_class_map(path, "m").lut[[7, 8, 10]].tolist() == [0, -1, 1]


@pytest.mark.fault("file-that-is-no-configuration")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a:\n\tb: 1", "is not valid YAML: line 2: a tab, where YAML allows spaces only"),
        (b"a: 1\n---\nb: 2", "is not valid YAML: line 2: a second document begins ('---'); expected one"),
        (b"- a\n- b", "must hold sections such as 'method:' and 'data:', found a list"),
        (b"a: !!python/name:os.system", "expected a plain value, found one with the tag"),
        (b"\xff\xfe\x00", "is not a text file with YAML: save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a text file with YAML"),
        (b"[" * 5000, "nested too deeply"),
        (b"a: " + b"[" * 80 + b"]" * 80, "nested too deeply"),
        (b"a: x\n" * 300_000, "it is larger than 1 MiB"),
        (b"a: " + b"9" * 5000, "is not valid YAML: Exceeds the limit"),
        (b"data: {1: 2}", "data: the key 1 is no name"),
        (b"null: 2", "the key null is no name"),
        (b"data: {seed: 7}", "'data.seed' follows 'seed_everything'; leave it out"),
        (b"method: {label_space: minicity}", "'method.label_space' follows the data's 'label_space'; leave it out"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(segzoo: Segzoo, content: bytes, message: str) -> None:
    Path("own.yaml").write_bytes(content)
    result = segzoo("fit", "--method", "joint", "--config", "own.yaml")
    assert result.status == 2
    assert "own.yaml" in result.err and message in result.err and result.err.count("\n") == 1


@pytest.mark.fault("file-that-is-no-configuration")
def test_a_folder_is_no_configuration(segzoo: Segzoo, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").mkdir()
    result = segzoo("fit", "--method", "joint", "--config", "own.yaml")
    assert result.err == "error: cannot read the configuration own.yaml: it is a folder; expected a YAML file\n"
    with pytest.raises(ConfigError, match="it is a folder"):
        read_yaml(tmp_path / "own.yaml")


def test_an_empty_file_says_nothing(segzoo: Segzoo) -> None:
    Path("own.yaml").write_text("# nothing\ntrainer:\n")
    assert segzoo("fit", "--method", "joint", "--config", "own.yaml", "--print_config").status == 0


@pytest.mark.fault("null-or-another-kind")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {name: null}", "--data.name (in own.yaml): expected text, found 'null'"),
        ("data: {root: null}", "--data.root (in own.yaml): expected text, found 'null'"),
        ("data: {size: null}", "--data.size (in own.yaml): expected two numbers, height width, found 'null'"),
        ("data: {source: null}", "option '--data.source' is required"),
        ("data: {source: {class_path: null}}", "own.yaml: data.source.class_path: expected the import path of a class"),
        (
            "data: {source: {init_args: null}}",
            "own.yaml: data.source.init_args: expected options of the class, found null",
        ),
        ("data: {target: {init_args: {mask_suffix: null}}}", "--data.target.mask_suffix (in own.yaml): expected text"),
        ("data: {target: {init_args: {images: null}}}", "option '--data.target.images' is required (in own.yaml)"),
        ("data: {target: {init_args: {gap: null}}}", "--data.target.gap (in own.yaml): expected int, found 'null'"),
        ("data: 3", "own.yaml: 'data' must be a section with options, found '3'"),
        ("network: []", "own.yaml: 'network' must be a section with options, found '[]'"),
        ("optimizer: {lr: null}", "--optimizer.lr (in own.yaml): expected float, found 'null'"),
        (
            "network: {norm: null}",
            "--network.norm (in own.yaml): expected one of batch, sync, frozen, group, found 'null'",
        ),
        ("optimizer: {lr: true}", "--optimizer.lr (in own.yaml): expected float, found 'true'"),
        ("seed_everything: null", "--seed_everything (in own.yaml): expected int, found 'null'"),
        ("seed_everything: true", "--seed_everything (in own.yaml): expected int, found 'true'"),
        ("seed_everything: x", "--seed_everything (in own.yaml): expected int, found 'x'"),
        ("runs: 3", "--runs (in own.yaml): expected text, found '3'"),
        ("name: no", "--name (in own.yaml): expected text, found 'false'"),
        ("logger: [csv]", "--logger (in own.yaml): expected text, found '['csv']'"),
        ("logger: null", "--logger (in own.yaml): expected text, found 'null'"),
        ("checkpoint_steps: null", "--checkpoint_steps (in own.yaml): expected a whole number above 0, found 'null'"),
        ("checkpoint_steps: 1.5", "--checkpoint_steps (in own.yaml): expected a whole number above 0, found '1.5'"),
        (
            "trainer: {devices: null}",
            "--trainer.devices (in own.yaml): expected one of a list, text, int, found 'null'",
        ),
        ("trainer: {max_steps: null}", "--trainer.max_steps (in own.yaml): expected int, found 'null'"),
    ],
)
def test_null_and_other_kinds_are_refused_by_name(segzoo: Segzoo, toy: Path, text: str, message: str) -> None:
    Path("own.yaml").write_text(text)
    result = segzoo("fit", "--method", "joint", "--data", toy, "--config", "own.yaml", "--print_config")
    assert result.status == 2
    assert result.err.startswith(f"error: {message}") and result.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.fault("null-or-another-kind")
def test_every_option_takes_any_value_or_is_one_line(segzoo: Segzoo, toy: Path) -> None:
    values: list[Any] = [
        None,
        [],
        [1, "a"],
        {},
        {"a": 1},
        "x",
        "",
        True,
        -1,
        1.5,
        float("nan"),
        10**30,
        {"class_path": "x"},
    ]
    index = option_index(methods()["joint"].target, {"source": None, "target": "segzoo.data.PairedFolders"})
    for number, name in enumerate(index.kinds):
        keys, value = name.split("."), values[number % len(values)]
        if keys[:2] == ["data", "target"] and len(keys) == 3:
            keys[2:] = ["init_args", keys[2]]
        for key in reversed(keys):
            value = {key: value}
        Path("own.yaml").write_text(yaml.safe_dump(value))
        result = segzoo("fit", "--method", "joint", "--data", toy, "--config", "own.yaml", "--print_config")
        assert result.status == 0 or (result.status == 2 and result.err.count("\n") == 1), (name, value, result.err)


@pytest.mark.fault("file-that-is-no-configuration")
def test_a_value_that_begins_with_a_brace_has_to_be_quoted() -> None:
    with pytest.raises(ConfigError, match=r"line 2: .*a value that begins with '\{' has to be quoted"):
        parse_yaml("data:\n  images: {split}/image\n", "own.yaml")
