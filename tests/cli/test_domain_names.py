"""Packaged domains by name, in flags and files."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from segzoo.cli.expand import Invocation, expand
from segzoo.cli.sections import last_value
from segzoo.configs import config_path
from segzoo.errors import ConfigError


def expanded(*argv: str) -> Invocation:
    found = expand("fit", ["--method", "maxsquare", *argv], lambda _: {})
    assert found is not None
    return found


def data(invocation: Invocation, *keys: str) -> Any:
    return last_value(invocation.layers, "data", *keys)


def options(name: str) -> Any:
    return yaml.safe_load(config_path("domains", name).read_text())["init_args"]


def both(invocation: Invocation) -> list[Any]:
    """The options of both domains, as all layers together have them."""
    found = []
    for domain in ("source", "target"):
        merged: dict[str, Any] = {}
        for layer in invocation.layers:
            section = layer.content.get("data", {}).get(domain) or {}
            merged |= section.get("init_args", {})
        found.append(merged)
    return found


def test_two_names_are_all_that_a_training_needs() -> None:
    invocation = expanded("--data.source", "gta5", "--data.target", "cityscapes", "--data.target.gap", "0")
    assert both(invocation) == [options("gta5"), options("cityscapes")]
    assert (data(invocation, "name"), data(invocation, "size")) == ("gta5_to_cityscapes", [512, 1024])
    assert invocation.flags == ["--data.target.gap=0"]


def test_a_pair_is_short_for_its_two_names() -> None:
    invocation = expanded("--data", "gta5_to_cityscapes")
    assert both(invocation) == [options("gta5"), options("cityscapes")]
    assert (data(invocation, "name"), data(invocation, "size")) == ("gta5_to_cityscapes", [512, 1024])
    assert both(expanded("--data", "gta5_to_acdc", "--data.source", "synthia"))[0] == options("synthia")
    assert both(expanded("--recipe", "gta5_maxsquare", "--data", "synthia_to_acdc"))[1] == options("acdc")
    packaged = both(expanded("--data", "carla_to_camvid"))
    assert packaged[0]["images"] == "carla/image", "a packaged file of that name is meant"
    with pytest.raises(ConfigError, match="unknown data 'gta_to_cityscapes'"):
        expanded("--data", "gta_to_cityscapes")


def test_a_name_in_a_file_stands_for_the_same(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("data: {source: synthia, target: {class_path: acdc, init_args: {name: bad_weather}}}\n")
    invocation = expanded("--config", str(file))
    assert both(invocation) == [options("synthia"), options("acdc") | {"name": "bad_weather"}]
    file.write_text("data: {source: synthia, target: acdc, size: [64, 128]}\n")
    invocation = expanded("--config", str(file))
    assert (data(invocation, "name"), data(invocation, "size")) == ("synthia_to_acdc", [64, 128])


def test_names_stand_in_a_list_of_sources_too(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("data: {source: [gta5, {class_path: synthia, weight: 2}], target: cityscapes, name: both}\n")
    several = data(expanded("--config", str(file)), "source", "init_args")
    assert [one["init_args"] for one in several["domains"]] == [options("gta5"), options("synthia")]
    assert several["weights"] == [1, 2]


def test_nothing_is_left_of_the_domain_that_a_name_replaces() -> None:
    invocation = expanded("--recipe", "gta5_maxsquare", "--data.target", "bdd100k")
    assert both(invocation) == [options("gta5"), options("bdd100k")]
    assert data(invocation, "name") == "gta5_to_bdd100k"
    assert data(invocation, "blur") == 0.5, "all else is the recipe's"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--data.source", "gta", "--data.target", "cityscapes"],
            "--data.source: unknown domain 'gta'; did you mean 'gta5'",
        ),
        (["--data.source", "gta5"], "--data.source gta5: there is no target; add --data.target NAME"),
    ],
)
def test_wrong_names(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expanded(*argv)


def test_a_class_stays_a_class() -> None:
    assert "--data.source=segzoo.data.MiniCity" in expanded("--data.source", "segzoo.data.MiniCity").flags
