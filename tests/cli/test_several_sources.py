"""A list of sources in a data YAML: through a run, its checkpoint and its score files, and what is said of wrong ones."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segzoo.cli.expand import expand
from segzoo.cli.resume import changed_options
from segzoo.cli.sections import check_sections, flatten
from segzoo.errors import ConfigError
from segzoo.evaluation import Scores
from segzoo.study.plan import Plan, Row
from segzoo.study.results import find_run
from segzoo.study.study_file import single
from segzoo.study.table import make_table
from tests.cli.conftest import Segzoo, write_pairs

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def listed(toy: Path, tmp_path: Path) -> dict[str, Any]:
    """The toy data with two sources, the second one of other ids and with a label space beside the YAML."""
    write_pairs(tmp_path / "other", 6)
    shutil.copy(toy.parent / "space.yaml", tmp_path / "space.yaml")
    content: dict[str, Any] = yaml.safe_load(toy.read_text())
    first = content["data"]["source"]
    second = copy.deepcopy(first)
    folders = {part: str(tmp_path / "other" / folder) for part, folder in (("images", "image"), ("masks", "mask"))}
    second["init_args"] |= folders | {"label_space": "space.yaml", "name": "other"}
    content["data"]["source"] = [first | {"weight": 3}, second]
    return content


def written(content: dict[str, Any]) -> Path:
    Path("own.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return Path("own.yaml")


def test_a_list_of_sources_goes_through_a_run_its_checkpoint_and_its_scores(
    segzoo: Segzoo, listed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--method", "joint", "--data", written(listed), "--data.batch_size", "4", "--method.weight", "0.5")
    result = segzoo("fit", *options)
    assert result.status == 0, result.err
    assert "source 10 images: syn 4 images (weight 3, 75%), other 6 images (weight 1, 25%)" in result.out
    run = tmp_path / "runs" / "joint" / "toy" / "default-s0"
    sources = {"syn": {"images": 4, "weight": 3.0}, "other": {"images": 6, "weight": 1.0}}
    assert json.loads((run / "scores-test.json").read_text())["sources"] == sources
    assert json.loads((run / "manifest.json").read_text())["sources"] == sources
    first = Scores.load(run / "scores-test.json")

    # From another folder: the path of the label space is absolute by now.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    last = run / "checkpoints" / "last.ckpt"
    result = segzoo("test", "--ckpt_path", last)
    assert result.status == 0, result.err
    again = Scores.load(run / "test-toy" / "scores-test.json")
    assert (again.confusion == first.confusion).all()

    result = segzoo("fit", "--ckpt_path", last, "--trainer.max_steps", "3", "--data.source.weights", "1", "1")
    assert result.status == 2
    assert "--data.source.weights [1.0, 1.0]: the run of" in result.err
    assert "was begun with [3.0, 1.0]" in result.err
    result = segzoo("fit", "--ckpt_path", last, "--trainer.max_steps", "3")
    assert result.status == 0, result.err
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_a_list_of_one_is_that_source(listed: dict[str, Any]) -> None:
    entry = listed["data"]["source"][0]
    alone = check_sections({"data": {"source": [dict(entry)]}}, "own.yaml")["data"]["source"]
    assert alone == {key: value for key, value in entry.items() if key != "weight"}
    assert check_sections({"data": {"source": ["segzoo.data.MiniCity"]}}, "own.yaml") == {
        "data": {"source": {"class_path": "segzoo.data.MiniCity"}}
    }


def test_what_was_read_reads_the_same_again(listed: dict[str, Any]) -> None:
    once = check_sections(copy.deepcopy(listed), "own.yaml")
    assert check_sections(copy.deepcopy(once), "own.yaml") == once
    assert once["data"]["source"]["init_args"]["weights"] == [3.0, 1.0]
    options = flatten(once)
    assert options["data.source[1].name"] == "other" and options["data.source[0].images"] == "syn/image"


def test_sources_for_one_method_only(listed: dict[str, Any]) -> None:
    content = {"methods": {"joint": {"data": {"source": listed["data"]["source"]}}}}
    checked = check_sections(content, "own.yaml")
    assert checked["methods"]["joint"]["data"]["source"]["class_path"] == "segzoo.data.SeveralDomains"


def test_a_continued_run_may_find_the_label_space_of_a_source_elsewhere() -> None:
    before = {"data.source[1].label_space": "/a/space.yaml", "data.source[1].images": "x"}
    now = before | {"data.source[1].label_space": "/b/space.yaml"}
    changed = changed_options(before, now, Path("last.ckpt"), True, lambda key: "")
    assert changed == {"data.source[1].label_space": ("/a/space.yaml", "/b/space.yaml")}
    with pytest.raises(ConfigError, match=r"data.source\[1\]\.images y"):
        changed_options(before, before | {"data.source[1].images": "y"}, Path("last.ckpt"), True, lambda key: "")


def second(**options: Any) -> Change:
    return lambda data: data["source"][1]["init_args"].update(options)


def entry(**keys: Any) -> Change:
    return lambda data: data["source"][1].update(keys)


WRONG: list[tuple[Change, str]] = [
    (lambda data: data.update(source=[]), "own.yaml: data.source is an empty list; give it the sources"),
    (entry(weight=0), "own.yaml: data.source[1].weight: expected a number above 0, found 0"),
    (entry(weight=-1.5), "own.yaml: data.source[1].weight: expected a number above 0, found -1.5"),
    (entry(weight="much"), "own.yaml: data.source[1].weight: expected a number above 0, found 'much'"),
    (entry(weight=None), "own.yaml: data.source[1].weight: expected a number above 0, found None"),
    (entry(wieght=2), "own.yaml: data.source[1]: unknown key 'wieght'; did you mean 'weight'?"),
    (entry(init_args=[1]), "own.yaml: data.source[1].init_args: expected options of the class, found [1]"),
    (entry(class_path=7), "own.yaml: data.source[1].class_path: expected the import path of a class"),
    (lambda data: data["source"].append(3), "own.yaml: data.source[2]: expected a class_path, its init_args and a weight"),
    (lambda data: data["source"].append([3]), "data.source[2]: expected a class_path, its init_args and a weight, found a"),
    (second(imagse="x"), "unknown key 'data.source[1].imagse' (in own.yaml); did you mean 'data.source[1].images'?"),
    (second(gap="wide"), "'data.source[1].gap' (in own.yaml): expected int, found 'wide'"),
    (second(unlabelled=["val"]), "own.yaml: data.source[1].unlabelled: expected a folder of photographs, found [val]"),
    (second(label_space="none.yaml"), "data.source[1].label_space (in own.yaml): no file 'none.yaml' in "),
    (second(label_space="camvid99"), "data.source[1].label_space (in own.yaml): unknown label space 'camvid99'"),
    (lambda data: data.update(target=[data["target"]]), "own.yaml: data.target is a list, and only data.source may be one"),
]  # fmt: skip


@pytest.mark.fault("list-of-sources")
@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:60] for _, message in WRONG])
def test_a_wrong_list_is_one_line_before_anything_is_imported(
    segzoo: Segzoo, listed: dict[str, Any], change: Change, message: str
) -> None:
    change(listed["data"])
    with pytest.raises(ConfigError) as error:
        expand("fit", ["--method", "joint", "--data", str(written(listed))], lambda path: {})
    assert message in str(error.value)


@pytest.mark.fault("list-of-sources")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (second(gap=None), "error: 'data.source[1].gap' (in own.yaml): expected int, found 'null'"),
        (entry(class_path="segzoo.data.Nothing"), "no class 'segzoo.data.Nothing'; expected its import path"),
        (
            lambda data: data["source"][1]["init_args"].pop("images"),
            "'data.source[1].images' is required (in own.yaml)",
        ),
    ],
    ids=["null", "class", "required"],
)
def test_what_only_the_parser_knows_is_one_line_too(
    segzoo: Segzoo, listed: dict[str, Any], change: Change, message: str
) -> None:
    change(listed["data"])
    result = segzoo("fit", "--method", "joint", "--data", written(listed), "--print_config")
    assert result.status == 2 and result.err.count("\n") == 1
    assert message in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.source.weights", "1", "2", "3"], "error: --data.source.weights has 3 numbers for 2 sources"),
        (["--data.source.weights", "1", "-2"], "error: 'data.source[1].weight': expected a number above 0, found -2.0"),
        (
            ["--data.source.images", "x"],
            "'--data.source.images' is one of each of several sources: change it in the file",
        ),
        (["--data.source.wights", "1", "2"], "'--data.source.wights'; did you mean '--data.source.weights'?"),
        (["--data.source", "[{class_path: a}]"], "takes one class; write a list of sources into a YAML file"),
    ],
)
def test_weights_are_changed_on_the_command_line(
    segzoo: Segzoo, listed: dict[str, Any], arguments: list[str], message: str
) -> None:
    result = segzoo("fit", "--method", "joint", "--data", written(listed), *arguments)
    assert result.status == 2 and message in result.err


def test_a_comparison_says_what_the_sources_are(trained: Path, tmp_path: Path) -> None:
    rows = [Row(name, "source-only") for name in ("one", "two", "three")]
    several = {"a": {"images": 4, "weight": 1.0}, "b": {"images": 6, "weight": 3.0}}
    for row, sources in zip(rows, (several, several, None), strict=True):
        run = find_run(tmp_path, row, 0) / "source-only" / "toy" / "default-s0"
        shutil.copytree(trained, run)
        content = json.loads((run / "scores-test.json").read_text())
        (run / "scores-test.json").write_text(json.dumps(content | ({"sources": sources} if sources else {})))
    table = make_table(tmp_path, *single(Plan(tuple(rows), (0,), "one")).comparisons)
    line = "Sources of one, two: a 4 images (weight 1, 25%), b 6 images (weight 3, 75%)."
    assert table.endswith(f"\n\n{line}") and table.count("Sources of") == 1
