"""A study in a YAML: rows, budgets, references and what it cannot be."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from segzoo.cli.expand import expand
from segzoo.configs import config_names, config_path
from segzoo.errors import ConfigError
from segzoo.study.running import waves
from segzoo.study.study_file import Budget, Comparison, Study, read_study


def study(tmp_path: Path, content: dict[str, Any], **options: Any) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study(path, **options)


def only(tmp_path: Path, content: dict[str, Any], **options: Any) -> Comparison:
    (one,) = study(tmp_path, content, **options).comparisons
    return one


@pytest.mark.parametrize("name", config_names("study"))
def test_packaged_studies_are_of_options_that_fit_knows(name: str) -> None:
    found = read_study(config_path("study", name))
    assert found.question.endswith("?")
    for one in found.comparisons:
        for row in one.plan.rows:
            assert expand(
                "fit", ["--method", row.method, *one.plan.common, *row.options, "--data.root", "."], lambda _: {}
            )


def test_rows_are_methods_texts_or_mappings(tmp_path: Path) -> None:
    rows = {
        "metapix": None,
        "fast": "sepico --method.fast true",
        "joint@metapix": {"cost": 2},
        "tuned": {"run": "joint --network.initial_checkpoint {fast}"},
    }
    one = only(
        tmp_path, {"rows": rows, "seeds": "1,3", "options": "--trainer.max_steps 7"}, words=("--optimizer.lr", "1")
    )
    assert one.plan.names == ("metapix", "fast", "joint@metapix", "tuned") and one.plan.seeds == (1, 3)
    assert one.plan.common == ("--trainer.max_steps", "7", "--optimizer.lr", "1")
    assert one.plan.rows[1].options == ("--method.fast", "true")
    assert one.plan.rows[2].weight_of is not None and one.plan.rows[3].starts[0].name == "fast"
    assert set(one.references.values()) == {"metapix"}, "the first row is what others are compared with"


def test_budgets_multiply_the_rows_that_learn_from_labels(tmp_path: Path) -> None:
    rows = {
        "source-only": None,
        "target-only": None,
        "metapix": None,
        "joint@metapix": None,
        "tuned": "target-only --network.initial_checkpoint {source-only}",
        "twice": "target-only --network.initial_checkpoint {tuned}",
        "whole": {"run": "joint --method.weight 2", "budgets": False, "reference": "tuned-all"},
    }
    reference = {"without labels": "source-only", "with labels": "target-only"}
    one = only(
        tmp_path,
        {"rows": rows, "budgets": [4, "all"], "reference": {**reference}}
        | {"reference": reference | {"with labels": "tuned"}},
    )
    assert one.plan.names == (
        "source-only", "target-only-4", "target-only-all", "metapix-4", "metapix-all", "joint-4@metapix-4",
        "joint-all@metapix-all", "tuned-4", "tuned-all", "twice-4", "twice-all", "whole",
    )  # fmt: skip
    rows_by_name = {row.name: row for row in one.plan.rows}
    assert rows_by_name["target-only-4"].options == ("--data.target_labels", "4")
    assert rows_by_name["target-only-all"].options[-2:] == ("--data.target_labels", "null")
    weight_of = rows_by_name["joint-4@metapix-4"].weight_of
    assert weight_of is not None and weight_of.options == ("--data.target_labels", "4")
    assert [start.name for start in rows_by_name["tuned-4"].starts] == ["source-only"], "which has no labels"
    assert rows_by_name["target-only-4"].resources == ("labels",)
    assert rows_by_name["tuned-4"].resources == rows_by_name["twice-4"].resources == ("source", "labels")
    assert [start.name for start in rows_by_name["twice-4"].starts] == ["tuned-4"], "with the same labels"
    assert one.budgets["joint-all@metapix-all"] == Budget("joint@metapix", None)
    assert one.references["metapix-4"] == "tuned-4" and one.references["source-only"] == "source-only"


def test_without_a_reference_rows_are_compared_with_the_first_that_has_the_same_labels(tmp_path: Path) -> None:
    one = only(tmp_path, {"rows": {"joint": None, "metapix": None}, "budgets": [4, 8]})
    assert dict(one.references) == {
        "joint-4": "joint-4",
        "joint-8": "joint-8",
        "metapix-4": "joint-4",
        "metapix-8": "joint-8",
    }


def test_a_reference_of_its_own_wins(tmp_path: Path) -> None:
    one = only(
        tmp_path, {"rows": {"joint": None, "metapix": {"reference": "sepico"}, "sepico": None}, "reference": "joint"}
    )
    assert dict(one.references) == {"joint": "joint", "metapix": "sepico", "sepico": "joint"}


def test_data_are_compared_apart_and_rows_may_be_of_some(tmp_path: Path) -> None:
    rows = {"joint": None, "sepico": {"data": "carla*"}}
    data = {"carla_to_camvid": "--data.target_labels 16", "cracks": None}
    found = study(tmp_path, {"data": data, "rows": rows})
    assert [(one.name, one.plan.names) for one in found.comparisons] == [
        ("carla_to_camvid", ("joint", "sepico")),
        ("cracks", ("joint",)),
    ]
    assert found.comparisons[0].plan.common == ("--data", "carla_to_camvid", "--data.target_labels", "16")
    assert found.comparisons[1].folder(Path("out")) == Path("out/cracks")


def test_patterns_keep_what_a_row_waits_for(tmp_path: Path) -> None:
    rows = {"source-only": None, "joint": None, "tuned": "target-only --network.initial_checkpoint {source-only}"}
    content = {"rows": rows, "data": ["minicity", "cracks"], "reference": "joint"}
    (one,) = study(tmp_path, content, only=["cracks/tuned"]).comparisons
    assert (one.name, one.plan.names) == ("cracks", ("source-only", "tuned"))
    assert len(study(tmp_path, content, only=["joint"]).comparisons) == 2
    budgets = only(tmp_path, {"rows": {"joint": None, "metapix": None}, "budgets": [4, 8]}, only=["joint"])
    assert budgets.plan.names == ("joint-4", "joint-8")


def test_the_longest_runs_begin_first_and_rows_wait_for_those_that_they_start_from(tmp_path: Path) -> None:
    rows = {"source-only": None, "metapix": {"cost": 4}, "tuned": "joint --network.initial_checkpoint {source-only}"}
    found = study(tmp_path, {"rows": rows, "data": ["minicity", "cracks"], "seeds": "0"})
    assert [[run.name for run in wave] for wave in waves(found)] == [
        ["minicity/metapix-s0", "cracks/metapix-s0", "minicity/source-only-s0", "cracks/source-only-s0"],
        ["minicity/tuned-s0", "cracks/tuned-s0"],
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rwos": {}}, "unknown key 'rwos'; did you mean 'rows'"),
        ({"rows": None}, "rows: expected a mapping of row names"),
        ({"rows": {"jiont": None}}, "rows: unknown method 'jiont'; did you mean 'joint'?"),
        ({"rows": {"a": "jiont"}}, "rows.a: unknown method 'jiont'; did you mean 'joint'?"),
        ({"rows": {"a b": "joint"}}, "rows.a b: a row of its own name has none of"),
        ({"rows": {"a": {"run": "joint", "costs": 2}}}, "rows.a: unknown key 'costs'; did you mean 'cost'?"),
        ({"rows": {"joint": {"cost": 0}}}, "rows.joint.cost: expected a number above 0, found '0'"),
        ({"rows": {"a": "joint --x {b}"}}, "rows: unknown method 'b'"),
        ({"rows": {"a": "joint --x 'b"}}, "no closing quotation in 'joint --x 'b'"),
        ({"reference": "jiont"}, "reference jiont is not a row; did you mean 'joint'?"),
        ({"reference": {"labels": "joint"}}, "reference: unknown key 'labels'"),
        ({"budgets": 4}, "budgets: expected a list of numbers of labelled images and 'all', found '4'"),
        ({"budgets": [4, 4]}, "each one once"),
        ({"seeds": "2-1"}, "seeds 2-1: expected numbers and ranges"),
        ({"options": ["--a"]}, "expected options in one text"),
        ({"split": "train"}, "split: expected test or val, found 'train'"),
        ({"data": 3}, "data: expected a name, a list of names, or names with options, found '3'"),
    ],
)
def test_what_a_study_cannot_be(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        study(tmp_path, {"rows": {"joint": None}} | change)
    assert message in str(error.value)


def test_a_pattern_that_nothing_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is called sepico; expected a DATA, a ROW or DATA/ROW"):
        study(tmp_path, {"rows": {"joint": None}}, only=["sepico"])
