"""From the command line to layers and flags; no torch involved."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from segzoo.cli.expand import Invocation, expand, split_arguments
from segzoo.errors import CheckpointError, ConfigError

TARGETS = {"source": {"class_path": "A"}, "target": {"class_path": "B"}}


def no_checkpoint(path: Path) -> dict[str, Any]:
    raise AssertionError(f"{path} must not be read")


def expanded(command: str, *argv: str, carried: dict[str, Any] | None = None) -> Invocation:
    def read(path: Path) -> dict[str, Any]:
        return {"method": "joint", "config": carried}

    invocation = expand(command, argv, no_checkpoint if carried is None else read)
    assert invocation is not None
    return invocation


def merged(invocation: Invocation, section: str, key: str) -> Any:
    values = [(layer.content.get(section) or {}).get(key) for layer in invocation.layers]
    return next((value for value in reversed(values) if value is not None), None)


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("argv", "pairs"),
    [
        (["--a", "1"], [("--a", "1")]),
        (["--a=1=2"], [("--a", "1=2")]),
        (["--a", "-1", "--b", "-.5"], [("--a", "-1"), ("--b", "-.5")]),
        (["--data.size", "192", "256", "--a", "1"], [("--data.size", "[192, 256]"), ("--a", "1")]),
        (["--print_config", "--a", "1"], [("--print_config", None), ("--a", "1")]),
        (["--a", "--b", "1"], [("--a", None), ("--b", "1")]),
        (["-c", "x.yaml"], [("--config", "x.yaml")]),
    ],
)
def test_arguments_are_pairs(argv: list[str], pairs: list[tuple[str, str | None]]) -> None:
    assert split_arguments(argv) == pairs


def test_a_bare_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="unexpected argument 'joint'"):
        split_arguments(["joint"])


def test_options_go_to_the_parser_as_they_are_typed() -> None:
    invocation = expanded("fit", "--method", "joint", "--method.weight", "2", "--data.batch_size=4")
    assert invocation.method == "joint"
    assert invocation.flags == ["--method.weight=2", "--data.batch_size=4"]


def test_layers_are_base_then_method_then_data(tmp_path: Path) -> None:
    own = write(tmp_path / "own.yaml", {"data": {"batch_size": 7}})
    invocation = expanded("fit", "--method=metapix", "--config", own)
    origins = [Path(layer.origin).name for layer in invocation.layers]
    # What a file has for this method alone comes after what it has for all.
    files = ["base.yaml", "base.yaml", "the defaults of 'metapix'", "minicity.yaml", "minicity.yaml", "own.yaml"]
    assert origins == files
    assert merged(invocation, "method", "weight_width") == 8
    keys = {key for layer in invocation.layers for key in (*layer.content, *layer.content.get("method", {}))}
    assert not keys & {"methods", "name", "class", "summary", "resources", "default_data"}


def test_a_data_file_has_values_for_one_method(tmp_path: Path) -> None:
    parts = {"joint": {"method": {"weight": 0.5}, "data": {"batch_size": 3}}, "sepico": {"method": {"fast": True}}}
    content = {"data": {**TARGETS, "name": "pair", "batch_size": 2}, "methods": parts}
    own = write(tmp_path / "pair.yaml", content)
    for argv in (["--data", own], ["--config", own]):
        joint = expanded("fit", "--method", "joint", *argv)
        assert (merged(joint, "method", "weight"), merged(joint, "data", "batch_size")) == (0.5, 3)
        other = expanded("fit", "--method", "source-only", *argv)
        assert (merged(other, "method", "weight"), merged(other, "data", "batch_size")) == (None, 2)
    flag = expanded("fit", "--method", "joint", "--data", own, "--method.weight", "2")
    assert flag.value("method", "weight") == ("2", "")
    write(tmp_path / "pair.yaml", {**content, "methods": {"joint": {"method": {"wight": 1}}}})
    with pytest.raises(ConfigError, match=r"unknown key 'method.wight' \(in .*pair.yaml\); did you mean"):
        expanded("fit", "--method", "joint", "--data", own)


def test_a_section_of_the_defaults_that_a_method_lacks_is_none_of_its(tmp_path: Path) -> None:
    gan = expanded("fit", "--method", "gan", "--data", "minicity")
    assert not any("network" in layer.content for layer in gan.layers)
    own = write(tmp_path / "own.yaml", {"network": {"encoder": "resnet18"}})
    with pytest.raises(ConfigError, match=r"unknown key 'network\.encoder'"):
        expanded("fit", "--method", "gan", "--config", own)


def test_the_method_of_a_file_counts_and_a_flag_beats_it(tmp_path: Path) -> None:
    for content in ({"method": "joint"}, {"method": {"name": "joint", "weight": 2}}):
        own = write(tmp_path / "own.yaml", content)
        assert expanded("fit", "--config", own).method == "joint"
    assert expanded("fit", "--method.name", "joint").method == "joint"
    own = write(tmp_path / "own.yaml", {"method": "joint"})
    assert expanded("fit", "--config", own, "--method", "metapix").method == "metapix"


def test_no_method_lists_them() -> None:
    with pytest.raises(ConfigError, match=r"one of: .*joint.*metapix"):
        expanded("fit")


def test_help_without_a_method_is_left_to_the_command() -> None:
    assert expand("fit", ["--help"], no_checkpoint) is None


def test_own_data_file_replaces_the_default(tmp_path: Path) -> None:
    own = write(tmp_path / "pair.yaml", {"data": {**TARGETS, "name": "pair"}})
    for argv in (["--data", own], ["--config", own]):
        invocation = expanded("fit", "--method", "joint", *argv)
        assert "minicity.yaml" not in " ".join(layer.origin for layer in invocation.layers)
        assert merged(invocation, "data", "name") == "pair"


def test_own_data_file_beats_the_methods_defaults(tmp_path: Path) -> None:
    own = write(tmp_path / "pair.yaml", {"data": {**TARGETS, "name": "pair", "batch_size": 3}})
    arguments = ("fit", "--method", "gradient-annotator")
    assert merged(expanded(*arguments, "--data", own), "data", "batch_size") == 3
    assert merged(expanded(*arguments), "data", "batch_size") == 10
    assert merged(expanded(*arguments, "--data", "minifaces"), "data", "batch_size") == 10


def test_a_label_space_in_a_file_starts_at_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("pair", "here"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "mine.yaml", "")
    domain = {"class_path": "A", "init_args": {"label_space": "mine.yaml"}}
    own = write(tmp_path / "pair" / "pair.yaml", {"data": {"source": domain, "target": domain}})
    invocation = expanded("fit", "--method", "joint", "--data", own, "--data.target.label_space", "here/mine.yaml")
    source = merged(invocation, "data", "source")["init_args"]["label_space"]
    assert source == str(tmp_path / "pair" / "mine.yaml")
    assert invocation.flags == [f"--data.target.label_space={tmp_path / 'here' / 'mine.yaml'}"]


@pytest.mark.parametrize(
    ("space", "flags", "message"),
    [
        (
            "no.yaml",
            [],
            r"--data.source.label_space \(in .*pair.yaml\): no file 'no.yaml' in .*; a path starts at the folder",
        ),
        (
            "cityscape",
            [],
            r"--data.source.label_space \(in .*pair.yaml\): unknown label space 'cityscape'; did you mean",
        ),
        (
            "minicity",
            ["--data.target.label_space", "no.yaml"],
            "--data.target.label_space: no file .* working directory",
        ),
    ],
)
def test_a_label_space_that_is_not_there_names_the_option(
    tmp_path: Path, space: str, flags: list[str], message: str
) -> None:
    domain = {"class_path": "A", "init_args": {"label_space": space}}
    own = write(tmp_path / "pair.yaml", {"data": {"source": domain, "target": domain}})
    with pytest.raises(ConfigError, match=message):
        expanded("fit", "--method", "joint", "--data", own, *flags)


def test_one_option_of_the_default_data_keeps_the_default(tmp_path: Path) -> None:
    own = write(tmp_path / "own.yaml", {"data": {"source": {"init_args": {"seed": 1}}}})
    invocation = expanded("fit", "--method", "joint", "--config", own)
    assert "minicity.yaml" in " ".join(layer.origin for layer in invocation.layers)


def test_the_data_flag_replaces_the_data_of_files_but_no_other_setting(tmp_path: Path) -> None:
    pair = write(tmp_path / "pair.yaml", {"data": {**TARGETS, "name": "pair", "root": "here", "size": [1, 2]}})
    full = {"source": {"class_path": "C"}, "target": {"class_path": "C"}, "name": "old", "root": "there"}
    own = write(tmp_path / "own.yaml", {"data": {**full, "size": [3, 4]}})
    invocation = expanded("fit", "--method", "joint", "--data", pair, "--config", own)
    assert merged(invocation, "data", "source") == {"class_path": "A"}
    assert merged(invocation, "data", "name") == "pair"
    assert merged(invocation, "data", "root") == "here"
    assert merged(invocation, "data", "size") == [3, 4]


def test_a_checkpoint_brings_method_and_settings_and_files_beat_it(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "a.ckpt", "")
    carried = {
        "method": "joint",
        "data": {**TARGETS, "batch_size": 3, "name": "pair"},
        "trainer": {"accelerator": "cuda", "devices": 8, "precision": "bf16-mixed"},
        "logger": "wandb",
    }
    own = write(tmp_path / "own.yaml", {"data": {"batch_size": 5}})
    invocation = expanded("test", "--ckpt_path", checkpoint, "--config", own, "--out", "x", carried=carried)
    assert (invocation.method, invocation.checkpoint, invocation.out) == (
        "joint",
        Path(checkpoint),
        Path("x"),
    )
    assert merged(invocation, "data", "batch_size") == 5
    assert merged(invocation, "data", "name") == "pair"
    assert merged(invocation, "trainer", "precision") == "bf16-mixed"
    assert merged(invocation, "trainer", "devices") == 1  # where it was trained does not bind where it is tested
    assert not any("logger" in layer.content for layer in invocation.layers)


def test_resuming_keeps_devices_and_loggers(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "a.ckpt", "")
    carried = {"trainer": {"devices": 8}, "logger": "wandb", "data": TARGETS}
    invocation = expanded("fit", "--ckpt_path", checkpoint, carried=carried)
    assert merged(invocation, "trainer", "devices") == 8
    assert invocation.layers[-1].content["logger"] == "wandb"


@pytest.mark.parametrize("option", ["--name", "--runs", "--seed_everything"])
def test_a_run_goes_on_in_its_own_folder_and_with_its_own_seed(tmp_path: Path, option: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoint, moved = write(tmp_path / "checkpoints" / "a.ckpt", ""), write(tmp_path / "a.ckpt", "")
    with pytest.raises(ConfigError, match=f"{option}: the run of .* begin a new run at its weights"):
        expanded("fit", "--ckpt_path", checkpoint, option, "7", carried={"data": TARGETS})
    expanded("fit", "--ckpt_path", moved, option, "7", carried={"data": TARGETS})


def test_options_of_a_network_are_not_those_of_another(tmp_path: Path) -> None:
    assert "decoder_channels" in merged(expanded("fit", "--method", "joint"), "network", "options")
    fpn = expanded("fit", "--method", "joint", "--network.architecture", "fpn")
    assert merged(fpn, "network", "options") is None
    for name in ("unet", "Unet", "UNET"):
        unet = expanded("fit", "--method", "joint", "--network.architecture", name)
        assert "decoder_channels" in merged(unet, "network", "options")
    options = {"decoder_pyramid_channels": 64}
    own = write(tmp_path / "own.yaml", {"network": {"architecture": "fpn", "options": options}})
    assert merged(expanded("fit", "--method", "joint", "--config", own), "network", "options") == options


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "a.ckpt", "")
    with pytest.raises(CheckpointError, match="of the method 'joint', not of 'metapix'"):
        expanded("test", "--ckpt_path", checkpoint, "--method", "metapix", carried={})


def test_last_is_the_newest_run_of_that_name(tmp_path: Path) -> None:
    for folder in ("mine-s3", "mine-s3-2", "mine-s3-10", "mine-s4", "mine-s3-x"):
        (tmp_path / "joint/minicity" / folder / "checkpoints").mkdir(parents=True)
        (tmp_path / "joint/minicity" / folder / "checkpoints/last.ckpt").touch()
    argv = ["--method", "joint", "--ckpt_path", "last", "--runs", str(tmp_path), "--name", "mine"]
    invocation = expanded("fit", *argv, "--seed_everything", "3", carried={})
    assert invocation.checkpoint == tmp_path / "joint/minicity/mine-s3-10/checkpoints/last.ckpt"
    with pytest.raises(CheckpointError, match="'mine-s5'"):
        expanded("fit", *argv, "--seed_everything", "5")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["test"], "`segzoo test` needs a trained model"),
        (["test", "--ckpt_path", "no.ckpt"], "no checkpoint at no.ckpt"),
        (["test", "--ckpt_path", "last"], "add --method NAME"),
        (["fit", "--method"], "option '--method' needs a value"),
        (["fit", "--config"], "option '--config' needs a value"),
        (["fit", "--method", "joint", "extra"], "unexpected argument 'extra'; option '--method' takes one value"),
        (["fit", "--method", "joint", "--logger", "csw"], "unknown logger 'csw'; did you mean 'csv'"),
        (["fit", "--method", "joint", "--data.root", "/nowhere"], "--data.root /nowhere is not a folder"),
        (
            ["fit", "--method", "joint", "--data", "minicty"],
            "unknown data 'minicty'; did you mean 'minicity'",
        ),
        (["fit", "--method", "joint", "--data", "no.yaml"], "no such file: no.yaml"),
        (
            ["fit", "--method", "joint", "--data", "configs/data/mini_city.yaml"],
            "no such file: .*; did you mean 'configs/data/minicity.yaml'",
        ),
        (["fit", "--method", "joint", "--data", "[x]"], r"option '--data' takes one value, and no list: found '\[x\]'"),
        (
            ["fit", "--method", "joint", "--network", "unet"],
            "option '--network' is a section of options, such as --network",
        ),
        (["fit", "--method", "joint", "--recipe", "no"], "unknown recipe 'no'"),
        (
            ["fit", "--method", "joint", "--ckpt_path", "last", "--seed_everything", "abc"],
            "--seed_everything: expected int, found 'abc'",
        ),
        (["fit", "--config", "no.yaml"], "cannot read the configuration no.yaml"),
    ],
)
def test_what_cannot_work_says_why(argv: list[str], message: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        expanded(*argv)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("network: [", "is not valid YAML: line 1"),
        ("hello", "must hold sections"),
        ("network: 3", "'network' must be a section"),
        (
            "model: {lr: 1, encoder: resnet18}",
            "'model.lr' is 'optimizer.lr' now, 'model.encoder' is 'network.encoder' now",
        ),
        ("model: {weight: 1}", "'model.weight' is 'method.weight' now"),
        ("model: 3", "the section 'model' is gone: its options are in 'network', 'optimizer'"),
        ("method: {name: 3}", "'method.name' must be a name, found 3"),
        ("method: [joint]", "'method' must be a section"),
        ("methods: 3", "'methods' must hold methods and their sections"),
        ("methods: {metapx: {}}", "methods: unknown method 'metapx'; did you mean 'metapix'"),
        ("methods: {joint: {method: {name: x}}}", "methods.joint: 'method.name' has no place here"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"own\.yaml.*{message}"):
        expanded("fit", "--method", "joint", "--config", write(tmp_path / "own.yaml", content))
